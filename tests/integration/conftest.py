"""Real parts for the integration tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from source_server.stores.mongod_binary import MongodUnavailable, find_mongod, read_version


def require(reason: str) -> None:
    """Skip the test for want of a real part; under CI=true fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has to have it: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def mongod_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real mongod that runs on this machine."""
    explicit = os.environ.get("DOCKERCOMP_MONGOD")
    try:
        binary = find_mongod(
            Path(explicit) if explicit else None,
            search_path=os.environ.get("PATH"),
            copy_to=tmp_path_factory.mktemp("mongod"),
        )
        read_version(binary)
    except MongodUnavailable as error:
        require(str(error))
        raise
    return binary


@pytest.fixture
def home() -> Iterator[Path]:
    """A temporary DOCKERCOMP_HOME, removed at once: a mongod's journal takes 300 MB."""
    folder = Path(tempfile.mkdtemp(prefix="dockercomp-test-"))
    yield folder
    shutil.rmtree(folder)
