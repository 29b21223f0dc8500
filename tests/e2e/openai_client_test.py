"""OpenAI's client, as it is on PyPI, against a server here."""

import asyncio
import json
import unittest

import openai

import program
from server_process import Server, data_uri

QUESTION = "How many clouds are there?"


def about_picture(text=QUESTION):
    return [{"role": "user", "content": [{"type": "text", "text": text},
                                         {"type": "image_url", "image_url": {"url": data_uri()}}]}]


class OpenAiClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="none")
        cls.ask = cls.client.chat.completions.create

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.server.__exit__()

    def test_lists_models(self):
        models = list(self.client.models.list())
        self.assertEqual([model.id for model in models], ["tiny"])
        for name in ("tiny", "moondream2"):
            self.assertEqual(self.client.models.retrieve(name).owned_by, "local")

    def test_chats_about_a_picture(self):
        answer = self.ask(model="moondream2", messages=about_picture(), temperature=0)
        self.assertEqual(answer.choices[0].message.content, "two")
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def test_streams_with_usage(self):
        chunks = list(self.ask(model="moondream2", messages=about_picture(), temperature=0, stream=True,
                               stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.assertEqual(text, "two")
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual(chunks[-2].choices[0].finish_reason, "stop")
        self.assertGreater(chunks[-1].usage.prompt_tokens, 190)

    def test_several_choices(self):
        answer = self.ask(model="moondream2", messages=about_picture("What is this?"), n=3, temperature=5, top_p=1,
                          max_tokens=8)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2])
        self.assertGreater(len({choice.message.content for choice in answer.choices}), 1)
        streamed = {}
        for chunk in self.ask(model="moondream2", messages=about_picture("What is this?"), n=3, temperature=5,
                              top_p=1, max_tokens=8, stream=True):
            for choice in chunk.choices:
                streamed[choice.index] = streamed.get(choice.index, "") + (choice.delta.content or "")
        self.assertEqual(streamed, {choice.index: choice.message.content for choice in answer.choices})

    def test_logprobs(self):
        answer = self.ask(model="moondream2", messages=about_picture(), temperature=0, logprobs=True, top_logprobs=3)
        token = answer.choices[0].logprobs.content[0]
        self.assertLessEqual(token.logprob, 0)
        self.assertEqual(token.top_logprobs[0].token, token.token)
        self.assertEqual(len(token.top_logprobs), 3)

    def test_stop_ends_the_answer_before_it(self):
        self.assertEqual(self.ask(model="moondream2", messages=about_picture(), temperature=0,
                                  stop=["w"]).choices[0].message.content, "t")

    def test_length_is_told(self):
        answer = self.ask(model="moondream2", messages=about_picture("Describe it."), max_completion_tokens=1)
        self.assertEqual(answer.choices[0].finish_reason, "length")

    def test_json_schema(self):
        schema = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"],
                  "additionalProperties": False}
        answer = self.ask(model="moondream2", messages=about_picture(), response_format={
            "type": "json_schema", "json_schema": {"name": "count", "schema": schema, "strict": True}})
        self.assertIsInstance(json.loads(answer.choices[0].message.content)["count"], int)

    def test_error_classes(self):
        with self.assertRaises(openai.BadRequestError) as raised:
            self.ask(model="moondream2", messages=about_picture(), tools=[{"type": "function", "function": {
                "name": "f", "parameters": {}}}])
        self.assertEqual((raised.exception.param, raised.exception.code), ("tools", "unsupported_value"))
        with self.assertRaises(openai.NotFoundError):
            self.ask(model="gpt-4o", messages=about_picture())
        with self.assertRaises(openai.BadRequestError):
            self.ask(model="moondream2", messages=about_picture(), temperature=-1)
        with program.temporary_file("secret\n") as keys, Server("--api-key-file", keys) as server:
            with openai.OpenAI(base_url=server.url + "/v1", api_key="wrong") as client:
                with self.assertRaises(openai.AuthenticationError):
                    client.models.list()
            with openai.OpenAI(base_url=server.url + "/v1", api_key="secret") as client:
                self.assertTrue(list(client.models.list()))

    def test_text_completions(self):
        self.assertTrue(self.client.completions.create(model="moondream2", prompt=QUESTION).choices[0].finish_reason)

    def test_many_at_once(self):
        async def ask_all():
            async with openai.AsyncOpenAI(base_url=self.server.url + "/v1", api_key="none") as client:
                return await asyncio.gather(*[client.chat.completions.create(
                    model="moondream2", messages=about_picture(), temperature=0) for _ in range(64)])

        answers = asyncio.run(ask_all())
        self.assertEqual({answer.choices[0].message.content for answer in answers}, {"two"})


if __name__ == "__main__":
    program.main()
