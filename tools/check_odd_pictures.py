#!/usr/bin/env python3
"""Decodes folders of odd pictures with Fovea and with Pillow and reports every difference.

    tools/check_odd_pictures.py --decoder build/dev/tests/unit/image/decode_picture FOLDER...

Pillow runs as the reference does: truncated files are errors, EXIF orientation is applied, then convert("RGB").
Only files that begin like a JPEG, PNG, WebP or GIF count. Exit status 1 when anything differs.
"""

import argparse
import collections
import hashlib
import pathlib
import subprocess
import sys
import warnings

from PIL import Image, ImageFile, ImageOps

SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")


def is_candidate(path):
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith(SIGNATURES) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def pillow_answer(path):
    """("WIDTHxHEIGHT HASH", "") or ("error", why)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("JPEG", "PNG", "WEBP", "GIF")) as picture:
                picture.load()
                rgb = ImageOps.exif_transpose(picture).convert("RGB")
    except Exception as exception:  # Pillow raises nearly every kind on damaged files.
        return "error", f"{type(exception).__name__}: {exception}"
    digest = hashlib.sha256(rgb.tobytes()).hexdigest()
    return f"{rgb.width}x{rgb.height} {digest}", ""


def our_answers(decoder, paths):
    answers = {}
    for begin in range(0, len(paths), 200):
        batch = [str(path) for path in paths[begin : begin + 200]]
        lines = subprocess.run([decoder, *batch], capture_output=True, check=True)
        for line in lines.stdout.decode(errors="replace").splitlines():
            answer, _, name = line.rpartition("\t")
            answers[name] = answer
    return answers


def verdict(ours, pillows):
    if ours.startswith("error") and pillows == "error":
        return "both refuse"
    if ours == pillows:
        return "equal"
    if ours.startswith("error"):
        return "only we refuse"
    if pillows == "error":
        return "only Pillow refuses"
    if ours.split()[0] != pillows.split()[0]:
        return "other size"
    return "other pixels"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decoder", required=True, help="the program decode_picture")
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()

    ImageFile.LOAD_TRUNCATED_IMAGES = False
    paths = sorted(
        path for folder in arguments.folders for path in folder.rglob("*") if is_candidate(path)
    )
    answers = our_answers(arguments.decoder, paths)
    counts = collections.Counter()
    for path in paths:
        pillows, why = pillow_answer(path)
        ours = answers[str(path)]
        kind = verdict(ours, pillows)
        counts[kind] += 1
        if kind not in ("equal", "both refuse"):
            print(f"{kind}: {path}\n  ours:   {ours}\n  Pillow: {pillows} {why}")
    total = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    print(f"{len(paths)} pictures: {total}")
    return 0 if set(counts) <= {"equal", "both refuse"} else 1


if __name__ == "__main__":
    sys.exit(main())
