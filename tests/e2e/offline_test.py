"""Only `fovea pull` opens connections: every other command runs where there is no network, and makes no socket for one.
`fovea serve` listens, and opens none of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import program
from program import FAILED, OK

PICTURE = Path(__file__).resolve().parents[2] / "assets" / "harbour.png"

# What a command of the program's own would need: a socket of the internet, or any connection.
NETWORK = re.compile(r"socket\(AF_INET|connect\(|sendto\(.*AF_INET")


# Runs the server that stands in the arguments and asks it, in a network of nothing but loopback, which is down at first.
ASK_ON_LOOPBACK = """
import fcntl, json, signal, socket, struct, subprocess, sys, urllib.request

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    UP, SIOCGIFFLAGS, SIOCSIFFLAGS = 1, 0x8913, 0x8914
    interface = struct.pack("16sH22x", b"lo", 0)
    flags = struct.unpack("16sH22x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, interface))[1]
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | UP))
server = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
try:
    url = server.stdout.readline().split()[-1]
    for stream in (False, True):
        request = json.dumps({"question": "?", "max_tokens": 2, "stream": stream}).encode()
        with urllib.request.urlopen(url + "/v1/query", request) as answer:
            print(json.dumps([answer.status, answer.read().decode()]))
    for path in ("/", "/v1/models", "/metrics"):
        with urllib.request.urlopen(url + path) as answer:
            print(json.dumps([answer.status, answer.read().decode()]))
finally:
    # strace passes the signal on to nobody.
    children = open(f"/proc/{server.pid}/task/{server.pid}/children").read().split()
    subprocess.run(["kill", "-TERM", *children], check=True)
    server.wait()
"""


def empty_network():
    """The command that runs another one without a network; nothing where that is not permitted."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        try:
            if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
                return command
        except FileNotFoundError:
            pass
    return []


class Offline(unittest.TestCase):
    def setUp(self):
        if not shutil.which("strace"):
            self.skipTest("strace is not installed")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        # Leak detection and strace both want to be the debugger.
        self.environment = {**os.environ, "FOVEA_MODELS": str(self.folder / "models"),
                            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}

    def run_watched(self, *args, network=False):
        """Exit code and the calls about networks."""
        trace = self.folder / "trace"
        alone = [] if network else empty_network()
        if not network and not alone:
            self.skipTest("this user may not make a network namespace")
        command = [*alone, "strace", "-f", "--seccomp-bpf", "-e", "trace=%network", "-o", trace, program.executable(),
                   *map(str, args)]
        process = subprocess.run(command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True,
                                 timeout=program.TIMEOUT_S)
        if not trace.exists() or b"ptrace" in process.stderr:
            self.skipTest("this user may not trace processes")
        return process.returncode, [line for line in trace.read_text().splitlines() if NETWORK.search(line)]

    def assert_stays_alone(self, *args, code=OK):
        with self.subTest(args[0]):
            self.assertEqual(self.run_watched(*args), (code, []))

    def test_every_command_but_pull(self):
        few = ("--max-tokens", 2)
        self.assert_stays_alone("caption", PICTURE, *few)
        self.assert_stays_alone("query", PICTURE, "How many clouds are there?", *few)
        self.assert_stays_alone("detect", PICTURE, "cloud", "--max-objects", 1, "--annotate", self.folder / "a.png")
        self.assert_stays_alone("point", PICTURE, "boat", "--max-objects", 1)
        self.assert_stays_alone("batch", PICTURE, "--skill", "caption", "--out", self.folder / "out.jsonl", *few)
        self.assert_stays_alone("info", "--model", "tiny")
        self.assert_stays_alone("models", "--json")
        self.assert_stays_alone("models", "rm", "moondream2", code=FAILED)
        self.assert_stays_alone("bench", "serve", "--requests", 2, "--pictures", 1, "--tokens", 1, "--batch", 1)
        self.assert_stays_alone("--help")

    def test_a_server_listens_and_connects_to_nobody(self):
        alone = empty_network()
        if not alone:
            self.skipTest("this user may not make a network namespace")
        trace = self.folder / "trace"
        process = subprocess.run([*alone, sys.executable, "-c", ASK_ON_LOOPBACK, "strace", "-f", "--seccomp-bpf", "-e",
                                  "trace=%network", "-o", trace, program.executable(), "serve", "--port", "0"],
                                 env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                 timeout=program.TIMEOUT_S)
        if not trace.exists() or "ptrace" in process.stderr:
            self.skipTest("this user may not trace processes")
        self.assertEqual(process.returncode, 0, process.stderr)
        answers = [json.loads(line) for line in process.stdout.splitlines()]
        self.assertEqual([status for status, _ in answers], [200] * 5)
        self.assertIn('"completed":true', answers[1][1])
        calls = trace.read_text().splitlines()
        self.assertTrue([call for call in calls if "listen(" in call], "the test would see what the server does")
        self.assertEqual([call for call in calls if re.search(r"connect\(|sendto\(.*AF_INET", call)], [])

    def test_a_model_that_is_not_there_is_not_fetched_unasked(self):
        self.assert_stays_alone("caption", PICTURE, "--model", "moondream2", code=FAILED)

    def test_what_is_watched_for_shows_in_a_pull(self):
        code, calls = self.run_watched("pull", "moondream2", "--endpoint", "http://127.0.0.1:9", "--retries", 0,
                                       network=True)

        self.assertEqual(code, FAILED)
        self.assertTrue(calls, "the test would see a connection")


if __name__ == "__main__":
    program.main()
