#!/usr/bin/env python3
"""Compares Fovea's tokenizer with the PyPI package `tokenizers`, ids and decoded text, string by string.

usage: check_tokenizer.py --tokenize build/dev/tests/unit/io/tokenize [--golden FOLDER/tokenizer.json]
           [--gpt2-ranks gpt2.tiktoken] [--strings N] [--seed S] [--scratch FOLDER] [--write-cases FOLDER]

Needs `pip install tokenizers`. gpt2.tiktoken lies in the PyPI package `openai-whisper` (MIT), as
whisper/assets/gpt2.tiktoken; vocab.json, merges.txt and tokenizer.json are rebuilt from it. The other
tokenizers are trained here, on synthetic text: patterns in the manner of newer models, digits, added tokens,
and one that merges across spaces. --write-cases writes the strings and ids that the unit tests read.
"""

import argparse
import base64
import json
import pathlib
import random
import struct
import subprocess
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
WORDS = ("the of and to in a is that for it as was with be by on not he his but at are this have from or had an they "
         "which one you were all her she there would their we him been has when who will no more if out so up said "
         "what its about than into them can only other time new some could these two may first then do any like my "
         "now over such our man me even most made after also did many off before must well back through years where "
         "much your way down should because long each just state those people too mister good little world make "
         "describe caption image left right corner button window search person dog cat red blue circle don't I'll "
         "we've it's they're I'm he'd isn't function return const int float void class import def self None").split()
SCRIPTS = [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x58F), (0x5D0, 0x5F4),
           (0x600, 0x6FF), (0x900, 0x97F), (0x980, 0x9FF), (0xB80, 0xBFF), (0xE00, 0xE7F), (0x10A0, 0x10FF),
           (0x1100, 0x11FF), (0x1200, 0x137F), (0x1780, 0x17FF), (0x1E00, 0x1FFF), (0x3040, 0x30FF), (0x3400, 0x34FF),
           (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFF00, 0xFFEF), (0x10330, 0x1034A), (0x1D400, 0x1D7FF),
           (0x20000, 0x200FF), (0x1F00, 0x1FFF), (0x2150, 0x218F), (0x2460, 0x24FF)]
EMOJI = ["😀", "👨‍👩‍👧‍👦", "👍🏽", "🇩🇪", "❤️", "🏳️‍🌈", "1️⃣", "🧑🏿‍🚀", "☺", "⚡️"]
COMBINING = ["\u0301", "\u0308", "\u20e3", "\u0327", "\u093e", "\u0e31", "\u200d", "\ufe0f"]
SPACES = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2003", "\u2028", "\u0085", "\u180e", "\u200b", "\x0b",
          "\x0c", "\x1c", "\x1f"]
SPECIALS = ["<|endoftext|>", "<|md_reserved_0|>", "<|md_reserved_4|>", "<|endof", "<|im_start|>", "<tag>", "  <pad>  ",
            "<ta", "<tag><tag>", "[KEEP]", "<long tag>"]


def assigned(code_point):
    """In Unicode 14: what PCRE2 10.42 knows. Newer letters may be cut elsewhere by Split patterns."""
    return unicodedata.category(chr(code_point)) not in ("Cs", "Cn")


def any_char(r):
    while True:
        c = r.choice((r.randrange(0x80), r.randrange(0x3000), r.randrange(0x20000), r.randrange(0x110000)))
        if assigned(c):
            return chr(c)


def script_word(r):
    low, high = r.choice(SCRIPTS)
    chars = [chr(c) for c in (r.randint(low, high) for _ in range(r.randint(1, 9))) if assigned(c)]
    if r.random() < 0.2:
        chars.insert(r.randrange(len(chars) + 1), r.choice(COMBINING))
    return "".join(chars)


