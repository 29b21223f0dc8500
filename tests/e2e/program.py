"""Runs the fovea program for the tests in this folder, which are started as

    python3 FILE --fovea PROGRAM --data FOLDER [unittest's own arguments]

with the folder of golden checkpoints and pictures.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

OK, FAILED, USAGE = 0, 1, 2

# Sanitized builds on a busy machine are slow; a program that hangs must still fail the test.
TIMEOUT_S = 300

_options = argparse.Namespace()


def main():
    """Starts the tests of the calling file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fovea", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.parse_known_args(namespace=_options)
    _, rest = parser.parse_known_args()
    unittest.main(argv=sys.argv[:1] + rest)


def data():
    return _options.data


def executable():
    return str(_options.fovea)


@contextlib.contextmanager
def temporary_file(text):
    """The path of a file that holds the text."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        yield file.name


class Finished:
    """What a run left: exit code, and both outputs as text."""

    def __init__(self, process):
        self.code = process.returncode
        self.out = process.stdout.decode("utf-8")
        self.err = process.stderr.decode("utf-8")

    def json(self):
        """The only line of the output, as JSON."""
        lines = self.out.splitlines()
        assert len(lines) == 1, f"one line of JSON wanted: {self.out!r} {self.err!r}"
        return json.loads(lines[0])


def run(*args, **popen):
    """Runs the program to its end; what it printed is captured unless `popen` says otherwise."""
    popen = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen}
    if "input" in popen:
        popen.pop("stdin")
    process = subprocess.run([executable(), *map(str, args)], timeout=TIMEOUT_S, **popen)
    process.stdout = process.stdout or b""
    return Finished(process)
