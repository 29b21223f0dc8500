"""fovea pull and fovea models against a hub on this machine: whole models, cuts, lies and hostile names."""

import json
import os
import shutil
import ssl
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

import hub_server
import program
from program import FAILED, OK, USAGE, run

WEIGHTS = "model.safetensors"
MOONDREAM2 = "vikhyatk/moondream2"
STARMIE = "moondream/starmie-v1"


class PullCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.models = self.folder / "data" / "fovea" / "models"
        self.environment = {"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder / "data"),
                            "PATH": os.environ["PATH"], "no_proxy": "127.0.0.1"}
        self.environment.update({name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")})
        self.hub = self.start_hub()
        self.source = program.data() / "md2-mha"
        self.weights = (self.source / WEIGHTS).read_bytes()
        self.tokenizer = (self.source / "tokenizer.json").read_bytes()
        self.config = (self.source / "config.json").read_bytes()
        self.moondream2 = self.hub.add(MOONDREAM2, {
            ".gitattributes": b"*.safetensors filter=lfs\n", "README.md": b"# A model\n", "config.json": self.config,
            WEIGHTS: self.weights, "tokenizer.json": b'{"stale": true}', "moondream.py": b"print()\n",
            "versions.txt": b"2025-06-21\n", "handler.bin": bytes(200_000)})
        self.hub.add(STARMIE, {"tokenizer.json": self.tokenizer, "README.md": b"# A tokenizer\n"}, licence="mit")
        self.final = self.models / MOONDREAM2

    def start_hub(self, **options):
        hub = hub_server.Hub(**options)
        self.addCleanup(hub.stop)
        return hub

    def fovea(self, *args, **popen):
        popen.setdefault("env", self.environment)
        return run(*args, **popen)

    def pull(self, *args, model="moondream2", hub=None, **popen):
        return self.fovea("pull", model, "--endpoint", (hub or self.hub).url, "--retry-wait", 0, *args, **popen)

    def assert_pulled(self, finished, folder=None, weights=None):
        folder = folder or self.final
        self.assertEqual(finished.code, OK, finished.err)
        self.assertEqual((folder / WEIGHTS).read_bytes(), weights or self.weights)
        self.assertEqual((folder / "tokenizer.json").read_bytes(), self.tokenizer)

    def assert_fails(self, finished, *parts):
        """It failed with a message that has all of `parts`, and no model has appeared."""
        self.assertEqual(finished.code, FAILED, finished.err)
        message = finished.err.splitlines()[-1]
        self.assertTrue(message.startswith("fovea: "), finished.err)
        for part in parts:
            self.assertIn(part, message)
        self.assertFalse(self.final.exists())

    def begun(self):
        """The hidden file that gathers the weights."""
        found = list((self.models / ".incoming" / MOONDREAM2).glob(f".{WEIGHTS}.*.part"))
        self.assertEqual(len(found), 1, found)
        return found[0]


class WholeModels(PullCase):
    def test_moondream2_gets_the_tokenizer_that_fits_and_answers(self):
        self.assert_pulled(self.pull())

        answer = self.fovea("caption", self.source / "image_378x378.png", "--model", "moondream2", "--max-tokens", 2,
                            "--json")
        self.assertEqual(answer.code, OK, answer.err)
        self.assertIn("caption", answer.json())

    def test_fetches_only_what_the_engine_reads(self):
        self.pull()

        files = {asked.file for asked in self.hub.requests if "/resolve/" in asked.path}
        self.assertEqual(files, {WEIGHTS, "config.json", "tokenizer.json"})
        self.assertEqual(sorted(path.name for path in self.final.iterdir()),
                         ["config.json", "fovea-pull.json", WEIGHTS, "tokenizer.json"])

    def test_a_second_pull_fetches_nothing(self):
        self.pull()
        self.hub.requests.clear()

        again = self.pull()

        self.assertEqual(again.code, OK, again.err)
        self.assertIn("already", again.out)
        self.assertEqual([asked.path for asked in self.hub.requests if "/resolve/" in asked.path], [])

    def test_json_says_what_was_pulled(self):
        result = self.pull("--json").json()

        self.assertEqual(result["name"], "moondream2")
        self.assertEqual(result["path"], str(self.final))
        self.assertEqual(result["commit"], self.moondream2.commit)
        self.assertEqual(result["bytes"], len(self.weights) + len(self.tokenizer) + len(self.config))
        self.assertEqual(result["licence"], "Apache-2.0")

    def test_a_pipe_gets_plain_lines(self):
        finished = self.pull()

        self.assertNotIn("\r", finished.err + finished.out)
        self.assertNotIn("\x1b", finished.err + finished.out)
        self.assertIn(WEIGHTS, finished.err)
        self.assertIn("100 %", finished.err)

    def test_a_repository_by_name_and_revision(self):
        self.hub.add("some.one/tuned", {WEIGHTS: self.weights, "tokenizer.json": self.tokenizer,
                                        "config.json": self.config}, licence="mit")

        self.assert_pulled(self.pull(model="some.one/tuned"), self.models / "some.one" / "tuned")
        self.assert_pulled(self.pull(model="some.one/tuned@refs/pr/1"), self.models / "some.one" / "tuned@refs%2Fpr%2F1")

        names = {model["name"]: model for model in self.fovea("models", "--json").json()["models"]}
        self.assertEqual(names["some.one/tuned"]["licence"], "mit")
        self.assertIn("some.one/tuned@refs/pr/1", names)
        self.assertEqual(self.fovea("info", "--model", "some.one/tuned@refs/pr/1").code, OK)

    def test_another_tokenizer_repository(self):
        self.hub.add("some.one/tuned", {WEIGHTS: self.weights, "config.json": self.config})
        without = self.pull(model="some.one/tuned")
        self.assert_fails(without, "tokenizer.json", "--tokenizer")

        self.assert_pulled(self.pull("--tokenizer", STARMIE, model="some.one/tuned"),
                           self.models / "some.one" / "tuned")

    def test_shards_and_their_index(self):
        # The loader's own tests have real shards; here the index and its files have to come, and no others.
        shard = "model-00001-of-00001.safetensors"
        header = int.from_bytes(self.weights[:8], "little")
        names = [name for name in json.loads(self.weights[8:8 + header]) if name != "__metadata__"]
        index = {"metadata": {}, "weight_map": {name: shard for name in names}}
        self.hub.add(MOONDREAM2, {"model.safetensors.index.json": json.dumps(index).encode(), shard: self.weights,
                                  "other.safetensors": b"not asked for", "config.json": self.config})

        finished = self.pull()

        self.assertEqual(finished.code, OK, finished.err)
        self.assertEqual((self.final / shard).read_bytes(), self.weights)
        self.assertEqual(self.hub.asked_for("other.safetensors"), [])
        self.assertEqual(self.fovea("info", "--model", "moondream2").code, OK)

    def test_a_new_revision_takes_the_place_of_the_old_one(self):
        self.pull()
        newer = self.weights[:-1] + bytes([self.weights[-1] ^ 1])
        self.hub.add(MOONDREAM2, {WEIGHTS: newer, "config.json": self.config})
        self.hub.requests.clear()

        self.assert_pulled(self.pull(), weights=newer)

        self.assertEqual(self.hub.asked_for("config.json"), [], "an unchanged file is not fetched again")
        self.assertEqual(self.hub.asked_for("tokenizer.json"), [])

    def test_two_pulls_at_once_fetch_once(self):
        processes = [subprocess.Popen([program.executable(), "pull", "moondream2", "--endpoint", self.hub.url],
                                      env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                     for _ in range(2)]
        for process in processes:
            _, err = process.communicate(timeout=program.TIMEOUT_S)
            self.assertEqual(process.returncode, OK, err)

        self.assertEqual(len(self.hub.asked_for(WEIGHTS, "store")), 1)


class ListAndRemove(PullCase):
    def test_lists_name_size_family_precision_licence_and_path(self):
        self.pull()

        model = next(model for model in self.fovea("models", "--json").json()["models"]
                     if model["name"] == "moondream2")
        text = self.fovea("models").out

        self.assertEqual((model["family"], model["precision"]), ("moondream2", "bf16"))
        self.assertEqual((model["licence"], model["path"]), ("Apache-2.0", str(self.final)))
        self.assertEqual((model["revision"], model["problem"]), ("2025-06-21", None))
        self.assertGreater(model["bytes"], len(self.weights))
        for part in ("moondream2", "bf16", "Apache-2.0", str(self.final)):
            self.assertIn(part, text)

    def test_removes_what_was_pulled_and_nothing_else(self):
        self.pull()
        stranger = self.models / "mine.txt"
        stranger.write_text("mine")

        self.assertEqual(self.fovea("models", "rm", "moondream2").code, OK)

        self.assertFalse(self.final.exists())
        self.assertTrue(stranger.exists())
        gone = self.fovea("models", "rm", "moondream2")
        self.assertEqual(gone.code, FAILED)
        self.assertIn("no pulled model moondream2", gone.err)

    def test_a_model_that_is_not_there_names_the_command(self):
        finished = self.fovea("info", "--model", "moondream2")

        self.assertEqual(finished.code, FAILED)
        self.assertIn("fovea pull moondream2", finished.err)

    def test_names_that_nobody_knows(self):
        unknown = self.pull(model="moondream9")
        self.assert_fails(unknown, "moondream9", "moondream2")
        self.assert_fails(self.pull(model="moondream-0.5b"), "ONNX")
        self.assert_fails(self.pull(model="moondream2@2025-01-09"), "2025-06-21")
        for name in ("../x", "a/../b", "a/b/c", "/etc", "a/b@../c", "a/b@"):
            self.assertEqual(self.pull(model=name).code, FAILED, name)
        self.assertEqual(self.hub.requests, [])
        self.assertEqual(self.fovea("pull").code, USAGE)


class BrokenConnections(PullCase):
    def test_goes_on_where_the_connection_broke(self):
        self.hub.faults[WEIGHTS] = [hub_server.cut(1_000_000), hub_server.cut(1_500_000)]

        self.assert_pulled(self.pull())

        ranges = [asked.headers.get("Range") for asked in self.hub.asked_for(WEIGHTS, "store")]
        self.assertEqual(ranges, [None, "bytes=1000000-", "bytes=2500000-"])

    def test_goes_on_where_the_program_was_ended(self):
        reached = threading.Event()
        self.hub.faults[WEIGHTS] = [hub_server.fall_silent(2_000_000, reached)]
        process = subprocess.Popen([program.executable(), "pull", "moondream2", "--endpoint", self.hub.url],
                                   env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertTrue(reached.wait(program.TIMEOUT_S))
        while not (self.models / ".incoming").exists() or self.begun().stat().st_size == 0:
            pass  # the bytes are on their way
        process.kill()
        process.wait()
        here = self.begun().stat().st_size

        self.assertFalse(self.final.exists())
        self.assertIn("incomplete", self.fovea("models").out)
        self.assert_pulled(self.pull())

        asked = self.hub.asked_for(WEIGHTS, "store")[-1].headers
        self.assertEqual(asked["Range"], f"bytes={here}-")
        self.assertEqual(asked["If-Range"], f'"store-{hub_server.sha256(self.weights)[:8]}"')
        self.assertFalse((self.models / ".incoming" / MOONDREAM2).exists())

    def test_begins_anew_when_the_store_has_other_bytes_by_now(self):
        self.hub.faults[WEIGHTS] = [hub_server.cut(1_000_000, etag="older")]

        self.assert_pulled(self.pull())  # If-Range does not hold, and the answer is the whole file

    def test_a_server_without_ranges(self):
        self.hub.faults[WEIGHTS] = [hub_server.cut(1_000_000), hub_server.whole_file]

        self.assert_pulled(self.pull())

    def test_a_server_that_falls_silent(self):
        self.hub.faults[WEIGHTS] = [hub_server.fall_silent(700_000)]

        finished = self.pull("--stall-timeout", 1)

        self.assert_pulled(finished)
        self.assertIn("silent", finished.err)

    def test_errors_that_pass(self):
        self.hub.faults["listing"] = [hub_server.status(502), hub_server.status(429, {"Retry-After": "0"})]
        self.hub.faults[WEIGHTS] = [hub_server.status(503), hub_server.cut(10), hub_server.status(500)]

        self.assert_pulled(self.pull("--retries", 2))

    def test_gives_up_after_so_many_tries_and_keeps_what_it_has(self):
        self.hub.faults[WEIGHTS] = [hub_server.cut(1_000_000)] + 4 * [hub_server.status(503)]

        self.assert_fails(self.pull("--retries", 3), "503", WEIGHTS)

        self.assertEqual(self.begun().stat().st_size, 1_000_000)
        self.assertEqual(len(self.hub.asked_for(WEIGHTS, "store")), 4)

    def test_length_in_chunks(self):
        self.hub.faults[WEIGHTS] = [hub_server.chunked()]
        self.hub.faults["config.json"] = [hub_server.chunked()]

        self.assert_pulled(self.pull())


class WrongBytes(PullCase):
    def test_a_wrong_sum_once(self):
        self.hub.faults[WEIGHTS] = [hub_server.other_bytes]

        self.assert_pulled(self.pull())

    def test_a_wrong_sum_always(self):
        for file in ("tokenizer.json", WEIGHTS):
            with self.subTest(file):
                self.hub.faults = {file: (hub_server.other_bytes,)}
                self.assert_fails(self.pull(), file, "not what the hub lists")

    def test_bytes_of_an_earlier_run_that_are_wrong(self):
        self.hub.faults[WEIGHTS] = [hub_server.cut(1_000_000), hub_server.status(404)]
        self.assert_fails(self.pull(), WEIGHTS)
        with self.begun().open("r+b") as part:
            part.write(b"damaged")

        finished = self.pull()

        self.assert_pulled(finished)
        self.assertIn("from the beginning", finished.err)

    def test_another_length_than_listed(self):
        size = len(self.weights)
        self.hub.faults[WEIGHTS] = [hub_server.announce(size - 1)]
        self.assert_fails(self.pull(), WEIGHTS, str(size - 1))
        self.hub.faults[WEIGHTS] = [hub_server.chunked(lambda content: content + b"more")]
        self.assert_fails(self.pull(), WEIGHTS, "more than")

    def test_chunks_that_end_too_early_are_gone_on_with(self):
        self.hub.faults[WEIGHTS] = [hub_server.chunked(lambda content: content[:1_000_000])]

        self.assert_pulled(self.pull())

    def test_sums_from_headers_when_the_list_has_none(self):
        listing = self.moondream2.listing()
        for sibling in listing["siblings"]:
            for key in ("size", "blobId", "lfs"):
                sibling.pop(key, None)
        self.hub.faults["listing"] = [lambda handler, _: handler.send(json.dumps(listing).encode())]

        self.assert_pulled(self.pull())

    def test_a_model_that_the_engine_would_not_load(self):
        self.hub.add(STARMIE, {"tokenizer.json": b'{"stale": true}'})

        self.assert_fails(self.pull(), "cannot load", "--tokenizer")


class Refusals(PullCase):
    def test_gated_models_want_a_token_which_stays_with_the_hub(self):
        self.hub.token = "hf_secret"
        self.assert_fails(self.pull(), MOONDREAM2, "--token-file")
        token = self.folder / "token"
        token.write_text("wrong\n")
        self.assert_fails(self.pull("--token-file", token), "this access token")
        token.write_text("hf_secret\n")

        self.assert_pulled(self.pull("--token-file", token))

        self.assertTrue(self.hub.asked_for(WEIGHTS, "store"))
        for asked in self.hub.asked_for(WEIGHTS, "store"):
            self.assertNotIn("Authorization", asked.headers)

    def test_tokens_of_the_environment(self):
        self.hub.token = "hf_secret"
        other_hubs = self.pull(env={**self.environment, "HF_TOKEN": "hf_secret"})
        self.assert_fails(other_hubs, "--token-file")
        for asked in self.hub.requests:
            self.assertNotIn("Authorization", asked.headers)

        self.assert_pulled(self.pull(env={**self.environment, "FOVEA_HUB_TOKEN": "hf_secret"}))

    def test_a_token_with_a_line_break_inside(self):
        self.assert_fails(self.pull(env={**self.environment, "FOVEA_HUB_TOKEN": "a\r\nHost: b"}), "FOVEA_HUB_TOKEN")

    def test_a_token_is_not_sent_in_the_clear_to_others(self):
        finished = self.fovea("pull", "moondream2", "--endpoint", "http://hub.invalid",
                              env={**self.environment, "FOVEA_HUB_TOKEN": "secret"})
        self.assert_fails(finished, "plain http")

    def test_names_that_the_hub_does_not_have(self):
        self.assert_fails(self.pull(model="no/body"), "no/body")
        self.assert_fails(self.pull(model="moondream2@none"), "revision", "none")

    def test_redirects_without_end(self):
        self.hub.faults["listing"] = (lambda handler, _: handler.redirect(handler.path),)
        self.assert_fails(self.pull(), "redirects")

    def test_redirects_to_other_protocols(self):
        for url in ("ftp://127.0.0.1/x", "file:///etc/passwd"):
            self.hub.faults["listing"] = (hub_server.send_to(url),)
            self.assert_fails(self.pull(), "http")

    def test_files_that_want_to_lie_elsewhere(self):
        for name in ("../evil.safetensors", "/tmp/evil.safetensors", "..\\evil.safetensors", ".hidden.safetensors",
                     "a/model.safetensors"):
            self.hub.add(MOONDREAM2, {name: self.weights})
            self.assert_fails(self.pull(), "no safetensors")
        index = {"weight_map": {"text.wte": "\x1b[2J../../../evil.safetensors"}}
        self.hub.add(MOONDREAM2, {"model.safetensors.index.json": json.dumps(index).encode()})
        finished = self.pull()
        self.assert_fails(finished, "evil.safetensors")
        self.assertNotIn("\x1b", finished.err)
        self.assertEqual(list(self.folder.rglob("*evil*")), [])

    def test_weights_of_another_form(self):
        self.hub.add(MOONDREAM2, {"model_fp8.pt": self.weights})
        self.assert_fails(self.pull(), "safetensors", "model_fp8.pt")

    def test_answers_that_are_no_list(self):
        for content in (b"", b"<html>", b"[]", b'{"sha": 1}', b'{"sha":"' + b"0" * 40 + b'"}', b"[" * 100_000):
            self.hub.faults["listing"] = (lambda handler, _, content=content: handler.send(content),)
            self.assert_fails(self.pull())

    def test_sizes_beyond_the_disk_and_the_limit(self):
        for size, part in ((200 << 30, "free"), (1 << 40, "at most")):
            listing = self.moondream2.listing()
            next(file for file in listing["siblings"] if file["rfilename"] == WEIGHTS)["lfs"]["size"] = size
            self.hub.faults["listing"] = [lambda handler, _: handler.send(json.dumps(listing).encode())]
            if part == "free" and shutil.disk_usage(self.folder).free > size:
                continue
            self.assert_fails(self.pull(), part)
            self.assertEqual(self.hub.asked_for(WEIGHTS), [])


class PlainProxies(PullCase):
    def test_are_asked_for_hubs_but_not_for_those_that_no_proxy_names(self):
        environment = {**self.environment, "http_proxy": self.hub.url, "no_proxy": "127.0.0.1"}
        # The hub is the proxy as well. It sends us to its store, which no_proxy names.
        self.assert_pulled(self.fovea("pull", "moondream2", "--endpoint", "http://hub.invalid", env=environment))
        for asked in self.hub.requests:
            self.assertEqual(asked.path.startswith("http://hub.invalid/"), asked.server == "hub", asked.path)

    def test_that_do_not_answer_are_named(self):
        environment = {**self.environment, "http_proxy": "http://127.0.0.1:9"}
        self.assert_fails(self.fovea("pull", "moondream2", "--endpoint", "http://hub.invalid", "--retries", 0,
                                     env=environment), "127.0.0.1", "9")


@unittest.skipUnless(shutil.which("openssl"), "openssl is not installed")
class Encrypted(PullCase):
    def certificate(self):
        key, certificate = self.folder / "key.pem", self.folder / "certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
                        "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"],
                       check=True, stderr=subprocess.DEVNULL)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return certificate, context

    def test_goes_through_a_proxy(self):
        certificate, context = self.certificate()
        hub = self.start_hub(ssl_context=context, store_ssl_context=context)
        hub.repositories = self.hub.repositories
        proxy = hub_server.Proxy()
        self.addCleanup(proxy.stop)
        environment = {name: value for name, value in self.environment.items() if name != "no_proxy"}
        ask = lambda **more: self.pull("--ca-file", certificate, hub=hub, env={**environment, **more})

        self.assert_pulled(ask(HTTPS_PROXY=proxy.url))
        self.assertEqual(set(proxy.connected), {server.url.removeprefix("https://") for server in (hub.hub, hub.store)})

        proxy.connected.clear()
        self.fovea("models", "rm", "moondream2")
        self.assert_pulled(ask(https_proxy=proxy.url, NO_PROXY="example.org,127.0.0.1"))
        self.assertEqual(proxy.connected, [])

    def test_trusts_the_named_certificates_only(self):
        certificate, context = self.certificate()
        hub = self.start_hub(ssl_context=context, store_ssl_context=context)
        hub.repositories = self.hub.repositories

        self.assert_fails(self.pull(hub=hub), "certificate")
        self.assertEqual(hub.requests, [])
        self.assert_pulled(self.pull("--ca-file", certificate, hub=hub))

    def test_is_not_led_out_of_https(self):
        certificate, context = self.certificate()
        hub = self.start_hub(ssl_context=context)
        hub.repositories = self.hub.repositories

        self.assert_fails(self.pull("--ca-file", certificate, hub=hub), "plain http")
        self.assertEqual(hub.asked_for(WEIGHTS, "store"), [])


if __name__ == "__main__":
    program.main()
