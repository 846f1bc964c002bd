"""What `dockercomp-launcher up` accepts, and what it says about the rest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from client_container.launcher.cli import main
from client_container.launcher.clients.request import (
    Request,
    checked_extra_host,
    checked_server,
    parse_memory,
    read_key,
)
from client_container.launcher.errors import BadRequest
from client_container.launcher.state import Host


def request(**changes: Any) -> Request:
    options: dict[str, Any] = {
        "server": "http://192.0.2.1:8765",
        "key_file": Path("/keys/one"),
        "containers": 4,
        "image": "dockercomp/client",
        "cpus": 1.0,
        "memory": "512m",
        "add_host": (),
        "host_name": None,
    }
    return Request(**{**options, **changes})


@pytest.mark.parametrize(
    "text", ["http://192.0.2.1:8765", "https://server.example", "http://[2001:db8::1]:80/dc"]
)
def test_a_url_that_a_container_can_reach_is_taken_as_it_is(text: str) -> None:
    assert checked_server(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "server:8765",
        "ftp://server",
        "http://",
        "http://h:99999",
        "http://a b/",
        "http://u@h/",
        "http://h/?q",
        "http://[::1",
    ],
)
def test_what_is_no_server_url_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="--server must be like"):
        checked_server(text)


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:8765", "http://localhost", "http://[::1]:8765", "http://127.9.9.9"]
)
def test_a_url_that_means_the_container_itself_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="that container itself"):
        checked_server(text)


@pytest.mark.parametrize(
    ("text", "size"), [("512m", 2**29), ("2G", 2**31), ("1gb", 2**30), ("33554432", 2**25)]
)
def test_memory_is_read_in_binary_units(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "lots", "1.5g", "-1g", "0", "512 m", "1m", "9999999999999t", "٣g"])
def test_memory_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="--memory"):
        parse_memory(text)


@pytest.mark.parametrize("text", ["server.test:10.0.0.1", "server:host-gateway", "six:2001:db8::1"])
def test_extra_hosts_are_names_with_addresses(text: str) -> None:
    assert checked_extra_host(text) == text


@pytest.mark.parametrize(
    "text", ["", "server", "server:", ":10.0.0.1", "server:10.0.0", "a b:10.0.0.1", "-x:10.0.0.1"]
)
def test_other_extra_hosts_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="--add-host must be"):
        checked_extra_host(text)


def test_more_processors_than_the_machine_has_are_refused() -> None:
    host = Host(id="0b5f3a52-6a0f-4b43-a7a5-4c2f6a1d9c11", first_uid=730_000)

    with pytest.raises(BadRequest, match="more than the 2 processors"):
        request(cpus=3).plan(instance="a", host=host, image_id="sha256:1", key=b"k\n", processors=2)


def test_a_detached_launcher_gets_the_same_request_on_its_command_line(tmp_path: Path) -> None:
    asked = request(add_host=("a:10.0.0.1", "b:10.0.0.2"), host_name="attic", cpus=0.25)

    line = asked.arguments()

    assert "--add-host=a:10.0.0.1" in line
    assert "--add-host=b:10.0.0.2" in line
    assert {"--cpus=0.25", "--host-name=attic", "--containers=4", "--key-file=/keys/one"} < set(line)


def test_a_key_is_read_without_the_white_space_around_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("  the-key\r\n")

    assert read_key(file) == b"the-key\n"


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"k" * 5000, "schlüssel".encode()])
def test_a_key_file_without_exactly_one_key_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)

    with pytest.raises(BadRequest, match="must hold one account key"):
        read_key(file)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot be read: No such file"):
        read_key(tmp_path / "none")


def test_without_the_launcher_extra_the_command_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    for module in ("client_container.launcher.engine", "client_container.launcher.clients.engine"):
        monkeypatch.delitem(sys.modules, module, raising=False)

    outcome = CliRunner().invoke(main, ["status", "--home", str(tmp_path)])

    assert outcome.exit_code == 2
    assert outcome.output == (
        "Error: dockercomp-launcher needs the launcher extra: pip install 'dockercomp[launcher]'\n"
    )


@pytest.mark.parametrize("name", ["", "UPPER", "a/b", "-a", "a b", "x" * 33, "ä"])
def test_an_instance_name_that_would_not_fit_a_container_name_is_refused(tmp_path: Path, name: str) -> None:
    outcome = CliRunner().invoke(main, ["status", "--home", str(tmp_path), "--name", name])

    assert outcome.exit_code == 2
    assert "1 to 32 small letters" in outcome.output
