"""One webhook: a signed POST to an address that was checked, on the very connection that goes there.

Signed like Standard Webhooks: `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over id.timestamp.body, under
the project's key; two of them for a day after the key was changed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from urllib.parse import SplitResult, urlsplit

from source_server.domain.notice import Notice
from source_server.domain.public_address import Network, may_call
from source_server.services.messages.deliver import NotDelivered
from source_server.stores.database import Stores

CONNECT_S = 5.0  #: for one address
WITHIN_S = 15.0  #: for the rest: sending, and the answer's head
ANSWER = 1024  #: bytes of an answer that are read
MOST_ADDRESSES = 3  #: of one name that are tried
BOTH_KEYS = timedelta(days=1)
GONE = 410  #: the other side wants no more of this

Resolve = Callable[[str, int], Sequence[str]]


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses that a name has now, each once; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class SendWebhook:
    """Calls what scientists name, and nothing of the operator's own networks unless the operator said so."""

    def __init__(
        self,
        stores: Stores,
        *,
        networks: Sequence[Network] = (),
        trust: ssl.SSLContext | None = None,
        resolve: Resolve = addresses_of,
    ) -> None:
        self._stores = stores
        self._networks = networks
        self._trust = trust or ssl.create_default_context()
        self._resolve = resolve

    def __call__(self, notice: Notice) -> str:
        """Deliver it; raises NotDelivered."""
        where = urlsplit(notice.target.address)
        try:
            status = self._post(where, notice)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NotDelivered(f"{where.hostname} was not reached: {_words(error)}.") from error
        if 200 <= status < 300:
            return f"{where.hostname} answered {status}."
        follow = " Redirects are not followed." if 300 <= status < 400 else ""
        raise NotDelivered(f"{where.hostname} answered {status}.{follow}", for_good=status == GONE)

    def _post(self, where: SplitResult, notice: Notice) -> int:
        port = where.port or (443 if where.scheme == "https" else 80)
        last: OSError | None = None
        for address in self._checked(where, port):
            try:
                connected = socket.create_connection((address, port), timeout=CONNECT_S)
            except OSError as error:
                last = error
                continue
            connected.settimeout(WITHIN_S)
            with _cut_off_after(connected, WITHIN_S) as link:
                return self._talk(link, where, notice)
        raise last or OSError("there is no address to connect to")

    def _checked(self, where: SplitResult, port: int) -> list[str]:
        """The addresses of the name, all of them checked; it is to them that connections go, never to the name."""
        found = list(self._resolve(where.hostname or "", port))[:MOST_ADDRESSES]
        for text in found:
            address = ipaddress.ip_address(text.partition("%")[0])
            if not may_call(address, self._networks):
                # Where it leads is nobody's business who may not go there.
                raise NotDelivered(
                    f"{where.hostname} has an address that the server does not call.", for_good=True
                )
            if where.scheme != "https" and not _among(address, self._networks):
                raise NotDelivered(
                    "Without https only networks that the operator has named are called.", for_good=True
                )
        return found

    def _talk(self, link: socket.socket, where: SplitResult, notice: Notice) -> int:
        if where.scheme == "https":
            link = self._trust.wrap_socket(link, server_hostname=where.hostname)
        connection = http.client.HTTPConnection(where.hostname or "", where.port)
        connection.sock = link
        connection.auto_open = 0  # it never connects by itself: that would go to the name
        path = (where.path or "/") + (f"?{where.query}" if where.query else "")
        body = notice.body.encode()
        with closing(connection):
            connection.request("POST", path, body=body, headers=self._headers(where, notice, body))
            answer = connection.getresponse()
            answer.read(ANSWER)
            return answer.status

    def _headers(self, where: SplitResult, notice: Notice, body: bytes) -> dict[str, str]:
        now = self._stores.clock.now()
        stamp = str(int(now.timestamp()))
        keys = self._stores.webhook_keys.read(notice.project, changed_since=now - BOTH_KEYS)
        if not keys:
            self._stores.webhook_keys.ensure(notice.project, secrets.token_bytes(32), now)
            keys = self._stores.webhook_keys.read(notice.project, changed_since=now)
        return {
            "Host": where.netloc,
            "Content-Type": "application/json",
            "User-Agent": "dockercomp",
            "Connection": "close",
            "webhook-id": notice.id,
            "webhook-timestamp": stamp,
            "webhook-signature": " ".join(signature(key, notice.id, stamp, body) for key in keys),
        }


def signature(key: bytes, notice_id: str, stamp: str, body: bytes) -> str:
    """What the receiver compares."""
    mac = hmac.new(key, b".".join((notice_id.encode(), stamp.encode(), body)), hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


@contextmanager
def _cut_off_after(link: socket.socket, seconds: float) -> Iterator[socket.socket]:
    """The connection, which ends after that time however slowly the other side speaks."""
    # By number: TLS takes the socket object over, and the descriptor stays the same.
    twin = link.dup()

    def cut() -> None:
        with suppress(OSError):
            twin.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        with link:
            yield link
    finally:
        timer.cancel()
        twin.close()


def _among(address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address.version == one.version and address in one for one in networks)


def _words(error: Exception) -> str:
    words = str(error.strerror or error) if isinstance(error, OSError) else str(error)
    return " ".join((words or type(error).__name__).split())[:200].rstrip(".")
