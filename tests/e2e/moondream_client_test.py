"""Moondream's own client, as it is on PyPI, against a server here. Run with the Python of each of its generations."""

import io
import json
import urllib.error
import unittest
from concurrent.futures import ThreadPoolExecutor

import moondream
from PIL import Image

import program
from server_process import PICTURE, Server

GREEDY = {"temperature": 0}


class MoondreamClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.model = moondream.vl(endpoint=cls.server.url + "/v1")
        cls.image = Image.open(PICTURE)

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def test_caption_of_each_length(self):
        for length in ("short", "normal", "long"):
            whole = self.model.caption(self.image, length=length, settings=GREEDY)["caption"]
            streamed = self.model.caption(self.image, length=length, stream=True, settings=GREEDY)["caption"]
            self.assertTrue(whole)
            self.assertEqual("".join(streamed), whole)

    def test_query(self):
        ask = lambda **more: self.model.query(self.image, "How many clouds are there?", settings=GREEDY, **more)
        self.assertEqual(ask()["answer"], "two")
        self.assertEqual("".join(ask(stream=True)["answer"]), "two")
        self.assertTrue(self.model.query(self.image, "What is this?", spatial_refs=[[0.7, 0.55]])["answer"]
                        if "spatial_refs" in self.model.query.__code__.co_varnames else True)

    def test_query_without_a_picture(self):
        self.assertIn("answer", self.model.query(question="Hello?"))

    def test_detect_and_point(self):
        self.assertEqual(len(self.model.detect(self.image, "cloud")["objects"]), 2)
        self.assertEqual(len(self.model.detect(self.image, "cloud", settings={"max_objects": 1})["objects"]), 1)
        self.assertEqual(self.model.detect(self.image, "dog")["objects"], [])
        self.assertEqual(len(self.model.point(self.image, "boat")["points"]), 1)

    def test_an_encoded_image_is_sent_again(self):
        encoded = self.model.encode_image(self.image)
        first = self.model.caption(encoded, settings=GREEDY)
        self.assertEqual(self.model.caption(encoded, settings=GREEDY), first)

    def test_trailing_slash_and_no_version(self):
        for endpoint in ("/v1/", "", "/"):
            model = moondream.vl(endpoint=self.server.url + endpoint)
            self.assertTrue(model.caption(self.image, length="short")["caption"])

    def test_segmentation_is_refused(self):
        with self.assertRaises(urllib.error.HTTPError) as raised:
            self.model.segment(self.image, "cloud")
        self.assertEqual(raised.exception.code, 501)
        self.assertIn("segmentation", json.loads(raised.exception.read())["error"]["message"])
        raised.exception.close()

    def test_errors_are_raised_with_their_body(self):
        for call, status in [(lambda: self.model.query(self.image, " "), 400),
                             (lambda: moondream.vl(endpoint=self.server.url + "/v1", model="other").caption(self.image),
                              404)]:
            with self.assertRaises(urllib.error.HTTPError) as raised:
                call()
            self.assertEqual(raised.exception.code, status)
            self.assertTrue(json.loads(raised.exception.read())["error"]["message"])
            raised.exception.close()

    def test_keys(self):
        with program.temporary_file("secret\n") as keys, Server("--api-key-file", keys) as server:
            model = moondream.vl(api_key="secret", endpoint=server.url + "/v1")
            self.assertTrue(model.caption(self.image, length="short")["caption"])
            with self.assertRaises(urllib.error.HTTPError) as raised:
                moondream.vl(api_key="wrong", endpoint=server.url + "/v1").caption(self.image)
            self.assertEqual(raised.exception.code, 401)
            raised.exception.close()

    def test_many_at_once(self):
        ask = lambda i: self.model.query(self.image, "How many clouds are there?", stream=i % 2 == 0, settings=GREEDY)
        with ThreadPoolExecutor(32) as pool:
            answers = ["".join(answer["answer"]) for answer in pool.map(ask, range(64))]
        self.assertEqual(answers, ["two"] * 64)

    def test_dropping_a_stream_ends_its_request(self):
        stats = lambda: self.server.get("/v1/stats").json()
        before = stats()["requests_cancelled"]
        stream = self.model.query(question="Tell me everything!", stream=True,
                                  settings={"temperature": 50, "top_p": 1, "max_tokens": 900})["answer"]
        next(stream)
        stream.close()
        self.server.wait_for(lambda: stats()["requests_cancelled"] == before + 1, "the request goes on")


class Reasoning(unittest.TestCase):
    def test_thoughts_come_with_their_places(self):
        # A small random checkpoint of a model that can reason.
        with Server("--model", program.data() / "md2-gqa", "--dtype", "f32") as server:
            model = moondream.vl(endpoint=server.url + "/v1")
            picture = Image.open(program.data() / "md2-gqa" / "image_640x480.png")
            answer = model.query(picture, "How many?", reasoning=True, settings={"temperature": 0, "max_tokens": 24})
            self.assertIn("answer", answer)
            self.assertEqual(set(answer["reasoning"]), {"text", "grounding"})


if __name__ == "__main__":
    program.main()
