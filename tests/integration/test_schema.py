"""The database carries a schema number; a release refuses one that it does not know, and touches nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from source_server.app import create_app
from source_server.stores.connection import connect
from source_server.stores.database import migrate, stores_of
from source_server.stores.meta import SCHEMA, SchemaUnknown


@pytest.fixture
def empty(mongo_uri: str) -> Iterator[Any]:
    """A database that nobody has laid out."""
    database = connect(mongo_uri, f"test_{uuid.uuid4().hex[:12]}", application="tests")
    yield database
    database.client.drop_database(database.name)
    database.client.close()


def test_an_empty_database_is_refused_with_the_command_that_lays_it_out(empty: Any) -> None:
    with pytest.raises(SchemaUnknown, match="dockercomp-server migrate"):
        create_app(stores_of(empty), beat_s=20.0)

    assert empty.list_collection_names() == []


def test_migrating_twice_changes_nothing_the_second_time_and_keeps_the_secret(empty: Any) -> None:
    stores = stores_of(empty)

    first = migrate(stores)
    secret = stores.meta.secret()
    second = migrate(stores)

    assert (first, second) == (f"schema none -> {SCHEMA}", f"schema {SCHEMA}, unchanged")
    assert stores.meta.secret() == secret and len(secret) == 32


def test_a_database_of_a_newer_release_is_refused_by_server_and_migration_and_not_touched(empty: Any) -> None:
    empty.meta.insert_one({"_id": "schema", "number": SCHEMA + 1})
    stores = stores_of(empty)

    for refused in (lambda: migrate(stores), lambda: create_app(stores, beat_s=20.0)):
        with pytest.raises(SchemaUnknown, match="newer release"):
            refused()

    assert empty.list_collection_names() == ["meta"] and empty.meta.count_documents({}) == 1


def test_the_commands_say_it_in_one_sentence(empty: Any, mongo_uri: str) -> None:
    empty.meta.insert_one({"_id": "schema", "number": 99})
    env = {**os.environ, "DOCKERCOMP_MONGO_URI": mongo_uri, "DOCKERCOMP_DATABASE": empty.name}

    for command in (["migrate"], ["housekeep"], ["account", "list"]):
        argv = [sys.executable, "-m", "source_server.cli", *command]
        said = subprocess.run(argv, env=env, capture_output=True, text=True)

        assert said.returncode == 2 and "carries schema 99" in said.stderr, (command, said.stderr[-500:])
        assert "Traceback" not in said.stderr


def test_indexes_are_the_ones_that_are_needed_and_no_other(stores: Any, raw: Any) -> None:
    found = {name: set(raw[name].index_information()) - {"_id_"} for name in raw.list_collection_names()}

    assert found["chunks"] == {"claim", "token", "until", "host", "delayed", "files"}
    assert found["results"] == {
        "chunk",
        "unsettled",
        "waiting",
        "unchecked",
        "suspect",
        "files",
        "listed",
        "matched",
        "unmatched",
        "uncounted",
    }
