"""Measure how well a model sees: ask `fovea` about pictures whose truth is known and print tables.

    python evaluate.py --scenes FOLDER --fovea build/release/fovea --model models/tiny
    python evaluate.py --scenes FOLDER --url http://localhost:2020

The first form starts `fovea serve` and ends it; the second asks a server that runs already, of whatever model.

FOLDER holds truth.jsonl and the pictures it names.  A line of truth.jsonl is

    {"picture": "a.png", "set": "known", "things": [{"noun", "plural", "color" or null, "box": [x0, y0, x1, y1]}],
     "text": null or {"string", "box"}, "absent": a noun that is not in the picture}

with boxes in parts of the picture, so pictures of one's own can be evaluated too.  Every picture is asked for one thing
that is there (detect, point, count), one that is not (detect), presence of either, a caption, and its text if any.
"""

import argparse
import base64
import contextlib
import json
import random
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NUMBERS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@contextlib.contextmanager
def server(options):
    """The address of a server: the one named, or one that is started here and ended again."""
    if options.url:
        yield options.url
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [options.fovea, "serve", "--port", str(port), "--model", options.model]
    line += ["--adapter", options.adapter] if options.adapter else []
    line += ["--threads", str(options.threads)] if options.threads else []
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit(f"{options.fovea} serve ended with {process.returncode}")
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(url + "/health", timeout=5).status == 200:
                    break
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def ask(options, skill, picture, **fields):
    """The server's answer to one question about a picture, which is a data URI."""
    body = {"image_url": picture, "stream": False, "settings": {"temperature": 0}, **fields}
    if options.adapter:
        body["model"] = options.adapter.split("=")[0]
    request = urllib.request.Request(f"{options.url}/v1/{skill}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    try:
        return json.load(urllib.request.urlopen(request))
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{skill}: {error.code} {error.read().decode()}") from error


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = lambda r: (r[2] - r[0]) * (r[3] - r[1])
    return width * height / (area(a) + area(b) - width * height)


def matched(truth, found, fits):
    """Truth indices that get an answer of their own, best pairs first."""
    pairs = sorted(((fits(t, f), i, j) for i, t in enumerate(truth) for j, f in enumerate(found)), reverse=True)
    used, hits = set(), set()
    for score, i, j in pairs:
        if score > 0 and i not in hits and j not in used:
            hits.add(i)
            used.add(j)
    return hits


def named_nouns(caption, nouns):
    """How often a caption speaks of every noun: {noun: number}; nouns maps singular and plural to the noun."""
    text = re.sub(r'"[^"]*"', '"', caption.lower())
    found = defaultdict(int)
    words = sorted(nouns, key=len, reverse=True)
    pattern = r"\b(?:(one|two|three|four|five|six|seven|eight|nine) )?((?:\w+ )?)(" + "|".join(map(re.escape, words)) + r")\b"
    for amount, _, word in re.findall(pattern, text):
        found[nouns[word]] += NUMBERS.index(amount) if amount else 1
    return found


def judge_caption(caption, things, nouns, add):
    said = named_nouns(caption, nouns)
    true = defaultdict(int)
    for thing in things:
        true[thing["noun"]] += 1
    common = sum(min(said[n], true[n]) for n in set(said) | set(true))
    add("caption names", common, sum(true.values()))
    add("caption invents", sum(said.values()) - common, sum(said.values()))
    add("caption words", len(caption.split()), 1)


def judge(options, scene, nouns):
    """Ask everything about one scene; returns (table row name, group, right, total) records."""
    rng = random.Random(scene["picture"])
    data = (Path(options.scenes) / scene["picture"]).read_bytes()
    picture = "data:image/png;base64," + base64.b64encode(data).decode()
    records = []

    def add(name, right, total, **extra):
        records.append((name, scene, right, total, extra))

    things = scene["things"]
    if options.captions:
        judge_caption(ask(options, "caption", picture, length="normal")["caption"], things, nouns, add)
        return records
    if things:
        noun = rng.choice(things)["noun"]
        mine = [t for t in things if t["noun"] == noun]
        answer = ask(options, "detect", picture, object=noun)["objects"]
        found = [[o["x_min"], o["y_min"], o["x_max"], o["y_max"]] for o in answer]
        hits = matched([t["box"] for t in mine], found, lambda t, f: overlap(t, f) if overlap(t, f) >= 0.5 else 0)
        for i, thing in enumerate(mine):
            add("detect recall", i in hits, 1, size=max(thing["box"][2] - thing["box"][0], thing["box"][3] - thing["box"][1]))
        add("detect precision", len(hits), len(found))
        answer = ask(options, "point", picture, object=noun)["points"]
        inside = lambda b, p: 1 if b[0] <= p["x"] <= b[2] and b[1] <= p["y"] <= b[3] else 0
        hits = matched([t["box"] for t in mine], answer, inside)
        for i, thing in enumerate(mine):
            add("point recall", i in hits, 1, size=max(thing["box"][2] - thing["box"][0], thing["box"][3] - thing["box"][1]))
        add("point precision", len(hits), len(answer))
        reply = ask(options, "query", picture, question=f"How many {mine[0]['plural']} are there?")["answer"]
        add("count exact", reply.strip().lower() in (NUMBERS[len(mine)], str(len(mine))), 1)
    found = ask(options, "detect", picture, object=scene["absent"])["objects"]
    add("detect precision", 0, len(found))
    add("absent: no box", not found, 1)
    there = bool(things) and rng.random() < 0.5
    noun = rng.choice(things)["noun"] if there else scene["absent"]
    article = "an" if noun[0] in "aeiou" else "a"
    reply = ask(options, "query", picture, question=f"Is there {article} {noun}?")["answer"]
    add("presence", reply.strip().lower().startswith("yes" if there else "no"), 1)
    judge_caption(ask(options, "caption", picture, length="normal")["caption"], things, nouns, add)
    if scene["text"]:
        reply = ask(options, "query", picture, question="What does the text say?")["answer"]
        add("word exact", reply.strip() == scene["text"]["string"], 1)
    return records


def table(title, columns, records):
    cells = []
    for _, keep in columns:
        right, total = defaultdict(float), defaultdict(float)
        for record in records:
            if keep(record):
                right[record[0]] += record[2]
                total[record[0]] += record[3]
        value = {name: right[name] / total[name] for name in total if total[name]}
        for kind in ("detect", "point"):
            r, p = value.get(f"{kind} recall"), value.get(f"{kind} precision")
            if r and p:
                value[f"{kind} F1"] = 2 * r * p / (r + p)
        cells.append(value)
    if not any(cells):
        return
    print(f"\n| {title} | " + " | ".join(name for name, _ in columns) + " |")
    print("|---|" + "---|" * len(columns))
    names = ["detect F1", "detect recall", "detect precision", "absent: no box", "point recall", "point precision", "point F1",
             "count exact", "presence", "caption names", "caption invents", "caption words", "word exact"]
    for name in names:
        if any(name in value for value in cells):
            print(f"| {name} | " + " | ".join(f"{value[name]:.3f}" if name in value else "" for value in cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", required=True)
    parser.add_argument("--fovea", default="build/release/fovea")
    parser.add_argument("--model", default="models/tiny")
    parser.add_argument("--limit", type=int, default=0, help="evaluate only the first so many scenes")
    parser.add_argument("--url", help="a server of Moondream's protocol that runs already")
    parser.add_argument("--adapter", metavar="NAME=PATH", help="a LoRA adapter to answer with")
    parser.add_argument("--captions", action="store_true", help="ask for captions only")
    parser.add_argument("--jobs", type=int, default=16, help="questions under way at a time")
    parser.add_argument("--threads", type=int, default=0, help="threads of the program; every processor when not given")
    options = parser.parse_args()
    scenes = []
    for line in (Path(options.scenes) / "truth.jsonl").read_text().splitlines():
        try:
            scenes.append(json.loads(line))
        except ValueError:
            break  # a file that is still being written
    scenes = scenes[:options.limit or None]
    nouns = {}
    names = Path(options.scenes) / "nouns.json"  # {singular: plural} of everything that a caption may name
    for noun, plural in (json.loads(names.read_text()) if names.exists() else {}).items():
        nouns[noun] = nouns[plural] = noun
    for scene in scenes:
        nouns[scene["absent"]] = scene["absent"]
        for thing in scene["things"]:
            nouns[thing["noun"]] = nouns[thing["plural"]] = thing["noun"]
    with server(options) as options.url, ThreadPoolExecutor(options.jobs) as pool:
        records = [r for rows in pool.map(lambda s: judge(options, s, nouns), scenes) for r in rows]
    sets = list(dict.fromkeys(scene["set"] for scene in scenes))
    print(f"{len(scenes)} scenes: " + ", ".join(f"{sum(s['set'] == name for s in scenes)} {name}" for name in sets))
    of = lambda name: (lambda r: r[1]["set"] == name)
    table("all", [(name, of(name)) for name in sets], records)
    for name in sets:
        mine = [r for r in records if r[1]["set"] == name]
        count = lambda low, high: (lambda r: low <= len(r[1]["things"]) <= high)
        table(f"{name}, by number of things", [("1-2", count(1, 2)), ("3-5", count(3, 5)), ("6-8", count(6, 8))], mine)
        size = lambda low, high: (lambda r: low <= r[4].get("size", -1) < high)
        table(f"{name}, by size", [("under 10 %", size(0, 0.1)), ("10-20 %", size(0.1, 0.2)), ("20-35 %", size(0.2, 0.35)),
                                   ("over 35 %", size(0.35, 2))], mine)


if __name__ == "__main__":
    main()
