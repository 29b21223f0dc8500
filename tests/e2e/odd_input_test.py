"""The program with wrong, odd and hostile input: a clear message, the right exit code, nothing left behind."""

import os
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import unittest
import zlib
from pathlib import Path

import program
from program import FAILED, OK, USAGE, run

MODEL = "md3-reason"  # the smallest one


def png_header(width, height):
    """A PNG file that claims a size and has no pixels."""
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_header(width, height):
    """A JPEG file that claims a size and has no pixels."""
    def segment(marker, body):
        return b"\xff" + marker + struct.pack(">H", len(body) + 2) + body

    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    scan = b"\x01\x01\x00\x00\x3f\x00"
    return b"\xff\xd8" + segment(b"\xc0", frame) + segment(b"\xda", scan) + b"\xff\xd9"


class OddInput(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.model = program.data() / MODEL
        self.picture = self.model / "image_378x378.png"

    def write(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        return path

    def caption(self, picture, *args, **popen):
        return run("caption", picture, "--model", self.model, "--max-tokens", 2, *args, **popen)

    def assert_fails(self, finished, *parts, code=FAILED):
        """The run failed with `code` and one message that has all of `parts`."""
        self.assertEqual(finished.code, code, finished.err)
        self.assertTrue(finished.err.startswith("fovea: "), finished.err)
        for part in parts:
            self.assertIn(part, finished.err)

    # ---- pictures

    def test_missing_picture(self):
        self.assert_fails(self.caption(self.folder / "none.jpg"), "none.jpg", "No such file")

    def test_folder_as_picture(self):
        self.assert_fails(self.caption(self.folder), "directory")

    def test_text_file_as_picture(self):
        finished = self.caption(self.write("letter.jpg", b"Dear Sir or Madam,\n"))
        self.assert_fails(finished, "JPEG", "PNG")

    def test_empty_picture(self):
        self.assert_fails(self.caption(self.write("empty.png", b"")))

    def test_empty_standard_input(self):
        self.assert_fails(self.caption("-", input=b""))

    def test_pictures_that_claim_to_be_huge(self):
        for name, content in [("png", png_header(64250, 64250)), ("jpg", jpeg_header(64250, 64250))]:
            with self.subTest(name):
                finished = self.caption(self.write(f"huge.{name}", content), "--json")
                self.assert_fails(finished, "64250")
                self.assertEqual(finished.json()["error"]["type"], "resource_exhausted")

    def test_truncated_picture(self):
        content = self.picture.read_bytes()
        for length in (8, 40, len(content) // 2):
            with self.subTest(length=length):
                self.assert_fails(self.caption(self.write("half.png", content[:length])))

    def test_picture_file_beyond_the_limit_is_not_read(self):
        path = self.folder / "sparse.jpg"
        with open(path, "wb") as file:
            file.truncate(1 << 40)  # a hole: takes no room, could never be read
        self.assert_fails(self.caption(path), "limit")

    def test_endless_picture_stops_at_the_limit(self):
        self.assert_fails(self.caption("/dev/zero"), "limit")

    # ---- models

    def test_missing_model(self):
        finished = run("caption", self.picture, "--model", self.folder / "none")
        self.assert_fails(finished, "none")

    def test_folder_without_a_model(self):
        self.assert_fails(run("caption", self.picture, "--model", self.folder), str(self.folder))

    def broken_model(self, name, change):
        """A copy of the model whose file `name` went through `change`."""
        model = self.folder / "model"
        shutil.copytree(self.model, model, ignore=shutil.ignore_patterns("activations*", "image*"))
        path = model / name
        path.write_bytes(change(path.read_bytes()))
        return run("caption", self.picture, "--model", model)

    def test_truncated_weights(self):
        self.assert_fails(self.broken_model("model.safetensors", lambda b: b[:len(b) // 2]), "model.safetensors")

    def test_weights_cut_inside_the_header(self):
        self.assert_fails(self.broken_model("model.safetensors", lambda b: b[:20]), "model.safetensors")

    def test_empty_weights(self):
        self.assert_fails(self.broken_model("model.safetensors", lambda b: b""), "model.safetensors")

    def test_missing_tensor_is_named(self):
        finished = self.broken_model("model.safetensors", lambda b: b.replace(b"text.post_ln.bias", b"text.post_ln.bile"))
        self.assert_fails(finished, "text.post_ln.bias")

    def test_broken_tokenizer(self):
        self.assert_fails(self.broken_model("tokenizer.json", lambda b: b[:100]), "tokenizer.json")

    def test_broken_config(self):
        self.assert_fails(self.broken_model("config.json", lambda b: b"[1, 2"), "config.json")

    # ---- the command line, where unit tests cannot see the exit code of the process

    def test_wrong_usage(self):
        for args in [[], ["paint", "p.jpg"], ["caption"], ["query", "p.jpg"], ["detect", "p.jpg"],
                     ["caption", "p.jpg", "--frobnicate"], ["caption", "p.jpg", "--temperature", "nan"],
                     ["caption", "p.jpg", "--max-tokens", "-1"], ["caption", "p.jpg", "--threads", "many"],
                     ["query", "p.jpg", "x", "--spatial-ref", "0.5,2"],
                     ["detect", "p.jpg", "x", "--annotate", "out.gif"]]:
            with self.subTest(args=args):
                finished = run(*args)
                self.assertEqual(finished.code, USAGE, finished.err)
                self.assertEqual(finished.out, "")
                self.assertNotEqual(finished.err, "")

    def test_help_and_version(self):
        for args in [["--help"], ["caption", "--help"], ["query", "--help"], ["detect", "--help"],
                     ["point", "--help"], ["info", "--help"]]:
            with self.subTest(args=args):
                finished = run(*args)
                self.assertEqual((finished.code, finished.err), (OK, ""))
                self.assertIn("Examples:", finished.out)
        self.assertRegex(run("--version").out, r"^fovea \d+\.\d+\.\d+\n$")

    def test_unknown_device(self):
        self.assert_fails(self.caption(self.picture, "--device", "abacus"), "abacus")

    def test_prompt_longer_than_the_context(self):
        finished = run("query", self.picture, "why " * 5000, "--model", self.model)
        self.assert_fails(finished)

    # ---- what is left behind

    def assert_nothing_written(self):
        self.assertEqual(list(self.folder.iterdir()), [])

    def detect_into(self, out, **popen):
        return run("detect", self.picture, "red circle", "--model", self.model, "--max-objects", 2,
                   "--annotate", out, **popen)

    def test_annotate_into_a_missing_folder(self):
        self.assert_fails(self.detect_into(self.folder / "none" / "out.png"), "out.png")
        self.assert_nothing_written()

    def test_annotate_leaves_a_write_protected_file(self):
        out = self.write("out.png", b"older")
        out.chmod(0o444)
        popen = {}
        if os.geteuid() == 0:  # whom no mode stops
            self.folder.chmod(0o777)
            popen["user"] = 65534
        finished = self.detect_into(out, **popen)
        self.assert_fails(finished, "out.png", "Permission denied")
        self.assertEqual(finished.out, "")
        self.assertEqual(out.read_bytes(), b"older")

    def test_annotate_when_the_file_may_not_grow(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

        finished = self.detect_into(self.folder / "out.png", preexec_fn=limit)
        self.assert_fails(finished, "out.png", "too large")
        self.assertIn("red circle", finished.out)  # the answer is not lost
        self.assert_nothing_written()

    def test_annotate_on_a_full_disk(self):
        # A tiny file system of our own, seen by nobody else.
        command = ["unshare", "-rm", "sh", "-c",
                   'mount -t tmpfs -o size=16k none "$0" && "$@"; code=$?; ls -A "$0" >&2; exit $code',
                   self.folder, program.executable(), "detect", self.picture, "red circle", "--model", self.model,
                   "--max-objects", "2", "--annotate", self.folder / "out.png"]
        if shutil.which("unshare") is None:
            self.skipTest("no unshare here")
        finished = subprocess.run(command, capture_output=True, timeout=program.TIMEOUT_S)
        message = finished.stderr.decode()
        if "unshare:" in message or "mount:" in message:
            self.skipTest(f"no private file system here: {message}")
        self.assertEqual(finished.returncode, FAILED, message)
        self.assertRegex(message, r"^fovea: .*out\.png: No space left on device\n$")

    def test_full_standard_output(self):
        with open("/dev/full", "wb") as full:
            self.assert_fails(self.caption(self.picture, stdout=full), "standard output")

    def test_interrupt_leaves_no_half_picture(self):
        out = self.folder / "out.png"
        command = [program.executable(), "query", self.picture, "what is it", "--model", self.model,
                   "--stream", "--json", "--annotate", out]
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            process.stdout.readline()  # it has begun to answer
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=program.TIMEOUT_S)
        left = list(self.folder.iterdir())
        if left:  # it was faster than the signal
            self.assertEqual(left, [out])
            self.assertTrue(out.read_bytes().endswith(b"IEND\xaeB`\x82"))
        else:
            self.assertEqual(process.returncode, -signal.SIGINT)


if __name__ == "__main__":
    program.main()
