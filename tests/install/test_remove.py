"""remove.py on machines that were installed on by hand, as the roles do it: what goes, what stays, what is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import Cannot, Done, Machine, difference, machine
from parts import require

pytestmark = pytest.mark.docker

INSTALL = Path(__file__).parents[2] / "install"
RECEIPT = "python3 /opt/dockercomp/payload/install/receipt.py"
REMOVE = "python3 /opt/dockercomp/payload/install/remove.py"
CLOSING = "python3 /root/remove/remove.py"  #: a copy that outlives the first one
#: A removal that is killed, with all its children, as soon as the package manager has begun to remove.
KILLED_IN_DPKG = f"""
setsid {CLOSING} --purge --yes & removal=$!
until grep -qsa '/dpk[g].--status-fd' /proc/[0-9]*/cmdline || ! kill -0 $removal; do sleep 0.02; done
kill -KILL -$removal && wait $removal
"""
ENGINE = f"""
{RECEIPT} engine-before
{RECEIPT} packages-before docker
{RECEIPT} note docker.installed_by_us=true
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends docker.io >/dev/null 2>&1
{RECEIPT} packages-after
"""
OURS = f"""
set -e
{RECEIPT} add users dockercomp groups dockercomp subid dockercomp:730000:2000 \
 folders /opt/dockercomp /var/lib/dockercomp /etc/dockercomp \
 files /etc/dockercomp/policy.toml /var/lib/dockercomp/slots.img \
 /etc/systemd/system/dockercomp-launcher.service /etc/systemd/system/var-lib-dockercomp-slots.mount \
 units dockercomp-launcher.service var-lib-dockercomp-slots.mount symlinks /usr/local/bin/dockercomp-volunteer \
 mounts /var/lib/dockercomp/slots networks dockercomp-default
