#!/usr/bin/env python3
"""Runs tokenizer_bench and the PyPI package `tokenizers` on the same text, turn by turn, and prints the ratio.

usage: tokenizer_beside_reference.py TOKENIZER_BENCH TOKENIZER.json [TEXT]

Without TEXT an English-like one of 4 MB is made: words of /usr/share/dict/words (Debian package wamerican) drawn by
Zipf's law, with punctuation, capitals, numbers and lines. Both run on one
thread and are timed by its processor time, so that other work on the machine does not count.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Tokenizer  # noqa: E402  (reads the variables above)

COMMON = ("the of and to in a is that for it as was with be by on not he his but at are this have from or had an they "
          "which one you were all her she there would their we him been has when who will no more if out so up said").split()


def english_like(size):
    r = random.Random(11)
    path = pathlib.Path("/usr/share/dict/words")
    words = path.read_text().split() if path.exists() else COMMON
    r.shuffle(words)
    words = COMMON + [w for w in words if len(w) < 13][:20_000]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    drawn = iter(r.choices(words, weights, k=size // 4))
    out, length = [], 0
    while length < size:
        sentence = [next(drawn) for _ in range(r.randint(4, 22))]
        if r.random() < 0.15:
            sentence.insert(2, str(r.randrange(10_000)))
        if r.random() < 0.3:
            sentence[len(sentence) // 2] += ","
        text = " ".join(sentence)
        text = text[0].upper() + text[1:] + r.choices((".", "?", "!", ".\n"), (8, 1, 1, 3))[0] + " "
        out.append(text)
        length += len(text)
    return "".join(out)


def main():
    bench, tokenizer_path = sys.argv[1:3]
    text = pathlib.Path(sys.argv[3]).read_text() if len(sys.argv) > 3 else english_like(4_000_000)
    reference = Tokenizer.from_file(tokenizer_path)
    lines = text.split("\n")
    size = len(text.encode())
    best = {"ours": 0.0, "reference": 0.0}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(text)
        file.flush()
        for _ in range(3):
            command = [bench, tokenizer_path, file.name, "--benchmark_filter=encode_lines", "--benchmark_format=json"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rate = json.loads(done.stdout)["benchmarks"][0]["bytes_per_second"]
            best["ours"] = max(best["ours"], rate)
            start = time.process_time()
            for line in lines:
                reference.encode(line)
            best["reference"] = max(best["reference"], size / (time.process_time() - start))
    print(f"text: {size / 1e6:.1f} MB in {len(lines)} lines")
    print(f"fovea      {best['ours'] / 1e6:8.1f} MB/s")
    print(f"tokenizers {best['reference'] / 1e6:8.1f} MB/s")
    print(f"ratio      {best['ours'] / best['reference']:8.1f}")


main()
