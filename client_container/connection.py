"""The calls of the protocol over HTTP: one method a call, every failure translated."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata
from typing import Any

import requests
from requests.auth import AuthBase

from client_container.blob import Blob, Pass
from client_container.failures import BadAnswer, LifeEnded, ProtocolTooOld, Refused, ServerUnavailable
from client_container.protocol import (
    Beat,
    BeatAnswer,
    Claim,
    Delivery,
    Introduction,
    Registration,
    deliveries_from,
    received_from,
    released_from,
    results_body,
)

log = logging.getLogger(__name__)

CONNECT_S, READ_S = 5.0, 30.0
#: A pause the server asks for is honoured up to here, so that a slip of a proxy does not park us for a year.
LONGEST_PAUSE_S = 3600.0
TICKET = "Dockercomp-Ticket"


class ServerConnection:
    """HTTP to one source server; may be used from any thread (each has its own session)."""

    def __init__(
        self, server: str, account_key: str, *, connect_s: float = CONNECT_S, read_s: float = READ_S
    ) -> None:
        self._server, self._account_key = server.rstrip("/"), account_key
        self._timeout = (connect_s, read_s)
        self._threads = threading.local()

    def register(self, who: Introduction) -> Registration:
        """Register this container; raises Refused also when the account's key is not known."""
        try:
            answer = self._call("POST", "/containers", self._account_key, _encode(who.to_message()))
        except LifeEnded as error:
            raise Refused(401, str(error)) from error
        return Registration.from_message(answer.message)

    def heartbeat(self, member: Registration, beat: Beat) -> BeatAnswer:
        """Say what is held and running; hear what is no longer wanted."""
        answer = self._call("POST", "/heartbeat", member.key, _encode(beat.to_message(member.life)))
        return BeatAnswer.from_message(answer.message)

    def next(self, member: Registration, token: str, want: int, results: Sequence[bytes] = ()) -> Claim:
        """Claim up to about `want` chunks under `token` and deliver encoded attempts on the way."""
        body = results_body(results, token=token, want=want)
        answer = self._call("POST", "/next", member.key, body)
        if answer.status == 204:
            return Claim(retry_after=answer.retry_after)
        return Claim.from_message(answer.message, token=token)

    def add(
        self, member: Registration, results: Sequence[bytes], *, timeout: tuple[float, float] | None = None
    ) -> tuple[Delivery, ...]:
        """Deliver encoded attempts; one answer for each, in order. Raises Refused when all were refused unread."""
        try:
            answer = self._call("POST", "/add", member.key, results_body(results), timeout=timeout)
        except Refused as refusal:
            if "results" not in refusal.message:
                raise
            return deliveries_from(refusal.message)
        return deliveries_from(answer.message)

    def release(self, member: Registration, chunks: Sequence[str]) -> int:
        """Give leases back; answers how many there were."""
        answer = self._call("POST", "/release", member.key, _encode({"chunks": list(chunks)}))
        return released_from(answer.message)

    def leave(self, member: Registration, *, timeout: tuple[float, float] | None = None) -> int:
        """Leave the server; answers how many leases and assignments went back."""
        answer = self._call("DELETE", f"/containers/{member.id}", member.key, None, timeout=timeout)
        return released_from(answer.message)

    @contextmanager
    def image(self, image_id: str, *, start: int = 0) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The archive of an image: the byte at which the answer begins (at most `start`), and its pieces.

        Raises what a call raises, ServerUnavailable also when the answer breaks off.
        """
        with self._part(f"/images/{image_id}.tar", self._account_key, start, {}) as found:
            yield found

    @contextmanager
    def blob(
        self, member: Registration, sha256: str, proof: Pass, *, start: int = 0
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """A blob that the chunk of `proof` names; as `image`."""
        with self._part(f"/blobs/{sha256}", member.key, start, {TICKET: proof.header}) as found:
            yield found

    def blob_received(self, member: Registration, blob: Blob, proof: Pass) -> int:
        """How many bytes of a blob have arrived at the server; all of them only when it has checked the whole."""
        answer = self._call(
            "HEAD", f"/blobs/{blob.sha256}", member.key, None, headers={TICKET: proof.header}, may_lack=True
        )
        return blob.bytes if answer.status == 200 else max(0, min(answer.received, blob.bytes - 1))

    def put_blob(self, member: Registration, blob: Blob, proof: Pass, start: int, part: bytes) -> int:
        """Bring a part of a blob; answers how many bytes the server has of it then: where the next part begins.

        Raises Refused when it will not have this blob, with status 400 when its bytes were others than its hash says.
        """
        headers = {TICKET: proof.header, "Content-Type": "application/octet-stream"}
        if len(part) != blob.bytes:
            headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{blob.bytes}"
        try:
            answer = self._call("PUT", f"/blobs/{blob.sha256}", member.key, part, headers=headers)
        except Refused as refusal:
            received = refusal.message.get("received")
            if refusal.status != 409 or isinstance(received, bool) or not isinstance(received, int):
                raise
            return received
        return blob.bytes if answer.status != 202 else received_from(answer.message)

    @contextmanager
    def _part(
        self, path: str, key: str, start: int, headers: Mapping[str, str]
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        begin = {"Range": f"bytes={start}-"} if start else {}
        with self._open(path, key, {**headers, **begin}) as response:
            if response.status_code not in (200, 206):
                _translate(_Answer(response.status_code, response.headers, response.raw.read(64 * 1024)))
                raise BadAnswer(f"Something answered {response.status_code}, not as the protocol says.")
            found = re.fullmatch(r"bytes ([0-9]{1,18})-.*", response.headers.get("Content-Range", ""))
            if response.status_code == 206 and found is None:
                raise BadAnswer("The server sends a part of a file and does not say which.")
            yield int(found[1]) if found and response.status_code == 206 else 0, self._pieces(response)

    def _open(self, path: str, key: str, headers: Mapping[str, str]) -> requests.Response:
        try:
            return self._session().get(
                self._server + path,
                # As it is: a packed answer would be unpacked on the way, and have other bytes and lengths.
                headers={**headers, "Accept-Encoding": "identity"},
                auth=_Bearer(key),
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            )
        except requests.RequestException as error:
            raise ServerUnavailable(f"{self._server} does not answer ({type(error).__name__}).") from error

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_content(256 * 1024)
        except requests.RequestException as error:
            raise ServerUnavailable(f"{self._server} broke off ({type(error).__name__}).") from error

    def _call(
        self,
        method: str,
        path: str,
        key: str,
        body: bytes | None,
        *,
        timeout: tuple[float, float] | None = None,
        headers: Mapping[str, str] | None = None,
        may_lack: bool = False,
    ) -> _Answer:
        """`may_lack`: that there is no such thing (404) is an answer, too."""
        kind = {"Content-Type": "application/json"} if body is not None else {}
        try:
            response = self._session().request(
                method,
                self._server + path,
                data=body,
                headers={**kind, **(headers or {})},
                auth=_Bearer(key),
                timeout=timeout or self._timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise ServerUnavailable(f"{self._server} does not answer ({type(error).__name__}).") from error
        answer = _Answer(response.status_code, response.headers, response.content)
        return answer if may_lack and answer.status == 404 else _translate(answer)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = requests.Session()
            session.headers["User-Agent"] = f"dockercomp-client/{client_version()}"
        return session


@lru_cache(maxsize=1)
def client_version() -> str:
    """The installed version; "unknown" in an image that carries the code without its metadata."""
    try:
        return metadata.version("dockercomp")
    except metadata.PackageNotFoundError:
        return "unknown"


class _Bearer(AuthBase):
    """An auth object rather than a header: requests lets a .netrc of the machine override a header."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class _Answer:
    """Status, body as JSON (None when it is none) and the pause asked for."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.retry_after = _seconds(headers.get("Retry-After"))
        self.received = _count(headers.get("Dockercomp-Received"))  #: bytes of an upload that is not whole
        try:
            self.message: Any = json.loads(body)
        except (ValueError, RecursionError):
            self.message = None

    @property
    def has_sentence(self) -> bool:
        """Whether the body is an error as the protocol has it."""
        return isinstance(self.message, dict) and isinstance(self.message.get("error"), str)

    @property
    def sentence(self) -> str:
        """What the server said about an error, on one line."""
        said = " ".join(self.message["error"].split()) if self.has_sentence else ""
        return said[:500] or f"The server answered {self.status}."


def _translate(answer: _Answer) -> _Answer:
    """Return a good answer, raise what a bad one means (the status table of docs/protocol.md)."""
    status = answer.status
    if status in (200, 201, 202, 204):
        return answer
    if status in (408, 425, 429) or status >= 500:
        raise ServerUnavailable(answer.sentence, retry_after=answer.retry_after, status=status)
    if status < 400 or not answer.has_sentence:
        # A proxy's page, say: not the server's word, on which results would be given up.
        raise BadAnswer(f"Something answered {status}, not as the protocol says.", status=status)
    if status in (401, 410):
        raise LifeEnded(answer.sentence)
    if status == 426:
        raise ProtocolTooOld(answer.sentence)
    raise Refused(status, answer.sentence, answer.message)


def _seconds(text: str | None) -> float | None:
    """Retry-After as seconds; None when absent or a date, which only proxies send."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return min(value, LONGEST_PAUSE_S) if value >= 0 else None


def _count(text: str | None) -> int:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) else 0


def _encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode("ascii")
