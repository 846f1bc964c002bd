"""A small HTTP server that speaks the volunteers' protocol, and can also fail, hang and die; and clients of it."""

import collections
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from client_container.runtime.process import JOB_UID, prepare_parent

Request = collections.namedtuple("Request", "method path key body at headers data")
Reply = collections.namedtuple("Reply", "status message headers")
HANG, CUT = object(), object()  #: instead of a reply: never answer; close the connection without one


class Server:
    """Speaks the protocol from memory. `rules` come first: functions of a request that may answer in its stead."""

    def __init__(self):
        self.heard, self.rules = [], []
        self.waiting = collections.deque()  #: chunks to hand out
        self.leases = {}  #: token -> list of chunks
        self.stored = {}  #: chunk -> attempt
        self.blobs, self.parts = {}, {}  #: sha256 -> bytes, whole and not yet whole
        self.sent = collections.Counter()  #: sha256 -> bytes of it that went out
        self.piece_s = 0.0  #: pause after each 64 KiB of a blob that goes out
        self.tickets_seen = set()
        self.lives = 0
        self.keys = {}  #: container -> the key of its latest life
        self.beat_s = 20.0
        self.job = {
            "image": None,
            "action": ["/bin/sh", "-c", "cat"],
            "env": {},
            "timeout_s": 20.0,
            "rows": None,
        }
        self.http = None
        self.port = 0
        self.released = threading.Event()
        self.dead = False

    def start(self):
        self.dead = False
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.http.daemon_threads, self.http.peer = True, self
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        self.dead = True  # connections that are open die at their next request
        self.http.shutdown()
        self.http.server_close()

    def give(self, content):
        """A blob that chunks may name; its hash."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.blobs[sha256] = content
        return sha256

    def file(self, name, content):
        """A file as jobs and chunks name it."""
        return {"name": name, "sha256": self.give(content), "bytes": len(content)}

    def offer(self, *names, data="1", **more):
        for n, name in enumerate(names):
            self.waiting.append(
                {
                    "id": name,
                    "n": n,
                    "run": 0,
                    "input": data,
                    "job": "t/main",
                    "ticket": f"ticket-{name}",
                    "ends_in_s": 60,
                    **more,
                }
            )

    def of(self, path):
        return [request for request in self.heard if request.path.startswith(path)]

    def answer(self, request):
        if self.dead:
            return CUT
        self.heard.append(request)
        for rule in self.rules:
            reply = rule(request)
            if reply is not None:
                return reply
        return self.usual(request)

    def usual(self, request):
        body = request.body
        if request.path == "/containers":
            self.lives += 1
            self.keys[body["id"]] = f"key-{self.lives}"
            message = {
                "id": body["id"],
                "life": str(uuid.uuid4()),
                "key": f"key-{self.lives}",
                "beat_s": self.beat_s,
            }
            return Reply(201, message, {})
        if request.key not in self.keys.values():
            return Reply(401, {"error": "This key is not known."}, {})
        if request.path.startswith("/blobs/"):
            return self.blob(request, request.path.rpartition("/")[2])
        if request.path == "/heartbeat":
            return Reply(200, {"drop": [], "lost": [], "claim_again": [], "config": {}}, {})
        if request.path == "/add":
            return Reply(200, {"results": self.store(body["results"])}, {})
        if request.path == "/next":
            return self.claim(body)
        return Reply(200, {"released": 0}, {})

    def blob(self, request, sha256):
        """A blob, as the server's own view of them has it."""
        words = request.headers.get("Dockercomp-Ticket", "").split()
        if len(words) != 4 or words[3] != f"ticket-{words[0]}":
            return Reply(403, {"error": "The ticket does not fit."}, {})
        self.tickets_seen.add(words[0])
        if request.method == "PUT":
            return self.put(sha256, request)
        if sha256 not in self.blobs:
            received = {"Dockercomp-Received": str(len(self.parts[sha256]))} if sha256 in self.parts else {}
            return Reply(404, {"error": "There is no such blob."}, received)
        begins = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        return Reply(
            206 if begins else 200, self.blobs[sha256][begins:], {"sha256": sha256, "begins": begins}
        )

    def put(self, sha256, request):
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", request.headers.get("Content-Range") or "")
        start, total = (int(found[1]), int(found[3])) if found else (0, len(request.data))
        have = self.parts.get(sha256, b"")
        if sha256 not in self.blobs:
            if start != len(have):
                return Reply(409, {"error": "Not here.", "received": len(have)}, {})
            have = self.parts[sha256] = have + request.data
            if len(have) < total:
                return Reply(202, {"sha256": sha256, "received": len(have), "bytes": total}, {})
            del self.parts[sha256]
            if hashlib.sha256(have).hexdigest() != sha256:
                return Reply(400, {"error": "The hash differs."}, {})
            self.blobs[sha256] = have
        return Reply(201, {"sha256": sha256, "bytes": len(self.blobs[sha256])}, {})

    def store(self, results):
        return [self.store_one(result) for result in results]

    def store_one(self, result):
        chunk = result["chunk"]
        assert result["ticket"] == f"ticket-{chunk}"
        if any(file["sha256"] not in self.blobs for file in result.get("files", ())):
            return {"chunk": chunk, "error": "Upload the file first.", "status": 409}
        self.stored[chunk] = result
        return {"chunk": chunk, "stored": True}

    def claim(self, body):
        answers = self.store(body.get("results", []))
        if body["token"] not in self.leases:
            count = min(body["want"], len(self.waiting))
            self.leases[body["token"]] = [self.waiting.popleft() for _ in range(count)]
        chunks = self.leases[body["token"]]
        if not chunks and not answers:
            return Reply(204, None, {"Retry-After": "0.2"})
        return Reply(200, {"chunks": chunks, "jobs": {"t/main": self.job}, "results": answers}, {})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = self.headers["Authorization"].removeprefix("Bearer ")
        peer = self.server.peer
        body = json.loads(data) if data and self.command == "POST" else None
        answer = peer.answer(
            Request(self.command, self.path, key, body, time.monotonic(), self.headers, data)
        )
        if answer is HANG:
            peer.released.wait(60)
        if answer in (HANG, CUT):
            self.close_connection = True
            return
        if isinstance(answer.message, bytes):
            self.send_blob(answer)
            return
        said = b"" if answer.message is None else json.dumps(answer.message).encode()
        self.send_response(answer.status)
        for header, value in answer.headers.items():
            self.send_header(header, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    def send_blob(self, answer):
        peer, content = self.server.peer, answer.message
        sha256, begins = answer.headers["sha256"], answer.headers["begins"]
        self.send_response(answer.status)
        if begins:
            whole = begins + len(content)
            self.send_header("Content-Range", f"bytes {begins}-{whole - 1}/{whole}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for place in range(0, len(content) if self.command != "HEAD" else 0, 65536):
            piece = content[place : place + 65536]
            try:
                self.wfile.write(piece)
            except OSError:
                self.close_connection = True
                return
            peer.sent[sha256] += len(piece)
            if peer.piece_s:
                time.sleep(peer.piece_s)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = reply

    def log_message(self, *_):
        pass


def until(condition, within_s=90):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


@contextlib.contextmanager
def served():
    """A server, which has an end whatever its clients do."""
    peer = Server()
    peer.start()
    yield peer
    peer.released.set()
    peer.stop()


#: The jobs here are shell lines of all sorts, which a client allows only inside a container.
AS_IN_A_CONTAINER = "from client_container import __main__ as it; it._in_container = lambda: True; it.main()"


@contextlib.contextmanager
def clients_of(server, folder, key="account-key"):
    """Starts clients of one home in the folder (or of the one that is set) before whatever listens on `server.port`.

    All are killed at the end.
    """
    running, homes = [], set()

    def start(**settings):
        (folder / "key").write_text(key)
        env = {
            "PATH": os.environ["PATH"],
            "DOCKERCOMP_SERVER": f"http://127.0.0.1:{server.port}",
            "DOCKERCOMP_KEY_FILE": str(folder / "key"),
            "DOCKERCOMP_HOME": str(folder / "home"),
            "DOCKERCOMP_ALLOW": "*",
        } | settings
        homes.add(env["DOCKERCOMP_HOME"])
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", AS_IN_A_CONTAINER, "--verbose"], env=env, stderr=log
            )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()
    print((folder / "log").read_text() if (folder / "log").exists() else "no log")
    if os.geteuid() == 0:  # a killed client leaves its folder for jobs in the temporary folder
        for home in homes:
            shutil.rmtree(prepare_parent(Path(home), uid=JOB_UID))


def spooled(folder, home="home"):
    return list((folder / home / "spool").glob("*.json"))
