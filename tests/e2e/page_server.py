"""`fovea serve` with the model in the box, for the tests of the page."""

import base64
import json
import socket
import subprocess
import threading
import urllib.request

import program

STOP_TIMEOUT_S = 60


class Server:
    """A running server on a free port of this machine."""

    def __init__(self, *options):
        options = ("--port", "0", *options) if "--port" not in options else options
        self._process = subprocess.Popen([program.executable(), "serve", *options], stdin=subprocess.DEVNULL,
                                         stdout=subprocess.PIPE, text=True)
        # It prints its address when the model is there, or ends.
        line = self._process.stdout.readline()
        if not line.startswith("Listening on "):
            self.stop()
            raise RuntimeError(f"fovea serve {' '.join(options)} does not listen: {line!r}")
        self.address = line.removeprefix("Listening on ").strip().rstrip("/") + "/"
        self.port = int(self.address.rstrip("/").rpartition(":")[2])

    def stop(self):
        """Ends it; may be called twice."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def ask(self, skill, picture, **fields):
        """The answer to a request without stream."""
        image = base64.b64encode(picture.read_bytes()).decode()
        request = urllib.request.Request(f"{self.address}v1/{skill}", headers={"Content-Type": "application/json"},
                                         data=json.dumps({"image_url": image, **fields}).encode())
        with urllib.request.urlopen(request, timeout=program.TIMEOUT_S) as response:
            return json.load(response)

    def stats(self):
        with urllib.request.urlopen(f"{self.address}v1/stats", timeout=program.TIMEOUT_S) as response:
            return json.load(response)


class HoldingProxy:
    """Stands before a server and lets only the first event of each answer through, so that answers run until
    they are stopped. `gone` is set when the browser closes the connection of such an answer."""

    def __init__(self, server):
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.gone = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        # A blocked accept() only wakes up when the socket is shut down, not when it is closed.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server.port))
            answers = threading.Event()
            threading.Thread(target=self._carry_requests, args=(client, server, answers), daemon=True).start()
            threading.Thread(target=self._carry_answers, args=(server, client, answers), daemon=True).start()

    def _carry_requests(self, client, server, is_held):
        with client, server:
            try:
                while piece := client.recv(65536):
                    server.sendall(piece)
            except OSError:
                pass
            if is_held.is_set():
                self.gone.set()

    def _carry_answers(self, server, client, is_held):
        kept = b""
        try:
            while piece := server.recv(65536):
                kept += piece
                start = kept.find(b"data: ")
                end = kept.find(b"\n\n", start)
                if start >= 0 and end >= 0 and b"Content-Type: text/event-stream" in kept:
                    is_held.set()
                    # Often in the middle of a chunk: several events may share one.
                    client.sendall(kept[: end + 2])
                    return
                if b"Content-Type: text/event-stream" not in kept:
                    client.sendall(kept)
                    kept = b""
        except OSError:
            pass
