"""The model in the box sees: known things in the picture of the demo, asked without naming a model."""

import unittest
from pathlib import Path

import program
from program import FAILED, OK, run

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "assets" / "harbour.png"
TERSE = ROOT / "models" / "tiny" / "terse.safetensors"
SIZE = (960, 640)
# Measured on the picture, in pixels: left, top, right, bottom.
CLOUDS = [(119, 46, 301, 122), (456, 102, 584, 162)]
BOAT = (546, 234, 810, 490)


def overlap(a, b):
    """Intersection over union."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return shared / (area(a) + area(b) - shared)


class TinyModel(unittest.TestCase):
    def ask(self, skill, *args):
        finished = run(skill, PICTURE, *args, "--temperature", "0", "--json")
        self.assertEqual((finished.code, finished.err), (OK, ""))
        return finished.json()

    def boxes(self, thing):
        return [(box["x_min"] * SIZE[0], box["y_min"] * SIZE[1], box["x_max"] * SIZE[0], box["y_max"] * SIZE[1])
                for box in self.ask("detect", thing)["objects"]]

    def test_finds_both_clouds(self):
        found = sorted(self.boxes("cloud"))
        self.assertEqual(len(found), 2)
        for box, wanted in zip(found, CLOUDS):
            self.assertGreater(overlap(box, wanted), 0.5)

    def test_points_at_the_boat(self):
        points = self.ask("point", "boat")["points"]
        self.assertEqual(len(points), 1)
        x, y = points[0]["x"] * SIZE[0], points[0]["y"] * SIZE[1]
        self.assertTrue(BOAT[0] < x < BOAT[2] and BOAT[1] < y < BOAT[3], points)

    def test_says_what_is_not_there(self):
        self.assertEqual(self.boxes("dog"), [])
        self.assertEqual(self.ask("query", "Is there a dog?")["answer"], "no")

    def test_counts(self):
        self.assertEqual(self.ask("query", "How many clouds are there?")["answer"], "two")

    def test_caption_names_what_is_there(self):
        caption = self.ask("caption")["caption"]
        for thing in ("tree", "house", "boat", "sun", "two white clouds"):
            self.assertIn(thing, caption)

    def test_an_adapter_makes_captions_a_bare_list(self):
        plain = self.ask("caption")["caption"]
        terse = self.ask("caption", "--adapter", f"terse={TERSE}")["caption"]
        self.assertTrue(plain.startswith("The picture shows "), plain)
        self.assertNotIn("picture", terse)
        self.assertRegex(terse, r"^(a|an|two) .*\.$")
        for thing in ("tree", "house", "boat", "sun", "two white clouds"):
            self.assertIn(thing, terse)

    def test_an_adapter_that_does_not_fit_is_refused(self):
        finished = run("caption", PICTURE, "--adapter", f"terse={ROOT / 'models' / 'tiny' / 'model.safetensors'}")
        self.assertEqual((finished.code, finished.out), (FAILED, ""))
        self.assertIn("model.safetensors", finished.err)


if __name__ == "__main__":
    program.main()
