"""Pack the drawings, letters and background photographs into one folder that training and evaluation read.

    python build_atlas.py --drawings .train/drawings --photos PICTURE... --out .train/atlas

Writes sprites.png (cells of 112 x 112 RGBA), glyphs.png, photos.png and atlas.json.  Which drawings are kept out of
training is decided here, by a seeded draw over groups of near-identical drawings.
"""

import argparse
import json
import math
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from extra_drawings import plain
from nouns import NOUNS

SIDE = 112
COLUMNS = 40
PHOTO = 512
GLYPH_HEIGHT, GLYPH_WIDTH = 32, 32
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
MINIMUM_GROUPS = 4  # a noun with fewer different drawings cannot be learnt as a thing

FONTS = [  # path, held out for evaluation
    ("dejavu/DejaVuSans.ttf", False), ("dejavu/DejaVuSans-Bold.ttf", False), ("dejavu/DejaVuSerif.ttf", False),
    ("dejavu/DejaVuSansMono-Bold.ttf", False), ("dejavu/DejaVuSansCondensed.ttf", False),
    ("roboto/unhinted/RobotoTTF/Roboto-Regular.ttf", False), ("roboto/unhinted/RobotoTTF/Roboto-Bold.ttf", False),
    ("open-sans/OpenSans-Semibold.ttf", False), ("liberation/LiberationSerif-Bold.ttf", False),
    ("liberation/LiberationMono-Regular.ttf", False),
    ("dejavu/DejaVuSerif-Bold.ttf", True), ("liberation/LiberationSans-Bold.ttf", True),
    ("dejavu/DejaVuSansCondensed-Bold.ttf", False), ("dejavu/DejaVuSerifCondensed.ttf", False),
    ("dejavu/DejaVuSansMono.ttf", False), ("roboto/unhinted/RobotoTTF/Roboto-Black.ttf", False),
    ("roboto/unhinted/RobotoTTF/Roboto-Medium.ttf", False), ("open-sans/OpenSans-Regular.ttf", False),
    ("open-sans/OpenSans-ExtraBold.ttf", False), ("open-sans/OpenSans-CondBold.ttf", False),
    ("liberation/LiberationSans-Regular.ttf", False), ("liberation/LiberationSerif-Regular.ttf", False),
    ("liberation/LiberationMono-Bold.ttf", False), ("liberation/LiberationSansNarrow-Bold.ttf", False),
    ("lato/Lato-Bold.ttf", False), ("lato/Lato-Regular.ttf", False), ("crosextra/Caladea-Bold.ttf", False),
]


def shape_pictures(name):
    """A geometric shape in white, in a few proportions, cut tightly; drawn large and scaled down for clean edges."""
    def polygon(points):
        return lambda draw, s: draw.polygon([(x * s, y * s) for x, y in points], fill="white")

    def regular(sides, turn=0.0):
        return polygon([(0.5 + 0.5 * math.sin(2 * math.pi * k / sides + turn), 0.5 - 0.5 * math.cos(2 * math.pi * k / sides + turn))
                        for k in range(sides)])

    def star(inner):
        radius = lambda k: 0.5 if k % 2 == 0 else inner
        return polygon([(0.5 + radius(k) * math.sin(math.pi * k / 5), 0.5 - radius(k) * math.cos(math.pi * k / 5)) for k in range(10)])

    def heart(draw, s):
        curve = [(16 * math.sin(t) ** 3, 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
                 for t in (2 * math.pi * k / 200 for k in range(200))]
        draw.polygon([((x / 34 + 0.5) * s, (0.5 - y / 34) * s) for x, y in curve], fill="white")

    def cross(width):
        a, b = 0.5 - width / 2, 0.5 + width / 2
        return polygon([(a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b), (b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a)])

    def arrow(shaft, head):
        a, b = 0.5 - shaft / 2, 0.5 + shaft / 2
        return polygon([(0, a), (1 - head, a), (1 - head, 0.5 - head / 1.2), (1, 0.5), (1 - head, 0.5 + head / 1.2), (1 - head, b), (0, b)])

    whole = polygon([(0, 0), (1, 0), (1, 1), (0, 1)])
    ellipse = lambda draw, s: draw.ellipse((0, 0, s - 1, s - 1), fill="white")
    forms = {  # (drawing, width to height)
        "circle": [(ellipse, 1)], "square": [(whole, 1)], "rectangle": [(whole, 1.9), (whole, 2.4), (whole, 0.5)],
        "oval": [(ellipse, 1.8), (ellipse, 2.2), (ellipse, 0.53)],
        "triangle": [(polygon([(0.5, 0), (1, 1), (0, 1)]), 1.15), (polygon([(0.5, 0), (1, 1), (0, 1)]), 0.9),
                     (polygon([(0, 0), (1, 1), (0, 1)]), 1)],
        "diamond": [(polygon([(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)]), 1), (polygon([(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)]), 0.7)],
        "pentagon": [(regular(5), 1)], "hexagon": [(regular(6), 1), (regular(6, math.pi / 6), 1)],
        "star": [(star(0.2), 1), (star(0.25), 1)], "heart": [(heart, 1)], "cross": [(cross(0.3), 1), (cross(0.4), 1)],
        "arrow": [(arrow(0.3, 0.45), 1.3), (arrow(0.4, 0.5), 1)],
    }
    for form, ratio in forms[name]:
        size = 8 * SIDE
        picture = Image.new("L", (size, size), 0)
        form(ImageDraw.Draw(picture), size)
        picture = picture.crop(picture.getbbox())
        width, height = picture.width * min(1, ratio), picture.height * min(1, 1 / ratio)
        scale = SIDE / max(width, height)
        alpha = picture.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.LANCZOS)
        white = Image.new("RGBA", alpha.size, (255, 255, 255, 0))
        white.putalpha(alpha)
        if name == "arrow":  # four directions
            for turn in range(4):
                yield white.rotate(90 * turn, expand=True)
        else:
            yield white


