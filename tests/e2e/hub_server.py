"""A hub of models on this machine, for tests: it answers as the public one does, and fails as one wishes.

Two servers make it up: the hub itself, with the lists of files and the small ones, and a store on another port, to which
the hub redirects whoever asks for a large file. Everything that was asked is in `Hub.requests`.
"""

import hashlib
import http.server
import json
import re
import socket
import ssl
import threading
from urllib.parse import unquote, urlsplit

LARGE = 100_000  # bytes from which a file lies in the store


def git_blob_id(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Repository:
    def __init__(self, files, licence="apache-2.0"):
        self.files = dict(files)
        self.licence = licence

    @property
    def commit(self):
        return hashlib.sha1(b"".join(name.encode() + sha256(content).encode()
                                     for name, content in sorted(self.files.items()))).hexdigest()

    def listing(self):
        siblings = []
        for name, content in self.files.items():
            sibling = {"rfilename": name, "size": len(content), "blobId": git_blob_id(content)}
            if len(content) >= LARGE:
                sibling["blobId"] = git_blob_id(b"a pointer to " + name.encode())
                sibling["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
        return {"sha": self.commit, "siblings": siblings, "gated": False, "tags": ["license:" + self.licence],
                "cardData": {"license": self.licence}}


class Asked:
    """One request, as a server saw it."""

    def __init__(self, handler):
        self.server = handler.server.role
        self.method = handler.command
        self.path = handler.path
        self.file = unquote(urlsplit(handler.path).path).rpartition("/")[2]
        self.headers = dict(handler.headers)


class Hub:
    """`faults` maps a file's name (or "listing") to a list of functions. Each takes a request's handler and the whole
    content, is used once, and answers in place of the server; the last one stays when it is in a tuple."""

    def __init__(self, ssl_context=None, store_ssl_context=None):
        self.repositories = {}
        self.requests = []
        self.faults = {}
        self.token = None  # what the hub wants to see; None: nothing
        self.stopping = threading.Event()
        self.hub = self._start("hub", ssl_context)
        self.store = self._start("store", store_ssl_context)

    def _start(self, role, ssl_context):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.role, server.owner = role, self
        server.url = f"http{'s' if ssl_context else ''}://127.0.0.1:{server.server_address[1]}"
        if ssl_context:
            server.socket = ssl_context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return server

    @property
    def url(self):
        return self.hub.url

    def add(self, name, files, **options):
        self.repositories[name] = Repository(files, **options)
        return self.repositories[name]

    def asked_for(self, file, server=None):
        return [asked for asked in self.requests if asked.file == file and server in (None, asked.server)]

    def stop(self):
        self.stopping.set()
        for server in (self.hub, self.store):
            server.shutdown()
            server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub = self.server.owner
        hub.requests.append(Asked(self))
        try:
            (self.answer_as_hub if self.server.role == "hub" else self.answer_as_store)(hub)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    # ---- what the servers do when nothing is wrong

    def answer_as_hub(self, hub):
        path = unquote(urlsplit(self.path).path)
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.fail(401, {"X-Error-Code": "GatedRepo"})
        if listing := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            repository = hub.repositories.get(listing[1])
            if repository is None:
                return self.fail(404, {"X-Error-Code": "RepoNotFound"})
            if listing[2] not in ("main", "2025-06-21", "refs/pr/1", repository.commit):
                return self.fail(404, {"X-Error-Code": "RevisionNotFound"})
            return self.serve("listing", json.dumps(repository.listing()).encode())
        if file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/([^/]+)", path):
            repository = hub.repositories.get(file[1])
            content = repository.files.get(file[3]) if repository and file[2] == repository.commit else None
            if content is None:
                return self.fail(404, {"X-Error-Code": "EntryNotFound"})
            if len(content) < LARGE:
                return self.serve(file[3], content, etag=git_blob_id(content))
            return self.redirect(f"{hub.store.url}/{file[1]}/{file[3]}?signature=1",
                                 {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))})
        return self.fail(404)

    def answer_as_store(self, hub):
        organisation, name, file = unquote(urlsplit(self.path).path).strip("/").split("/")
        content = hub.repositories[f"{organisation}/{name}"].files[file]
        self.serve(file, content, etag="store-" + sha256(content)[:8])

    def serve(self, name, content, etag=None):
        faults = self.server.owner.faults.get(name, [])
        if isinstance(faults, tuple):
            return faults[0](self, content)
        if faults:
            return faults.pop(0)(self, content)
        self.send(content, etag)

    def send(self, content, etag=None):
        begin = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and self.headers.get("If-Range", f'"{etag}"') == f'"{etag}"':
            begin = int(asked[1])
            if begin >= len(content):
                return self.fail(416)
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - begin))
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[begin:])

    def fail(self, status, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "9")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"no luck.\n")

    def redirect(self, url, headers=(), status=302):
        self.send_response(status)
        self.send_header("Location", url)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Proxy:
    """Lets TLS through to whom a client asks for. `connected` are the addresses that were asked for."""

    def __init__(self):
        self.connected = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tunnel)
        self.server.daemon_threads = True
        self.server.owner = self
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Tunnel(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_CONNECT(self):
        self.server.owner.connected.append(self.path)
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as other:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=self.pump, args=(other, self.connection), daemon=True)
            back.start()
            self.pump(self.connection, other)
            back.join()
        self.close_connection = True

    @staticmethod
    def pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


# ---- faults: what a server does instead

def cut(num_bytes, etag=None):
    """Promises everything and hangs up after so many bytes of what was asked for."""
    def fault(handler, content):
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        begin = int(asked[1]) if asked else 0
        handler.send_response(206 if begin else 200)
        if begin:
            handler.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - begin))
        handler.send_header("ETag", f'"{etag or "store-" + sha256(content)[:8]}"')
        handler.end_headers()
        handler.wfile.write(content[begin:begin + num_bytes])
        handler.close_connection = True
    return fault


def fall_silent(num_bytes, reached=None):
    """Sends so many bytes and then nothing, for as long as the test runs."""
    def fault(handler, content):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.send_header("ETag", f'"store-{sha256(content)[:8]}"')
        handler.end_headers()
        handler.wfile.write(content[:num_bytes])
        handler.wfile.flush()
        if reached:
            reached.set()
        handler.server.owner.stopping.wait()
        handler.close_connection = True
    return fault


def status(code, headers=()):
    return lambda handler, content: handler.fail(code, headers)


def other_bytes(handler, content):
    """As many bytes as there should be, but others."""
    handler.send(bytes(len(content)))


def chunked(content_of=lambda content: content):
    def fault(handler, content):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        body = content_of(content)
        for begin in range(0, len(body), 65536):
            piece = body[begin:begin + 65536]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")
    return fault


def announce(length):
    """Another Content-Length than is true."""
    def fault(handler, content):
        handler.send_response(200)
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(content[:length])
        handler.close_connection = True
    return fault


def whole_file(handler, content):
    """A server that knows nothing of ranges."""
    del handler.headers["Range"]
    handler.send(content)


def send_to(url):
    return lambda handler, content: handler.redirect(url)
