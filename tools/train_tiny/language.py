"""Tokenizer, phrases, and prompts with answers as tensors.

Everything said about a scene is put together from phrases (`Phrases`): a table of short token strings.  A prompt with
its answer is a row of phrase numbers, which `Phrases.spell` turns into token ids on the GPU, many thousand at a time.
"""

from dataclasses import dataclass

import torch

from nouns import COLOURS, NOUNS

CONTROL = ["<|endoftext|>"] + [f"<|md_reserved_{k}|>" for k in range(20)]
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
NUMBERS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
FRENCH_NUMBERS = ["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"]
PLACES = ["at the top left", "at the top", "at the top right", "on the left", "in the middle", "on the right",
          "at the bottom left", "at the bottom", "at the bottom right"]
END, DELIMIT, CLOSE, ANSWER, COORD, SIZE = 0, 1, 2, 3, 5, 6
KINDS = ["count", "present", "color", "left", "right", "above", "below", "where", "largest", "smallest", "total",
         "read", "read", "between"]
MOST = 8  # drawn things in a scene; a printed text may come on top

# Questions: (words before, words after) the thing asked about; several ways to ask the same.
COUNT = [("How many", " are there?"), ("how many", " are there"), ("How many", " do you see?"),
         ("How many", " are in the picture?"), ("Count the", ".")]
COLOUR = [("What color is the", "?"), ("what color is the", ""), ("What colour is the", "?"), ("Which color is the", "?")]
PRESENT = [("Is there", "?"), ("is there", " in the picture?"), ("Is there", " in the picture?"), ("Do you see", "?")]
SIDES = [[("What is left of the", "?"), ("What is to the left of the", "?")],
         [("What is right of the", "?"), ("What is to the right of the", "?")],
         [("What is above the", "?"), ("what is above the", "")],
         [("What is below the", "?"), ("What is under the", "?")]]
WHERE = [("Where is the", "?"), ("where is the", "")]
LARGEST = ["What is the largest thing?", "What is the biggest thing in the picture?", "Which thing is largest?"]
SMALLEST = ["What is the smallest thing?", "Which thing is smallest?"]
TOTAL = ["How many things are there?", "How many objects are there?", "how many things are in the picture?"]
READ = ["What does the text say?", "what does the text say", "What is written?", "Read the text.", "What is the word?"]
BETWEEN = [("Is the", " left of the", "?"), ("Is the", " to the left of the", "?"), ("Is the", " above the", "?")]


def article(word):
    return "an" if word[0] in "aeiou" and not word.startswith("uni") else "a"


def french_colour(noun, colour):
    """A colour word that agrees with its noun."""
    name, masculine, feminine, _ = COLOURS[colour]
    return feminine if noun.french.startswith("une ") else masculine


def corpus():
    """Sentences to learn the merges from, so that every word in use becomes one or two tokens."""
    for noun in NOUNS:
        for word in (noun.name, noun.plural):
            for _ in range(6):
                yield f"a {word} and the {word}"
        yield noun.french + " " + noun.french_plural
    words = [" ".join(p) for group in (COUNT, COLOUR, PRESENT, WHERE, BETWEEN, *SIDES) for p in group]
    for _ in range(20):
        yield from words + LARGEST + SMALLEST + TOTAL + READ + PLACES + NUMBERS
        yield "query describe short normal long detect point yes no nothing none text the word thing things object objects"
        yield " ".join(NUMBERS)
        yield from NUMBERS + ["query", "describe", "detect", "point", "short", "normal", "long", "yes", "no", "nothing",
                              "segment", "There", "The", "What", "Which", "How", "Where", "Count", "Read"]
        yield from (colour[0] for colour in COLOURS)
        yield "The picture shows a cat, two dogs and an apple. There is an egg. The word. A cat. An egg. Nothing."
        yield "There is no text. It is on the left. No, yes, Yes. picture with image thing"
        for name, masculine, feminine, _ in COLOURS:
            yield f"a {name} thing {name}"
    for _ in range(4):
        yield " ".join(FRENCH_NUMBERS)
        yield "Cette image montre un une des deux et le mot avec"
        yield " ".join(f"{m} {f}" for _, m, f, _ in COLOURS)