def piece(r):
    kind = r.randrange(14)
    if kind <= 3:
        word = r.choice(WORDS)
        word = r.choice((word, word, word.capitalize(), word.upper()))
        return r.choice((" ", " ", " ", "")) + word + r.choice(("", "", "", ",", ".", "?", "'s", "'LL", "’s"))
    if kind == 4:
        return script_word(r)
    if kind == 5:
        return r.choice(EMOJI)
    if kind == 6:
        return r.choice(SPACES) * r.choice((1, 1, 2, 3, r.randint(1, 60)))
    if kind == 7:
        return str(r.randrange(10 ** r.randint(1, 12)))
    if kind == 8:
        return f"https://{r.choice(WORDS)}.example/{r.choice(WORDS)}?q={r.randrange(999)}&x=%{r.randrange(99):02d}#a"
    if kind == 9:
        return f"for (int {r.choice('ijk')} = 0; x[{r.randrange(9)}]->{r.choice(WORDS)}();) {{\n\t\treturn;\n    }}"
    if kind == 10:
        return "".join(any_char(r) for _ in range(r.randint(1, 6)))
    if kind == 11:
        return "".join(chr(r.randrange(32)) for _ in range(r.randint(1, 3)))
    if kind == 12:
        return r.choice(SPECIALS)
    return "".join(r.choice("'\"`!?.,;:-_/\\()[]{}<>@#$%^&*+=|~ sStTlLdD") for _ in range(r.randint(1, 8)))


def random_bytes(r):
    """A string to encode; one in ten is broken UTF-8."""
    text = "".join(piece(r) for _ in range(r.choice((0, 1, 2, 3, 5, 8, 13, 30)) if r.random() < 0.98 else 200)).encode()
    if r.random() < 0.1 and text:
        data = bytearray(text)
        for _ in range(r.randint(1, 4)):
            at = r.randrange(len(data) + 1)
            what = r.randrange(3)
            if what == 0:
                data[at:at] = bytes(r.randrange(128, 256) for _ in range(r.randint(1, 4)))
            elif what == 1:
                del data[at:at + r.randint(1, 3)]
            else:
                data[at:at] = r.choice((b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f\x98"))
        text = bytes(data)
    return text


def byte_chars():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def rebuild_gpt2(ranks_path, folder):
    """vocab.json, merges.txt and tokenizer.json from the ranks: a token's merge is what its bytes are cut into when
    only lower ranks may merge."""
    ranks = {}
    for line in pathlib.Path(ranks_path).read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    spell = byte_chars()
    spelled = {token: "".join(spell[b] for b in token) for token in ranks}
    merges = []
    for token, limit in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [bytes([b]) for b in token]
        while len(parts) > 2:
            pairs = [(ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1)]
            rank, i = min(pairs)
            assert rank < limit
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges.append((spelled[parts[0]], spelled[parts[1]]))
    vocab = {spelled[token]: rank for token, rank in ranks.items()}
    vocab["<|endoftext|>"] = len(vocab)
    files = folder / "gpt2_files"
    files.mkdir(exist_ok=True)
    (files / "vocab.json").write_text(json.dumps(vocab))
    (files / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "gpt2.json"))
    return {"gpt2.json": folder / "gpt2.json", "gpt2 vocab+merges": files, "gpt2.tiktoken": pathlib.Path(ranks_path)}


def train(pre_tokenizer, texts, vocab_size, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, special_tokens=["<|endoftext|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=40)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def synthetic(folder):
    r = random.Random(1)
    # Without the special spelling: merges would learn it, and no text becomes a special token here.
    texts = ["".join(piece(r) for _ in range(40)).replace("<|endoftext|>", "") for _ in range(1500)]
    raw = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def split(pattern, behavior="isolated", invert=False):
        return pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, behavior, invert), raw])

    made = {
        "cl100k": train(split(Regex(CL100K)), texts, 3000),
        "o200k": train(split(Regex(O200K), "removed", True), texts, 3000, ignore_merges=True),
        "digits": train(pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]), texts, 1500),
        "punctuation": train(pre_tokenizers.Sequence([
            pre_tokenizers.Punctuation("merged_with_previous"), pre_tokenizers.Split(" ", "merged_with_next"), raw]),
            texts, 1500),
        "whitespace": train(pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), raw]), texts, 1500),
        "contiguous": train(split(Regex(r"[aeiou\s]|\d"), "contiguous"), texts, 1500),
        "superword": train(raw, [" ".join(r.choice(WORDS) for _ in range(30)) for _ in range(300)] + texts[:200], 3000),
    }
    made["cl100k"].add_tokens([AddedToken("<tag>", normalized=False), AddedToken("<long tag>", normalized=True),
                               AddedToken("[KEEP]", lstrip=True), AddedToken("é", normalized=False)])
    made["superword"].add_tokens([AddedToken("<tag>", rstrip=True), AddedToken("日本", normalized=False)])
    made["superword"].add_special_tokens([AddedToken("<tag><tag>", normalized=False)])
    paths = {}
    for name, tokenizer in made.items():
        paths[name] = folder / f"{name}.json"
        tokenizer.save(str(paths[name]))
    return paths


