"""Between a client and the servers: a small HTTP proxy of each client's own, which loses, cuts, repeats and delays.

What it does to the nth request of a client follows from the seed, the client and n alone.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from faults.ledger import Ledger

UPSTREAM_S = 6.0  #: longest wait for a server; a stopped one would keep the client for its own 30 s
PASSED = ("Authorization", "Content-Type")
GIVEN = ("Content-Type", "Retry-After")


@dataclass(frozen=True)
class Reply:
    """A server's whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Mischief:
    """What happens to one request."""

    delay_s: float = 0.0
    switch: bool = False  #: go to the other server from now on
    cut_request: bool = False  #: half of it arrives
    twice: bool = False  #: it arrives twice, one answer is delivered
    later_s: float = 0.0  #: it arrives once more, at the other server, so much later
    drop_reply: bool = False
    cut_reply: bool = False  #: half of the answer arrives

    def names(self) -> list[str]:
        """The kinds of it, for the summary."""
        kinds = {
            "request delayed": self.delay_s,
            "server switched": self.switch,
            "request cut": self.cut_request,
            "request doubled": self.twice,
            "request repeated late": self.later_s,
            "reply dropped": self.drop_reply,
            "reply cut": self.cut_reply,
        }
        return [name for name, done in kinds.items() if done]


NONE = Mischief()


def mischief(seed: int, client: int, n: int) -> Mischief:
    """What happens to the client's nth request: mostly nothing, at most one bad thing and a delay."""
    dice = random.Random(f"{seed}/{client}/{n}")
    delay_s = dice.uniform(0.1, 3.0) if dice.random() < 0.04 else 0.0
    switch = dice.random() < 0.03
    point = dice.random()
    later_s = dice.uniform(0.5, 8.0)
    return Mischief(
        delay_s=delay_s,
        switch=switch,
        cut_request=point < 0.02,
        twice=0.02 <= point < 0.06,
        later_s=later_s if 0.06 <= point < 0.10 else 0.0,
        drop_reply=0.10 <= point < 0.14,
        cut_reply=0.14 <= point < 0.16,
    )


class Proxy:
    """One client's way to the servers."""

    def __init__(
        self, client: int, servers: Sequence[int], ledger: Ledger, *, seed: int, active: bool
    ) -> None:
        self.client, self.ledger = client, ledger
        self.active = active  #: whether it does mischief
        self.closed = False  #: a partition: nothing gets through
        self.done: Counter[str] = Counter()
        self._servers, self._seed = list(servers), seed
        self._at = client % len(self._servers)
        self._n = 0
        self._lock = threading.Lock()
        self._listener = _Listener(self)
        self.port: int = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, args=(0.5,), daemon=True).start()

    @property
    def url(self) -> str:
        """What the client takes for the source server."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Listen no longer."""
        self._listener.shutdown()
        self._listener.server_close()

    def next_mischief(self) -> Mischief:
        """What happens to the request that has just come."""
        with self._lock:
            self._n += 1
            drawn = mischief(self._seed, self.client, self._n) if self.active else NONE
            if drawn.switch:
                self._switch()
            self.done.update(drawn.names())
        return drawn

    def pass_on(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply | None:
        """The answer of the server that is used now; None when it gives none, then the other one is used."""
        call = f"{method} {'/'.join(path.split('/')[:2])}"
        if path in ("/add", "/next"):
            self.ledger.note_sent(self.client, body)
        link = http.client.HTTPConnection("127.0.0.1", self._servers[self._at], timeout=UPSTREAM_S)
        try:
            link.request(method, path, body=body or None, headers=headers)
            answer = link.getresponse()
            reply = Reply(answer.status, dict(answer.getheaders()), answer.read())
        except (OSError, http.client.HTTPException):
            self._switch()
            return None
        finally:
            link.close()
        self.ledger.note_reply(self.client, call, body, reply.status, reply.body)
        return reply

    def pass_on_half(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        """Break the request off in the middle of its body."""
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        with contextlib.suppress(OSError):
            address = ("127.0.0.1", self._servers[self._at])
            with socket.create_connection(address, timeout=UPSTREAM_S) as link:
                link.sendall(head + body[: len(body) // 2])

    def repeat_later(
        self, seconds: float, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        """Let the other server have the request, too, when nobody waits for it any longer."""

        def again() -> None:
            self._switch()
            self.pass_on(method, path, headers, body)

        timer = threading.Timer(seconds, again)
        timer.daemon = True
        timer.start()

    def _switch(self) -> None:
        self._at = (self._at + 1) % len(self._servers)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle of a request is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def do_POST(self) -> None:
        """Pass a request on, more or less."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: self.headers[name] for name in PASSED if name in self.headers}
        reply = self._through(self.command, self.path, headers, body)
        if reply is None:
            self.close_connection = True
            return
        self.wfile.write(reply)

    do_GET = do_DELETE = do_PUT = do_POST

    def _through(self, *request: Any) -> bytes | None:
        proxy, what = self.server.proxy, self.server.proxy.next_mischief()
        if what.delay_s:
            time.sleep(what.delay_s)
        if proxy.closed:
            return None
        if what.cut_request:
            proxy.pass_on_half(*request)
            return None
        reply = proxy.pass_on(*request)
        if what.twice:
            reply = proxy.pass_on(*request) or reply
        if what.later_s:
            proxy.repeat_later(what.later_s, *request)
        if reply is None or what.drop_reply or proxy.closed:
            return None
        whole = _encoded(reply)
        if what.cut_reply:
            self.close_connection = True
            return whole[: len(whole) // 2]
        return whole

    def log_message(self, *_: Any) -> None:
        """Nothing: there would be a line for each request."""


def _encoded(reply: Reply) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {http.client.responses.get(reply.status, '')}"]
    lines += [f"{name}: {reply.headers[name]}" for name in GIVEN if name in reply.headers]
    if reply.status != 204:
        lines.append(f"Content-Length: {len(reply.body)}")
    return "\r\n".join([*lines, "", ""]).encode() + reply.body
