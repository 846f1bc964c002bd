"""The two ways into a virtual machine say the same and hold the same steps."""

from __future__ import annotations

import re
from pathlib import Path

INSTALL = Path(__file__).parents[2] / "install"
SCRIPT = (INSTALL / "in-a-vm.sh").read_text()
CLOUD = (INSTALL / "cloud-init.yml").read_text()
VAGRANT = (INSTALL / "Vagrantfile").read_text()


def file_in_cloud_init(path: str) -> str:
    """The content of a file that cloud-init.yml writes."""
    block = CLOUD.split(f"- path: {path}\n")[1].split("content: |\n")[1]
    lines = []
    for line in block.splitlines(keepends=True):
        if line.strip() and not line.startswith("      "):
            break
        lines.append(line[6:] if line.strip() else line)
    return "".join(lines).rstrip("\n") + "\n"


def names_in(text: str) -> set[str]:
    return set(re.findall(r"DOCKERCOMP_INSTALL_([A-Z_]+)=", text))


def test_cloud_init_holds_the_very_script() -> None:
    assert file_in_cloud_init("/usr/local/sbin/dockercomp-in-a-vm") == SCRIPT


def test_cloud_init_offers_the_settings_that_the_script_takes() -> None:
    taken = set(SCRIPT.split("for name in ")[1].split(";")[0].split())

    offered = names_in(file_in_cloud_init("/etc/dockercomp-vm.env"))

    assert offered <= taken
    assert {
        "SERVER",
        "KEY_FINGERPRINT",
        "EMAIL",
        "KEY_FILE",
        "CONTAINERS",
        "CPUS",
        "MEMORY",
        "DISK",
        "HOURS",
    } <= offered


def test_vagrant_runs_the_script_with_the_settings_that_it_takes() -> None:
    taken = set(SCRIPT.split("for name in ")[1].split(";")[0].split())

    offered = set(VAGRANT.split("NAMES = %w[")[1].split("]")[0].split())

    assert offered <= taken
    assert 'path: "in-a-vm.sh"' in VAGRANT
    assert 'synced_folder ".", "/vagrant", disabled: true' in VAGRANT


def test_every_setting_is_one_of_the_installers() -> None:
    installer = (INSTALL / "install.sh").read_text()

    for name in SCRIPT.split("for name in ")[1].split(";")[0].split():
        assert f"--{name.lower().replace('_', '-')} " in installer
