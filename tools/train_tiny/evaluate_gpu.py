"""Quick evaluation at the end of a training run: batched greedy decoding of prompts about held-out scenes."""

import re
import time
from collections import defaultdict

import torch

from language import COORD, END, KINDS, MOST, SIZE
from model import bins_to_size
from scenes import Atlas


def decode(model, cache, prompts, room, kind, deltas=None):
    """Greedy tokens and boxes of prompts of one kind; all rows at once, the whole slot again for every token."""
    from train import slot_mask
    device = prompts.tokens.device
    mask, positions = slot_mask([(kind, room)], model.prefix, device)
    tokens = prompts.tokens.clone()
    place = torch.arange(room + 1, device=device)
    tokens = torch.where(place < prompts.prompt[:, None], tokens, 0)
    n = len(tokens)
    rows = model.text.wte[tokens[:, :room]].clone()
    boxes = torch.zeros(n, MOST + 2, 4, device=device)
    per_thing = {"detect": 3, "point": 2}.get(kind, 0)
    done = torch.zeros(n, dtype=torch.bool, device=device)
    count = torch.zeros(n, dtype=torch.long, device=device)
    for t in range(int(prompts.prompt.min()), room + 1):
        hidden = model.after(cache, rows[:, :t], positions[:t], mask[:t, :model.prefix + t], deltas)[:, -1]
        active = (t >= prompts.prompt) & ~done
        logits = model.logits(hidden).float()
        if per_thing:
            offset = t - prompts.prompt
            thing, part = offset.div(per_thing, rounding_mode="floor").clamp(0, MOST + 1), offset % per_thing
            more = logits[:, COORD] > logits[:, END]
            done |= active & (part == 0) & ~more
            active = active & ~done
            coord = model.region.coord_decoder(hidden).float().argmax(-1) / 1024
            size = bins_to_size(model.region.size_decoder(hidden).float().unflatten(-1, (2, 1024)).argmax(-1))
            i = torch.arange(n, device=device)
            for p in (0, 1):
                boxes[i, thing, p] = torch.where(active & (part == p), coord, boxes[i, thing, p])
            if per_thing == 3:
                boxes[i, thing, 2:] = torch.where((active & (part == 2))[:, None], size, boxes[i, thing, 2:])
            count += active & (part == per_thing - 1)
            value = torch.where((part < 2)[:, None], model.region.embed_coord(coord).float(),
                                model.region.embed_size(size).float())
            nxt = torch.where((part < 2), COORD, SIZE)
        else:
            logits[:, 3] = -1e9
            nxt = logits.argmax(-1)
            value = model.text.wte[nxt]
        tokens[:, t] = torch.where(active, nxt, tokens[:, t])
        if not per_thing:
            done |= active & (nxt == END)
        if t < room:
            rows[:, t] = torch.where(active[:, None], value.to(rows.dtype), rows[:, t])
        if done.all():
            break
    return tokens, boxes, count


def overlap(a, b):
    low = torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    inter = (high - low).clamp(min=0).prod(-1)
    return inter / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - inter).clamp(min=1e-9)


def names_in(caption):
    """The listed things of a normal caption."""
    body = re.sub(r" and the word .*$", ".", caption)
    body = re.sub(r"^The picture shows", "", body).strip(" .")
    return [part.strip() for part in re.split(r",| and ", body) if part.strip() and '"' not in part]


@torch.no_grad()
def report(trainer, unseen, scenes):
    begun = time.time()
    model, speaker, device = trainer.model, trainer.speaker, trainer.device
    state = torch.random.get_rng_state()
    torch.manual_seed(4242 + unseen)
    keep_atlas, painter = trainer.painter.atlas, trainer.painter
    painter.atlas = Atlas(trainer.options.atlas, device, trainer.words, held=True, unseen=unseen)
    right, total, samples = defaultdict(float), defaultdict(float), []
    tokenizer = speaker.p.tokenizer

    def add(name, good, all_):
        right[name] += float(good)
        total[name] += float(all_)

    for _ in range(-(-scenes // painter.scenes)):
        batch = painter.paint()
        with torch.autocast(device, torch.bfloat16):
            image = trainer.image(trainer.features_plain(batch))
            cache = model.cache(image)
            singles = torch.arange(painter.scenes, device=device) < painter.groups[0][2]
            for kind, room in (("detect", 32), ("point", 24)):
                p = speaker.listing(batch.truth, room, kind)
                _, boxes, count = decode(model, cache, p, room, kind)
                truth_on = torch.arange(MOST + 1, device=device) < p.count[:, None]
                found_on = torch.arange(MOST + 2, device=device) < count[:, None]
                truth = p.values
                pair = truth_on[:, :, None] & found_on[:, None]
                if kind == "detect":
                    # Things and answers are few and rarely overlap, so a best match of either side is enough here.
                    hit = (overlap(truth[:, :, None], boxes[:, None]) >= 0.5) & pair
                    for label, some in (("", singles | True), (" 1x1", singles), (" tiled", ~singles)):
                        add(f"detect recall{label}", hit.any(2)[some].sum(), truth_on[some].sum())
                        add(f"detect precision{label}", hit.any(1)[some].sum(), found_on[some].sum())
                    size = truth[..., 2:].amax(-1)
                    for low, high in ((0, 0.1), (0.1, 0.15), (0.15, 0.25), (0.25, 2)):
                        some = (size >= low) & (size < high) & truth_on
                        add(f"detect recall {low}-{high}", (hit.any(2) & some).sum(), some.sum())
                else:
                    gap = (truth[:, :, None, :2] - boxes[:, None, :, :2]).abs()
                    hit = (gap <= truth[:, :, None, 2:] / 2).all(-1) & pair
                    add("point hit", hit.any(2).sum(), truth_on.sum())
                    add("point precision", hit.any(1).sum(), found_on.sum())
            for _ in range(2):
                p = speaker.queries(batch.truth, 28)
                tokens, _, _ = decode(model, cache, p, 28, "query")
                same = ((tokens == p.tokens) | (torch.arange(29, device=device) >= p.length[:, None])).all(1)
                for index, name in enumerate(KINDS):
                    some = p.kind == index
                    add(f"query {name}", (same & some).sum(), some.sum())
                add("query all", same.sum(), len(same))
            p = speaker.captions(batch.truth, 83, torch.ones(painter.scenes, dtype=torch.long, device=device))
            tokens, _, _ = decode(model, cache, p, 83, "caption")
        for got, expected, start in zip(tokens.tolist(), p.tokens.tolist(), p.prompt.tolist()):
            said, true = (tokenizer.decode(x[start:]) for x in (got, expected))
            samples.append((said, true))
            a, b = names_in(said), names_in(true)
            add("caption names", sum(name in a for name in b), len(b))
            add("caption invented", sum(name not in b for name in a), len(a))
    print(f"--- {'unseen' if unseen else 'known'} drawings, {time.time() - begun:.0f} s")
    for name in total:
        print(f"  {name:24s} {right[name] / max(1, total[name]):.3f}  ({total[name]:.0f})")
    for suffix in ("", " 1x1", " tiled"):
        r = right["detect recall" + suffix] / max(1, total["detect recall" + suffix])
        q = right["detect precision" + suffix] / max(1, total["detect precision" + suffix])
        print(f"  detect F1{suffix} {2 * r * q / max(1e-9, r + q):.3f}")
    for said, true in samples[:6]:
        print("  said:", said, "| true:", true)
    painter.atlas = keep_atlas
    torch.random.set_rng_state(state)
