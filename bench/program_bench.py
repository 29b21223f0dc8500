#!/usr/bin/env python3
"""Times the program itself, from the start of the process: one line for each checkpoint and cache state.

    bench/program_bench.py --fovea build/bench/fovea --picture photo.png NAME=FOLDER ...

"Cold" means that the weights are not in the page cache (the file's pages are given back, nothing else is touched);
"warm" that the run before has just read them. The time to the first token contains everything: start, loading, picture,
vision, prompt.
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


def measure(args, folder):
    """Milliseconds from the process's start to the first token, and the program's own account."""
    command = [args.fovea, "caption", args.picture, "--model", folder, "--dtype", args.dtype, "--temperature", "0",
               "--max-tokens", str(args.max_tokens), "--json"]
    begin = time.monotonic()
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE) as process:
        line = process.stdout.readline()
        answered_ms = 1000 * (time.monotonic() - begin)
    if process.returncode != 0:
        raise SystemExit(f"failed: {' '.join(map(str, command))}")
    usage = json.loads(line)["usage"]
    return answered_ms - (usage["total_ms"] - usage["ttft_ms"]), usage


def row(name, cache, first_token_ms, usage):
    later_tokens = usage["completion_tokens"] - 1
    speed = f"{1000 * later_tokens / usage['decode_ms']:.1f}" if later_tokens > 0 else "-"
    return (f"| {name} | {cache} | {first_token_ms:.0f} | {first_token_ms - usage['ttft_ms']:.0f} "
            f"| {usage['picture_ms']:.1f} | {usage['vision_ms']:.0f} | {usage['prefill_ms']:.0f} | {speed} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fovea", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER")
    args = parser.parse_args()

    print("| model | weights | first token, ms | of it loading, ms | picture, ms | vision, ms | prompt, ms | then tokens/s |")
    print("|---|---|---|---|---|---|---|---|")
    for model in args.models:
        name, _, folder = model.partition("=")
        forget_pages(Path(folder))
        for cache in ("cold", "warm"):
            print(row(name, cache, *measure(args, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
