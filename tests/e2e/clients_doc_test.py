"""The examples of docs/clients.md as they stand there, but for the address and the picture."""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import program
from server_process import PICTURE, Server

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "clients.md"


def examples(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S)


class Examples(unittest.TestCase):
    def run_all(self, language, interpreter):
        outputs = []
        with Server() as server, tempfile.TemporaryDirectory() as folder:
            os.symlink(PICTURE, Path(folder, "photo.jpg"))
            for text in examples(language):
                text = text.replace("http://localhost:2020", server.url)
                done = subprocess.run([*interpreter, text], cwd=folder, capture_output=True, text=True, timeout=300)
                self.assertEqual((done.returncode, done.stderr), (0, ""), text)
                outputs.append(done.stdout)
        return outputs

    def test_python(self):
        moondream, openai = self.run_all("python", [sys.executable, "-c"])
        self.assertIn("two\n", moondream)
        self.assertIn("x_min", moondream)
        self.assertEqual(openai, "two\n")

    def test_shell(self):
        self.assertIn('"caption"', self.run_all("sh", ["sh", "-c"])[0])


if __name__ == "__main__":
    program.main()
