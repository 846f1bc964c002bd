"""The launcher as an installed service: clients in their slots, limits that change, pauses, crashes, an end."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
import pytest
from launching import run_inside
from parts import require
from product import Product, until
from serving import Line, Serving, server_for_containers

from client_container.launcher.clients.engine import ClientEngine
from client_container.launcher.service.control import ask
from dockercomp.api import Server
from dockercomp.config import read_key

PAUSE_S = 4.0

pytestmark = [pytest.mark.docker, pytest.mark.mongo]


@pytest.fixture(scope="module")
def product(engine: docker.DockerClient, mongod_binary: Path) -> Iterator[Product]:
    home = Path(tempfile.mkdtemp(prefix="dockercomp-serve-"))
    with server_for_containers(home, "--beat-seconds", "1") as product:
        yield product
    shutil.rmtree(home)


@pytest.fixture
def serving(
    engine: docker.DockerClient, client_image: str, product: Product, tmp_path: Path
) -> Iterator[Serving]:
    key = (product.home / "volunteer.key").read_text()
    made = Serving(engine, tmp_path, server=product.address, image=client_image, key=key)
    made.self_test_passed()
    yield made
    made.clean_up()


@pytest.fixture
def scientist(product: Product) -> Server:
    return Server(product.address, read_key(product.home / "scientist.key"))


def submit(product: Product, server: Server, image: str, *, seconds: float, rows: int = 1) -> str:
    """A task whose chunks take so long; dealt at once."""
    project = f"slow-{os.urandom(4).hex()}"
    data = product.home / f"{project}.csv"
    data.write_text("a\n" + "".join(f"{n}\n" for n in range(rows)))
    server.add_project(project)
    # In small steps: a sleep that is frozen ends as if it had not been.
    program = f"import time; [time.sleep(0.1) for _ in range({round(seconds * 10)})]; print(42)"
    task = server.add_task(project, ["python3", "-c", program], image=image, rows_per_chunk=1)
    server.upload(task, data)
    server.assign(project)
    return task


def test_clients_come_up_in_their_slots_and_the_number_follows_the_policy(serving: Serving) -> None:
    serving.start()
    first = serving.registered(2)

    said = serving.volunteer("scale", "3")
    more = serving.registered(3)
    serving.volunteer("scale", "1")
    fewer = serving.clients()

    assert "limits.containers = 3" in said and "3 of 3 client containers run." in said
    assert sorted(fewer) == ["0"]
    # A job's part of the totals is in a client's configuration: it is another one with three containers.
    assert first["0"].id != more["0"].id
    serving.wait(lambda: serving.status()["problems"] == {})


def test_what_a_client_container_is_given_is_its_slot_and_nothing_else(serving: Serving) -> None:
    serving.start()
    client = serving.registered(2)["1"]

    config, host = client.attrs["Config"], client.attrs["HostConfig"]
    env = dict(entry.split("=", 1) for entry in config["Env"])
    seen = run_inside(client, "import os, json; print(json.dumps(sorted(os.listdir('/var/lib/dockercomp'))))")

    assert [mount["Source"] for mount in host["Mounts"]] == [str(serving.home / "slots" / "1")]
    assert host["NetworkMode"] == f"dockercomp-{serving.name}"
    assert host["Memory"] == 96 * 2**20 and host["NanoCpus"] == 5 * 10**8
    assert (env["DOCKERCOMP_RUNTIME"], env["DOCKERCOMP_ALLOW"]) == ("sandbox", "")
    assert (env["DOCKERCOMP_CPUS"], env["DOCKERCOMP_MEMORY_MB"]) == ("1", "512")
    assert {"launcher.sock", "account.key", "spool", "state.json"} <= set(seen)
    assert client.labels["dockercomp.kind"] == "client"


def test_killed_clients_and_a_killed_launcher_come_back(serving: Serving) -> None:
    serving.start()
    before = serving.registered(2)

    before["1"].kill("SIGKILL")
    serving.wait(lambda: (now := serving.clients()).get("1") and now["1"].id != before["1"].id)
    after = serving.registered(2)
    serving.kill()
    alone = {slot: one.id for slot, one in serving.clients().items()}
    serving.start()
    found_again = serving.registered(2)

    assert after["0"].id == before["0"].id
    assert alone == {slot: one.id for slot, one in after.items()}
    assert {slot: one.id for slot, one in found_again.items()} == alone


def test_a_policy_that_is_edited_holds_and_a_broken_one_changes_nothing(serving: Serving) -> None:
    serving.start()
    serving.registered(2)

    serving.policy(containers=1)
    serving.registered(1)
    serving.policy("[when]\nidle = true\n", containers=2)
    serving.wait(lambda: "policy" in serving.status()["problems"])
    broken = serving.volunteer("limits", "show")
    serving.policy("[when]\nhours = { daily = [] }\n", containers=1)
    serving.wait(lambda: serving.status()["standing"]["word"] == "freeze")

    assert "There is no key when.idle in the policy" in broken and "containers" in broken
    serving.wait(lambda: len(serving.clients()) == 1)
    assert serving.status()["standing"]["why"] == "Outside the hours of your policy (never)."
    serving.wait(lambda: serving.status()["problems"] == {})


def test_a_pause_freezes_a_running_job_and_resume_lets_it_finish(
    serving: Serving, product: Product, scientist: Server, built_image: Callable[[str], str]
) -> None:
    serving.policy(containers=1)
    serving.start()
    serving.registered(1)
    task = submit(product, scientist, built_image("pairs"), seconds=5)
    until(lambda: bool(serving.status()["jobs"]), seconds=60, what="a running job")

    said = serving.volunteer("pause")
    frozen = [one for one in serving.everything("job") if one.status == "paused"]
    status = serving.status()
    serving.volunteer("pause", "--for", "0", status=2)
    time.sleep(PAUSE_S)
    resumed = serving.volunteer("resume")
    product.run("dockercomp", "watch", task)

    assert said == "Paused until you resume: 1 job is frozen.\n"
    assert len(frozen) == 1, serving.log.read_text() + str(serving.status())
    assert (status["standing"]["word"], status["jobs"][0]["frozen"]) == ("freeze", True)
    assert resumed == "Resumed: jobs may run, 1 goes on.\n"
    assert [row["answer"].strip() for row in product.rows(task)] == ["42"]
    until(
        lambda: bool(json.loads(serving.volunteer("history", "--json"))["jobs"]),
        seconds=60,
        what="a job in the history",
    )
    job = json.loads(serving.volunteer("history", "--json"))["jobs"][0]
    assert (job["task"], job["cause"], job["exit_code"]) == (task, None, 0)
    assert 4.5 <= job["ran_s"] <= seconds_between(job["started"], job["ended"]) - PAUSE_S + 1


def test_a_stop_leaves_nothing_and_the_server_hears_of_it(
    serving: Serving, engine: docker.DockerClient, scientist: Server
) -> None:
    serving.start()
    serving.registered(2)
    gone_before = live(scientist)

    took_s = serving.stop()

    assert serving.everything() == []
    assert not engine.networks.list(names=[f"dockercomp-{serving.name}"])
    assert not Path(serving.facts["control"]).exists()
    assert live(scientist) == gone_before - 2
    assert took_s < 20
    assert "No launcher runs here" in serving.volunteer("status", status=2)


def test_an_engine_that_is_away_is_said_and_waited_for(serving: Serving, tmp_path: Path) -> None:
    line = Line(tmp_path / "docker.sock")
    serving.start(DOCKER_HOST=f"unix://{line.path}")
    before = serving.wait(lambda: serving.status()["engine"]["problem"])
    line.open()
    first = serving.registered(2)

    line.cut()
    serving.wait(lambda: serving.status()["engine"]["problem"])
    paused = serving.volunteer("pause", status=1)
    serving.volunteer("resume")
    first["1"].kill("SIGKILL")
    line.open()
    serving.wait(lambda: (now := serving.clients()).get("1") and now["1"].id != first["1"].id)

    assert "No Docker engine answers" in before
    assert "not confirmed yet. No Docker engine answers" in paused
    assert serving.registered(2)["0"].id == first["0"].id
    serving.wait(lambda: serving.status()["engine"]["problem"] is None)
    serving.stop()
    line.cut()


def test_two_instances_share_what_one_machine_lends(
    serving: Serving,
    engine: docker.DockerClient,
    product: Product,
    scientist: Server,
    built_image: Callable[[str], str],
) -> None:
    key = (product.home / "volunteer.key").read_text()
    facts = {"server": product.address, "image": str(serving.facts["image"]), "key": key}
    other = Serving(engine, serving.folder, **facts, number=1)
    other.self_test_passed()
    try:
        for one in (serving, other):
            one.policy(containers=1)
            one.start()
            one.registered(1)
        other.volunteer("pause")
        task = submit(product, scientist, built_image("pairs"), seconds=6, rows=2)
        until(lambda: bool(serving.status()["jobs"]), seconds=60, what="a job of the first instance")
        other.volunteer("resume")

        looks = []
        for _ in range(6):
            looks.append((len(serving.status()["jobs"]), len(other.status()["jobs"])))
            time.sleep(0.3)
        product.run("dockercomp", "watch", task)
        uids = {one.attrs["Config"]["User"] for each in (serving, other) for one in each.everything("client")}
        other.stop()

        assert (1, 0) in looks and max(sum(look) for look in looks) == 1, looks
        assert [row["answer"].strip() for row in product.rows(task)] == ["42", "42"]
        assert len(uids) == 2
        assert other.everything() == [] and len(serving.clients()) == 1
    finally:
        other.clean_up()


def test_draining_finishes_what_runs_and_leaves_the_server(
    serving: Serving, product: Product, scientist: Server, built_image: Callable[[str], str]
) -> None:
    serving.policy(containers=1)
    serving.start()
    serving.registered(1)
    task = submit(product, scientist, built_image("pairs"), seconds=4)
    until(lambda: bool(serving.status()["jobs"]), seconds=60, what="a running job")

    facts = ask(Path(serving.facts["control"]), "drain", seconds=90, within=30)

    assert (facts["finished"], facts["given_back"], facts["undelivered"]) == (1, 0, 0)
    assert (facts["deregistered"], facts["clients"], facts["gone"]) == (1, 1, True)
    assert scientist.progress(task).done == 1
    assert serving.everything("client") == []


def seconds_between(first: str, last: str) -> float:
    return (datetime.fromisoformat(last[:-1]) - datetime.fromisoformat(first[:-1])).total_seconds()


def live(server: Server) -> int:
    return sum(one["state"] == "live" for one in server.containers())


@pytest.fixture
def own_disk(serving: Serving) -> Iterator[Callable[[], None]]:
    """Gives the slots a file system of a fixed size."""
    slots = serving.home / "slots"

    def mount() -> None:
        slots.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256m,mode=711", "none", slots], capture_output=True
        )
        if done.returncode != 0:
            require(f"no file system can be mounted ({done.stderr.decode().strip()})")

    yield mount
    serving.clean_up()
    subprocess.run(["umount", slots], capture_output=True)


def test_no_client_starts_before_the_sandbox_is_seen_to_hold(
    serving: Serving, own_disk: Callable[[], None]
) -> None:
    shutil.rmtree(serving.home / "launcher")
    serving.start()
    serving.wait(lambda: serving.status()["self_test"]["verdict"] == "failed")
    before, said = serving.clients(), serving.volunteer("self-test", status=1)

    own_disk()
    passed = serving.volunteer("self-test")
    serving.registered(2)

    assert before == {}
    assert "FAIL  disk of their own" in said and "FAILED: jobs do not run here" in said
    assert passed.endswith("Passed: every wall of the sandbox holds.\n") and "FAIL" not in passed


def test_an_idle_client_takes_little_memory(serving: Serving) -> None:
    serving.start()
    client = serving.registered(2)["0"]

    stats: dict[str, Any] = client.stats(stream=False)
    got, sent = ClientEngine().transfer(str(client.id)) or (0, 0)

    usage = stats["memory_stats"]["usage"] - stats["memory_stats"]["stats"].get("total_inactive_file", 0)
    assert serving.process is not None
    launcher = Path(f"/proc/{serving.process.pid}/status").read_text()
    [resident] = re.findall(r"^VmRSS:\s+(\d+) kB", launcher, re.MULTILINE)
    print(f"an idle client takes {usage / 2**20:.1f} MiB, the launcher {int(resident) / 1024:.1f} MiB")
    assert usage < 32 * 2**20
    # What the day's limit counts: by now it has registered, at least.
    assert got > 100 and sent > 100
