"""The program's answers on the golden checkpoints, and the shape of what it prints."""

import json
import struct
import tempfile
import unittest
from pathlib import Path

import program
from program import OK, run

FOLDERS = ["md2-gqa", "md2-mha", "md3", "md3-reason"]
PICTURE = "image_640x480.png"
BOX_KEYS = ["x_min", "y_min", "x_max", "y_max"]
USAGE_KEYS = {"prompt_tokens", "completion_tokens", "cached_tokens", "queue_ms", "picture_ms", "vision_ms",
              "prefill_ms", "decode_ms", "ttft_ms", "total_ms"}


def golden_args(folder, picture, case):
    """The command line that asks what a golden case asked."""
    skill = case["skill"]
    args = [skill]
    args += ["--no-picture"] if picture is None else [program.data() / folder / picture]
    args += [case[key] for key in ("question", "object") if key in case]
    args += ["--model", program.data() / folder, "--dtype", "f32", "--temperature", "0", "--json", "--tokens"]
    for setting in ("max_tokens", "max_objects"):
        if setting in case["settings"]:
            args += ["--" + setting.replace("_", "-"), case["settings"][setting]]
    if skill == "caption":
        args += ["--length", case["length"]]
    if case.get("reasoning"):
        args.append("--reasoning")
    for ref in case.get("spatial_refs") or []:
        args += ["--spatial-ref", ",".join(map(str, ref))]
    if folder.startswith("md2"):  # the code that made these answers does not cut boxes at the border
        args += ["--compat", "clamp_boxes=false"]
    return args


class GoldenAnswers(unittest.TestCase):
    def assert_answer(self, answer, case):
        if "output_ids" in case:
            self.assertEqual(answer["token_ids"], case["output_ids"])
        if "text" in case:
            self.assertEqual(answer["caption" if case["skill"] == "caption" else "answer"], case["text"])
        if "answer" in case:
            self.assertEqual(answer["answer"], case["answer"])
        if "reasoning_output" in case:
            self.assertEqual(answer["reasoning"]["text"], case["reasoning_output"]["text"])
            self.assertEqual(len(answer["reasoning"]["grounding"]), len(case["reasoning_output"]["grounding"]))
            for span, wanted in zip(answer["reasoning"]["grounding"], case["reasoning_output"]["grounding"]):
                self.assertEqual((span["start_idx"], span["end_idx"]), (wanted["start_idx"], wanted["end_idx"]))
                self.assert_close(span["points"], wanted["points"])
        if "objects" in case:
            self.assert_close([[box[key] for key in BOX_KEYS] for box in answer["objects"]],
                              [[box[key] for key in BOX_KEYS] for box in case["objects"]])
        if "points" in case:
            self.assertEqual(answer["count"], len(case["points"]))
            self.assert_close([[point["x"], point["y"]] for point in answer["points"]],
                              [[point["x"], point["y"]] for point in case["points"]])

    def assert_close(self, actual, wanted):
        self.assertEqual(len(actual), len(wanted))
        for one, other in zip(actual, wanted):
            self.assertEqual(len(one), len(other))
            for a, b in zip(one, other):
                self.assertAlmostEqual(a, b, delta=1e-6)

    def check_folder(self, folder):
        checked = 0
        for group in json.loads((program.data() / folder / "cases.json").read_text()):
            if group["image"] not in (PICTURE, None):
                continue
            for case in group["skills"]:
                args = golden_args(folder, group["image"], case)
                with self.subTest(args=" ".join(map(str, args))):
                    finished = run(*args)
                    self.assertEqual((finished.code, finished.err), (OK, ""))
                    self.assert_answer(finished.json(), case)
                checked += 1
        self.assertGreater(checked, 3)


for name in FOLDERS:
    setattr(GoldenAnswers, "test_" + name.replace("-", "_"), lambda self, folder=name: self.check_folder(folder))


