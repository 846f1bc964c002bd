"""Calls about blobs: files of any size go to the server and come back, and go on where they broke off."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import requests

from dockercomp.failures import Refused, ServerUnavailable
from dockercomp.line import CONNECT_S, READ_S, Line, part, silence

PART = 32 * 2**20  #: bytes of a file that one call sends
PIECE = 2**20  #: bytes that are read and written in one go
TRIES = 6  #: in a row without a byte of progress
PAUSE_S = 1.0  #: before the second try; then twice as long each time
CONFLICT, NOT_FOUND = 409, 404

Told = Callable[[int, int], None]  #: bytes so far, bytes of the whole


class BlobCalls(Line):
    """What can be asked of blobs, and of the files that answers brought."""

    def put_file(self, path: Path, *, told: Told = lambda done, whole: None) -> str:
        """Bring a file to the server; its SHA-256, by which jobs name it. What is there already is not sent again."""
        sha256, size = _hash(path), path.stat().st_size
        tries, done = 0, -1
        with path.open("rb") as file:
            while True:
                try:
                    received = self._received(sha256)
                    if received is None:
                        told(size, size)
                        return sha256
                    told(received, size)
                    tries, done = (0, received) if received > done else (tries + 1, done)
                    self._send(file, sha256, received, size, told)
                except (ServerUnavailable, Refused) as failure:
                    tries = _tried(failure, tries)

    def blobs(self) -> dict[str, Any]:
        """Your blobs and what they come to: {"blobs": [{"sha256", "bytes", "since"}], "usage": {"bytes", "quota"}}."""
        whole: dict[str, Any] = self._call("GET", "/blobs")
        page = whole["blobs"]
        while page:
            page = self._call("GET", "/blobs", params={"after": page[-1]["sha256"]})["blobs"]
            whole["blobs"] += page
        return whole

    def result_files(self, task: str) -> Iterator[dict[str, Any]]:
        """{"n", "name", "sha256", "bytes"} of each file that came with an accepted answer of the task."""
        start: int | None = 0
        while start is not None:
            page = self._call("GET", f"/tasks/{part(task)}/files", params={"from": str(start)})
            yield from page["files"]
            start = page["next"]

    def fetch_files(
        self, task: str, folder: Path, *, told: Callable[[Path], None] = lambda path: None
    ) -> int:
        """Write each of these files to FOLDER/N/NAME, N being its chunk's number; how many there are.

        Those that are there already are left alone; one that broke off goes on from its `.part` file.
        """
        count = 0
        for one in self.result_files(task):
            target = folder / str(int(one["n"])) / checked_name(str(one["name"]))
            self.fetch_blob(str(one["sha256"]), int(one["bytes"]), target)
            told(target)
            count += 1
        return count

    def fetch_blob(self, sha256: str, size: int, target: Path) -> None:
        """Write a blob to a file, whose hash is right afterwards."""
        if target.is_file() and target.stat().st_size == size and _hash(target) == sha256:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{sha256[:16]}.part")
        tries, done = 0, -1
        while (there := _size(partial)) < size or size == 0:
            tries, done = (0, there) if there > done else (tries + 1, done)
            try:
                self._receive(sha256, partial, there)
            except (ServerUnavailable, Refused) as failure:
                tries = _tried(failure, tries)
            if size == 0:
                break
        if _hash(partial) != sha256:
            partial.unlink()
            raise ServerUnavailable(f"{target.name} came damaged; the same command again fetches it anew.")
        partial.replace(target)

    def _received(self, sha256: str) -> int | None:
        """How much of the blob is there; None: all of it."""
        try:
            answer = self._http.head(f"{self.address}/blobs/{sha256}", timeout=(CONNECT_S, READ_S))
        except requests.RequestException as error:
            raise ServerUnavailable(silence(self.address, error)) from error
        if answer.status_code == NOT_FOUND:
            return int(answer.headers.get("Dockercomp-Received", "0"))
        if answer.status_code in (408, 429) or answer.status_code >= 500:
            raise ServerUnavailable(f"The source server says: not now ({answer.status_code}).")
        if answer.status_code >= 400:
            self._call("GET", "/blobs", params={"limit": "1"})  # says why
            raise Refused(answer.status_code, f"The source server answered {answer.status_code}.")
        return None

    def _send(self, file: IO[bytes], sha256: str, start: int, size: int, told: Told) -> None:
        end = min(start + PART, size)
        headers = {"Content-Type": "application/octet-stream"}
        if (start, end) != (0, size):
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        body = Slice(file, start, end, told=lambda done: told(done, size)) if end > start else b""
        self._call("PUT", f"/blobs/{sha256}", data=body, headers=headers)

    def _receive(self, sha256: str, partial: Path, start: int) -> None:
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._request("GET", f"/blobs/{sha256}", headers=headers, stream=True) as answer:
            mode = "ab" if answer.status_code == 206 else "wb"
            try:
                with partial.open(mode) as out:
                    for piece in answer.iter_content(PIECE):
                        out.write(piece)
            except requests.RequestException as error:
                raise ServerUnavailable("The download broke off.") from error


class Slice:
    """A part of an open file, as the body of a request; `told` hears how far in the file it has been read."""

    def __init__(
        self, file: IO[bytes], start: int, end: int, *, told: Callable[[int], None] = lambda done: None
    ) -> None:
        self._file, self._left, self._end, self._told = file, end - start, end, told
        file.seek(start)

    def __len__(self) -> int:
        return self._left

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(PIECE):
            yield piece

    def read(self, size: int = -1) -> bytes:
        """Up to so many bytes of what is left."""
        piece = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(piece)
        self._told(self._end - self._left)
        return piece


def checked_name(name: str) -> Path:
    """The name of a file as a path that stays below the folder it is put into; raises Refused for any other."""
    parts = name.split("/")
    if not name.isprintable() or any(one in ("", ".", "..") or {"\\", ":"} & set(one) for one in parts):
        raise Refused(
            CONFLICT, f"The file's name {name[:100]!r} would lie outside of the folder, or is no name."
        )
    return Path(*parts)


def _tried(failure: ServerUnavailable | Refused, tries: int) -> int:
    """So many tries without progress by now; raises the failure once they are enough, or if it is final."""
    if (isinstance(failure, Refused) and failure.status != CONFLICT) or tries + 1 >= TRIES:
        raise failure
    time.sleep(PAUSE_S * 2**tries)
    return tries + 1


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
