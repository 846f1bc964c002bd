"""The steps of cloud-init.yml and Vagrantfile, run by cloud-init itself and as Vagrant would, on a machine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import fresh_machine
from laboratory import Lab
from machines import Machine

pytestmark = [pytest.mark.docker, pytest.mark.mongo, pytest.mark.timeout(900)]

INSTALL = Path(__file__).parents[2] / "install"
STAGES = ("init --local", "init", "modules --mode config", "modules --mode final")
# Vagrant's own words, as far as the file uses them; what would be provisioned is printed.
VAGRANT = """
require "json"
class Anything
  def method_missing(name, *rest, **given)
    STEPS << [rest[0].to_s, given] if name == :provision
    yield Anything.new if block_given?
    Anything.new
  end
end
STEPS = []
module Vagrant
  def self.configure(_version) = yield(Anything.new)
end
load "/root/Vagrantfile"
puts JSON.generate(STEPS)
"""


@pytest.fixture(scope="module")
def vm(lab: Lab) -> Iterator[Machine]:
    for made in fresh_machine("engine", lab):
        made.sh("apt-get -qq update")
        made.sh(
            "DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends cloud-init ruby"
        )
        for name in ("cloud-init.yml", "Vagrantfile", "in-a-vm.sh"):
            made.put(f"/root/{name}", (INSTALL / name).read_text())
        yield made


@pytest.fixture(scope="module")
def fingerprint(lab: Lab) -> str:
    public = ["openssl", "pkey", "-in", str(lab.release_key), "-pubout", "-outform", "DER"]
    der = subprocess.run(public, check=True, capture_output=True).stdout
    said = subprocess.run(
        ["openssl", "dgst", "-sha256", "-r"], input=der, check=True, capture_output=True
    ).stdout
    return said.decode().split()[0]


def test_both_files_are_what_their_programs_read(vm: Machine) -> None:
    assert "Valid cloud-config" in vm.sh("cloud-init schema --config-file /root/cloud-init.yml")
    assert "Syntax OK" in vm.sh("ruby -wc /root/Vagrantfile")


def test_a_server_with_another_release_key_is_not_believed(vm: Machine, lab: Lab) -> None:
    settings = f"DOCKERCOMP_INSTALL_SERVER={lab.url} DOCKERCOMP_INSTALL_KEY_FINGERPRINT={'0' * 64}"

    done = vm.try_(f"{settings} sh /root/in-a-vm.sh")

    assert done.status == 1
    assert "Nothing of it was run" in done.output
    assert vm.try_("ls /opt/dockercomp /var/lib/dockercomp").status != 0


def test_cloud_init_lends_the_machine_and_vagrants_steps_find_nothing_to_do(
    vm: Machine, lab: Lab, fingerprint: str
) -> None:
    ca = "/root/ca.pem"
    given = {
        "SERVER": lab.url,
        "KEY_FINGERPRINT": fingerprint,
        "CONTAINERS": "1",
        "DISK": "1g",
        "CA_FILE": ca,
    }
    user_data = (INSTALL / "cloud-init.yml").read_text()
    for name, value in given.items():
        before = next(line for line in user_data.splitlines() if f"DOCKERCOMP_INSTALL_{name}=" in line)
        user_data = user_data.replace(before, f"      DOCKERCOMP_INSTALL_{name}={value}")
    vm.sh("mkdir -p /var/lib/cloud/seed/nocloud")
    vm.put("/var/lib/cloud/seed/nocloud/user-data", user_data)
    vm.put("/var/lib/cloud/seed/nocloud/meta-data", "instance-id: vm\n")
    vm.put("/etc/cloud/cloud.cfg.d/99-seed.cfg", "datasource_list: [NoCloud]\nnetwork: {config: disabled}\n")

    for stage in STAGES:
        vm.try_(f"cloud-init {stage} >>/var/log/stages.log 2>&1")

    said = vm.sh(
        "tail -n 40 /var/log/cloud-init-output.log /var/log/stages.log; cloud-init status --long || true"
    )
    assert vm.try_("systemctl is-active dockercomp-launcher").status == 0, said
    assert vm.status()["registered"] == 1, said

    vm.put("/root/vagrant.rb", VAGRANT)
    environment = " ".join(f"DOCKERCOMP_INSTALL_{name}={value}" for name, value in given.items())
    (step,) = json.loads(vm.sh(f"{environment} ruby /root/vagrant.rb"))
    # Vagrant's machine has its files from elsewhere: this one setting is not handed on.
    step[1]["env"]["DOCKERCOMP_INSTALL_CA_FILE"] = ca
    kind, provision = step
    assert (kind, provision["path"]) == ("shell", "in-a-vm.sh")
    inside = " ".join(f"{name}='{value}'" for name, value in provision["env"].items())
    assert "Done" in vm.sh(f"cd /root && env {inside} sh {provision['path']} 2>&1")
    assert vm.status()["registered"] == 1


def test_a_lab_takes_its_machines_back_by_playbook_and_finds_nothing_to_do_again(
    vm: Machine, lab: Lab
) -> None:
    vm.sh("cp -r /opt/dockercomp/ansible /root/ansible")  # a lab runs it from elsewhere
    vm.put("/root/uninstall.yml", (INSTALL.parent / "playbooks" / "uninstall.yml").read_text())
    run = "cd /root && LC_ALL=C.UTF-8 ansible/bin/python ansible/bin/ansible-playbook -i localhost, -c local"

    first, second = (vm.sh(f"{run} -e dockercomp_become=false uninstall.yml 2>&1") for _ in range(2))

    assert "failed=0" in first
    assert "changed=0" in second
    assert vm.try_("ls /opt/dockercomp /var/lib/dockercomp /etc/dockercomp").output.count("No such file") == 3
    assert vm.sh("docker ps -aq; docker images -q; iptables -S | grep DOCKERCOMP || true") == ""
