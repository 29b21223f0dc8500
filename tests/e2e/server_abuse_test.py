"""What a server on a network meets: many at once, slow ones, those that go away, and those that mean harm."""

import json
import resource
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import program
from program import FAILED, run
from server_process import PICTURE, Server, data_uri, post_bytes, read_all

LONG = {"question": "Tell me everything!", "temperature": 50, "top_p": 1, "max_tokens": 900, "stream": True}


class Crowd(unittest.TestCase):
    def test_a_thousand_streams_are_open_at_once_and_all_end_well(self):
        num = 1000
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        with Server("--max-queue", 2000) as server:
            request = post_bytes("/v1/query", {"question": "?", "stream": True, "max_tokens": 4}, "Connection: close\r\n")
            clients = [server.raw() for _ in range(num)]
            server.wait_for(lambda: server.metric("fovea_http_connections") >= num, "not all are connected")
            for client in clients:
                client.sendall(request)
            for client in clients:
                answer = read_all(client)
                self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK"), answer)
                self.assertIn(b'"completed":true', answer)
                self.assertTrue(answer.endswith(b"0\r\n\r\n"))
                client.close()

    def test_clients_that_leave_in_the_middle_stop_costing(self):
        with Server() as server:
            clients = [server.raw(post_bytes("/v1/query", LONG)) for _ in range(20)]
            clients[0].recv(1)
            for client in clients:
                client.close()

            def is_over():  # before the engine has seen them, nothing is processed either
                stats = server.get("/v1/stats").json()
                return stats["requests_cancelled"] > 0 and stats["processing"] + stats["queue_size"] == 0

            server.wait_for(is_over, "requests go on")

    def test_a_client_that_closes_its_sending_side_is_let_go(self):
        with Server() as server:
            client = server.raw(post_bytes("/v1/query", LONG))
            client.recv(1)
            client.shutdown(socket.SHUT_WR)
            read_all(client)  # ends: the connection is closed from there too
            client.close()
            server.wait_for(lambda: server.get("/v1/stats").json()["processing"] == 0, "the request goes on")

    def test_a_reader_that_never_reads_holds_nobody_up(self):
        with Server() as server:
            deaf = server.raw()
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.sendall(post_bytes("/v1/query", LONG) * 50)
            self.assertEqual(server.post("/v1/query", {"question": "?", "max_tokens": 1}).status, 200)
            deaf.close()


