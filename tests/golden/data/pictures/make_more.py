#!/usr/bin/env python3
"""Writes more.json beside it: what Pillow makes of the fuzz seeds, of truncated files, and of odd resizes.

Made with Pillow 9.4 and libjpeg-turbo 2.1. Run it again after adding a seed.
"""

import hashlib
import io
import json
import pathlib
import warnings

from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).resolve().parent
CORPUS = HERE.parents[2] / "fuzz" / "corpus"
TRUNCATED = [
    "q95_420.jpg", "q80_422_prog.jpg", "cmyk.jpg", "palette.png", "rgba.png", "q80.webp",
    "lossless.webp", "pal.gif", "anim.gif",
]  # fmt: skip
SIZES = [
    (1, 1), (1, 378), (378, 1), (2, 3), (31, 33), (97, 500), (320, 17), (33, 240), (320, 240),
    (321, 239), (644, 1176), (1000, 5), (64, 64),
]  # fmt: skip


def answer(data):
    """{"size", "sha256"} of the upright RGB picture, or None where Pillow refuses."""
    warnings.simplefilter("ignore")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            rgb = ImageOps.exif_transpose(picture).convert("RGB")
    except Exception:
        return None
    return {"size": list(rgb.size), "sha256": hashlib.sha256(rgb.tobytes()).hexdigest()}


def truncations(name):
    """Lengths, multiples of 97, at which Pillow still gives a picture, and its hash there."""
    data = (HERE / name).read_bytes()
    accepted = []
    for length in range(0, len(data), 97):
        result = answer(data[:length])
        if result:
            accepted.append({"length": length, "sha256": result["sha256"]})
    return accepted


def resizes():
    results = []
    for name in ("q90_444.jpg", "rgba.png", "two_by_700.png", "one_pixel.png"):
        with Image.open(HERE / name) as picture:
            rgb = picture.convert("RGB")
        for size in SIZES:
            digest = hashlib.sha256(rgb.resize(size, Image.Resampling.LANCZOS).tobytes())
            results.append({"file": name, "size": list(size), "sha256": digest.hexdigest()})
    return results


def main():
    seeds = {}
    for kind in ("jpeg", "png", "webp", "gif"):
        for path in sorted((CORPUS / kind).iterdir()):
            seeds[f"{kind}/{path.name}"] = answer(path.read_bytes())
    more = {
        "seeds": seeds,
        "truncations": {name: truncations(name) for name in TRUNCATED},
        "resizes": resizes(),
    }
    (HERE / "more.json").write_text(json.dumps(more, indent=1) + "\n")


if __name__ == "__main__":
    main()
