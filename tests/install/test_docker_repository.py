"""The docker role with Docker's repository: a local apt repository, signed by a key of its own, stands for it.

Its one package depends on the distribution's engine, so that an engine is really installed.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import fresh_machine
from laboratory import Lab
from machines import DOCKER, ROOT, Machine

pytestmark = [pytest.mark.docker, pytest.mark.mongo, pytest.mark.timeout(600)]

PAYLOAD = "/opt/dockercomp/payload"
PLAY = """
- hosts: all
  gather_facts: false
  roles: [preflight, docker]
"""


@pytest.fixture
def keyring(tmp_path: Path) -> Iterator[Path]:
    """A folder with two secret keys of GnuPG's: vendor and stranger."""
    folder = tmp_path / "gnupg"
    folder.mkdir(mode=0o700)
    for name in ("vendor", "stranger"):
        gpg(
            folder,
            "--passphrase",
            "",
            "--quick-generate-key",
            f"{name} <{name}@example.org>",
            "ed25519",
            "sign",
            "0",
        )
    yield folder
    subprocess.run(["gpgconf", "--homedir", folder, "--kill", "all"], check=False)


def gpg(home: Path, *arguments: str | Path) -> str:
    command = [
        "gpg",
        "--homedir",
        home,
        "--batch",
        "--yes",
        "--quiet",
        "--pinentry-mode",
        "loopback",
        *arguments,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def fingerprint(home: Path, name: str) -> str:
    said = gpg(home, "--with-colons", "--list-keys", name)
    return next(line.split(":")[9] for line in said.splitlines() if line.startswith("fpr:"))


@pytest.fixture
def repository(lab: Lab, keyring: Path, tmp_path: Path) -> str:
    """URL of an apt repository with the package vendor-engine, and the vendor's key at /gpg."""
    folder = lab.folder / "mirrors" / "docker"
    index = folder / "dists" / "bookworm" / "stable" / "binary-amd64"
    index.mkdir(parents=True)
    (index / "Packages").write_text(package(folder, tmp_path, "vendor-engine"))
    release = folder / "dists" / "bookworm" / "Release"
    release.write_text(release_of(release.parent))
    gpg(keyring, "--local-user", "vendor", "--clearsign", "--output", release.with_name("InRelease"), release)
    (folder / "gpg").write_text(gpg(keyring, "--armor", "--export", "vendor"))
    (folder / "two").write_text(gpg(keyring, "--armor", "--export", "vendor", "stranger"))
    return f"{lab.mirror_url}/docker"


def package(folder: Path, work: Path, name: str) -> str:
    """Build an empty package that needs the distribution's engine; its entry for Packages."""
    tree = work / name
    (tree / "DEBIAN").mkdir(parents=True)
    fields = f"Package: {name}\nVersion: 5:99\nArchitecture: amd64\nMaintainer: vendor <vendor@example.org>\n"
    fields += "Depends: docker.io\nDescription: stands for the vendor's\n"
    (tree / "DEBIAN" / "control").write_text(fields)
    file = folder / f"{name}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", tree, file], check=True, stdout=subprocess.DEVNULL
    )
    content = file.read_bytes()
    return f"{fields}Filename: {file.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"


def release_of(folder: Path) -> str:
    listed = ""
    for path in sorted(folder.rglob("Packages*")):
        content = path.read_bytes()
        listed += f" {hashlib.sha256(content).hexdigest()} {len(content)} {path.relative_to(folder)}\n"
    head = "Origin: vendor\nSuite: bookworm\nCodename: bookworm\nArchitectures: amd64\nComponents: stable\n"
    return f"{head}Date: Sun, 22 Nov 2026 00:00:00 UTC\nSHA256:\n{listed}"


def test_dockers_repository_is_used_only_if_its_key_has_the_fingerprint(
    lab: Lab, keyring: Path, repository: str
) -> None:
    for machine in fresh_machine("warm", lab):
        have_ansible(machine)
        good = {"dockercomp_docker_repository": repository, "dockercomp_docker_source": "repository"}
        good["dockercomp_docker_packages"] = {"repository": {"Debian": ["vendor-engine"]}}
        good |= {
            "dockercomp_docker_key_fingerprint": fingerprint(keyring, "vendor"),
            "dockercomp_become": False,
        }

        other = play(machine, {**good, "dockercomp_docker_key_fingerprint": fingerprint(keyring, "stranger")})
        two = play(machine, {**good, "dockercomp_docker_key_url": f"{repository}/two"})

        assert "It was not used." in other and "It was not used." in two
        machine.sh("test ! -e /etc/apt/keyrings/docker.asc && test ! -e /etc/apt/sources.list.d/docker.list")
        machine.sh("! dpkg -s vendor-engine 2>/dev/null | grep -q '^Status: install ok'")

        done = play(machine, good)

        assert "failed=0" in done, done[-3000:]
        machine.sh("dpkg -s vendor-engine >/dev/null && docker version")
        docker = json.loads(machine.sh("cat /var/lib/dockercomp/receipt.json"))["docker"]
        assert docker["installed_by_us"] is True and {"vendor-engine", "docker.io"} <= set(docker["packages"])
        assert "/etc/apt/sources.list.d/docker.list" in docker["repository_files"]
        assert "changed=0" in play(machine, good)


def have_ansible(machine: Machine) -> None:
    """What the installer would have put there before it runs the roles."""
    machine.sh(f"mkdir -p {PAYLOAD}/locks")
    for source in ("playbooks", "install", "locks/install.txt"):
        target = f"{machine.name}:{PAYLOAD}/{source}"
        subprocess.run([DOCKER, "cp", ROOT / source, target], check=True, stdout=subprocess.DEVNULL)
    machine.sh("python3 -m venv /opt/dockercomp/ansible")
    machine.sh(f"/opt/dockercomp/ansible/bin/pip install -q --require-hashes -r {PAYLOAD}/locks/install.txt")


def play(machine: Machine, variables: dict[str, object]) -> str:
    """Run the two roles; what Ansible said."""
    machine.put(f"{PAYLOAD}/playbooks/two_roles.yml", PLAY)
    machine.put("/root/vars.json", json.dumps(variables))
    program = f"cd {PAYLOAD}/playbooks && LC_ALL=C.UTF-8 /opt/dockercomp/ansible/bin/ansible-playbook"
    return machine.try_(f"{program} -c local -i localhost, -e @/root/vars.json two_roles.yml").output