useradd --system --user-group --no-create-home -G docker dockercomp
for file in /etc/subuid /etc/subgid; do echo dockercomp:730000:2000 >>$file; done
mkdir -p /etc/dockercomp /opt/dockercomp/bin /var/lib/dockercomp/launcher
echo 'containers = 1' >/etc/dockercomp/policy.toml
ln -s /opt/dockercomp/bin/dockercomp-volunteer /usr/local/bin/dockercomp-volunteer
truncate -s 8M /var/lib/dockercomp/slots.img && mkfs.ext4 -q /var/lib/dockercomp/slots.img
cat >/etc/systemd/system/var-lib-dockercomp-slots.mount <<'UNIT'
[Mount]
What=/var/lib/dockercomp/slots.img
Where=/var/lib/dockercomp/slots
Type=ext4
Options=loop
[Install]
WantedBy=multi-user.target
UNIT
cat >/etc/systemd/system/dockercomp-launcher.service <<'UNIT'
[Service]
ExecStart=/usr/bin/sleep infinity
User=dockercomp
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --now -q var-lib-dockercomp-slots.mount dockercomp-launcher.service
mkdir -p /var/lib/dockercomp/slots/0/files && echo x >/var/lib/dockercomp/slots/0/files/x
echo '{{"id": "our-host", "instances": ["default"]}}' >/var/lib/dockercomp/launcher/host.json
until docker version >/dev/null 2>&1; do sleep 0.2; done
small() {{ tar -C / -ch usr/bin/sleep lib/x86_64-linux-gnu/libc.so.6 lib64/ld-linux-x86-64.so.2 "$@" | docker import -; }}
ours=$(small etc/hostname) && job=$(small etc/hosts)
{RECEIPT} add images $ours
echo "{{\\"images\\": [{{\\"reference\\": \\"$job\\", \\"id\\": \\"$job\\"}}]}}" >/var/lib/dockercomp/launcher/images.json
labels='--label dockercomp.instance=default --label dockercomp.host=our-host'
docker network create $labels dockercomp-default >/dev/null
docker volume create $labels left-over >/dev/null
docker run -d --name ours --network dockercomp-default $labels $ours sleep 9999 >/dev/null
iptables -N DOCKERCOMP-default-F
iptables -A DOCKERCOMP-default-F -j DROP
iptables -I DOCKER-USER -i dc-default -j DOCKERCOMP-default-F
iptables -I FORWARD -o dc-default -j DOCKERCOMP-default-F
ip6tables -N DOCKERCOMP-default-I
ip6tables -I INPUT -i dc-default -j DOCKERCOMP-default-I
"""  # noqa: E501


@pytest.fixture
def bare() -> Iterator[Machine]:
    yield from fresh("warm")


@pytest.fixture
def with_engine() -> Iterator[Machine]:
    yield from fresh("engine")


def fresh(stage: str) -> Iterator[Machine]:
    try:
        with machine("bookworm", stage) as made:
            made.sh("mkdir -p /root/remove")
            for path in sorted(INSTALL.glob("*.py")):
                made.put(f"/root/remove/{path.name}", path.read_text())
            yield made
    except Cannot as error:
        require(str(error))


def begin(made: Machine) -> None:
    """As the installer does before it has unpacked its programs."""
    receipt = {
        "version": 1,
        "prefix": "/opt/dockercomp",
        "folders": ["/var/lib/dockercomp", "/opt/dockercomp"],
    }
    made.sh("mkdir -p /var/lib/dockercomp /opt/dockercomp/payload")
    made.put("/var/lib/dockercomp/receipt.json", json.dumps(receipt), mode="0600")
    made.sh("cp -r /root/remove /opt/dockercomp/payload/install")


def finish(made: Machine, options: str) -> Done:
    return made.try_(f"{CLOSING} {options}")


def snapshot(made: Machine) -> dict[str, list[str]]:
    """Without loop devices, which all machines of one kernel share."""
    return {kind: lines for kind, lines in made.snapshot().items() if kind != "loops"}


def test_all_that_came_goes_even_when_the_removal_is_killed_again_and_again(bare: Machine) -> None:
    before = snapshot(bare)
    begin(bare)
    bare.sh(ENGINE)
    bare.sh(OURS)
    installed = snapshot(bare)

    assert "would be removed" in bare.sh(f"{REMOVE} --dry-run --purge")
    assert difference(installed, snapshot(bare)) == {}
    refused = bare.try_(f"setsid {REMOVE} --purge")
    assert refused.status == 2
    assert "--yes" in refused.output
    assert difference(installed, snapshot(bare)) == {}

    for seconds in (0.3, 0.7, 1.5, 3):
        bare.try_(f"timeout -s KILL {seconds} {CLOSING} --purge --yes")
    bare.try_(KILLED_IN_DPKG)
    done = finish(bare, "--purge --yes")

    assert done.status == 0, done.output
    assert difference(before, snapshot(bare)) == {}, done.output
    again = finish(bare, "--purge --yes")
    assert again.status == 0
    assert "Nothing to remove" in again.output


def test_what_belongs_to_others_stays_and_is_named(with_engine: Machine) -> None:
    here = with_engine
    here.sh(
        "until docker version >/dev/null 2>&1; do sleep 0.2; done; adduser --quiet --disabled-password --gecos '' eve"
    )
    before = snapshot(here)
    begin(here)
    here.sh(OURS)
    here.sh(
        "echo mine >/opt/dockercomp/notes.txt; echo mine >/root/mine; ln -s /root/mine /opt/dockercomp/payload/link"
    )
    here.sh("docker run -d --name theirs $(docker inspect --format '{{.Image}}' ours) sleep 9999")
    here.sh(
        "usermod -aG dockercomp eve; echo eve:900000:100 >>/etc/subuid; iptables -I INPUT -p tcp --dport 7 -j DROP"
    )

    done = finish(here, "--purge --yes")

    assert done.status == 0, done.output
    for sentence in (
        "/opt/dockercomp holds what is not ours: notes.txt",
        "is used by 1 containers that are not ours",
        "The group dockercomp has members: eve",
    ):
        assert sentence in done.output
    after = difference(before, snapshot(here))
    assert here.sh("cat /opt/dockercomp/notes.txt /root/mine") == "mine\nmine"
    assert here.sh("ls /opt/dockercomp") == "notes.txt"
    assert here.sh("docker ps --format '{{.Names}}'") == "theirs"
    after.pop("active units", None)  # the foreign container has mounts
    assert set(after) == {"files", "contents", "users", "containers", "images", "iptables"}
    assert len(after["images"]) == 1


def test_docker_stays_when_somebody_uses_it_or_nobody_says_purge(bare: Machine) -> None:
    begin(bare)
    bare.sh(ENGINE)
    bare.sh(OURS)
    bare.sh("docker volume create theirs; cp /var/lib/dockercomp/receipt.json /root/")

    done = finish(bare, "--purge --yes")

    assert done.status == 0, done.output
    assert "Left: Docker holds 1 volumes of others. By hand: apt-get purge " in done.output
    assert bare.sh("docker volume ls -q") == "theirs"
    bare.sh("docker volume rm theirs; mkdir /var/lib/dockercomp; mv /root/receipt.json /var/lib/dockercomp/")
    said = finish(bare, "--yes").output
    assert "Left: Docker, which we brought (--purge removes it)." in said
    by_hand = said.split("By hand: ")[1].splitlines()[0]
    bare.sh(f"export DEBIAN_FRONTEND=noninteractive; {by_hand.replace('purge', 'purge -y')} || true")
    assert bare.try_("command -v dockerd").status != 0


def test_packages_that_others_need_by_now_stay(bare: Machine) -> None:
    begin(bare)
    bare.sh(f"{RECEIPT} packages-before; apt-get -qq update")
    bare.sh(
        "DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends whois bsdextrautils jq"
    )
    bare.sh(f"{RECEIPT} packages-after")
    bare.sh("DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends libonig-dev")

    done = finish(bare, "--yes")

    assert done.status == 0, done.output
    assert "are needed by others now: libonig5" in done.output
    assert bare.try_("command -v jq").status != 0
    assert bare.try_("command -v whois").status != 0


def test_a_package_step_that_was_cut_off_is_undone(bare: Machine) -> None:
    before = snapshot(bare)
    begin(bare)
    bare.sh(f"{RECEIPT} packages-before; apt-get -qq update")
    bare.sh("DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends jq")

    done = finish(bare, "--yes")

    assert done.status == 0, done.output
    assert difference(before, snapshot(bare)) == {}
