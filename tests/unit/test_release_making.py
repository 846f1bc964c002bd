"""Releases: the key, the archive, the signature that openssl checks, and what is refused."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from parts import require
from release_parts import checkout, old_archive, tar

from source_server.cli import main
from source_server.release.shelf import PrivateKeyHere, Shelf, require_no_private_key


@pytest.fixture
def openssl() -> str:
    found = shutil.which("openssl")
    if found is None:
        require("openssl is not here")
    return str(found)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    assert run("keygen", "--key", tmp_path / "release.key").exit_code == 0
    return tmp_path / "release.key"


def run(*argv: Any) -> Any:
    return CliRunner().invoke(main, ["release", *map(str, argv)])


def made(tmp_path: Path, key: Path, *more: Any, version: str = "0.1.0") -> Any:
    source = checkout(tmp_path / "checkout", version)
    return run("make", "--key", key, "--out", tmp_path / "out", "--checkout", source, *more)


def test_a_key_is_made_for_its_owner_alone_and_never_twice(tmp_path: Path, openssl: str) -> None:
    first = run("keygen", "--key", tmp_path / "release.key")
    again = run("keygen", "--key", tmp_path / "release.key")

    assert (tmp_path / "release.key").stat().st_mode & 0o777 == 0o600
    assert again.exit_code == 2 and "is there already" in again.output
    argv = [openssl, "pkey", "-pubin", "-in", str(tmp_path / "release.key.pub"), "-outform", "DER"]
    der = subprocess.run(argv, capture_output=True, check=True).stdout
    shown = subprocess.run(
        [openssl, "dgst", "-sha256", "-r"], input=der, capture_output=True, check=True
    ).stdout
    assert f"Fingerprint: SHA256:{shown.decode().split()[0]}" in first.output


def test_openssl_accepts_the_signature_and_refuses_it_for_a_changed_file(
    tmp_path: Path, key: Path, openssl: str
) -> None:
    assert made(tmp_path, key).exit_code == 0
    folder = tmp_path / "out" / "0.1.0"
    verify = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", "release.pub", "-rawin", "-in", "SHA256SUMS"]
    verify += ["-sigfile", "SHA256SUMS.sig"]

    good = subprocess.run(verify, cwd=folder, capture_output=True)
    sums = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    with (folder / "SHA256SUMS").open("a") as file:
        file.write("\n")
    bad = subprocess.run(verify, cwd=folder, capture_output=True)

    assert good.returncode == 0, good.stderr
    assert sums.returncode == 0 and "dockercomp-0.1.0.tar.gz: OK" in sums.stdout
    assert bad.returncode != 0
    assert (folder / "SHA256SUMS.sig").stat().st_size == 64


def test_the_archive_holds_what_the_installer_needs_and_no_leftovers(tmp_path: Path, key: Path) -> None:
    assert made(tmp_path, key).exit_code == 0

    with tarfile.open(tmp_path / "out/0.1.0/dockercomp-0.1.0.tar.gz") as archive:
        members = {one.name: one for one in archive.getmembers()}
        version = archive.extractfile("VERSION")
        assert version is not None and version.read() == b"0.1.0\n"
    assert set(members) == {
        "VERSION",
        "lib/client_container/__init__.py",
        "lib/client_container/launcher/cli.py",
        "playbooks/volunteer.yml",
        "playbooks/roles/launcher/tasks/main.yml",
        "install/install.sh",
        "install/remove.py",
        "install/README.md",
        "locks/launcher.txt",
        "locks/install.txt",
    }
    assert members["install/install.sh"].mode == 0o755 and members["install/remove.py"].mode == 0o644


def test_the_same_checkout_gives_the_same_archive_whenever_and_whoever_makes_it(
    tmp_path: Path, key: Path
) -> None:
    assert made(tmp_path, key).exit_code == 0
    first = (tmp_path / "out/0.1.0/dockercomp-0.1.0.tar.gz").read_bytes()
    shutil.rmtree(tmp_path / "out")
    for path in (tmp_path / "checkout").rglob("*"):
        os.utime(path, (1, 1))

    assert made(tmp_path, key).exit_code == 0

    assert (tmp_path / "out/0.1.0/dockercomp-0.1.0.tar.gz").read_bytes() == first


def test_the_signed_file_names_version_expiry_and_client_images(tmp_path: Path, key: Path) -> None:
    image, saved = old_archive(tar({"bin/client": b"x" * 100}), tags=["dockercomp/client:latest"])
    (tmp_path / "client.tar").write_bytes(saved)

    outcome = made(tmp_path, key, "--client-image", tmp_path / "client.tar", "--expires-days", 30)

    assert outcome.exit_code == 0, outcome.output
    text = (tmp_path / "out/0.1.0/SHA256SUMS").read_text()
    lines = text.splitlines()
    assert lines[:2] == ["# dockercomp release 1", "# version 0.1.0"]
    assert lines[2].startswith("# made 2") and lines[3].startswith("# expires 2")
    assert lines[4] == f"# client-image x86_64 {image} client-image-x86_64.tar"
    assert [line.split("  ")[1] for line in lines[5:]] == [
        "client-image-x86_64.tar",
        "dockercomp-0.1.0.tar.gz",
    ]
    stored = (tmp_path / "out/0.1.0/client-image-x86_64.tar").read_bytes()
    assert b"dockercomp/client" not in stored and b"latest" not in stored


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--version", "1.0-beta"], "two to four numbers"),
        (["--version", "../1"], "two to four numbers"),
        (["--client-image", __file__], "is no archive of `docker save`"),
    ],
)
def test_a_release_that_cannot_be_is_refused_and_leaves_nothing(
    tmp_path: Path, key: Path, argv: list[str], sentence: str
) -> None:
    outcome = made(tmp_path, key, *argv)

    assert outcome.exit_code == 2 and sentence in outcome.output
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_a_release_never_changes_and_the_key_does_not_lie_beside_it(tmp_path: Path, key: Path) -> None:
    assert made(tmp_path, key).exit_code == 0
    again = made(tmp_path, key)
    inside = tmp_path / "out" / "release.key"
    shutil.copy(key, inside)
    beside = made(tmp_path, inside, version="0.2.0")

    assert again.exit_code == 2 and "raise the version" in again.output
    assert beside.exit_code == 2 and "keep the key elsewhere" in beside.output


def test_without_a_checkout_it_says_what_is_missing(tmp_path: Path, key: Path) -> None:
    (tmp_path / "empty").mkdir()

    outcome = run(
        "make", "--key", key, "--checkout", tmp_path / "empty", "--version", "1.0", "--out", tmp_path / "o"
    )

    assert outcome.exit_code == 2 and "it lacks install/install.sh" in outcome.output


def test_a_key_of_another_kind_is_refused(tmp_path: Path, key: Path, openssl: str) -> None:
    other = tmp_path / "other.key"
    subprocess.run(
        [openssl, "genpkey", "-algorithm", "X25519", "-out", str(other)], check=True, capture_output=True
    )

    assert "Ed25519" in made(tmp_path, other).output
    assert "no plain private key" in made(tmp_path, key.with_name("release.key.pub")).output


# --- what a server does with them


def test_the_highest_version_that_is_whole_is_the_current_one(tmp_path: Path, key: Path) -> None:
    for version in ("0.9.0", "0.10.0", "0.2.0", "1.0"):
        assert made(tmp_path, key, version=version).exit_code == 0
    shelf = Shelf(tmp_path / "out")
    first = shelf.current()
    (tmp_path / "out/1.0/dockercomp-1.0.tar.gz").unlink()  # a copy that is under way
    second = shelf.current()

    assert first is not None and first.version == "1.0"
    assert second is not None and second.version == "0.10.0"
    assert Shelf(tmp_path / "nothing").current() is None and shelf.find("../out") is None


def test_public_keys_signatures_and_archives_are_no_private_keys(tmp_path: Path, key: Path) -> None:
    assert made(tmp_path, key).exit_code == 0
    (tmp_path / "out" / "notes.txt").write_text("The PRIVATE KEY is at home. -----BEGIN PUBLIC KEY-----\n")

    require_no_private_key(tmp_path / "out")
    require_no_private_key(tmp_path / "not-there")


@pytest.mark.parametrize("form", ["pkcs8", "encrypted", "traditional", "openssh", "der"])
def test_a_private_key_in_any_form_is_found_wherever_it_lies(
    tmp_path: Path, key: Path, openssl: str, form: str
) -> None:
    hidden = tmp_path / "out" / "0.1.0" / "deep" / "notes"
    hidden.parent.mkdir(parents=True)
    if form == "openssh":
        hidden.write_text(
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=\n-----END OPENSSH PRIVATE KEY-----\n"
        )
    elif form == "traditional":
        argv = [openssl, "genrsa", "-traditional", "-out", str(hidden), "1024"]
        subprocess.run(argv, check=True, capture_output=True)
    else:
        more = {"encrypted": ["-aes256", "-passout", "pass:secret"], "der": ["-outform", "DER"]}.get(form, [])
        argv = [openssl, "pkey", "-in", str(key), "-out", str(hidden), *more]
        subprocess.run(argv, check=True, capture_output=True)

    with pytest.raises(PrivateKeyHere, match=f"{hidden} holds a private key"):
        require_no_private_key(tmp_path / "out")


def test_up_and_serve_do_not_start_beside_a_private_key(tmp_path: Path, key: Path) -> None:
    env = {"DOCKERCOMP_RELEASES": str(key.parent), "DOCKERCOMP_HOME": str(tmp_path / "home")}

    for argv in (["up"], ["serve"]):
        outcome = CliRunner(env=env).invoke(main, argv)

        assert outcome.exit_code == 2 and f"{key} holds a private key" in outcome.output
    assert not (tmp_path / "home").exists()
    assert io.StringIO(outcome.output).read().count("\n") == 1
