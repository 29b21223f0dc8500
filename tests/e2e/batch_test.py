"""Folders of pictures with the model in the box: every output read by an independent reader, and runs that are cut short."""

import csv
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
import unittest
import zlib
from pathlib import Path

import program
from program import FAILED, OK, USAGE, executable, run

PICTURE = Path(__file__).resolve().parents[2] / "assets" / "harbour.png"
WIDTH, HEIGHT = 960, 640


def png(width, height, seed):
    """A small picture of its own colour."""
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    colour = bytes(random.Random(seed).randrange(256) for _ in range(3))
    rows = (b"\0" + colour * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Batch(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.out = self.folder / "r.jsonl"
        (self.folder / "in").mkdir()

    def fill(self, count, start=0):
        for i in range(start, start + count):
            (self.folder / "in" / f"{i:04}.png").write_bytes(png(40, 30, i))

    def batch(self, *args, **popen):
        return run("batch", *args, "--out", self.out, cwd=self.folder, **popen)

    def detect(self, *args, **popen):
        return self.batch("in", "--skill", "detect", "--text", "cloud", *args, **popen)

    def answers(self, path=None):
        """The answers without what differs from run to run, by path and text; each once."""
        answers = {}
        for line in read_lines(path or self.out):
            line.pop("usage", None)
            key = (line["path"], line["text"])
            self.assertNotIn(key, answers)
            answers[key] = line
        return answers

    # ---- what it writes

    def test_answers_are_those_of_the_single_commands(self):
        shutil.copy(PICTURE, self.folder / "in" / "harbour.png")
        self.assertEqual(self.detect("--text", "boat").code, OK)
        for line in read_lines(self.out):
            alone = run("detect", PICTURE, line["text"], "--json").json()
            self.assertEqual(line["objects"], alone["objects"])
            self.assertGreater(len(line["objects"]), 0)

    def test_several_hundred_pictures_bad_ones_among_them(self):
        self.fill(400)
        for i in (0, 17, 399):
            (self.folder / "in" / f"{i:04}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
        os.chmod(self.folder / "in" / "0020.png", 0)
        readable = os.access(self.folder / "in" / "0020.png", os.R_OK)  # root reads everything

        finished = self.detect("--max-objects", 1)

        self.assertEqual(finished.code, FAILED)
        lines = read_lines(self.out)
        self.assertEqual(len(lines), 400)
        bad = {line["path"]: line["error"] for line in lines if "error" in line}
        self.assertEqual(len(bad), 3 if readable else 4)
        for i in (0, 17, 399):
            self.assertEqual(bad[f"in/{i:04}.png"]["type"], "invalid_argument")
            self.assertIn(f"fovea: in/{i:04}.png: ", finished.err)
        self.assertNotIn("\r", finished.err, "no bar in a pipe")
        self.assertTrue(all("objects" in line for line in lines if "error" not in line))

    def data_sets(self):
        (self.folder / "in" / "sub").mkdir()
        shutil.copy(PICTURE, self.folder / "in" / "harbour.png")
        shutil.copy(PICTURE, self.folder / "in" / "sub" / "again.png")
        self.fill(1)
        (self.folder / "in" / "bad.jpg").write_bytes(b"no picture")
        finished = self.detect("--text", "red \"car\"", "--text", "boat", "-r", "--coco", "coco.json", "--yolo", "set",
                               "--csv", "r.csv", "--annotate", "drawn")
        self.assertEqual(finished.code, FAILED, finished.err)  # bad.jpg
        return {key: line for key, line in self.answers().items() if "error" not in line}

    def test_coco_is_what_readers_of_coco_expect(self):
        answers = self.data_sets()
        with open(self.folder / "coco.json", encoding="utf-8") as file:
            coco = json.load(file)
        images = {image["id"]: image for image in coco["images"]}
        names = {category["id"]: category["name"] for category in coco["categories"]}
        self.assertEqual(sorted(image["file_name"] for image in coco["images"]),
                         ["0000.png", "harbour.png", "sub/again.png"])
        self.assertEqual(list(names.values()), ["cloud", "red \"car\"", "boat"])
        self.assertEqual(len({annotation["id"] for annotation in coco["annotations"]}), len(coco["annotations"]))
        found = {}
        for annotation in coco["annotations"]:
            image = images[annotation["image_id"]]
            left, top, width, height = annotation["bbox"]
            self.assertTrue(0 <= left and 0 <= top and 0 < width and 0 < height)
            self.assertTrue(left + width <= image["width"] + 1e-3 and top + height <= image["height"] + 1e-3)
            self.assertAlmostEqual(annotation["area"], width * height, delta=1)
            self.assertEqual((annotation["iscrowd"], annotation["segmentation"]), (0, []))
            self.assertTrue(0 <= annotation["score"] <= 1)
            key = ("in/" + image["file_name"], names[annotation["category_id"]])
            found.setdefault(key, []).append([left, top, left + width, top + height])
        for key, line in answers.items():
            size = (WIDTH, HEIGHT) if "0000" not in key[0] else (40, 30)
            wanted = [[box["x_min"] * size[0], box["y_min"] * size[1], box["x_max"] * size[0], box["y_max"] * size[1]]
                      for box in line["objects"]]
            self.assertEqual(len(found.get(key, [])), len(wanted), key)
            for box, other in zip(found.get(key, []), wanted):
                for a, b in zip(box, other):
                    self.assertAlmostEqual(a, b, delta=0.01)
        self.assertGreater(len(coco["annotations"]), 0)

    def test_yolo_is_what_trainers_read(self):
        answers = self.data_sets()
        folder = self.folder / "set"
        classes = (folder / "classes.txt").read_text().splitlines()
        self.assertEqual(classes, ["cloud", "red \"car\"", "boat"])
        self.assertEqual((folder / "data.yaml").read_text(), "train: images\nval: images\nnames:\n"
                         '  0: "cloud"\n  1: "red \\"car\\""\n  2: "boat"\n')
        pictures = sorted(path.relative_to(folder / "images") for path in (folder / "images").rglob("*.*"))
        self.assertEqual([str(path) for path in pictures], ["0000.png", "harbour.png", "sub/again.png"])
        for picture in pictures:
            self.assertEqual((folder / "images" / picture).read_bytes(), (self.folder / "in" / picture).read_bytes())
            # Trainers find the labels by exchanging the folder's name and the ending.
            labels = (folder / "labels" / picture).with_suffix(".txt").read_text().splitlines()
            wanted = [(i, box) for i, name in enumerate(classes) for box in answers["in/" + str(picture), name]["objects"]]
            self.assertEqual(len(labels), len(wanted))
            for label, (category, box) in zip(labels, wanted):
                fields = label.split()
                self.assertEqual(int(fields[0]), category)
                x, y, width, height = map(float, fields[1:])
                self.assertAlmostEqual(x - width / 2, box["x_min"], delta=1e-5)
                self.assertAlmostEqual(x + width / 2, box["x_max"], delta=1e-5)
                self.assertAlmostEqual(y - height / 2, box["y_min"], delta=1e-5)
                self.assertAlmostEqual(y + height / 2, box["y_max"], delta=1e-5)

    def test_csv_has_a_row_for_each_box(self):
        answers = self.data_sets()
        with open(self.folder / "r.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        boxes = [row for row in rows if row["x_min"]]
        self.assertEqual(len(boxes), sum(len(line["objects"]) for line in answers.values()))
        for row in boxes:
            values = {name: float(row[name]) for name in ("x_min", "y_min", "x_max", "y_max", "confidence")}
            rounded = [{name: round(value, 6) for name, value in box.items()}
                       for box in answers[row["path"], row["object"]]["objects"]]
            self.assertIn(values, rounded)
        self.assertEqual({row["path"] for row in rows if row["missing"]}, {"in/bad.jpg"})

    def test_annotated_copies_are_pictures_of_the_same_size(self):
        self.data_sets()
        copies = sorted(path.relative_to(self.folder / "drawn") for path in (self.folder / "drawn").rglob("*.png"))
        self.assertEqual([str(path) for path in copies], ["0000.png", "harbour.png", "sub/again.png"])
        content = (self.folder / "drawn" / "harbour.png").read_bytes()
        self.assertEqual(struct.unpack(">II", content[16:24]), (WIDTH, HEIGHT))
        self.assertNotEqual(content, PICTURE.read_bytes())

    def test_captions_lie_beside_their_pictures(self):
        shutil.copy(PICTURE, self.folder / "in" / "harbour.png")
        finished = self.batch("in/*.png", "--skill", "caption", "--length", "short", "--sidecar")
        self.assertEqual(finished.code, OK, finished.err)
        self.assertEqual((self.folder / "in" / "harbour.txt").read_text(), read_lines(self.out)[0]["caption"].strip() + "\n")

    # ---- runs that are cut short

    def test_killed_runs_go_on_and_end_with_the_same_answers(self):
        self.fill(60)
        whole = self.folder / "whole.jsonl"
        self.assertEqual(run("batch", "in", "--skill", "detect", "--text", "cloud", "--out", whole, cwd=self.folder).code, OK)
        wanted = self.answers(whole)
        kills = 0
        for wait_for in (1, 20, 40):
            process = subprocess.Popen([executable(), "batch", "in", "--skill", "detect", "--text", "cloud", "--out",
                                        str(self.out)], cwd=self.folder, stderr=subprocess.DEVNULL)
            while process.poll() is None and self.num_lines() < wait_for:
                time.sleep(0.001)  # until the file says so
            process.kill()
            kills += process.wait() == -signal.SIGKILL
            done = self.answers_of_whole_lines()
            self.assertEqual({key: wanted[key] for key in done}, done)
        self.assertGreater(kills, 0)

        finished = self.detect()

        self.assertEqual(finished.code, OK, finished.err)
        self.assertIn(f"{len(done)} before", finished.err)
        self.assertEqual(self.answers(), wanted)

    def num_lines(self):
        return self.out.read_bytes().count(b"\n") if self.out.exists() else 0

    def answers_of_whole_lines(self):
        answers = {}
        for line in self.out.read_bytes().split(b"\n")[:-1]:
            line = json.loads(line)
            line.pop("usage")
            answers[line["path"], line["text"]] = line
        return answers

    def test_a_half_line_is_cut_off(self):
        self.fill(3)
        self.detect()
        wanted = self.answers()
        content = self.out.read_bytes()
        self.out.write_bytes(content[:-20])

        finished = self.detect()

        self.assertEqual(finished.code, OK, finished.err)
        self.assertIn("1 answered, 2 before", finished.err)
        self.assertEqual(self.answers(), wanted)

    def test_an_interrupt_ends_cleanly_with_what_is_answered(self):
        self.fill(300)
        process = subprocess.Popen([executable(), "batch", "in", "--skill", "detect", "--text", "cloud", "--out",
                                    str(self.out), "--csv", "r.csv"], cwd=self.folder, stderr=subprocess.PIPE)
        while process.poll() is None and self.num_lines() < 5:
            time.sleep(0.001)  # until the file says so
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=program.TIMEOUT_S)
        self.assertEqual(process.returncode, 128 + signal.SIGINT, err)
        lines = read_lines(self.out)
        self.assertTrue(5 <= len(lines) < 300)
        self.assertTrue(all("objects" in line for line in lines), "what was cancelled is no answer")
        with open(self.folder / "r.csv", newline="", encoding="utf-8") as file:
            answered = {row["path"] for row in csv.DictReader(file) if not row["missing"]}
        self.assertEqual(answered, {line["path"] for line in lines})
        self.assertIn(f"{300 - len(lines)} not reached", err.decode())

    def test_two_runs_do_not_write_one_file(self):
        self.fill(300)
        process = subprocess.Popen([executable(), "batch", "in", "--skill", "detect", "--text", "cloud", "--out",
                                    str(self.out)], cwd=self.folder, stderr=subprocess.DEVNULL)
        while process.poll() is None and self.num_lines() < 1:
            time.sleep(0.001)  # until the file says so
        self.assertIsNone(process.poll())
        second = self.detect()
        process.kill()
        process.wait()
        self.assertEqual(second.code, FAILED)
        self.assertIn("another process writes", second.err)

    def test_a_full_disk_is_told_and_leaves_whole_lines(self):
        self.fill(20)
        limit = 2000

        def small_files():
            import resource
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        finished = self.detect(preexec_fn=small_files)

        self.assertEqual(finished.code, FAILED)
        self.assertIn(f"cannot write {self.out}", finished.err)
        kept = len(read_lines(self.out))
        self.assertTrue(0 < kept < 20)
        self.assertEqual(self.detect().code, OK)
        self.assertEqual(len(self.answers()), 20)

    # ---- questions with a place or a schema

    def test_places_and_schemas_are_those_of_the_single_commands(self):
        shutil.copy(PICTURE, self.folder / "in")
        picture = self.folder / "in" / PICTURE.name
        schema = self.folder / "schema.json"
        schema.write_text('{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}')
        asked = [("query", "How many clouds?", ["--json-schema", schema, "--temperature", 0]),
                 ("query", "What is this?", ["--spatial-ref", "0.7,0.55", "--spatial-ref", "0,0,1,0.5"]),
                 ("point", "boat", ["--spatial-ref", "0.7,0.55"])]
        for skill, text, options in asked:
            self.assertEqual(self.batch("in", "--skill", skill, "--text", text, "--overwrite", *options).code, OK)
            [line] = read_lines(self.out)
            alone = run(skill, picture, text, "--json", *options).json()
            key = "answer" if skill == "query" else "points"
            self.assertEqual(line[key], alone[key])
            if "--json-schema" in options:
                self.assertIsInstance(json.loads(line["answer"])["n"], int)
        # Another place is another question.
        self.assertEqual(self.batch("in", "--skill", "point", "--text", "boat", "--spatial-ref", "0.1,0.1").code, FAILED)
        missing = self.batch("in", "--skill", "query", "--text", "?", "--overwrite", "--json-schema", "none.json")
        self.assertEqual(missing.code, FAILED)
        self.assertIn("none.json", missing.err)

    # ---- what it refuses

    def test_a_changed_question_does_not_mix(self):
        self.fill(2)
        self.assertEqual(self.detect().code, OK)
        before = self.out.read_bytes()
        for other in (["--skill", "detect", "--text", "boat"], ["--skill", "caption"],
                      ["--skill", "detect", "--text", "cloud", "--temperature", "1"]):
            finished = self.batch("in", *other)
            self.assertEqual(finished.code, FAILED)
            self.assertIn("--overwrite", finished.err)
        self.assertEqual(self.out.read_bytes(), before)
        self.assertEqual(self.batch("in", "--skill", "caption", "--overwrite").code, OK)
        self.assertEqual({line["skill"] for line in read_lines(self.out)}, {"caption"})

    def test_a_changed_picture_is_asked_again(self):
        self.fill(3)
        self.detect()
        (self.folder / "in" / "0001.png").write_bytes(png(50, 30, 5))

        finished = self.detect()

        self.assertIn("1 answered, 2 before", finished.err)
        self.assertEqual(len(self.answers()), 3)

    def test_usage_errors(self):
        for args in (["in"], ["in", "--skill", "dance"], ["--skill", "caption"], ["in", "--skill", "caption", "--coco", "x"]):
            self.assertEqual(self.batch(*args).code, USAGE, args)

    def test_a_folder_without_pictures(self):
        finished = self.detect()
        self.assertEqual(finished.code, FAILED)
        self.assertIn("no picture found", finished.err)

    # ---- as docs/batch.md shows it

    def test_examples_of_the_manual(self):
        manual = (Path(__file__).resolve().parents[2] / "docs" / "batch.md").read_text()
        examples = [line.strip() for line in manual.splitlines() if line.startswith("    ") and "fovea batch" in line]
        self.assertGreater(len(examples), 5)
        for example in examples:
            with self.subTest(example), tempfile.TemporaryDirectory() as folder:
                folder = Path(folder)
                (folder / "photos" / "summer").mkdir(parents=True)
                shutil.copy(PICTURE, folder / "photos" / "a.png")
                shutil.copy(PICTURE, folder / "photos" / "summer" / "b.png")
                (folder / "list.txt").write_text("photos/a.png\n")
                environment = {**os.environ, "PATH": f"{Path(executable()).parent}:{os.environ['PATH']}"}
                finished = subprocess.run(["bash", "-c", example], cwd=folder, env=environment, capture_output=True,
                                          timeout=program.TIMEOUT_S)
                self.assertEqual(finished.returncode, OK, finished.stderr)


if __name__ == "__main__":
    program.main()
