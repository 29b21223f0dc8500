#!/usr/bin/env python3
"""bench/serve_load.py FOVEA [--clients 1,64,1000] [--requests 2000] [-- MORE OPTIONS OF fovea serve]

Starts `fovea serve` on loopback and asks it from so many connections at once, each kept open, until the requests are
answered: streamed questions about one picture, which is encoded once. Prints a table: requests a second, percentiles of
the time to the first event and to the last, and the server's resident memory at its height."""

import argparse
import asyncio
import base64
import json
import re
import resource
import subprocess
import time
from pathlib import Path

PICTURE = Path(__file__).resolve().parents[1] / "assets" / "harbour.png"


def make_request(num_tokens):
    body = json.dumps({"image_url": "data:image/png;base64," + base64.b64encode(PICTURE.read_bytes()).decode(),
                       "question": "How many clouds are there?", "stream": True,
                       "settings": {"temperature": 0, "max_tokens": num_tokens}}).encode()
    return b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body


async def client(port, request, todo, times):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while todo and todo.pop():
        begin = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        first = None
        while (size := int(await reader.readline(), 16)) > 0:
            first = first or time.perf_counter() - begin
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
        times.append((first, time.perf_counter() - begin))
    writer.close()


def resident_peak_mib(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


async def measure(port, num_clients, num_requests, request):
    todo, times = [True] * num_requests, []
    begin = time.perf_counter()
    await asyncio.gather(*[client(port, request, todo, times) for _ in range(num_clients)])
    return time.perf_counter() - begin, times


def percentiles(values):
    values = sorted(values)
    return " / ".join(f"{values[int(len(values) * p)] * 1000:.1f}" for p in (0.5, 0.9, 0.99))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fovea")
    parser.add_argument("--clients", default="1,64,1000")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=4)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    print("| clients | requests | requests/s | first event, ms: p50 / p90 / p99 | last event, ms: p50 / p90 / p99 "
          "| resident peak, MiB |\n|---|---|---|---|---|---|")
    for num_clients in map(int, args.clients.split(",")):
        process = subprocess.Popen([args.fovea, "serve", "--port", "0", "--max-queue", "4096", *args.options],
                                   stdout=subprocess.PIPE)
        try:
            port = int(process.stdout.readline().decode().rsplit(":", 1)[1])
            request = make_request(args.tokens)
            asyncio.run(measure(port, 1, 1, request))  # the picture
            seconds, times = asyncio.run(measure(port, num_clients, max(args.requests, num_clients), request))
            print(f"| {num_clients} | {len(times)} | {len(times) / seconds:.1f} | {percentiles(t[0] for t in times)} "
                  f"| {percentiles(t[1] for t in times)} | {resident_peak_mib(process.pid):.0f} |", flush=True)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