class SlowClients(unittest.TestCase):
    """Whoever takes too long hears why, if it listens, and makes room."""

    HEAD = b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\n"

    def server(self, *args):
        server = Server("--log", "json", *args)
        self.addCleanup(server.__exit__)
        return server

    def assert_request_timeout(self, client):
        answer = read_all(client)  # ends: the connection is closed from there
        client.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 408 "), answer)
        self.assertIn(b"Connection: close", head)
        self.assertEqual(json.loads(body)["error"]["code"], "request_timeout")

    def trickle(self, client, byte, gap_s):
        """One byte after the other until an answer comes; gives up after five minutes."""
        client.settimeout(gap_s)
        for _ in range(int(300 / gap_s)):
            try:
                client.sendall(byte)
                if client.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                pass
        client.settimeout(None)

    def test_a_head_that_does_not_end_is_408(self):
        server = self.server("--head-timeout", 0.3)
        self.assert_request_timeout(server.raw(self.HEAD))

    def test_a_head_that_trickles_is_408(self):
        server = self.server("--head-timeout", 1)
        client = server.raw(self.HEAD)
        self.trickle(client, b"X", 0.1)  # a byte now and then does not buy more time
        self.assert_request_timeout(client)

    def test_a_body_that_pauses_too_long_is_408(self):
        server = self.server("--body-timeout", 0.3)
        self.assert_request_timeout(server.raw(self.HEAD + b"Content-Length: 100\r\n\r\n{"))
        self.assert_request_timeout(server.raw(self.HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"))
        self.assertEqual(server.metric("fovea_http_requests_total"), 2)

    def test_a_body_that_trickles_for_ever_is_408(self):
        server = self.server("--body-timeout", 0.2)  # ten times that for the whole
        client = server.raw(self.HEAD + b"Content-Length: 100000\r\n\r\n{")
        self.trickle(client, b" ", 0.02)
        self.assert_request_timeout(client)

    def test_a_connection_without_a_request_is_closed(self):
        for idle in ("--head-timeout", "--idle-timeout"):  # before the first request, and between two
            server = self.server(idle, 0.3)
            client = server.raw(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n" if idle == "--idle-timeout" else b"")
            answer = read_all(client)
            client.close()
            self.assertEqual(answer.startswith(b"HTTP/1.1 200"), idle == "--idle-timeout")

    def test_a_reader_that_takes_nothing_is_cut_off(self):
        server = self.server("--write-timeout", 0.3)
        client = server.raw()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # More than any buffer on the way holds.
        client.sendall(b"GET /page/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000)
        server.wait_for(lambda: server.metric("fovea_http_connections") == 1, "the reader is still connected")
        self.assertIn('"status":499', server.logged())
        client.close()


class BrokenRequests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def talk(self, data):
        client = self.server.raw(data)
        client.shutdown(socket.SHUT_WR)
        answer = read_all(client)
        client.close()
        return answer

    def test_what_is_no_http_is_400(self):
        for data in (b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\x01 HTTP/1.1\r\n\r\n",
                     b"POST /v1/query HTTP/1.1\r\nContent-Length: x\r\n\r\n",
                     b"POST /v1/query HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
            with self.subTest(data=data):
                self.assertTrue(self.talk(data).startswith(b"HTTP/1.1 400"), data)

    def test_a_head_without_end_is_431(self):
        self.assertTrue(self.talk(b"GET / HTTP/1.1\r\nX: " + b"a" * 20000).startswith(b"HTTP/1.1 431"))

    def test_a_body_that_ends_too_soon_is_400(self):
        head = b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
        for part in (b"{", b'{"question": "?", "max_tokens": 1}'):  # also when the part would do alone
            cut = self.talk(head + part)
            self.assertTrue(cut.startswith(b"HTTP/1.1 400"), cut)
            self.assertIn(b"Connection: close", cut)
        self.assertEqual(self.server.get("/health").status, 200)

    def test_json_of_endless_depth_is_400(self):
        answer = self.server.post("/v1/query", "[" * 100000)
        self.assertEqual((answer.status, answer.error()[2]), (400, "invalid_json"))

    def test_no_request_reads_a_local_file(self):
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            file.write(PICTURE.read_bytes())
            file.flush()
            for name in (file.name, "file://" + file.name, "FILE://localhost" + file.name, "../" * 8 + file.name[1:]):
                answer = self.server.post("/v1/caption", {"image_url": name})
                self.assertEqual((answer.status, answer.error()[1]), (400, "image_url"), name)
                chat = self.server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": [
                    {"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": name}}]}]})
                self.assertEqual(chat.status, 400, name)
        for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "/index.html"):
            self.assertEqual(self.server.get(path).status, 404, path)

    def test_foreign_pages_and_names_are_refused(self):
        self.assertEqual(self.server.get("/v1/models", Origin="https://example.org").status, 403)
        self.assertEqual(self.server.get("/v1/models", Host="example.org").status, 403)


class Web(BaseHTTPRequestHandler):
    """Serves the picture, a redirect to it, and an endless file."""

    def do_GET(self):
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/picture.png")
            self.end_headers()
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(10000):
                    self.wfile.write(bytes(65536))
            except OSError:
                pass
        elif self.path == "/picture.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PICTURE.read_bytes())
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


