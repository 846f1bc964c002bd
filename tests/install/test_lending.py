"""Lending a machine by the documented line, what it survives, and taking it back: on machines with a real engine.

The first machine had an engine, a container and an image of somebody else's before us; to the second one we bring the
engine.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import fresh_machine
from laboratory import Lab
from machines import Machine, difference

from dockercomp.api import Server
from dockercomp.config import read_key

pytestmark = [pytest.mark.docker, pytest.mark.mongo, pytest.mark.timeout(900)]

THE_LINE = "curl -fsSL $SERVER/install.sh | sh -s -- --yes"
ROWS = 20

FOREIGN = """
sleeper=$(command -v sleep)
tar -ch $sleeper $(ldd $sleeper | grep -o '/[^ ]*') 2>/dev/null | docker import - theirs:1 >/dev/null
docker network create theirs >/dev/null
docker run -d --name theirs --network theirs --restart always theirs:1 $sleeper 1000000 >/dev/null
iptables -I FORWARD -s 203.0.113.1 -j DROP
"""


@dataclass
class Work:
    """A scientist's side: tasks that add pairs of numbers in the sandbox."""

    server: Server
    folder: Path
    image: str  #: id of the job's image, which the source server keeps
    tasks: list[str] = field(default_factory=list)

    def submit(self, rows: int = ROWS) -> str:
        """A task that runs; a chunk for each row."""
        data = self.folder / "pairs.csv"
        data.write_text("a,b\n" + "".join(f"{n},{n * n}\n" for n in range(rows)))
        task = self.server.add_task("sums", ["python3", "/opt/job/add_pairs.py"], image=self.image)
        self.server.upload(task, data)
        self.server.start(task)
        self.tasks.append(task)
        return task

    def wait(self, task: str, *, done: int, seconds: float = 180) -> float:
        """Seconds until so many chunks of the task are done."""
        began = time.monotonic()
        while (now := self.server.progress(task)).done < done:
            assert time.monotonic() - began < seconds, f"{now} after {seconds:g} s"
            time.sleep(0.1)
        return time.monotonic() - began

    def rows(self, task: str) -> list[dict[str, str]]:
        """The table of results."""
        target = self.folder / f"{task}.csv"
        self.server.download_results(target, task=task)
        with target.open(newline="") as lines:
            return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def work(lab: Lab, job_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A project whose jobs run in an image of its own."""
    said = lab.product.run("dockercomp-server", "image", "add", str(job_image))
    image = next(word for word in said.split() if word.startswith("sha256:")).rstrip(".,")
    server = Server(lab.product.address, read_key(Path(lab.product.env["DOCKERCOMP_KEY_FILE"])))
    server.add_project("sums")
    return Work(server, tmp_path_factory.mktemp("work"), image)


@dataclass
class Lent:
    """A machine and what it was like before."""

    machine: Machine
    before: dict[str, list[str]]

    def lend(self, work: Work) -> None:
        """Run the line unless the machine is lent already; work is waiting, as it would be."""
        if self.machine.try_("dockercomp-volunteer status >/dev/null 2>&1").status == 0:
            return
        timed("machine with an engine", self.machine, f"{THE_LINE} --containers 2 --disk 1g", work)


@pytest.fixture(scope="module")
def lent(lab: Lab, work: Work) -> Iterator[Lent]:
    """A machine with an engine and things of somebody else's, before anything of ours."""
    for machine in fresh_machine("engine", lab):
        machine.sh(FOREIGN)
        yield Lent(machine, machine.snapshot())


def test_one_line_and_chunks_are_computed_in_the_sandbox(lent: Lent, work: Work) -> None:
    lent.lend(work)
    task = work.submit()

    work.wait(task, done=ROWS)

    rows, status = work.rows(task), lent.machine.status()
    assert [row["answer"] for row in rows] == [str(n + n * n) for n in range(ROWS)]
    assert {row["runtime"] for row in rows} == {"sandbox"} and {row["image"] for row in rows} == {work.image}
    assert {row["self_test"] for row in rows} == {"passed"}
    assert (status["wanted"], status["running"], status["registered"]) == (2, 2, 2)
    assert status["self_test"]["verdict"] == "passed"


def test_nothing_secret_is_open_to_others(lent: Lent, work: Work) -> None:
    lent.lend(work)

    modes = lent.machine.sh(
        "cd / && stat -c '%a %U:%G' etc/dockercomp/account.key var/lib/dockercomp/receipt.json"
        " var/log/dockercomp-install.log"
    ).splitlines()

    assert modes == ["640 root:dockercomp", "600 root:root", "600 root:root"]
    lent.machine.sh("! grep -q dca_ /var/log/dockercomp-install.log && ! journalctl | grep -q dca_")
    lent.machine.sh("! docker inspect $(docker ps -q) | grep -q dca_")


def test_what_is_asked_for_comes_about_and_a_run_that_asks_for_nothing_new_changes_nothing(
    lent: Lent, work: Work
) -> None:
    lent.lend(work)

    for count in (6, 1):
        lent.machine.sh(f"{THE_LINE} --containers {count}")
        status = lent.machine.status()
        assert (status["wanted"], status["running"], status["registered"]) == (count, count, count)
        assert len(clients(lent.machine)) == count

    before = clients(lent.machine)
    began = time.monotonic()
    lent.machine.sh(THE_LINE)
    print(f"second run: {time.monotonic() - began:.0f} s")
    assert "changed=0 " in last_recap(lent.machine)
    assert clients(lent.machine) == before


def test_whatever_is_killed_comes_back_by_itself(lent: Lent, work: Work) -> None:
    lent.lend(work)
    machine = lent.machine
    everyone = clients(machine)

    machine.sh(f"kill -9 $(docker inspect -f '{{{{.State.Pid}}}}' {everyone[0]})")
    back = [whole_again(machine, without=everyone[:1])]

    everyone = clients(machine)
    machine.sh("kill -9 $(systemctl show -p MainPID --value dockercomp-launcher)")
    back.append(whole_again(machine))
    assert clients(machine) == everyone, "client containers outlive their launcher"

    machine.sh("kill -9 $(pidof dockerd)")
    back.append(whole_again(machine, without=everyone))

    print("back after kill -9 of client, launcher, dockerd: " + ", ".join(f"{one:.1f} s" for one in back))
    work.wait(work.submit(), done=ROWS)


def test_it_goes_on_after_a_reboot(lent: Lent, work: Work) -> None:
    lent.lend(work)
    everyone = clients(lent.machine)

    began = time.monotonic()
    lent.machine.reboot()

    whole_again(lent.machine, without=everyone)
    print(f"back after a reboot, shutdown and start included: {time.monotonic() - began:.1f} s")
    work.wait(work.submit(), done=ROWS)


def test_an_update_that_cannot_be_finished_leaves_the_launcher_as_it_is(lent: Lent, work: Work) -> None:
    lent.lend(work)
    machine, lock = lent.machine, "/opt/dockercomp/payload/locks/launcher.txt"

    machine.sh(f"cp {lock} /tmp/lock && echo 'no-such-thing @ file:///no/such/thing' >>{lock}")
    broken = machine.try_(THE_LINE)
    machine.sh("systemctl restart dockercomp-launcher")
    whole_again(machine)
    machine.sh(f"cp /tmp/lock {lock} && {THE_LINE}")

    assert broken.status == 1 and "This step failed: Launcher." in broken.output, broken.output
    assert machine.sh("cd /opt/dockercomp && ls -d launcher*") == "launcher"
    whole_again(machine)


def test_the_volunteers_words_hold_on_the_machine(lent: Lent, work: Work) -> None:
    lent.lend(work)
    machine = lent.machine

    machine.sh("dockercomp-volunteer self-test")
    machine.sh("sed -e 's/^containers = .*/containers = 1/' /etc/dockercomp/policy.toml >/tmp/mine.toml")
    machine.sh(f"{THE_LINE} --policy /tmp/mine.toml --projects sums,others --auto-update")

    assert machine.status()["wanted"] == 1
    assert "others" in machine.sh("cat /etc/dockercomp/policy.toml")
    assert machine.sh("systemctl is-active dockercomp-update.timer") == "active"
    machine.sh(THE_LINE)
    assert machine.try_("systemctl cat dockercomp-update.timer").status != 0
    work.wait(work.submit(), done=ROWS)


def test_only_the_launcher_itself_speaks_to_systemd(lent: Lent, work: Work) -> None:
    lent.lend(work)

    said = lent.machine.sh("journalctl --no-pager -o cat -u dockercomp-launcher")

    assert "reception only permitted for main PID" not in said, said[-3000:]


def test_taken_back_the_machine_is_as_it_was_and_others_things_are_untouched(lent: Lent, work: Work) -> None:
    lent.lend(work)
    rule = "FORWARD -s 203.0.113.1 -j DROP"  # of theirs; a reboot forgets it
    lent.machine.sh(f"iptables -C {rule} 2>/dev/null || iptables -I {rule}")

    said = lent.machine.sh("dockercomp-volunteer uninstall --yes")

    assert difference(lent.before, lent.machine.snapshot()) == {}, said
    assert lent.machine.sh("docker inspect -f '{{.State.Running}}' theirs") == "true"
    assert "Nothing is installed here." in lent.machine.sh(
        "curl -fsSL $SERVER/install.sh | sh -s -- --uninstall"
    )


def test_a_machine_to_which_we_brought_the_engine_is_bare_again_after_a_purge(lab: Lab, work: Work) -> None:
    for machine in fresh_machine("warm", lab, trusting=False):
        give_enrolment_key(lab, machine)
        machine.environment["DOCKERCOMP_INSTALL_CA_FILE"] = "/root/ca.pem"
        options = "--yes --key-file /root/enrol.key --containers 2 --disk 1g"
        line = f"curl -fsSL --cacert /root/ca.pem $SERVER/install.sh | sh -s -- {options}"
        before = machine.snapshot()

        broken = cut_off_midway(machine, line)

        assert "This step failed: Enrolment." in broken and "can be run again" in broken, broken
        task = timed("machine without an engine", machine, line, work)
        work.wait(task, done=ROWS)
        said = machine.sh("dockercomp-volunteer uninstall --purge --yes")
        assert difference(before, machine.snapshot()) == {}, said


def give_enrolment_key(lab: Lab, machine: Machine) -> None:
    """Put a key that is good for one machine where the volunteer has it."""
    file = lab.folder / "enrol.key"
    lab.product.run("dockercomp-server", "enrol", "key", "--key-file", str(file))
    machine.put("/root/enrol.key", file.read_text(), mode="0600")
    file.unlink()


def cut_off_midway(machine: Machine, line: str) -> str:
    """Take the network away while the line is at work, and give it back when the line has ended; what it said."""
    route = machine.sh("ip route show default")
    machine.sh(f"({line}; echo $? >/tmp/status) >/tmp/said 2>&1 &")
    machine.until("grep -q '^.4/' /tmp/said || test -e /tmp/status", seconds=120, what="the fourth step")
    machine.sh("ip link set eth0 down")
    machine.until("test -e /tmp/status", seconds=240, what="the end of a run without network")
    machine.sh(f"ip link set eth0 up && ip route add {route}")
    assert machine.sh("cat /tmp/status") == "1"
    return machine.sh("cat /tmp/said")


# --- looking


def clients(machine: Machine) -> list[str]:
    """Ids of the running client containers."""
    return machine.sh("docker ps -q --no-trunc --filter label=dockercomp.kind=client | sort").split()


def whole_again(machine: Machine, *, without: Sequence[str] = (), seconds: float = 90) -> float:
    """Seconds until all client containers run and are registered, none of them one of `without`."""
    began = time.monotonic()
    while True:
        said = machine.try_("dockercomp-volunteer status --json")
        if said.status == 0:
            status = json.loads(said.output)
            running = {one["id"] for one in status["clients"] if one["state"] == "running"}
            whole = status["running"] == status["registered"] == status["wanted"] > 0
            if whole and not running & set(without):
                return time.monotonic() - began
        assert time.monotonic() - began < seconds, f"not whole within {seconds:g} s: {said.output[-3000:]}"
        time.sleep(0.2)


def last_recap(machine: Machine) -> str:
    """What Ansible counted at the end of the last run."""
    return machine.sh("grep -a 'ok=.*changed=' /var/log/dockercomp-install.log | tail -n 1")


def timed(which: str, machine: Machine, line: str, work: Work) -> str:
    """Run the line while work waits; print how long it took, and how long it was until the first result. The task."""
    task = work.submit()
    with ThreadPoolExecutor(1) as aside:
        first = aside.submit(work.wait, task, done=1, seconds=1200)
        began = time.monotonic()
        machine.sh(line, seconds=1200)
        whole = time.monotonic() - began
        print(f"{which}: the line took {whole:.0f} s, the first accepted result {first.result():.0f} s")
    return task