class Printed(unittest.TestCase):
    def setUp(self):
        self.model = program.data() / "md3-reason"
        self.picture = self.model / "image_378x378.png"

    def ask(self, command, *args, **popen):
        finished = run(command, *args, "--model", self.model, "--temperature", "0", **popen)
        self.assertEqual((finished.code, finished.err), (OK, ""))
        return finished

    def test_json_has_the_documented_keys_and_no_others(self):
        box, point = set(BOX_KEYS) | {"confidence"}, {"x", "y", "confidence"}
        common = {"finish_reason", "usage"}
        for args, keys in [
            (["caption", self.picture, "--max-tokens", 3], {"caption"}),
            (["query", self.picture, "what is it", "--max-tokens", 3], {"answer"}),
            (["query", self.picture, "what is it", "--max-tokens", 3, "--reasoning"], {"answer", "reasoning"}),
            (["detect", self.picture, "dog", "--max-objects", 2], {"objects"}),
            (["point", self.picture, "dog", "--max-objects", 2], {"points", "count"}),
            (["point", self.picture, "dog", "--max-objects", 2, "--tokens"], {"points", "count", "token_ids"}),
        ]:
            with self.subTest(args=args):
                answer = self.ask(*args, "--json").json()
                self.assertEqual(set(answer), keys | common)
                self.assertEqual(set(answer["usage"]), USAGE_KEYS)
                self.assertIn(answer["finish_reason"], ("stop", "length"))
                for found in answer.get("objects", []):
                    self.assertEqual(set(found), box)
                for found in answer.get("points", []):
                    self.assertEqual(set(found), point)
                    self.assertTrue(0 <= found["confidence"] <= 1)

    def test_length_is_a_finish_reason(self):
        answer = self.ask("query", self.picture, "what is it", "--reasoning", "--max-tokens", 3, "--json").json()
        self.assertEqual(answer["finish_reason"], "length")
        self.assertEqual(answer["usage"]["completion_tokens"], 3)

    def test_standard_input_is_the_same_as_a_file(self):
        args = ["caption", "-", "--max-tokens", 8, "--json", "--tokens"]
        from_file = self.ask("caption", self.picture, *args[2:]).json()
        from_stdin = self.ask(*args, input=self.picture.read_bytes()).json()
        self.assertEqual(from_stdin["token_ids"], from_file["token_ids"])
        self.assertGreater(len(from_file["token_ids"]), 0)

    def test_streamed_pieces_join_to_the_answer(self):
        lines = self.ask("query", self.picture, "where is the dog", "--stream", "--json").out.splitlines()
        pieces = [json.loads(line) for line in lines[:-1]]
        self.assertTrue(all(set(piece) == {"chunk"} for piece in pieces))
        self.assertEqual("".join(piece["chunk"] for piece in pieces), json.loads(lines[-1])["answer"])

    def test_equal_seeds_give_equal_answers(self):
        def ids(seed):
            return run("caption", self.picture, "--model", self.model, "--temperature", 2, "--top-p", 1,
                       "--seed", seed, "--max-tokens", 12, "--json", "--tokens").json()["token_ids"]

        self.assertEqual(ids(7), ids(7))
        self.assertNotEqual([ids(seed) for seed in range(3)], [ids(0)] * 3)

    def test_threads_do_not_change_the_answer(self):
        def ids(threads):
            return self.ask("caption", self.picture, "--dtype", "f32", "--threads", threads, "--max-tokens", 12,
                            "--json", "--tokens").json()["token_ids"]

        self.assertEqual(ids(1), ids(3))

    def test_bf16_answers(self):
        self.assertIn("caption", self.ask("caption", self.picture, "--dtype", "bf16", "--json").json())

    def test_text_is_for_people(self):
        self.assertRegex(self.ask("point", self.picture, "dog", "--max-objects", 2).out,
                         r"^(No dog found\.\n|\d x dog\n( +\d+  across +[\d.]+ %  down +[\d.]+ %  confidence [\d.]+\n)+)$")

    def test_annotated_picture_is_turned_as_the_coordinates_are(self):
        turned = program.data() / "pictures" / "exif_6.jpg"

        def size(*args):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out.png"
                self.ask("detect", turned, "dog", "--max-objects", 1, "--annotate", out, *args)
                return struct.unpack(">II", out.read_bytes()[16:24])

        width, height = size("--no-exif")
        self.assertNotEqual(width, height)
        self.assertEqual(size(), (height, width))

    def test_info_tells_the_memory(self):
        self.assertIn("cpu", [device["name"] for device in run("info", "--json").json()["devices"]])
        model = run("info", "--model", self.model, "--json").json()["model"]
        for key in ("num_parameters", "weight_bytes", "kv_cache_bytes", "scratch_bytes", "max_context", "vocab_size"):
            self.assertGreater(model[key], 0, key)
        text = run("info", "--model", self.model).out
        for word in ("weights", "KV cache", "scratch", "MiB"):
            self.assertIn(word, text)


if __name__ == "__main__":
    program.main()
