"""The scientist's side: settings, and results files that a broken download left."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from dockercomp.api import Server
from dockercomp.cli.plain import plain
from dockercomp.config import from_env
from dockercomp.failures import BadSetting, ServerUnavailable
from dockercomp.partial import cut_partial_line, last_cursor, layout

HEADER = "task,n,row,a,answer\r\n"


@pytest.mark.parametrize(
    ("content", "cursor", "kept"),
    [
        ("", None, ""),
        (HEADER, None, HEADER),
        (HEADER + "t,0,0,1,2\r\n", "t.0.0", HEADER + "t,0,0,1,2\r\n"),
        (HEADER + "t,0,0,1,2\r\nt,0,1,1", "t.0.0", HEADER + "t,0,0,1,2\r\n"),
        (HEADER + "t,0,0,1,2\r\nt,0,1,1,2", "t.0.0", HEADER + "t,0,0,1,2\r\n"),
        (HEADER + "t,0,0,1,2\r\nt,0,1,1,2\r", "t.0.0", HEADER + "t,0,0,1,2\r\n"),
        (HEADER + 't,0,0,"1\n5",2\r\nt,0,1,"x\r\n', "t.0.0", HEADER + 't,0,0,"1\n5",2\r\n'),
        ("something,else\r\n1,2\r\n", None, ""),
    ],
)
def test_a_broken_download_goes_on_behind_its_last_whole_row(
    tmp_path: Path, content: str, cursor: str | None, kept: str
) -> None:
    part = tmp_path / "part"
    part.write_bytes(content.encode())

    assert last_cursor(part) == cursor
    cut_partial_line(part)

    assert part.read_bytes().decode() == kept


def test_no_file_has_no_cursor(tmp_path: Path) -> None:
    assert last_cursor(tmp_path / "nothing") is None


def test_settings_are_read_once_and_the_address_loses_its_slash(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("dca_abc\n")

    settings = from_env({"DOCKERCOMP_SERVER": "https://example.org/", "DOCKERCOMP_KEY_FILE": str(key)})

    assert (settings.server, settings.key) == ("https://example.org", "dca_abc")


@pytest.mark.parametrize("server", ["example.org", "ftp://example.org", "http://", "/", "http://[::1"])
def test_a_server_without_http_is_refused_with_an_example(server: str) -> None:
    with pytest.raises(BadSetting, match="DOCKERCOMP_SERVER must be an address like http"):
        from_env({"DOCKERCOMP_SERVER": server})


@pytest.mark.parametrize("content", [None, b"", b"two words", b"\xff"])
def test_a_key_file_without_a_key_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_bytes(content)

    with pytest.raises(BadSetting, match="key file"):
        from_env({"DOCKERCOMP_KEY_FILE": str(key)})


def test_columns_have_the_short_name_that_the_server_gives_them(tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(HEADER.encode() + b"t,0,0,1,2\r\n")

    named = json.dumps(["task", "n", "row", "a", "answer"]).encode()
    assert layout(part) == hashlib.sha256(named).hexdigest()[:16]


def test_a_broken_download_goes_on_behind_an_answer_of_any_length(tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(HEADER.encode() + b"t,0,0,1," + b"\0long " * 50_000 + b"\r\nt,1,0,1,bro")

    assert last_cursor(part) == "t.0.0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("µ = 3 ± 1,\u00a0“so”\n\tnext", "µ = 3 ± 1,\u00a0“so”\n\tnext"),
        ("10 %\r20 %\r\nend", "10 %\n20 %\nend"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b2J \x08 \x00 \x7f", "\\x9b2J \\x08 \\x00 \\x7f"),
        ("exe.\u202etxt \u2028 \ud800", "exe.\\u202etxt \\u2028 \\ud800"),
    ],
)
def test_a_terminal_gets_letters_and_no_commands(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_server_that_reads_on_only_after_a_while_gets_the_whole_body(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dockercomp.line.CONNECT_S", 0.2)
    data = tmp_path / "rows.csv"
    data.write_bytes(b"a\n" + b"1\n" * 8 * 2**20)
    done: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, Busy(listener, stall_s=1.0):
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"

        rows = Server(address, "key").upload("t", data, told=lambda sent, whole: done.append(sent))

    assert rows == 7
    assert done == sorted(done) and done[-1] == data.stat().st_size


def test_an_address_that_speaks_no_tls_is_told_from_a_server_that_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Busy(listener, stall_s=0.0):
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"

        with pytest.raises(ServerUnavailable, match="cannot be trusted, or does not speak TLS"):
            Server(address, "key").projects()


class Busy:
    """A server that takes a while before it reads what comes on one connection, and then answers with rows: 7."""

    def __init__(self, listener: socket.socket, *, stall_s: float) -> None:
        self._thread = threading.Thread(target=self._serve, args=(listener, stall_s), daemon=True)

    def __enter__(self) -> Busy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(30)

    def _serve(self, listener: socket.socket, stall_s: float) -> None:
        link, _ = listener.accept()
        with link, suppress(OSError):
            time.sleep(stall_s)
            head, _, body = b"", b"", b""
            while b"\r\n\r\n" not in head:
                if not (piece := link.recv(65536)) or piece.startswith(b"\x16"):  # a hello of TLS
                    link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
                head += piece
            head, _, body = head.partition(b"\r\n\r\n")
            told = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
            left = int(told.split(b":")[1]) - len(body)
            while left > 0 and (piece := link.recv(2**20)):
                left -= len(piece)
            said = b'{"rows": 7}'
            link.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