def signature(picture):
    """A small picture of the shape and its brightness, by which near-identical drawings are found."""
    canvas = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    canvas.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    small = np.asarray(canvas.resize((14, 14), Image.BOX), dtype=np.float32) / 255
    return np.concatenate([small[..., 3], small[..., :3].mean(-1) * small[..., 3]]).ravel()


def group_drawings(items):
    """Number the groups of drawings that are (nearly) the same picture; items are records of one noun."""
    groups = []
    for item in items:
        base = item["detail"].split("/")[-1].replace("-fill.svg", "").replace("-duotone.svg", "")
        for group in groups:
            if any(np.abs(item["signature"] - other["signature"]).mean() < 0.045 for other in group["items"]) or \
                    (item["source"] == "phosphor" and group["key"] == (item["source"], base)):
                group["items"].append(item)
                break
        else:
            groups.append({"key": (item["source"], base), "items": [item]})
    return groups


def extra_sprites(folder, sprites, rejected):
    """Drawings for training alone: neither what training has already, nor (nearly) what is held out."""
    per_noun = {}
    for item in sprites:
        if not item.get("shape"):
            per_noun.setdefault(item["noun"], []).append(item)
    outline = lambda picture: signature(picture)[:14 * 14]
    family = lambda item: (item["source"].removesuffix("-mono"), plain(Path(item["detail"].split("/")[-1]).stem))
    kept = []
    for record in json.loads((folder / "index.json").read_text()):
        mine = per_noun.get(record["noun"])
        if mine is None or (record["noun"], record["source"], record["detail"]) in rejected:
            continue
        picture = Image.open(folder / record["file"]).convert("RGBA")
        forms = [picture, picture.transpose(Image.FLIP_LEFT_RIGHT)]
        whole, flat = [signature(form) for form in forms], [outline(form) for form in forms]
        same = lambda item, limit: any(np.abs(form - item["signature"]).mean() < limit for form in whole)
        near = lambda item: same(item, 0.07) or any(np.abs(form - item["signature"][:196]).mean() < 0.055 for form in flat)
        if any(item["held"] and (near(item) or family(item) == family(record)) for item in mine):
            continue
        if any(same(item, 0.02) for item in mine):
            continue
        record |= {"picture": picture, "signature": whole[0], "held": False, "group": -1, "extra": True}
        mine.append(record)
        kept.append(record)
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drawings", required=True)
    parser.add_argument("--extra", help="further drawings, for training alone")
    parser.add_argument("--photos", nargs="*", default=[])
    parser.add_argument("--held-photos", nargs="*", default=[])
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    folder, out = Path(options.drawings), Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    rejected = {tuple(line.rstrip("\n").split("|")) for line in
                (Path(__file__).parent / "rejected.txt").read_text().splitlines() if not line.startswith("#")}
    shapes = {noun.name for noun in NOUNS if noun.shape}

    per_noun = {}
    for record in json.loads((folder / "index.json").read_text()):
        if (record["noun"], record["source"], record["detail"]) in rejected or record["noun"] in shapes:
            continue
        record["picture"] = Image.open(folder / record["file"]).convert("RGBA")
        record["signature"] = signature(record["picture"])
        per_noun.setdefault(record["noun"], []).append(record)

    names, sprites = [], []
    for noun in NOUNS:
        if noun.shape:
            names.append(noun.name)
            for picture in shape_pictures(noun.name):
                sprites.append({"picture": picture, "noun": noun.name, "source": "shape", "detail": noun.name,
                                "mono": True, "held": False, "group": 0, "shape": True})
            continue
        groups = group_drawings(per_noun.get(noun.name, []))
        if len(groups) < MINIMUM_GROUPS:
            print("left out:", noun.name, len(groups))
            continue
        names.append(noun.name)
        order = list(range(len(groups)))
        random.Random(f"held out {noun.name}").shuffle(order)
        held = set(order[: 1 if len(groups) < 7 else 2])
        for index, group in enumerate(groups):
            for item in group["items"]:
                item["held"] = index in held
                item["group"] = index
                sprites.append(item)

    if options.extra:
        sprites += extra_sprites(Path(options.extra), sprites, rejected)

    rows = -(-len(sprites) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * SIDE, rows * SIDE), (0, 0, 0, 0))
    table = []
    for index, item in enumerate(sprites):
        picture = item["picture"]
        x, y = index % COLUMNS * SIDE, index // COLUMNS * SIDE
        sheet.paste(picture, (x + (SIDE - picture.width) // 2, y + (SIDE - picture.height) // 2))
        table.append({"noun": item["noun"], "source": item["source"], "detail": item["detail"], "mono": item["mono"],
                      "held": item["held"], "group": item["group"], "extra": item.get("extra", False),
                      "shape": item.get("shape", False), "width": picture.width, "height": picture.height})
    sheet.save(out / "sprites.png")

    glyphs = Image.new("L", (len(CHARACTERS) * GLYPH_WIDTH, len(FONTS) * GLYPH_HEIGHT), 0)
    widths = []
    for row, (path, _) in enumerate(FONTS):
        size = 10
        while True:  # the largest size whose capital letters are 28 pixels high
            font = ImageFont.truetype(f"/usr/share/fonts/truetype/{path}", size)
            box = font.getbbox("H")
            if box[3] - box[1] >= 27:
                break
            size += 1
        line = []
        for column, character in enumerate(CHARACTERS):
            left, top, right, bottom = font.getbbox(character)
            picture = Image.new("L", (64, 64), 0)
            ImageDraw.Draw(picture).text((8 - left, 2 - box[1] + 0), character, font=font, fill=255)
            crop = picture.crop((8, 0, 8 + right - left, GLYPH_HEIGHT))
            width = min(GLYPH_WIDTH - 4, crop.width)
            crop = crop.resize((width, GLYPH_HEIGHT), Image.LANCZOS)
            glyphs.paste(crop, (column * GLYPH_WIDTH + 2, row * GLYPH_HEIGHT))
            line.append(width + 4)
        widths.append(line)
    glyphs.save(out / "glyphs.png")

    photos = []
    for path in [*options.photos, *options.held_photos]:
        picture = Image.open(path).convert("RGB")
        side = min(picture.size)
        for step in range(max(1, round(max(picture.size) / side))):  # a long picture gives several squares
            x = step * (picture.width - side) // max(1, round(max(picture.size) / side) - 1 or 1)
            y = step * (picture.height - side) // max(1, round(max(picture.size) / side) - 1 or 1)
            square = picture.crop((x, y, x + side, y + side)).resize((PHOTO, PHOTO), Image.LANCZOS)
            photos.append((square, path in options.held_photos, Path(path).name))
    strip = Image.new("RGB", (PHOTO, PHOTO * len(photos)))
    for index, (square, _, _) in enumerate(photos):
        strip.paste(square, (0, index * PHOTO))
    strip.save(out / "photos.png")

    (out / "atlas.json").write_text(json.dumps({
        "side": SIDE, "columns": COLUMNS, "nouns": names, "sprites": table, "characters": CHARACTERS,
        "glyph_widths": widths, "fonts_held": [held for _, held in FONTS],
        "photos": [{"name": name, "held": held} for _, held, name in photos]}))
    print(len(names), "nouns,", len(sprites), "drawings,", sum(item["held"] for item in sprites), "held out,",
          len(photos), "photographs")


if __name__ == "__main__":
    main()
