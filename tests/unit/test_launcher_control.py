"""The control socket: who is heard, what is answered, and what a bad request does not do."""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client_container.launcher.errors import EngineAway
from client_container.launcher.service.control import ControlError, ControlServer, ask
from client_container.launcher.service.notify import Notifier


def refuse(_request: Any) -> Any:
    raise EngineAway("No Docker engine answers.")


def break_down(_request: Any) -> Any:
    raise RuntimeError("a mistake of ours")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "run" / "control.sock"
    server = ControlServer(
        path, {"echo": lambda asked: {"said": asked.get("say")}, "refuse": refuse, "break": break_down}
    )
    server.start()
    yield path
    server.stop()
    assert not path.exists()


def test_a_verb_is_answered(path: Path) -> None:
    assert ask(path, "echo", seconds=5, say="héllo")["said"] == "héllo"


def test_the_socket_is_its_owners_alone(path: Path) -> None:
    found = path.stat()

    assert stat.S_IMODE(found.st_mode) == 0o600 and found.st_uid == os.geteuid()


def test_a_refusal_is_its_sentence(path: Path) -> None:
    with pytest.raises(ControlError, match=r"^No Docker engine answers\.$"):
        ask(path, "refuse", seconds=5)


def test_an_unknown_verb_and_a_mistake_of_ours_are_sentences_and_the_next_request_is_answered(
    path: Path,
) -> None:
    with pytest.raises(ControlError, match=r"^The verbs are echo, refuse, break\.$"):
        ask(path, "fly", seconds=5)
    with pytest.raises(ControlError, match="a mistake of ours"):
        ask(path, "break", seconds=5)

    assert ask(path, "echo", seconds=5)["ok"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\xff\xff\xff\xff",
        struct.pack(">I", 3) + b"{}",
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 1) + b"\xff",
    ],
)
def test_what_is_no_request_disturbs_nobody(path: Path, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(data)

    assert ask(path, "echo", seconds=5)["ok"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_not_heard_even_when_the_file_lets_him_in(path: Path) -> None:
    path.chmod(0o666)
    for folder in (path.parent, *list(path.parents)[1:4]):
        if folder != Path("/") and not folder.samefile("/tmp"):
            folder.chmod(0o755)
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        try:
            ask(path, "echo", seconds=5)
        except ControlError:
            os._exit(7)
        os._exit(0)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_nobody_listening_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="No launcher runs here"):
        ask(tmp_path / "control.sock", "status", seconds=1)


def test_a_launcher_that_does_not_answer_in_time_is_one_sentence(tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "c.sock", {"wait": lambda _: {"woken": threading.Event().wait(5)}})
    server.start()

    with pytest.raises(ControlError, match="did not answer wait within 1 s"):
        ask(tmp_path / "c.sock", "wait", seconds=1)
    server.stop()


def test_a_socket_that_a_dead_launcher_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "c.sock"))
    server = ControlServer(tmp_path / "c.sock", {"echo": lambda _: {}})

    server.start()

    assert ask(tmp_path / "c.sock", "echo", seconds=5)["ok"]
    server.stop()


def test_systemd_is_told_where_it_listens_and_programs_that_we_start_do_not_know_where(
    tmp_path: Path,
) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "PATH": "/bin"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notify = Notifier(environment)

        notify("READY=1", "STATUS=fine")

        assert manager.recv(100) == b"READY=1\nSTATUS=fine"
        assert environment == {"PATH": "/bin"}
    notify("WATCHDOG=1")
    Notifier({})("WATCHDOG=1")
