"""Starts `fovea serve` for the tests in this folder, and speaks HTTP with it."""

import base64
import http.client
import json
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import program

PICTURE = Path(__file__).resolve().parents[2] / "assets" / "harbour.png"
DEADLINE_S = 300  # sanitized builds on a busy machine are slow


def data_uri(data=None, kind="png"):
    data = PICTURE.read_bytes() if data is None else data
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    def error(self):
        """(type, param, code) of the error object."""
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"], error
        return error["type"], error["param"], error["code"]

    def events(self):
        """The data of each event of a stream."""
        events = []
        for line in self.body.decode("ascii").split("\n\n"):
            if line and not line.startswith(":"):
                assert line.startswith("data: "), line
                events.append(line[6:] if line[6:] == "[DONE]" else json.loads(line[6:]))
        return events


class Server:
    """A running server. Use it in a with statement."""

    def __init__(self, *args):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([program.executable(), "serve", "--port", "0", *map(str, args)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline().decode()
        assert line.startswith("Listening on "), (line, self.logged())
        self.url = line.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.log.close()

    def logged(self):
        self.log.seek(0)
        return self.log.read().decode()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)

    def request(self, method, path, body=None, headers=None):
        connection = self.connect()
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def post(self, path, body, **headers):
        return self.request("POST", path, body, headers)

    def raw(self, data=b""):
        """A socket on which the bytes have been sent."""
        client = socket.create_connection(("127.0.0.1", self.port), DEADLINE_S)
        client.sendall(data)
        return client

    def metric(self, name):
        """The sum of a metric's samples."""
        total = 0.0
        for line in self.get("/metrics").body.decode().splitlines():
            if line.split("{")[0].split(" ")[0] == name:
                total += float(line.rsplit(" ", 1)[1])
        return total

    def wait_for(self, condition, what):
        """Until a condition holds; fails after a long time."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, what
            time.sleep(0.02)


def post_bytes(path, body, extra=""):
    """A POST request as it stands on the wire."""
    body = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{extra}\r\n").encode() + body


def read_all(client):
    """All bytes up to the end of the connection."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)
