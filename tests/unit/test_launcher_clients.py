"""What is believed of what client containers write into their folders: nothing that could hurt."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from client_container.launcher.clients.condition import Client, forget_client, read_client
from client_container.state_file import StateFile


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    folder = tmp_path / "3"
    (folder / "spool").mkdir(parents=True)
    return folder


def test_what_a_client_writes_is_read(slot: Path) -> None:
    StateFile(slot).note(container="c1", registered=True, last_beat="2026-11-22T12:00:00Z", reachable=True)
    (slot / "spool" / "000000000001.json").write_text("{}")
    (slot / "spool" / "000000000002.json.tmp").write_text("{}")

    said = read_client(slot.parent, 3)

    assert (said.container, said.registered, said.reachable, said.undelivered) == ("c1", True, True, 1)


def test_a_client_that_says_nothing_is_not_registered(slot: Path) -> None:
    assert read_client(slot.parent, 3) == read_client(slot.parent, 4) == Client()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "nonsense", "[" * 100_000, '{"registered": "yes", "problem": 7}']
)
def test_nonsense_is_nothing(slot: Path, text: str) -> None:
    (slot / "state.json").write_text(text)

    assert read_client(slot.parent, 3) == Client()


def test_what_it_says_cannot_write_to_a_terminal_as_it_likes(slot: Path) -> None:
    (slot / "state.json").write_text(json.dumps({"problem": "\x1b[2J" + "x" * 10_000}))

    problem = read_client(slot.parent, 3).problem or ""

    assert problem.startswith("?[2J") and len(problem) == 500


def test_no_link_is_followed(slot: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"registered": true}')
    (slot / "state.json").symlink_to(tmp_path / "secret.json")
    assert read_client(slot.parent, 3) == Client()

    (slot / "state.json").unlink()
    os.link(tmp_path / "secret.json", slot / "state.json")
    assert read_client(slot.parent, 3) == Client()
    (slot / "state.json").unlink()
    os.mkfifo(slot / "state.json")
    assert read_client(slot.parent, 3) == Client()
    (slot / "spool").rmdir()
    (slot / "spool").symlink_to("/")
    assert read_client(slot.parent, 3).undelivered == 0


def test_what_an_earlier_client_said_is_forgotten(slot: Path) -> None:
    StateFile(slot).note(registered=True)

    forget_client(slot.parent, 3)
    forget_client(slot.parent, 3)

    assert read_client(slot.parent, 3) == Client()
