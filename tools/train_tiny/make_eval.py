"""Draw held-out scenes as PNG files with their truth, for tools/eval/evaluate.py.

    python make_eval.py --atlas .train/atlas --out .train/eval --scenes 2000

Half of the scenes show drawings that training has seen, half show only drawings that it has not ("unseen"); backgrounds,
fonts and printed words are held out in both.  Pictures have many sizes: about two thirds fill one crop, the others are
cut into tiles by the engine.  The same seed draws the same scenes.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from PIL import Image

from language import CHARACTERS
from model import load_config
from nouns import COLOURS, NOUNS
from scenes import Atlas, Painter


def sizes(rng):
    """Width and height of a picture: up to one crop, or larger."""
    if rng.random() < 0.66:
        return 224, 224
    if rng.random() < 0.25:
        long = rng.choice([384, 448, 544])
        return (long, 224) if rng.random() < 0.5 else (224, long)
    width = rng.choice([360, 384, 416, 448, 480, 512])
    return width, max(304, min(512, round(width * rng.uniform(0.8, 1.25) / 8) * 8))


class Pictures(Painter):
    """A painter of one picture of any size (a multiple of 8)."""

    def __init__(self, atlas, vision, width, height):
        super().__init__(atlas, vision, {(1, 1): 1}, keep_canvases=True)
        self.groups = [(1, 1, 1, height, width, 0)]
        self.aspects = torch.tensor([width / height])
        self.canvas = torch.tensor([[float(width), float(height)]])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atlas", default=".train/atlas")
    parser.add_argument("--model", default="models/tiny")
    parser.add_argument("--out", default=".train/eval")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="go on after this many scenes")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    words = (Path(options.atlas) / "words.txt").read_text().split()
    vision = load_config(Path(options.model) / "config.json")["vision"]
    plural = {noun.name: noun.plural for noun in NOUNS}
    atlases = [Atlas(options.atlas, "cpu", words, held=True, unseen=unseen) for unseen in (False, True)]
    (out / "nouns.json").write_text(json.dumps({name: plural[name] for name in atlases[0].names}))
    with open(out / "truth.jsonl", "a" if options.first else "w") as file:
        for number in range(options.first, options.scenes):
            rng = random.Random(f"{options.seed} {number}")
            torch.manual_seed(options.seed * 100003 + number)
            unseen = number % 2
            atlas = atlases[unseen]
            width, height = sizes(rng)
            batch = Pictures(atlas, vision, width, height).paint()
            name = f"scene-{number:04d}.png"
            Image.fromarray(batch.canvases[0].permute(1, 2, 0).numpy()).save(out / name)
            truth, things = batch.truth, []
            for i in range(truth.valid.shape[1]):
                if truth.valid[0, i]:
                    cx, cy, w, h = truth.box[0, i].tolist()
                    noun = atlas.names[truth.noun[0, i]]
                    colour = int(truth.colour[0, i])
                    things.append({"noun": noun, "plural": plural[noun], "color": COLOURS[colour - 1][0] if colour else None,
                                   "box": [round(v, 5) for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)]})
            text = None
            if truth.text_valid[0]:
                cx, cy, w, h = truth.text_box[0].tolist()
                text = {"string": "".join(CHARACTERS[c] for c in truth.text[0, :truth.text_length[0]]),
                        "box": [round(v, 5) for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)]}
            absent = rng.choice([n for n in atlas.names if n not in {t["noun"] for t in things}])
            file.write(json.dumps({"picture": name, "set": "unseen" if unseen else "known", "width": width,
                                   "height": height, "things": things, "text": text, "absent": absent}) + "\n")
            file.flush()
            if (number + 1) % 100 == 0:
                print(number + 1, flush=True)


if __name__ == "__main__":
    main()
