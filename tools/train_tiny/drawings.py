"""Collect drawings of every noun and render each to a tightly cropped RGBA picture.

Every source is public domain or under a permissive licence (README.md lists them).  Run once:

    python drawings.py --icons FOLDER --out .train/drawings

FOLDER holds the unpacked wheels of justmyresource-phosphor, justmyresource-mdi, justmyresource-material-icons and
fontawesomefree; emoji, clip art, Tango, Bootstrap icons and Symbola come from Debian packages.
"""

import argparse
import io
import json
import re
import subprocess
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from nouns import NOUNS

SIDE = 112  # longest side of a drawing in the atlas
CLIPART = Path("/usr/share/openclipart/svg")
NOTO = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
SYMBOLA = "/usr/share/fonts/truetype/ancient-scripts/Symbola_hint.ttf"


def render_svg(data):
    """Pixels of an SVG at about twice the atlas size, or None if librsvg cannot draw it in time."""
    try:
        done = subprocess.run(["rsvg-convert", "-w", str(2 * SIDE), "-h", str(2 * SIDE), "-a"], input=data,
                              capture_output=True, timeout=6)
        return Image.open(io.BytesIO(done.stdout)).convert("RGBA") if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, OSError):
        return None


def render_glyph(character, path, size):
    font = ImageFont.truetype(path, size)
    picture = Image.new("RGBA", (size * 2, size * 2), (0, 0, 0, 0))
    ImageDraw.Draw(picture).text((size // 4, size // 4), character, font=font, fill=(0, 0, 0, 255), embedded_color=True)
    return picture


def tight(picture):
    """Crop to what is visible and scale the longest side to SIDE."""
    if picture is None:
        return None
    box = picture.getchannel("A").point(lambda a: 255 if a > 40 else 0).getbbox()
    if box is None:
        return None
    picture = picture.crop(box)
    width, height = picture.size
    if max(width, height) < 40 or max(width, height) > 5 * min(width, height):
        return None
    scale = SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Resizing with premultiplied colour keeps dark fringes away from the edges.
    return picture.convert("RGBa").resize(size, Image.LANCZOS).convert("RGBA")


def whiten(picture):
    """A one-colour icon becomes white, to be tinted when it is drawn."""
    alpha = picture.getchannel("A")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 0))
    white.putalpha(alpha)
    return white


def icon_names(noun):
    names = [noun.name, *noun.extra]
    return list(dict.fromkeys(form for name in names for form in
                              (name.replace(" ", "-"), name.replace("_", "-").replace(" ", "-"))))


def archive(folder, package):
    return zipfile.ZipFile(next(Path(folder).glob(f"*/{package}/icons.zip")))


def clipart_index():
    """(words of the file name, path) of every clip-art drawing."""
    return [(re.split(r"[_\-\W]+", path.stem.lower()), path) for path in sorted(CLIPART.rglob("*.svg"))]


def clipart_matches(noun, index, limit=14):
    """Drawings whose file name begins with the noun, or has it as the second or third word, shortest name first."""
    found = []
    for name in (noun.name, *noun.extra):
        words = re.split(r"[ \-_]", name)
        for stem, path in index:
            for start in range(3):
                if stem[start:start + len(words)] == words:
                    found.append((start, len(stem), str(path)))
                    break
    return [path for _, _, path in sorted(set(found))][:limit]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--icons", required=True)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)

    packs = {
        "phosphor": (archive(options.icons, "justmyresource_phosphor"), ["fill/{}-fill.svg", "duotone/{}-duotone.svg"]),
        "mdi": (archive(options.icons, "justmyresource_mdi"), ["{}.svg"]),
        "material": (archive(options.icons, "justmyresource_material_icons"), ["filled/{}.svg"]),
    }
    awesome_root = next(Path(options.icons).glob("*/fontawesomefree/static/fontawesomefree"))
    awesome = json.loads((awesome_root / "metadata/icons.json").read_text())
    awesome_font = str(awesome_root / "webfonts/fa-solid-900.ttf")
    index = clipart_index()
    tango = {path.stem: path for path in Path("/usr/share/icons/Tango/scalable").rglob("*.svg")}

    records = []

    def keep(noun, source, detail, picture, mono):
        picture = tight(picture)
        if picture is None:
            return
        name = f"{len(records):05d}.png"
        (whiten(picture) if mono else picture).save(out / name)
        records.append({"file": name, "noun": noun.name, "source": source, "detail": detail, "mono": mono})

    for noun in NOUNS:
        for character in noun.emoji:
            keep(noun, "noto", f"U+{ord(character):X}", render_glyph(character, NOTO, 109), False)
            glyph = render_glyph(character, SYMBOLA, 160)
            # A missing glyph is drawn as the font's box; Symbola has no emoji newer than Unicode 7.
            if ord(character) < 0x1F6D0 and not 0x1F54B <= ord(character) <= 0x1F54E and not noun.shape:
                keep(noun, "symbola", f"U+{ord(character):X}", glyph, True)
        names = icon_names(noun)
        for source, (pack, patterns) in packs.items():
            members = set(pack.namelist())
            for name in names:
                for pattern in patterns:
                    if pattern.format(name) in members:
                        keep(noun, source, pattern.format(name), render_svg(pack.read(pattern.format(name))), True)
        for name in names:
            if name in awesome and "solid" in awesome[name]["styles"]:
                character = chr(int(awesome[name]["unicode"], 16))
                keep(noun, "fontawesome", name, render_glyph(character, awesome_font, 160), True)
            for file in (f"{name}-fill.svg", f"{name}.svg"):
                path = Path("/usr/share/bootstrap-icons/svg") / file
                if path.exists():
                    keep(noun, "bootstrap", file, render_svg(path.read_bytes()), True)
                    break
        for name, path in tango.items():
            if noun.name in name.split("-") or any(extra in name.split("-") for extra in noun.extra):
                keep(noun, "tango", path.name, render_svg(path.read_bytes()), False)
        for path in clipart_matches(noun, index):
            keep(noun, "clipart", str(Path(path).relative_to(CLIPART)), render_svg(Path(path).read_bytes()), False)
        print(noun.name, sum(r["noun"] == noun.name for r in records), flush=True)
    (out / "index.json").write_text(json.dumps(records, indent=0))


if __name__ == "__main__":
    main()
