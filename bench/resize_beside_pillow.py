#!/usr/bin/env python3
"""Times picture bytes -> crops of Fovea beside the same work done with Pillow, on one core each.

    bench/resize_beside_pillow.py --bench build/bench/bench/resize_bench [PICTURE...]

Processor time, so that waiting for a busy machine counts for neither; the two take turns within every round, and the
best of the rounds counts. Without a picture it draws an 850x600 one with noise at every scale, saved as a JPEG of
quality 85.
"""

import argparse
import io
import json
import math
import pathlib
import random
import subprocess
import tempfile
import time

from PIL import Image, ImageFile

CROP, MARGIN, WINDOW, MAX_TILES = 378, 112, 266, 12


def choose_tiling(height, width):
    """Specification 3.3."""
    h, w = height - MARGIN, width - MARGIN
    if h <= WINDOW or w <= WINDOW:
        return 1, 1
    a, b = math.ceil(h / WINDOW), math.ceil(w / WINDOW)
    if a * b > MAX_TILES:
        r = math.sqrt(MAX_TILES / (a * b))
        return max(1, math.floor(a * r)), max(1, math.floor(b * r))
    p = max(math.floor(math.sqrt(MAX_TILES * h / w)), a)
    q = max(math.floor(math.sqrt(MAX_TILES * w / h)), b)
    if p * q > MAX_TILES:
        if q > p:
            q = MAX_TILES // p
        else:
            p = MAX_TILES // q
    return max(1, p), max(1, q)


def pillow_crops(data):
    """The crops as byte strings: the global one, then the tiles."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    rows, cols = choose_tiling(image.height, image.width)
    crops = [image.resize((CROP, CROP), Image.Resampling.LANCZOS).tobytes()]
    size = (cols * WINDOW + MARGIN, rows * WINDOW + MARGIN)
    resized = image.resize(size, Image.Resampling.LANCZOS)
    for i in range(rows):
        for j in range(cols):
            x, y = j * WINDOW, i * WINDOW
            crops.append(resized.crop((x, y, x + CROP, y + CROP)).tobytes())
    return crops


def draw_picture(path):
    random.seed(1)
    image = Image.new("RGB", (850, 600), (128, 128, 128))
    for octave in range(2, 10):
        size = (max(2, 850 >> (9 - octave)), max(2, 600 >> (9 - octave)))
        noise = Image.frombytes("RGB", size, random.randbytes(3 * size[0] * size[1]))
        noise = noise.resize(image.size, Image.Resampling.BICUBIC)
        image = Image.blend(image, noise, 0.5 / (octave - 1))
    image.save(path, quality=85)


def time_pillow(data):
    best = math.inf
    for _ in range(10):
        begin = time.process_time()
        pillow_crops(data)
        best = min(best, time.process_time() - begin)
    return 1000 * best


def time_fovea(bench, path):
    """{"decode" | "crop" | "bytes_to_crops": milliseconds}"""
    command = [bench, path, "--benchmark_format=json", "--benchmark_min_time=0.2"]
    output = subprocess.run(command, capture_output=True, check=True).stdout
    results = json.loads(output)["benchmarks"]
    return {result["name"].split("/")[0]: result["cpu_time"] for result in results}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", required=True, help="the program resize_bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("pictures", nargs="*")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        pictures = arguments.pictures
        if not pictures:
            pictures = [f"{folder}/850x600.jpg"]
            draw_picture(pictures[0])
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        print(f"{'picture':30} {'decode':>8} {'crop':>8} {'all':>8} {'Pillow':>8} {'ratio':>7}  (ms)")
        for picture in pictures:
            data = pathlib.Path(picture).read_bytes()
            ours, pillow = {}, math.inf
            for _ in range(arguments.rounds):
                pillow = min(pillow, time_pillow(data))
                for name, value in time_fovea(arguments.bench, picture).items():
                    ours[name] = min(ours.get(name, math.inf), value)
            print(
                f"{pathlib.Path(picture).name[-30:]:30} {ours['decode']:8.2f} {ours['crop']:8.2f} "
                f"{ours['bytes_to_crops']:8.2f} {pillow:8.2f} {pillow / ours['bytes_to_crops']:6.1f}x"
            )


if __name__ == "__main__":
    main()