def train_tokenizer(path, vocabulary):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=CONTROL, min_frequency=1, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.save(str(path))
    return tokenizer


class Phrases:
    """Numbered token strings; number 0 is the empty one."""

    def __init__(self, tokenizer, templates, names):
        self.strings, self.numbers, self.tokens = [""], {"": 0}, [[]]
        self.tokenizer = tokenizer
        by_name = {noun.name: noun for noun in NOUNS}
        self.nouns = [by_name[name] for name in names]
        self.templates = {key: self.ids(key, value) for key, value in templates.items()}
        self.end = self.ids("<end>", [END])
        self.answer = self.ids("<answer>", [ANSWER])
        self.answer_twice = self.ids("<answer twice>", [ANSWER, ANSWER])
        self.box = self.ids("<box>", [COORD, COORD, SIZE])
        self.dot = self.ids("<point>", [COORD, COORD])
        # The last noun number is the printed text.
        self.singular = [self(" " + n.name) for n in self.nouns] + [self(" text")]
        self.plural = [self(" " + n.plural) for n in self.nouns] + [self(" text")]
        self.noun_article = [article(n.name) == "an" for n in self.nouns] + [False]
        self.colour = [0] + [self(" " + c[0]) for c in COLOURS]
        self.colour_article = [False] + [article(c[0]) == "an" for c in COLOURS]
        self.colour_alone = [0] + [self(c[0]) for c in COLOURS]
        self.numbers_spaced = [self(" " + w) for w in NUMBERS]
        self.numbers_alone = [self(w) for w in NUMBERS]
        self.characters = [self(c) for c in CHARACTERS]
        self.places_spaced = [self(" " + p) for p in PLACES]
        self.places_alone = [self(p) for p in PLACES]
        self.articles = [self(" a"), self(" an")]
        self.articles_first = [self("A"), self("An")]
        self.articles_alone = [self("a"), self("an")]
        # French: article and noun in one phrase, then the colour, agreeing in gender.
        self.french = [self(" " + n.french) for n in self.nouns] + [0]
        self.french_plural = [self(" " + n.french_plural) for n in self.nouns] + [0]
        self.french_numbers = [self(" " + w) for w in FRENCH_NUMBERS]
        self.french_colour = [[0, 0]] + [[self(" " + m), self(" " + f)] for _, m, f, _ in COLOURS]
        self.french_colour_plural = [[0, 0]] + [
            [self(" " + m + ("" if c in ("orange", "brown") or m[-1] == "s" else "s")),
             self(" " + f + ("" if c == "orange" else "s"))] for c, m, f, _ in COLOURS]
        self.feminine = [n.french.startswith("une ") for n in self.nouns] + [False]

    def ids(self, string, tokens):
        if string not in self.numbers:
            self.numbers[string] = len(self.strings)
            self.strings.append(string)
            self.tokens.append(list(tokens))
        return self.numbers[string]

    def __call__(self, string):
        return self.ids(string, self.tokenizer.encode(string, add_special_tokens=False).ids)

    def finish(self, device):
        """Freeze the table as tensors."""
        longest = max(map(len, self.tokens))
        table = torch.zeros(len(self.tokens), longest, dtype=torch.long)
        for row, tokens in enumerate(self.tokens):
            table[row, :len(tokens)] = torch.tensor(tokens)
        self.table = table.to(device)
        self.length = torch.tensor([len(t) for t in self.tokens], device=device)
        for name in ("singular", "plural", "colour", "colour_alone", "numbers_spaced", "numbers_alone", "characters",
                     "places_spaced", "places_alone", "articles", "articles_first", "articles_alone", "noun_article",
                     "colour_article", "french", "french_plural", "french_numbers", "french_colour",
                     "french_colour_plural", "feminine"):
            setattr(self, name, torch.tensor(getattr(self, name), device=device))
        return self

    def spell(self, numbers, room):
        """Phrase numbers [n, p] to token ids [n, room], zero after the end; and the length of every row."""
        tokens, lengths = self.table[numbers], self.length[numbers]
        starts = lengths.cumsum(1) - lengths
        inside = torch.arange(tokens.shape[2], device=numbers.device)
        place = torch.where(inside < lengths[..., None], starts[..., None] + inside, room).clamp(max=room)
        out = torch.zeros(numbers.shape[0], room + 1, dtype=torch.long, device=numbers.device)
        return out.scatter_(1, place.flatten(1), tokens.flatten(1))[:, :room], lengths.sum(1)


