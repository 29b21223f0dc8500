"""The conformance checklist of the HTTP API, point by point, against the model in the box. Points that need a shipped
client are in moondream_client_test.py and openai_client_test.py; there is none for the Node clients, whose bytes point 4 sends."""

import base64
import json
import re
import shutil
import socket
import subprocess
import unittest
from pathlib import Path

import program
from server_process import Server, data_uri, post_bytes, read_all

BOARD = Path(__file__).resolve().parents[2] / "docs" / "grafana.json"


class Checklist(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.image = data_uri()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def ask(self, path, status=200, **body):
        answer = self.server.post(path, body)
        self.assertEqual(answer.status, status, answer.body)
        return answer

    def stream(self, path, **body):
        answer = self.ask(path, stream=True, **body)
        self.assertEqual(answer.headers["Content-Type"], "text/event-stream; charset=utf-8")
        self.assertEqual(answer.headers["Cache-Control"], "no-cache")
        self.assertEqual(answer.headers["X-Accel-Buffering"], "no")
        return answer.events()

    # 1
    def test_01_caption_with_each_length_streamed_and_not(self):
        settings = {"temperature": 0}
        for length in ("short", "normal", "long"):
            whole = self.ask("/v1/caption", image_url=self.image, length=length, settings=settings).json()
            self.assertTrue(whole["caption"])
            self.assertEqual(whole["finish_reason"], "stop")
            self.assertRegex(whole["request_id"], r"^[0-9A-Z]{26}$")
            self.assertLessEqual({"input_tokens", "output_tokens", "prefill_time_ms", "decode_time_ms", "ttft_ms"},
                                 set(whole["metrics"]))
            events = self.stream("/v1/caption", image_url=self.image, length=length, settings=settings)
            self.assertEqual("".join(event["chunk"] for event in events), whole["caption"])
            self.assertEqual([event["completed"] for event in events], [False] * (len(events) - 1) + [True])
            self.assertEqual(events[-1]["caption"], whole["caption"])

    # 2
    def test_02_query_with_and_without_picture_streamed(self):
        question = "How many clouds are there?"
        whole = self.ask("/v1/query", image_url=self.image, question=question, temperature=0).json()
        self.assertEqual(whole["answer"], "two")
        self.assertNotIn("reasoning", whole)
        events = self.stream("/v1/query", image_url=self.image, question=question, temperature=0)
        self.assertEqual(events[-1]["answer"], "two")
        self.assertIn("answer", self.ask("/v1/query", question="Hello?").json())

    def test_02_thoughts_come_whole_in_the_last_event(self):
        # A small random checkpoint of a model that can reason; the one in the box cannot.
        picture = data_uri(program.data().joinpath("md2-gqa", "image_640x480.png").read_bytes())
        body = {"image_url": picture, "question": "How many?", "reasoning": True,
                "settings": {"temperature": 0, "max_tokens": 24}}
        with Server("--model", program.data() / "md2-gqa", "--dtype", "f32") as server:
            whole = server.post("/v1/query", body).json()
            events = server.post("/v1/query", {**body, "stream": True}).events()
            self.assertNotIn("reasoning", server.post("/v1/query", {**body, "reasoning": False}).json())
        self.assertEqual(set(whole["reasoning"]), {"text", "grounding"})
        self.assertEqual(events[-1]["reasoning"], whole["reasoning"])
        self.assertEqual(events[-1]["answer"], whole["answer"])
        self.assertEqual("".join(event["chunk"] for event in events), whole["answer"])

    # 3
    def test_03_detect_and_point_and_no_segmentation(self):
        found = self.ask("/v1/detect", image_url=self.image, object="cloud").json()["objects"]
        self.assertEqual(len(found), 2)
        self.assertLessEqual({"x_min", "y_min", "x_max", "y_max"}, set(found[0]))
        one = self.ask("/v1/detect", image_url=self.image, object="cloud", settings={"max_objects": 1}).json()
        self.assertEqual(len(one["objects"]), 1)
        self.assertEqual(self.ask("/v1/detect", image_url=self.image, obj="dog").json()["objects"], [])
        point = self.ask("/v1/point", image_url=self.image, object="boat", stream=True).json()
        self.assertEqual((len(point["points"]), point["count"]), (1, 1))
        for more in ({}, {"stream": True}, {"spatial_refs": [[0.5, 0.5]], "settings": {"maxTokens": 512}}):
            refused = self.ask("/v1/segment", 501, image_url=self.image, object="cloud", **more)
            self.assertEqual(refused.error(), ("not_supported_error", None, "skill_not_supported"))

    def test_03_places_in_the_picture(self):
        places = [[0.7, 0.55], [0.1, 0.1, 0.4, 0.6]]
        self.ask("/v1/query", image_url=self.image, question="What is this?", spatial_refs=places)
        self.ask("/v1/point", image_url=self.image, object="boat", spatial_refs=places)
        for wrong in ([[0.7, 1.5]], [[0.4, 0.1, 0.1, 0.6]], [[0.1, 0.2, 0.3]], "0.5,0.5"):
            refused = self.ask("/v1/query", 400, image_url=self.image, question="?", spatial_refs=wrong)
            self.assertEqual(refused.error()[1], "spatial_refs", wrong)

    # 4
    def test_04_what_the_node_client_sends(self):
        answer = self.server.post("/v1/detect", {"image_url": self.image, "object": "cloud", "variant": None},
                                  **{"X-Moondream-Auth": ""})
        self.assertEqual(answer.status, 200)
        self.ask("/v1/caption", image_url=self.image, settings={"maxTokens": 2})
        bare = base64.b64encode(program.data().joinpath("md2-mha", "image_640x480.png").read_bytes()).decode()
        self.ask("/v1/caption", image_url=bare)
        self.ask("/v1/caption", image_url={"url": self.image})

    # 5
    def test_05_endpoints_with_trailing_slash_and_without_version(self):
        for path in ("/v1//caption", "/v1/caption/", "/caption", "//caption"):
            self.ask(path, image_url=self.image, length="short")

    # 6
    def test_06_streams_are_ascii(self):
        events = self.stream("/v1/chat/completions", messages=[{"role": "user", "content": "Wie heißt 月 🌙?"}],
                             max_tokens=20, temperature=3, seed=3)  # events() decodes as ASCII
        self.assertEqual(events[-1], "[DONE]")
        for event in self.stream("/v1/query", question="Wie heißt 月 🌙?", max_tokens=200, temperature=50, top_p=1):
            event["chunk"].encode()  # no half of a pair

    # 7
    def test_07_mistakes_have_their_status_and_an_error_object(self):
        cases = [
            ("/v1/caption", {"image_url": data_uri(b"no picture")}, 400, "image_url", "image_decode_failed"),
            ("/v1/caption", {"image_url": "!"}, 400, "image_url", "image_decode_failed"),
            ("/v1/query", {"question": ""}, 400, "question", "invalid_value"),
            ("/v1/query", {"question": "?", "stream": 1}, 400, "stream", "invalid_value"),
            ("/v1/query", {"question": "?", "model": "other"}, 404, "model", "model_not_found"),
            ("/v1/other", {}, 404, None, "not_found"),
        ]
        for path, body, status, param, code in cases:
            with self.subTest(path=path, code=code):
                _, found_param, found_code = self.ask(path, status, **body).error()
                self.assertEqual((found_param, found_code), (param, code))
        self.assertEqual(self.server.get("/v1/caption").status, 405)
        self.assertEqual(self.server.get("/v1/caption").headers["Allow"], "POST")

    def test_07_a_failure_before_the_first_word_of_a_stream_has_its_status(self):
        self.ask("/v1/caption", 400, image_url=data_uri(b"no picture"), stream=True)

    def test_07_wrong_key_is_401_and_large_body_413(self):
        with program.temporary_file("# keys\nsecret\n") as keys, \
                Server("--api-key-file", keys, "--max-body-mb", 1) as server:
            body = {"image_url": self.image, "length": "short"}
            for headers, status in [({}, 401), ({"X-Moondream-Auth": "wrong"}, 401),
                                    ({"X-Moondream-Auth": "secret"}, 200),
                                    ({"Authorization": "Bearer secret"}, 200)]:
                self.assertEqual(server.post("/v1/caption", body, **headers).status, status, headers)
            self.assertEqual(server.get("/v1/models").error(), ("authentication_error", None, "invalid_api_key"))
            self.assertEqual(server.get("/health").status, 200)
            # A client that sends all before it reads must get the answer too, with either kind of body.
            large = json.dumps({"image_url": "A" * (3 << 20)})
            for body in (large, iter([large.encode()])):  # of known length, and in chunks
                whole = server.post("/v1/caption", body, Authorization="Bearer secret")
                self.assertEqual((whole.status, whole.error()[2]), (413, "payload_too_large"))

    # 8
    def test_08_full_queue_is_429_with_retry_after(self):
        with Server("--max-queue", 1) as server:
            slow = server.raw(post_bytes("/v1/query", {"question": "Why?", "ignore_eos": True,
                                                       "image_url": self.image, "max_tokens": 700,
                                                       "temperature": 50, "top_p": 1, "stream": True}))
            slow.recv(1)  # it has begun: else a question may come first, and this one be refused
            statuses = set()

            def refused():
                answer = server.post("/v1/query", {"question": "?", "max_tokens": 1})
                statuses.add(answer.status)
                if answer.status == 429:
                    self.assertEqual(answer.headers["Retry-After"], "1")
                    self.assertEqual(answer.error(), ("rate_limit_error", None, "queue_full"))
                return answer.status == 429

            # The long answer may end before a question meets it: then there is another one.
            for _ in range(20):
                if refused():
                    break
                slow.sendall(post_bytes("/v1/caption", {"image_url": self.image, "stream": True}))
            slow.close()
            self.assertIn(429, statuses)

    # 9
    def test_09_dropping_the_client_frees_the_slot(self):
        before = self.server.get("/v1/stats").json()["requests_cancelled"]
        client = self.server.raw(post_bytes("/v1/query", {"question": "Tell me everything!", "temperature": 50,
                                                          "top_p": 1, "max_tokens": 900, "stream": True}))
        client.recv(1)  # it has begun
        client.close()
        self.server.wait_for(lambda: self.server.get("/v1/stats").json()["requests_cancelled"] == before + 1,
                             "the request goes on")
        self.assertEqual(self.server.metric("fovea_num_requests_running"), 0)

    # 10
    def test_10_openai_answers_have_every_field(self):
        answer = self.ask("/v1/chat/completions", model="moondream2", temperature=0, logprobs=True, top_logprobs=2,
                          messages=[{"role": "user", "content": [
                              {"type": "text", "text": "How many clouds are there?"},
                              {"type": "image_url", "image_url": {"url": self.image}}]}]).json()
        choice = answer["choices"][0]
        self.assertEqual((choice["message"]["content"], choice["finish_reason"]), ("two", "stop"))
        logprob = choice["logprobs"]["content"][0]
        self.assertEqual(len(logprob["top_logprobs"]), 2)
        self.assertEqual(bytes(logprob["bytes"]).decode(), logprob["token"])
        usage = answer["usage"]
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"])

    def test_10_a_schema_holds_the_answer(self):
        schema = {"type": "object", "properties": {"n": {"type": "integer"}, "s": {"enum": ["a", "b"]}},
                  "required": ["n", "s"]}
        answer = self.ask("/v1/chat/completions", messages=[{"role": "user", "content": "Numbers, please."}],
                          response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
        found = json.loads(answer.json()["choices"][0]["message"]["content"])
        self.assertIsInstance(found["n"], int)
        self.assertIn(found["s"], ["a", "b"])
        refused = self.ask("/v1/chat/completions", 400, messages=[{"role": "user", "content": "?"}],
                           response_format={"type": "json_schema",
                                            "json_schema": {"name": "x", "schema": {"type": "string",
                                                                                    "format": "date"}}})
        self.assertIn("format", refused.json()["error"]["message"])

    # 11
    def test_11_expect_100_continue_is_answered_at_once(self):
        body = json.dumps({"question": "?", "max_tokens": 1}).encode()
        client = self.server.raw(b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                                 b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        self.assertEqual(client.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.sendall(body)
        self.assertIn(b"200 OK", read_all(client))
        client.close()

    @unittest.skipUnless(shutil.which("curl"), "no curl")
    def test_11_curl_sends_a_large_body_without_a_pause(self):
        body = json.dumps({"question": "?", "max_tokens": 1, "padding": "x" * (3 << 20)}).encode()
        # It would wait a minute for the word to go on.
        done = subprocess.run(["curl", "-sS", "--expect100-timeout", "60", "-H", "Expect: 100-continue", "--data-binary", "@-",
                               "-w", "%{http_code} %{time_total}", "-o", "/dev/null", self.server.url + "/v1/query"],
                              input=body, capture_output=True, timeout=program.TIMEOUT_S)
        status, time_s = done.stdout.split()
        self.assertEqual((status, done.stderr), (b"200", b""))
        self.assertLess(float(time_s), 60)

    # 12
    def test_12_chunked_bodies_and_kept_connections(self):
        connection = self.server.connect()
        for _ in range(3):
            body = json.dumps({"question": "?", "max_tokens": 1}).encode()
            connection.request("POST", "/v1/query", iter([body[:5], body[5:]]))
            response = connection.getresponse()
            self.assertEqual(response.status, 200)
            response.read()
        connection.close()

    def test_12_pipelined_requests_are_answered_in_order(self):
        one = post_bytes("/v1/query", {"question": "?", "max_tokens": 1}, "X-Request-Id: one\r\n")
        two = post_bytes("/v1/nothing", {}, "X-Request-Id: two\r\nConnection: close\r\n")
        client = self.server.raw(one + two)
        answers = read_all(client)
        client.close()
        self.assertEqual(re.findall(rb"X-Request-Id: (\w+)", answers), [b"one", b"two"])

    # 13
    def test_13_metrics_parse_and_health_is_ok(self):
        text = self.server.get("/metrics")
        self.assertEqual(text.headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        sample = re.compile(r'^[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_]\w*="(\\.|[^"\\])*",?)*\})? -?[0-9.e+-]+$|^.* \+?Inf$')
        for line in text.body.decode().splitlines():
            self.assertTrue(line.startswith(("# HELP ", "# TYPE ")) or sample.match(line), line)
        self.assertEqual(self.server.get("/health").json()["status"], "ok")
        self.assertRegex(self.server.get("/version").json()["version"], r"^\d+\.\d+\.\d+$")

    def test_13_health_is_503_while_the_model_loads(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        for _ in range(20):  # on a busy machine the model may be there before we have asked
            starting = subprocess.Popen([program.executable(), "serve", "--port", str(port)], stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL)
            answers = []
            while not answers or answers[-1][0] != 200:
                self.assertIsNone(starting.poll())
                try:
                    with socket.create_connection(("127.0.0.1", port)) as client:
                        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                        head, _, body = read_all(client).partition(b"\r\n\r\n")
                    answers.append((int(head.split()[1]), head, json.loads(body)))
                except ConnectionRefusedError:
                    pass
            starting.terminate()
            starting.communicate(timeout=program.TIMEOUT_S)
            if answers[0][0] == 503:
                break
        status, head, body = answers[0]
        self.assertEqual((status, body["status"], body["error"]["code"]), (503, "starting", "loading"))
        self.assertIn(b"Retry-After: 1", head)

    def test_13_the_grafana_board_shows_metrics_that_exist(self):
        text = self.server.get("/metrics").body.decode()
        board = BOARD.read_text()
        names = set(re.findall(r"\bfovea_\w+", board))
        self.assertGreater(len(names), 10)
        for name in names:
            self.assertRegex(text, rf"(?m)^{name}\b")

    # 14
    def test_14_a_picture_sent_twice_is_reused_and_answers_are_equal(self):
        ask = lambda: self.ask("/v1/query", image_url=self.image, question="What is in the sky?",
                               settings={"temperature": 0}).json()
        first, second = ask(), ask()
        self.assertEqual(first["answer"], second["answer"])
        self.assertGreater(second["metrics"]["cached_tokens"], 190)  # the picture's positions at least

    def test_models_serve_both_readers(self):
        models = self.server.get("/v1/models").json()
        self.assertEqual([model["id"] for model in models["data"]], ["tiny"])
        self.assertEqual(models["data"][0]["id"], models["models"][0]["id"])
        self.assertEqual(self.server.get("/v1/models/" + models["data"][0]["id"]).json()["object"], "model")

    def test_tokens_go_there_and_back(self):
        tokens = self.ask("/tokenize", prompt="two clouds").json()["tokens"]
        self.assertEqual(self.ask("/detokenize", tokens=tokens).json()["prompt"], "two clouds")


if __name__ == "__main__":
    program.main()
