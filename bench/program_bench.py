#!/usr/bin/env python3
"""Times the program itself, from the start of the process: one line for each checkpoint and state of the page cache.

    bench/program_bench.py --fovea build/bench/fovea --picture photo.png NAME=FOLDER ...

What is in the page cache: "weights not" when the file's pages have been given back and nothing else was touched; "all"
when the run before has just read them; "nothing" (with --drop-caches, as root) when the program and its libraries are
not there either. Times are from the start of the process, so that the first token's contains everything:
start, loading, picture, vision, prompt.
"""

import argparse
import json
import os
import subprocess
import time
from pathlib import Path


def forget_pages(folder):
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def forget_everything():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")


def measure(args, folder):
    """Milliseconds from the process's start to the first token and to the answer, and the program's own account."""
    command = [args.fovea, "query", args.picture, args.question, "--model", folder, "--device", args.device,
               "--dtype", args.dtype, "--temperature", "0", "--max-tokens", str(args.max_tokens), "--json"]
    begin = time.monotonic()
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE) as process:
        line = process.stdout.readline()
        answered_ms = 1000 * (time.monotonic() - begin)
    if process.returncode != 0:
        raise SystemExit(f"failed: {' '.join(map(str, command))}")
    usage = json.loads(line)["usage"]
    return answered_ms - (usage["total_ms"] - usage["ttft_ms"]), answered_ms, usage


def row(name, cache, first_token_ms, answered_ms, usage):
    later_tokens = usage["completion_tokens"] - 1
    speed = f"{1000 * later_tokens / usage['decode_ms']:.1f}" if later_tokens > 0 else "-"
    return (f"| {name} | {cache} | {answered_ms:.0f} | {first_token_ms:.0f} | {first_token_ms - usage['ttft_ms']:.0f} "
            f"| {usage['picture_ms']:.1f} | {usage['vision_ms']:.0f} | {usage['prefill_ms']:.0f} | {speed} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fovea", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--question", default="What is in this picture?")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--drop-caches", action="store_true", help="also begin with an empty page cache (root)")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER")
    args = parser.parse_args()

    print("| model | in the page cache | answer, ms | first token, ms | of it loading, ms | picture, ms | vision, ms | prompt, ms | then tokens/s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for model in args.models:
        name, _, folder = model.partition("=")
        states = [("weights not", lambda path=Path(folder): forget_pages(path)), ("all", lambda: None)]
        if args.drop_caches:
            states.insert(0, ("nothing", forget_everything))
        for state, prepare in states:
            prepare()
            print(row(name, state, *measure(args, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
