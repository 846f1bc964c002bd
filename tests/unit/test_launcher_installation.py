"""What the installer decided, the policy files that change under a running launcher, and the certificates to trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from client_container.launcher.policy.policy import Policy
from client_container.launcher.service.host_share import STALE_S, HostShare
from client_container.launcher.service.installation import (
    BadInstallation,
    PolicyFiles,
    etc_of,
    read_installation,
    write_bundle,
)

FACTS: dict[str, Any] = {
    "instance": "default",
    "server": "https://science.example.org",
    "image": "sha256:" + "1" * 64,
    "first_uid": 730000,
    "host_name": None,
    "email": None,
    "ca_file": None,
    "proxy": None,
    "add_host": ["server.lab:192.168.1.5"],
    "version": "0.1.0",
    "home": "/var/lib/dockercomp",
    "auto_update": False,
    "projects": None,
}


def installed(etc: Path, **changes: Any) -> Path:
    etc.mkdir(parents=True, exist_ok=True)
    (etc / "launcher.json").write_text(json.dumps({**FACTS, **changes}))
    return etc


def test_what_the_installer_wrote_is_read(tmp_path: Path) -> None:
    here = read_installation(installed(tmp_path / "etc"))

    assert (here.server, here.first_uid, here.extra_hosts) == (
        FACTS["server"],
        730000,
        ("server.lab:192.168.1.5",),
    )
    assert here.slots == Path("/var/lib/dockercomp/slots")
    assert here.control == Path("/run/dockercomp/control.sock")
    assert here.host_policy_file is None


def test_another_instance_has_places_of_its_own_and_the_hosts_limits(tmp_path: Path) -> None:
    top = installed(tmp_path / "etc")
    here = read_installation(installed(etc_of("lab", top), instance="lab"))

    assert here.control == Path("/run/dockercomp-lab/control.sock")
    assert here.host_policy_file == top / "policy.toml"
    assert here.siblings() == read_installation(top).siblings() == ["default", "lab"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"server": "ftp://x"}, "--server must be like"),
        ({"first_uid": 0}, "run the installer again"),
        ({"instance": "../x"}, "run the installer again"),
        ({"add_host": ["nonsense"]}, "--add-host must be"),
    ],
)
def test_what_no_installer_writes_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInstallation, match=said):
        read_installation(installed(tmp_path, **change))


def test_a_missing_or_torn_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInstallation, match=r"launcher\.json cannot be read: No such file"):
        read_installation(tmp_path)
    (tmp_path / "launcher.json").write_text('{"instance": "default"')
    with pytest.raises(BadInstallation, match="is not what the installer writes"):
        read_installation(tmp_path)


# --- policy files


def test_a_changed_policy_holds_at_the_next_look(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[limits]\ncontainers = 2\n")
    files = PolicyFiles(file, None)

    assert files.look() and files.policy.containers == 2
    assert not files.look()
    file.write_text("[limits]\ncontainers = 3\n")
    assert files.look() and files.policy.containers == 3


def test_a_broken_policy_changes_nothing_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[limits]\ncontainers = 2\n")
    files = PolicyFiles(file, None)
    files.look()

    for text, said in (
        ("[limits]\ncontainers = 0\n", "limits.containers must be"),
        ("[lim", "not valid TOML"),
    ):
        file.write_text(text)
        assert not files.look()
        assert files.policy.containers == 2
        assert files.problem is not None and said in files.problem and str(file) in files.problem
    file.unlink()
    files.look()
    assert files.policy.containers == 2 and "cannot be read" in (files.problem or "")
    file.write_text("[limits]\ncontainers = 4\n")
    assert files.look() and files.problem is None


def test_without_any_good_policy_the_most_careful_one_holds(tmp_path: Path) -> None:
    files = PolicyFiles(tmp_path / "policy.toml", None)
    files.look()

    assert files.policy == Policy() and files.problem is not None


def test_the_hosts_policy_bounds_an_instances(tmp_path: Path) -> None:
    own, host = tmp_path / "own.toml", tmp_path / "host.toml"
    own.write_text("[limits]\ncontainers = 8\ncpus = 8\nmemory = '8g'\n")
    host.write_text("[limits]\ncontainers = 2\ncpus = 1.5\nmemory = '2g'\n")
    files = PolicyFiles(own, host)

    files.look()

    assert (files.policy.containers, files.policy.cpus, files.policy.memory) == (2, 1.5, 2 * 2**30)
    assert files.host.containers == 2


# --- several instances


def test_each_instance_knows_how_many_jobs_the_others_run(tmp_path: Path) -> None:
    top = installed(tmp_path / "etc", home=str(tmp_path / "var"))
    lab = installed(etc_of("lab", top), instance="lab", home=str(tmp_path / "var" / "instances" / "lab"))
    now = [tmp_path.stat().st_mtime]
    first, second = (HostShare(read_installation(etc), now=lambda: now[0]) for etc in (top, lab))

    first.publish(2)

    assert (first.others(), second.others()) == (0, 2)
    now[0] += STALE_S + 60
    assert second.others() == 0


# --- certificates


def test_the_bundle_is_the_machines_authorities_and_the_extra_one(tmp_path: Path) -> None:
    system, extra, target = tmp_path / "system.crt", tmp_path / "ca.pem", tmp_path / "bundle.pem"
    system.write_text("PUBLIC\n")
    extra.write_text("EXTRA\n\n")

    digest = write_bundle(extra, target, [tmp_path / "missing", system])

    assert target.read_text() == "PUBLIC\nEXTRA\n"
    assert target.stat().st_mode & 0o777 == 0o644
    assert write_bundle(extra, target, [system]) == digest
    extra.write_text("ANOTHER\n")
    assert write_bundle(extra, target, [system]) != digest


def test_a_bundle_that_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    extra, target = tmp_path / "ca.pem", tmp_path / "bundle.pem"
    extra.write_text("EXTRA\n")
    write_bundle(extra, target, [])
    before = target.stat().st_ino  # a mounted file that is replaced goes stale

    write_bundle(extra, target, [])

    assert target.stat().st_ino == before


def test_a_missing_ca_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInstallation, match=r"The CA file .*ca\.pem cannot be used: No such file"):
        write_bundle(tmp_path / "ca.pem", tmp_path / "bundle.pem", [])
