"""A client fetches the archive of an image: from a real server, over connections that break off."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from release_parts import old_archive, tar
from werkzeug.serving import WSGIRequestHandler, make_server

from client_container.archives import Archives
from client_container.connection import ServerConnection
from client_container.download import TRIES
from client_container.failures import BadAnswer, LifeEnded, Refused, ServerUnavailable
from client_container.protocol import Archive, Job
from source_server.services.files.images import Images

pytestmark = pytest.mark.mongo

CONTENT = tar({"opt/data": random.Random(3).randbytes(3_000_000)})


class Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(app: Any) -> Iterator[int]:
    """The port of the real server."""
    running = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    yield running.port
    running.shutdown()


class Line:
    """A way to the server that breaks off after so many bytes of an answer, and counts the calls."""

    def __init__(self, port: int, cut_after: int | None) -> None:
        self.to, self.cut_after, self.calls = port, cut_after, 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self.listening.accept()
            except OSError:
                return
            self.calls += 1
            threading.Thread(target=self._pass_on, args=(caller,), daemon=True).start()

    def _pass_on(self, caller: socket.socket) -> None:
        with caller, socket.create_connection(("127.0.0.1", self.to)) as server:
            threading.Thread(target=_copy, args=(caller, server, None), daemon=True).start()
            _copy(server, caller, self.cut_after)
            with suppress(OSError):  # the client has gone first
                caller.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: socket.socket, most: int | None) -> None:
    passed = 0
    try:
        while data := source.recv(65536):
            target.sendall(data if most is None else data[: max(0, most - passed)])
            passed += len(data)
            if most is not None and passed >= most:
                return
    except OSError:
        pass


@pytest.fixture
def job(stores: Any, tmp_path: Path) -> Job:
    path = tmp_path / "image.tar"
    path.write_bytes(old_archive(CONTENT)[1])
    stored, _ = Images(stores).add(path)
    return job_for(stored.id, Archive(sha256=stored.sha256, bytes=stored.bytes))


def job_for(image: str, archive: Archive | None) -> Job:
    return Job(id="T/main", image=image, action=(), env={}, timeout_s=1, rows=None, archive=archive)


@pytest.fixture
def fetch(server: int, new_key: Callable[[str], str], tmp_path: Path) -> Iterator[Callable[..., Archives]]:
    lines: list[Line] = []

    def make(*, cut_after: int | None = None, key: str | None = None) -> Any:
        line = Line(server, cut_after)
        lines.append(line)
        connection = ServerConnection(f"http://127.0.0.1:{line.port}", key or new_key("volunteer"))
        made = Archives(connection, tmp_path / "files", sleep=lambda _: None)
        made.line = line  # type: ignore[attr-defined]
        return made

    yield make
    for line in lines:
        line.listening.close()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_lies_there_under_its_hash_and_is_not_fetched_twice(fetch: Any, job: Job, tmp_path: Path) -> None:
    archives = fetch()

    name = archives(job)
    again = archives(job)

    assert job.archive is not None and name == again == job.archive.sha256
    assert files(tmp_path / "files") == [name] and archives.line.calls == 1
    assert (tmp_path / "files" / name).stat().st_size == job.archive.bytes
    assert (tmp_path / "files" / name).stat().st_mode & 0o777 == 0o600


def test_what_breaks_off_goes_on_where_it_was(fetch: Any, job: Job, tmp_path: Path) -> None:
    archives = fetch(cut_after=1_000_000)

    name = archives(job)

    assert files(tmp_path / "files") == [name]
    assert archives.line.calls == 4, "three pieces of a megabyte and the rest, none of them twice"


def test_a_later_call_goes_on_with_what_an_earlier_one_left(fetch: Any, job: Job, tmp_path: Path) -> None:
    broken = fetch(cut_after=400)  # not even the head
    with pytest.raises(ServerUnavailable):
        broken(job)
    assert broken.line.calls == TRIES
    assert job.archive is not None
    part = tmp_path / "files" / f"{job.archive.sha256}.part"
    assert part.exists()

    assert fetch()(job) == job.archive.sha256
    assert not part.exists()


def test_a_part_that_is_wrong_is_thrown_away_and_fetched_anew(fetch: Any, job: Job, tmp_path: Path) -> None:
    assert job.archive is not None
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / f"{job.archive.sha256}.part").write_bytes(b"x" * 1_000_000)
    (tmp_path / "files" / job.archive.sha256).write_bytes(b"not this")
    archives = fetch()

    assert archives(job) == job.archive.sha256
    assert archives.line.calls == 2


def test_more_than_was_announced_and_other_content_are_refused_and_leave_nothing(
    fetch: Any, job: Job, tmp_path: Path
) -> None:
    assert job.archive is not None and job.image is not None
    short = job_for(job.image, Archive(sha256=job.archive.sha256, bytes=1000))
    other = job_for(job.image, Archive(sha256="0" * 64, bytes=job.archive.bytes))

    with pytest.raises(BadAnswer, match="longer than"):
        fetch()(short)
    with pytest.raises(BadAnswer, match="another content"):
        fetch()(other)

    assert [name for name in files(tmp_path / "files") if not name.endswith(".part")] == []
    assert all((tmp_path / "files" / name).stat().st_size <= 1000 for name in files(tmp_path / "files"))


def test_an_image_that_the_server_does_not_have_and_a_key_it_does_not_know_are_told_apart(
    fetch: Any, job: Job
) -> None:
    with pytest.raises(Refused, match="no image"):
        fetch()(job_for("sha256:" + "0" * 64, Archive(sha256="0" * 64, bytes=10)))
    with pytest.raises(LifeEnded):
        fetch(key="dca_nobody")(job)
    with pytest.raises(Refused, match="no archive"):
        fetch()(job_for("sha256:" + "0" * 64, None))


def test_a_name_that_leads_elsewhere_is_never_used(fetch: Any, job: Job, tmp_path: Path) -> None:
    assert job.image is not None
    for image, sha256 in ((job.image, "../../etc/passwd"), ("../containers", "0" * 64)):
        with pytest.raises(BadAnswer):
            fetch()(job_for(image, Archive(sha256=sha256, bytes=10)))
    assert not (tmp_path / "files").exists()


def test_what_does_not_fit_on_the_disk_is_not_begun(fetch: Any, job: Job) -> None:
    assert job.archive is not None and job.image is not None
    archives = fetch()

    with pytest.raises(Refused, match="image too large here"):
        archives(job_for(job.image, Archive(sha256=job.archive.sha256, bytes=10**15)))
    assert archives.line.calls == 0


def test_what_was_begun_long_ago_for_another_image_is_removed(fetch: Any, job: Job, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    old, new = (tmp_path / "files" / f"{letter * 64}.part" for letter in "ab")
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)

    name = fetch()(job)

    assert files(tmp_path / "files") == sorted([name, new.name])
