"""The scientist's side: settings, and results files that a broken download left."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dockercomp.config import from_env
from dockercomp.failures import BadSetting
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


@pytest.mark.parametrize("server", ["example.org", "ftp://example.org", "http://", "/"])
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