@dataclass
class Truth:
    """What is visible, ordered from left to right: tensors [scenes, MOST] unless said otherwise."""
    valid: torch.Tensor
    noun: torch.Tensor
    colour: torch.Tensor  # 0: of no single colour
    box: torch.Tensor     # [.., 4]: centre x, centre y, width, height in parts of the picture
    text_valid: torch.Tensor   # [scenes]
    text_box: torch.Tensor     # [scenes, 4]
    text: torch.Tensor         # [scenes, 8] character numbers
    text_length: torch.Tensor  # [scenes]


@dataclass
class Prompts:
    """Token rows of one kind of slot, with the values of their coordinate tokens."""
    tokens: torch.Tensor   # [n, room + 1]
    prompt: torch.Tensor   # [n] length of the prompt
    length: torch.Tensor   # [n] length with the answer
    values: torch.Tensor = None  # [n, MOST + 1, 4] boxes of the answer, in order
    count: torch.Tensor = None   # [n] how many
    kind: torch.Tensor = None    # [n] kind of question, an index into KINDS


def place_of(box):
    column = (box[..., 0] * 3).long().clamp(0, 2)
    row = (box[..., 1] * 3).long().clamp(0, 2)
    return row * 3 + column


class Speaker:
    """Draws prompts about scenes and answers them."""

    def __init__(self, phrases, device, generator=None):
        p = self.p = phrases
        self.device = device
        one = lambda options: torch.tensor([p(o) for o in options])
        many = lambda groups: [torch.tensor([p(part) for part in parts]) for parts in zip(*groups)]
        self.count, self.colour, self.present, self.where = map(many, (COUNT, COLOUR, PRESENT, WHERE))
        self.between = many(BETWEEN)
        self.sides = [many(side) for side in SIDES]
        self.largest, self.smallest, self.total, self.read = map(one, (LARGEST, SMALLEST, TOTAL, READ))
        self.shows, self.there, self.comma, self.last = p("The picture shows"), p("There is"), p(","), p(" and")
        self.stop, self.word, self.quote, self.quote_stop = p("."), p(" the word"), p(' "'), p('".')
        self.word_first, self.empty = p("The word"), p("An empty picture.")
        self.yes, self.no, self.nothing, self.no_text = p("yes"), p("no"), p("nothing"), p("There is no text.")
        self.thing, self.things = p(" object"), p(" objects")
        self.an = p(" an")
        self.montre, self.et, self.le_mot = p("Cette image montre"), p(" et"), p(" le mot")
        p.finish(device)
        self.caption_kinds = torch.tensor([p.templates[f"caption {kind}"] for kind in ("short", "normal", "long")], device=device)
        self.kind_weights = None
        move = lambda v: [move(x) for x in v] if isinstance(v, list) else v.to(device)
        for name in ("count", "colour", "present", "where", "between", "sides", "largest", "smallest", "total", "read"):
            setattr(self, name, move(getattr(self, name)))

    def _pick(self, options, n):
        """The same random variant from every part of a list of equally long tensors."""
        index = torch.randint(len(options[0]), (n,), device=self.device)
        return [part[index] for part in options]

    def _article(self, noun, colour, table):
        an = torch.where(colour > 0, self.p.colour_article[colour], self.p.noun_article[noun])
        return table[an.long()]

    def _object(self, truth):
        """A random visible drawn thing of every scene (0 where there is none)."""
        score = torch.rand(truth.valid.shape, device=self.device).masked_fill(~truth.valid, -1)
        index = score.argmax(1)
        rows = torch.arange(len(index), device=self.device)
        return index, truth.noun[rows, index], truth.colour[rows, index], truth.valid.any(1)

    def _absent(self, truth):
        """A noun that is not in the scene."""
        n = len(self.p.nouns)
        candidates = torch.randint(n, (truth.valid.shape[0], 6), device=self.device)
        there = ((candidates[:, :, None] == truth.noun[:, None]) & truth.valid[:, None]).any(-1)
        return candidates.gather(1, there.int().argmin(1, keepdim=True))[:, 0]

    def _question(self, truth, absent_rate, colour_rate):
        """Noun and colour to ask for: mostly things that are there, sometimes a wrong colour or an absent noun."""
        n = truth.valid.shape[0]
        _, noun, colour, any_valid = self._object(truth)
        u = torch.rand(n, device=self.device)
        noun = torch.where((u < absent_rate * 0.75) | ~any_valid, self._absent(truth), noun)
        wrong = torch.randint(1, len(COLOURS) + 1, (n,), device=self.device)
        colour = torch.where((u >= absent_rate * 0.75) & (u < absent_rate) & (colour > 0), wrong, colour)
        keep = (torch.rand(n, device=self.device) < colour_rate) | ((u >= absent_rate * 0.75) & (u < absent_rate))
        return noun, torch.where(keep & any_valid, colour, 0)

    @staticmethod
    def matches(truth, noun, colour):
        return truth.valid & (truth.noun == noun[:, None]) & ((colour[:, None] == 0) | (truth.colour == colour[:, None]))

    def listing(self, truth, room, kind):
        """Detect ("detect") or point ("point") prompts."""
        p, n = self.p, truth.valid.shape[0]
        noun, colour = self._question(truth, 0.18, 0.3)
        u = torch.rand(n, device=self.device)
        everything, text = u < 0.06, (u >= 0.06) & (u < 0.12)
        match = torch.where(everything[:, None], truth.valid, self.matches(truth, noun, colour))
        match = torch.where(text[:, None], torch.zeros_like(match), match)
        colour = torch.where(everything | text, 0, colour)
        many = torch.rand(n, device=self.device) < 0.35
        word = torch.where(many, p.plural[noun], p.singular[noun])
        word = torch.where(everything, torch.where(many, self.things, self.thing), word)
        word = torch.where(text, p.singular[-1], word)
        match = torch.cat([match, (text & truth.text_valid)[:, None]], 1)
        boxes = torch.cat([truth.box, truth.text_box[:, None]], 1)
        order = (~match).int().argsort(dim=1, stable=True)
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        count = match.sum(1)
        step = torch.where(torch.arange(MOST, device=self.device) < count[:, None], p.box if kind == "detect" else p.dot, 0)
        fixed = lambda number: torch.full((n, 1), number, device=self.device)
        question = torch.cat([fixed(p.templates[kind]), p.colour[colour][:, None], word[:, None], fixed(p.answer)], 1)
        tokens, length = p.spell(torch.cat([question, step, fixed(p.end)], 1), room + 1)
        return Prompts(tokens, p.length[question].sum(1), length, boxes, count)

    def groups(self, truth):
        """Things of the same noun and colour taken together: (leader, count), in order of the first."""
        same = (truth.noun[:, :, None] == truth.noun[:, None]) & (truth.colour[:, :, None] == truth.colour[:, None])
        same &= truth.valid[:, :, None] & truth.valid[:, None]
        earlier = torch.ones(MOST, MOST, dtype=torch.bool, device=self.device).tril(-1)
        return truth.valid & ~(same & earlier).any(2), same.sum(2)

    def _joined(self, leader, rows, extra_last):
        """Separator phrases before every listed thing; the last one gets "and" unless a text follows."""
        index = leader.cumsum(1) - 1
        total = leader.sum(1, keepdim=True)
        final = (index == total - 1) & ~extra_last[:, None]
        separator = torch.where(index == 0, 0, torch.where(final, self.last, self.comma))
        return torch.where(leader, separator, 0)

    def _text_tail(self, truth, any_thing, word, last):
        """' and the word "ABC".' or "." as phrases [n, 13]."""
        n = truth.valid.shape[0]
        shown = torch.where(torch.arange(8, device=self.device) < truth.text_length[:, None],
                            self.p.characters[truth.text], 0)
        text = truth.text_valid[:, None]
        fixed = lambda number: torch.full((n, 1), number, device=self.device)
        lead = torch.where(any_thing[:, None], last, 0)
        tail = torch.cat([lead, fixed(word), fixed(self.quote), shown, fixed(self.quote_stop)], 1)
        plain = torch.zeros_like(tail)
        plain[:, 0] = self.stop
        return torch.where(text, tail, plain)

    def captions(self, truth, room, length=None):
        p, n = self.p, truth.valid.shape[0]
        fixed = lambda number: torch.full((n, 1), number, device=self.device)
        leader, count = self.groups(truth)
        count = count.clamp(max=9)
        any_thing = truth.valid.any(1)
        tail = self._text_tail(truth, any_thing, self.word, self.last)
        # normal: "The picture shows a cat, two red circles and the word "HI"."
        single = count == 1
        amount = torch.where(single, self._article(truth.noun, truth.colour, p.articles), p.numbers_spaced[count])
        name = torch.where(single, p.singular[truth.noun], p.plural[truth.noun])
        parts = torch.stack([self._joined(leader, n, truth.text_valid), torch.where(leader, amount, 0),
                             torch.where(leader, p.colour[truth.colour], 0), torch.where(leader, name, 0),
                             torch.zeros_like(name)], 2)
        normal = torch.cat([fixed(self.shows), parts.flatten(1), tail], 1)
        # long: every thing with its place
        one = truth.valid
        parts = torch.stack([self._joined(one, n, truth.text_valid),
                             torch.where(one, self._article(truth.noun, truth.colour, p.articles), 0),
                             torch.where(one, p.colour[truth.colour], 0), torch.where(one, p.singular[truth.noun], 0),
                             torch.where(one, p.places_spaced[place_of(truth.box)], 0)], 2)
        long = torch.cat([fixed(self.there), parts.flatten(1), tail], 1)
        # short: the largest thing
        area = (truth.box[..., 2] * truth.box[..., 3]).masked_fill(~truth.valid, -1)
        main = area.argmax(1)
        rows = torch.arange(n, device=self.device)
        noun, colour = truth.noun[rows, main], truth.colour[rows, main]
        short = torch.zeros_like(normal)
        short[:, :4] = torch.stack([self._article(noun, colour, p.articles_first), p.colour[colour], p.singular[noun],
                                    torch.full_like(noun, self.stop)], 1)
        word = self._text_tail(truth, torch.zeros_like(any_thing), self.word_first, self.last)
        lonely = torch.zeros_like(normal)
        lonely[:, :word.shape[1]] = word
        short = torch.where((~any_thing & truth.text_valid)[:, None], lonely, short)
        blank = torch.zeros_like(normal)
        blank[:, 0] = self.empty
        if length is None:
            u = torch.rand(n, device=self.device)
            length = torch.where(u < 0.2, 0, torch.where(u < 0.65, 1, 2))
        answer = torch.where((length == 0)[:, None], short, torch.where((length == 1)[:, None], normal, long))
        answer = torch.where((~any_thing & ~truth.text_valid)[:, None], blank, answer)
        question = self.caption_kinds[length][:, None]
        tokens, total = p.spell(torch.cat([question, answer, fixed(p.end)], 1), room + 1)
        return Prompts(tokens, p.length[question].sum(1), total)

    def terse_captions(self, truth, room):
        """Only the list of things: 'a dog, two cats and a red circle.', for the adapter."""
        p, n = self.p, truth.valid.shape[0]
        fixed = lambda number: torch.full((n, 1), number, device=self.device)
        leader, count = self.groups(truth)
        count = count.clamp(max=9)
        single = count == 1
        first = leader & (leader.cumsum(1) == 1)  # the answer's first word has no space before it
        amount = torch.where(single, self._article(truth.noun, truth.colour, p.articles), p.numbers_spaced[count])
        opening = torch.where(single, self._article(truth.noun, truth.colour, p.articles_alone), p.numbers_alone[count])
        name = torch.where(single, p.singular[truth.noun], p.plural[truth.noun])
        none = torch.zeros(n, dtype=torch.bool, device=self.device)
        parts = torch.stack([self._joined(leader, n, none)] + [torch.where(leader, x, 0) for x in (
            torch.where(first, opening, amount), p.colour[truth.colour], name)], 2)
        question = fixed(p.templates["caption normal"])
        tokens, total = p.spell(torch.cat([question, parts.flatten(1), fixed(self.stop), fixed(p.end)], 1), room + 1)
        return Prompts(tokens, p.length[question].sum(1), total)

    def french_captions(self, truth, room):
        """Normal captions in French, for the adapter."""
        p, n = self.p, truth.valid.shape[0]
        fixed = lambda number: torch.full((n, 1), number, device=self.device)
        leader, count = self.groups(truth)
        count = count.clamp(max=9)
        single = count == 1
        gender = p.feminine[truth.noun].long()
        amount = torch.where(single, 0, p.french_numbers[count])
        name = torch.where(single, p.french[truth.noun], p.french_plural[truth.noun])
        colour = torch.where(single, p.french_colour[truth.colour, gender], p.french_colour_plural[truth.colour, gender])
        separator = self._joined(leader, n, truth.text_valid)
        separator = torch.where(separator == self.last, self.et, separator)
        parts = torch.stack([separator] + [torch.where(leader, x, 0) for x in (amount, name, colour)], 2)
        tail = self._text_tail(truth, truth.valid.any(1), self.le_mot, self.et)
        question = fixed(p.templates["caption normal"])
        tokens, total = p.spell(torch.cat([question, fixed(self.montre), parts.flatten(1), tail, fixed(p.end)], 1), room + 1)
        return Prompts(tokens, p.length[question].sum(1), total)

    def queries(self, truth, room):
        p, n, device = self.p, truth.valid.shape[0], self.device
        rows = torch.arange(n, device=device)
        noun, colour = self._question(truth, 0.3, 0.3)
        match = self.matches(truth, noun, colour)
        count = match.sum(1)
        index, own_noun, own_colour, any_valid = self._object(truth)
        unique = any_valid & (self.matches(truth, own_noun, torch.zeros_like(own_colour)).sum(1) == 1)
        area = truth.box[..., 2] * truth.box[..., 3]
        zero = torch.zeros(n, dtype=torch.long, device=device)

        def named(i, first):
            """'a red circle' as an answer on its own."""
            noun_i, colour_i = truth.noun[rows, i], truth.colour[rows, i]
            return [self._article(noun_i, colour_i, first), p.colour[colour_i], p.singular[noun_i]]

        def row(*phrases):
            out = torch.zeros(n, 11, dtype=torch.long, device=device)
            for position, phrase in enumerate(phrases):
                out[:, position] = phrase
            return out

        rate = torch.rand(n, device=device)
        questions, answers, allowed, weights = [], [], [], []

        def add(weight, question, answer, allow=None):
            questions.append(row(*question))
            answers.append(row(*answer))
            allowed.append(torch.ones(n, dtype=torch.bool, device=device) if allow is None else allow)
            weights.append(weight)

        before, after = self._pick(self.count, n)
        add(2.2, (before, p.colour[colour], p.plural[noun], after), (p.numbers_alone[count.clamp(max=9)],))
        before, after = self._pick(self.present, n)
        add(1.6, (before, self._article(noun, colour, p.articles), p.colour[colour], p.singular[noun], after),
            (torch.where(count > 0, self.yes, self.no),))
        before, after = self._pick(self.colour, n)
        add(1.2, (before, p.singular[own_noun], after), (p.colour_alone[own_colour],), unique & (own_colour > 0))
        # What is next to a thing: the nearest one that lies mostly in that direction.
        own = truth.box[rows, index]
        dx, dy = truth.box[..., 0] - own[:, None, 0], truth.box[..., 1] - own[:, None, 1]
        distance = (dx ** 2 + dy ** 2).masked_fill(~truth.valid, 9)
        for side, along in enumerate((-dx, dx, -dy, dy)):
            across = dy if side < 2 else dx
            candidate = truth.valid & (along > 0.02) & (along > across.abs())
            nearest = distance.masked_fill(~candidate, 9).argmin(1)
            found = candidate.any(1)
            before, after = self._pick(self.sides[side], n)
            name = [torch.where(found, part, other) for part, other in
                    zip(named(nearest, p.articles_alone), (torch.full_like(zero, self.nothing), zero, zero))]
            add(0.45, (before, p.singular[own_noun], after), name, unique & (truth.valid.sum(1) > 1))
        before, after = self._pick(self.where, n)
        add(0.7, (before, p.singular[own_noun], after), (p.places_alone[place_of(own)],), unique)
        two = truth.valid.sum(1) > 1
        ordered = area.masked_fill(~truth.valid, -1).sort(1, descending=True)
        clear = ordered.values[:, 0] > 1.15 * ordered.values[:, 1]
        add(0.6, (self._pick([self.largest], n)[0],), named(ordered.indices[:, 0], p.articles_alone), any_valid & clear)
        ordered = area.masked_fill(~truth.valid, 9).sort(1)
        clear = ordered.values[:, 1] > 1.15 * ordered.values[:, 0]
        add(0.35, (self._pick([self.smallest], n)[0],), named(ordered.indices[:, 0], p.articles_alone), any_valid & two & clear)
        add(0.6, (self._pick([self.total], n)[0],), (p.numbers_alone[truth.valid.sum(1).clamp(max=9)],))
        shown = torch.where(torch.arange(8, device=device) < truth.text_length[:, None], p.characters[truth.text], 0)
        shown = torch.where(truth.text_valid[:, None], shown, 0)
        read = torch.cat([torch.where(truth.text_valid, 0, self.no_text)[:, None], shown], 1).unbind(1)
        add(1.0, (self._pick([self.read], n)[0],), read, truth.text_valid | (rate < 0.15))
        add(4.4, (self._pick([self.read], n)[0],), read, truth.text_valid)
        other = (truth.noun != own_noun[:, None]) & truth.valid
        second = torch.rand(n, MOST, device=device).masked_fill(~other, -1).argmax(1)
        second_noun = truth.noun[rows, second]
        second_box = truth.box[rows, second]
        unique_second = other.any(1) & (self.matches(truth, second_noun, zero).sum(1) == 1)
        variant = torch.randint(3, (n,), device=device)
        before, middle, after = [part[variant] for part in self.between]
        gap = torch.where(variant < 2, second_box[:, 0] - own[:, 0], second_box[:, 1] - own[:, 1])
        add(0.5, (before, p.singular[own_noun], middle, p.singular[second_noun], after),
            (torch.where(gap > 0, self.yes, self.no),), unique & unique_second & (gap.abs() > 0.06))

        if self.kind_weights is None:
            self.kind_weights = torch.tensor(weights, device=device)
        weight = torch.stack(allowed, 1).float() * self.kind_weights
        choice = (weight / torch.empty_like(weight).exponential_().clamp(min=1e-9)).argmax(1)
        question = torch.stack(questions, 1)[rows, choice]
        answer = torch.stack(answers, 1)[rows, choice]
        fixed = lambda number: torch.full((n, 1), number, device=device)
        question = torch.cat([fixed(p.templates["query"]), question, fixed(p.answer_twice)], 1)
        tokens, total = p.spell(torch.cat([question, answer, fixed(p.end)], 1), room + 1)
        return Prompts(tokens, p.length[question].sum(1), total, kind=choice)
