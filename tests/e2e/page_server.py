"""`fovea serve` with the model in the box, for the tests of the page."""

import base64
import json
import subprocess
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
