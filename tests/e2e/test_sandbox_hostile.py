"""Hostile job images: contained, reported for what they are, and without any effect on a neighbour or the host."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import pytest
from launching import wait_for
from sandboxes import Host, lent_host

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def host(engine: docker.DockerClient, hostile_image: str) -> Iterator[Host]:
    with lent_host(engine, hostile_image) as host:
        yield host


@pytest.fixture(autouse=True)
def neighbour(host: Host) -> Iterator[None]:
    """A well-behaved job in another slot, which must not notice anything."""
    stop, answers = threading.Event(), []

    def work() -> None:
        while not stop.is_set():
            told = host.run("cat", slot=3, data="41", task="neighbour")
            answers.append((told.stdout, told.end["cause"], told.end["exit_code"]))
            stop.wait(0.1)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: answers)
    yield
    stop.set()
    thread.join(60)
    assert set(answers) == {("41", None, 0)}


def test_a_fork_bomb_is_ended_at_its_timeout(host: Host, engine: docker.DockerClient) -> None:
    most = 0
    for timeout_s in (2.0, 10.0, 50.0):  # a busy machine needs a while to look at all of them
        told, thread = host.start(host.request("forks", timeout_s=timeout_s))
        wait_for(lambda told=told: told.started)
        container = told.started[0]["container"]
        with contextlib.suppress(docker.errors.APIError):  # it has ended
            while most <= 100:
                most = max(most, len(engine.api.top(container)["Processes"]))
        thread.join(60)
        if most > 100:
            break

    assert 100 < most <= 258
    assert told.end["cause"] == "timeout"
    assert not [one for one in host.containers(engine) if one.id.startswith(container)]


@pytest.mark.parametrize("verb", ["hog", "hog-child"])
def test_memory_that_runs_out_is_reported_as_that_also_of_a_child_alone(host: Host, verb: str) -> None:
    assert host.run(verb).end["cause"] == "oom"


@pytest.mark.parametrize("folder", ["/out", "/checkpoint"])
def test_a_disk_filler_is_ended(host: Host, folder: str) -> None:
    end = host.run("fill", folder).end

    assert end["cause"] == "disk_limit" and "MiB" in end["note"] and not end["files"]


def test_one_file_cannot_grow_beyond_the_limit(host: Host) -> None:
    assert host.run("fill-one", "/out/big").end["cause"] == "disk_limit"


def test_files_without_a_name_count_as_well(host: Host) -> None:
    end = host.run("fill-hidden", "/out").end

    assert end["cause"] == "disk_limit"


def test_inodes_are_counted(host: Host) -> None:
    end = host.run("inodes", "/out").end

    assert end["cause"] == "disk_limit" and "files" in end["note"]


def test_tmp_is_the_jobs_own_and_bounded(host: Host) -> None:
    full, many = host.run("fill", "/tmp"), host.run("inodes", "/tmp")

    for told in (full, many):
        assert told.end["cause"] in (None, "oom")  # it is memory, and counts as that
        assert told.end["cause"] == "oom" or "No space left" in told.stdout


def test_endless_stdout_is_cut_off(host: Host) -> None:
    told = host.run("flood", "1")

    assert told.end["cause"] == "output_limit"
    assert len(told.stdout) == 256 * 1024


def test_endless_stderr_is_read_slowly_and_its_end_kept(host: Host) -> None:
    before = time.process_time()
    told = host.run("flood", "2", timeout_s=3.0)

    assert told.end["cause"] == "timeout"
    sent = len(told.stderr)
    assert 8 * 1024 <= sent <= 20 * 2**20
    assert time.process_time() - before < 10


def test_a_program_that_ignores_sigterm_is_killed(host: Host, engine: docker.DockerClient) -> None:
    told = host.run("stubborn", timeout_s=1.0)

    assert told.end["cause"] == "timeout" and told.end["ran_s"] < 25
    container = told.started[0]["container"]
    assert not [one for one in host.containers(engine) if one.id.startswith(container)]


def test_only_plain_files_leave_out_and_nothing_of_the_host_does(host: Host) -> None:
    end = host.run("litter").end

    names = {file["name"] for file in end["files"]}
    assert names == {"good", "CASE", "closed/inside"}
    contents = {host.taken(0, file["sha256"]) for file in end["files"]}
    assert contents == {b"good", b"1", b"inside"}
    assert end["note"].startswith("Left out of /out: ")
    assert not (host.slots.folder(0) / "files").is_symlink()


def test_after_litter_the_folder_is_gone_or_clean(host: Host) -> None:
    host.run("litter", task="litter")
    again = host.run("traces", task="litter")

    assert again.stdout == "0 0 0\n"


def test_every_way_out_is_denied(host: Host) -> None:
    told = host.run("escape")

    said = dict(line.split(": ") for line in told.stdout.splitlines())
    assert len(said) == 30
    assert {what for what, answer in said.items() if answer != "denied"} == set()
    assert told.end["exit_code"] == 0


def test_there_is_no_network_but_the_loopback_of_its_own(host: Host) -> None:
    routes = host.run("show", "/proc/net/route").stdout.splitlines()
    devices = host.run("show", "/proc/net/dev").stdout.splitlines()[2:]

    assert len(routes) <= 1  # the heading
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]


def test_all_slots_hostile_at_once_are_all_contained(host: Host, engine: docker.DockerClient) -> None:
    deeds: list[tuple[str, ...]] = [("forks",), ("hog",), ("fill", "/out")]

    def misbehave(slot: int) -> Any:
        return host.run(*deeds[slot], slot=slot, timeout_s=3.0 if slot == 0 else 60.0).end["cause"]

    with ThreadPoolExecutor() as pool:
        causes = list(pool.map(misbehave, range(3)))

    assert causes == ["timeout", "oom", "disk_limit"]