def answers_of(program, path, strings):
    sent = b"".join(struct.pack("<I", len(s)) + s for s in strings)
    done = subprocess.run([program, str(path)], input=sent, stdout=subprocess.PIPE, check=True)
    out, at, answers = done.stdout, 0, []
    for _ in strings:
        (count,) = struct.unpack_from("<I", out, at)
        ids = list(struct.unpack_from(f"<{count}I", out, at + 4))
        at += 4 + 4 * count
        (size,) = struct.unpack_from("<I", out, at)
        answers.append((ids, out[at + 4:at + 4 + size].decode()))
        at += 4 + size
    assert at == len(out)
    return answers


def reference_of(path):
    json_path = path if path.suffix == ".json" else path.parent / "gpt2.json"
    tokenizer = Tokenizer.from_file(str(json_path))
    tokenizer.encode_special_tokens = True  # special spellings inside a text are text
    return tokenizer


def check(program, name, path, reference, strings):
    wrong = 0
    for text, (ids, decoded) in zip(strings, answers_of(program, path, strings), strict=True):
        wanted = reference.encode(text.decode("utf-8", errors="replace")).ids
        if ids == wanted and decoded == reference.decode(wanted):
            continue
        wrong += 1
        if wrong <= 3:
            print(f"{name}: {text!r}\n  wanted {wanted}\n  found  {ids}\n  {reference.decode(wanted)!r}\n  {decoded!r}")
    print(f"{name}: {len(strings) - wrong} of {len(strings)} strings equal")
    return wrong


def write_cases(folder, name, path, reference, strings):
    """uint32 count of bytes, bytes, uint16 count of ids, uint16 ids, little-endian, for each string."""
    with open(folder / f"{name}.cases", "wb") as out:
        for text in strings:
            ids = reference.encode(text.decode("utf-8", errors="replace")).ids
            out.write(struct.pack(f"<I{len(text)}sH{len(ids)}H", len(text), text, len(ids), *ids))
    if path.suffix == ".json":
        data = json.loads(path.read_text())
        (folder / f"{name}.json").write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenize", required=True)
    parser.add_argument("--golden", type=pathlib.Path)
    parser.add_argument("--gpt2-ranks", type=pathlib.Path)
    parser.add_argument("--strings", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=pathlib.Path, default=pathlib.Path("/tmp/check_tokenizer"))
    parser.add_argument("--write-cases", type=pathlib.Path)
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    paths = synthetic(options.scratch)
    if options.golden:
        paths["golden"] = options.golden
    gpt2_json = None
    if options.gpt2_ranks:
        gpt2 = rebuild_gpt2(options.gpt2_ranks, options.scratch)
        gpt2_json = gpt2["gpt2.json"]
        paths.update(gpt2)
    r = random.Random(options.seed)
    strings = [random_bytes(r) for _ in range(options.strings)]
    wrong = 0
    for name, path in paths.items():
        reference = reference_of(gpt2_json if name.startswith("gpt2") else path)
        wrong += check(options.tokenize, name, path, reference, strings)
        if options.write_cases and name in ("golden", "cl100k"):
            few = [s for s in strings if len(s) < 120][:2500]
            write_cases(options.write_cases, name, path, reference, few)
    sys.exit(1 if wrong else 0)


main()
