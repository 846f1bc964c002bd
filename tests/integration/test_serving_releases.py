"""`/install.sh` and `/releases/...`: what a volunteer's machine fetches first, before it knows anybody."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from release_parts import checkout

from source_server.app import create_app
from source_server.cli import main

pytestmark = pytest.mark.mongo


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """A folder with the releases 0.9.0 and 0.10.0."""
    run = CliRunner()
    assert run.invoke(main, ["release", "keygen", "--key", str(tmp_path / "key")]).exit_code == 0
    for version in ("0.9.0", "0.10.0"):
        source = checkout(tmp_path / "checkout", version)
        argv = ["--key", str(tmp_path / "key"), "--out", str(tmp_path / "out"), "--checkout", str(source)]
        assert run.invoke(main, ["release", "make", *argv]).exit_code == 0
    return tmp_path / "out"


@pytest.fixture
def http(stores: Any, releases: Path) -> Any:
    return create_app(stores, beat_s=20.0, releases=releases).test_client()


def test_the_installer_knows_the_server_the_key_and_its_fingerprint(http: Any, tmp_path: Path) -> None:
    answer = http.get("/install.sh", headers={"Host": "lend.example:8765"})

    assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store"
    ran = subprocess.run(
        ["sh", "-c", f'{answer.text}\necho "$KEY"'], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[0] == "http://lend.example:8765"
    assert ran.stdout.split("\n", 1)[1] == (tmp_path / "key.pub").read_text()
    shown = CliRunner().invoke(main, ["release", "keygen", "--key", str(tmp_path / "another")]).output
    assert "@" not in answer.text and "SHA256:" in answer.text and "SHA256:" in shown


@pytest.mark.parametrize(
    "host",
    [
        "$(reboot)",
        'a";reboot;"',
        "a b",
        "a/b",
        "a`id`",
        "",
        "a\\b",
        "-a",
        "a:b",
        "a@b",
        "[::1",
        "a" * 300,
        "a:123456",
    ],
)
def test_a_host_that_does_not_belong_into_a_script_is_refused(http: Any, host: str) -> None:
    answer = http.get("/install.sh", headers={"Host": host})

    assert answer.status_code == 400 and answer.get_json()["error"]


@pytest.mark.parametrize(
    ("host", "headers", "peer", "shown"),
    [
        ("[2001:db8::1]:443", {}, "127.0.0.1", "http://[2001:db8::1]:443"),
        ("lend.example", {"X-Forwarded-Proto": "https"}, "127.0.0.1", "https://lend.example"),
        ("lend.example", {"X-Forwarded-Proto": "https"}, "192.0.2.7", "http://lend.example"),
        ("lend.example", {"X-Forwarded-Proto": "gopher"}, "127.0.0.1", "http://lend.example"),
        ("lend.example", {"X-Forwarded-Host": "evil.example"}, "127.0.0.1", "http://lend.example"),
    ],
)
def test_the_address_is_the_one_that_was_called_and_the_front_door_says_whether_by_tls(
    http: Any, host: str, headers: dict[str, str], peer: str, shown: str
) -> None:
    answer = http.get("/install.sh", headers={"Host": host, **headers}, environ_base={"REMOTE_ADDR": peer})

    assert f'SERVER="{shown}"\n' in answer.text


def test_an_operator_may_say_the_address_once_and_for_all(stores: Any, releases: Path) -> None:
    app = create_app(stores, beat_s=20.0, releases=releases, public_url="https://lend.example/dc")

    answer = app.test_client().get("/install.sh", headers={"Host": "$(reboot)"})

    assert 'SERVER="https://lend.example/dc"\n' in answer.text


def test_current_is_the_highest_version_and_each_keeps_its_own_address(http: Any, releases: Path) -> None:
    current = http.get("/releases/current/SHA256SUMS")
    older = http.get("/releases/0.9.0/SHA256SUMS")

    assert "# version 0.10.0\n" in current.text and "# version 0.9.0\n" in older.text
    assert (
        http.get("/releases/current/SHA256SUMS.sig").data == (releases / "0.10.0/SHA256SUMS.sig").read_bytes()
    )
    assert http.get("/releases/0.9.0/install.sh").text.startswith("#!/bin/sh")


def test_an_archive_arrives_as_it_is_in_pieces_and_once(http: Any, releases: Path) -> None:
    path = "/releases/current/dockercomp-0.10.0.tar.gz"
    content = (releases / "0.10.0/dockercomp-0.10.0.tar.gz").read_bytes()

    whole = http.get(path, headers={"Accept-Encoding": "gzip"})
    part = http.get(path, headers={"Range": "bytes=10-"})
    same = http.get(path, headers={"If-None-Match": whole.headers["ETag"]})
    beyond = http.get(path, headers={"Range": f"bytes={len(content)}-"})

    assert whole.data == content and whole.headers["Content-Type"] == "application/octet-stream"
    assert "Content-Encoding" not in whole.headers
    assert (part.status_code, part.data) == (206, content[10:])
    assert same.status_code == 304 and beyond.status_code == 416


@pytest.mark.parametrize(
    "path",
    [
        "/releases/current/../../key",
        "/releases/current/..%2f..%2fkey",
        "/releases/%2e%2e/key",
        "/releases/..%2f/key",
        "/releases/current/key",
        "/releases/0.9.0/dockercomp-0.10.0.tar.gz",
        "/releases/1.0/SHA256SUMS",
        "/releases/current/",
        "/releases/current",
        "/releases/current/notes.txt",
        "/releases/current/%00",
        "/releases/.making-1/SHA256SUMS",
    ],
)
def test_nothing_but_a_releases_own_files_can_be_had(http: Any, releases: Path, path: str) -> None:
    (releases / "0.10.0" / "notes.txt").write_text("not part of it")

    answer = http.get(path, follow_redirects=True)

    assert answer.status_code == 404 and "error" in answer.get_json()


def test_a_link_in_the_place_of_a_file_is_not_followed(http: Any, releases: Path, tmp_path: Path) -> None:
    signature = releases / "0.10.0" / "SHA256SUMS.sig"
    signature.unlink()
    signature.symlink_to(tmp_path / "key")

    assert http.get("/releases/0.10.0/SHA256SUMS.sig").status_code == 404
    assert "# version 0.9.0" in http.get("/releases/current/SHA256SUMS").text


def test_without_a_release_the_operator_is_told_what_to_run(stores: Any, tmp_path: Path) -> None:
    http = create_app(stores, beat_s=20.0, releases=tmp_path / "none").test_client()

    for path in ("/install.sh", "/releases/current/SHA256SUMS"):
        answer = http.get(path)
        assert answer.status_code == 404 and "dockercomp-server release make" in answer.get_json()["error"]