class PicturesByUrl(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.web = ThreadingHTTPServer(("127.0.0.1", 0), Web)
        threading.Thread(target=cls.web.serve_forever, daemon=True).start()
        cls.base = f"http://127.0.0.1:{cls.web.server_port}"

    @classmethod
    def tearDownClass(cls):
        cls.web.shutdown()
        cls.web.server_close()

    def caption(self, server, url):
        return server.post("/v1/caption", {"image_url": url, "length": "short"})

    def test_are_off_unless_allowed(self):
        with Server() as server:
            answer = self.caption(server, self.base + "/picture.png")
            self.assertEqual((answer.status, answer.error()[1]), (400, "image_url"))

    def test_private_addresses_are_refused_even_for_allowed_names(self):
        port = self.web.server_port
        with Server("--allow-url-host", f"*:{port}") as server:
            for host in ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254"):
                answer = self.caption(server, f"http://{host}:{port}/picture.png")
                self.assertEqual((answer.status, answer.error()[2]), (400, "image_fetch_failed"), host)

    def test_allowed_ones_are_fetched_and_nothing_else(self):
        with Server("--allow-url-host", self.base[7:], "--allow-private-urls", "--max-body-mb", 1) as server:
            self.assertEqual(self.caption(server, self.base + "/picture.png").status, 200)
            for path in ("/redirect", "/endless", "/missing"):
                answer = self.caption(server, self.base + path)
                self.assertEqual((answer.status, answer.error()[2]), (400, "image_fetch_failed"), path)
            other = self.caption(server, "http://localhost:1/picture.png")
            self.assertEqual((other.status, other.error()[2]), (400, "image_fetch_failed"))


class LifeCycle(unittest.TestCase):
    def test_stopping_finishes_what_runs_and_refuses_what_comes(self):
        with Server() as server:
            running = server.raw(post_bytes("/v1/query", {**LONG, "max_tokens": 400}))
            waiting = server.connect()
            waiting.request("GET", "/health")
            waiting.getresponse().read()
            running.recv(1)
            server.terminate()
            server.wait_for(lambda: server.process.poll() is not None or
                            b"stopping" in self.health(server), "it does not stop")
            answer = read_all(running)
            running.close()
            waiting.close()
            self.assertIn(b'"completed":true', answer)
            self.assertEqual(server.process.wait(60), 0)

    def health(self, server):
        try:
            return server.get("/health").body
        except OSError:
            return b"stopping"

    def test_a_deadline_is_504(self):
        with Server("--timeout", "0.001") as server:
            answer = server.post("/v1/caption", {"image_url": data_uri()})
            self.assertEqual((answer.status, answer.error()[2]), (504, "timeout"))

    def test_listening_to_others_needs_a_key_or_a_word(self):
        refused = run("serve", "--host", "0.0.0.0", "--port", 0)
        self.assertEqual(refused.code, FAILED)
        self.assertIn("--api-key-file", refused.err)
        with Server("--host", "0.0.0.0", "--insecure") as server:
            self.assertEqual(server.get("/health").status, 200)

    def test_a_taken_port_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            refused = run("serve", "--port", taken.getsockname()[1])
            self.assertEqual(refused.code, FAILED)
            self.assertIn(str(taken.getsockname()[1]), refused.err)

    def test_logs_have_request_ids_and_no_words_unless_asked(self):
        for flags, has_words in ((["--log", "json"], False), (["--log-content"], True)):
            with Server(*flags) as server:
                server.post("/v1/query", {"question": "Where is my passport?", "max_tokens": 1},
                            **{"X-Request-Id": "my-id"})
                server.terminate()
                server.process.wait(60)
                lines = [json.loads(line) for line in server.logged().splitlines()]
                # The engine's line (skill), the server's (route), and that with the words.
                named = {key for line in lines if line.get("request_id") == "my-id" for key in line}
                self.assertLessEqual({"skill", "route"}, named)
                self.assertEqual("question" in named, has_words)
                self.assertEqual("passport" in server.logged(), has_words)

    def test_speaks_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            key, certificate = Path(folder, "key.pem"), Path(folder, "cert.pem")
            made = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out",
                                   certificate, "-days", "2", "-subj", "/CN=localhost", "-addext",
                                   "subjectAltName=DNS:localhost"], capture_output=True)
            self.assertEqual(made.returncode, 0, made.stderr)
            with Server("--tls-cert", certificate, "--tls-key", key) as server:
                self.assertTrue(server.url.startswith("https://"))
                context = ssl.create_default_context(cafile=str(certificate))
                for body in ({"question": "?", "max_tokens": 2, "stream": True}, {"question": "?", "max_tokens": 2}):
                    with context.wrap_socket(server.raw(), server_hostname="localhost") as client:
                        client.sendall(post_bytes("/v1/query", body, "Connection: close\r\n"))
                        self.assertIn(b"200 OK", client.recv(65536))


if __name__ == "__main__":
    program.main()
