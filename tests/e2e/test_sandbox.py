"""Jobs in containers of their own, with a real engine: what a program finds, how it ends, what is kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from launching import wait_for
from parts import require
from sandboxes import POLICY, Host, Told, lent_host, make_odd_image

from client_container.launcher.errors import EngineAway
from client_container.launcher.jobs.cgroups import ROOT
from client_container.launcher.line.wire import GivenFile

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def host(engine: docker.DockerClient, hostile_image: str) -> Iterator[Host]:
    with lent_host(engine, hostile_image) as host:
        yield host


def running(host: Host, count: int = 1) -> list[Any]:
    """The jobs, once so many run and have a container."""
    return wait_for(
        lambda: len(jobs := host.jobs.running()) == count and all(one.since for one in jobs) and jobs
    )


def under_way(told: Told) -> None:
    wait_for(lambda: told.started)


def test_a_chunk_goes_in_on_stdin_and_its_answer_comes_out(host: Host) -> None:
    told = host.run("cat", data='{"a": "ü"}')

    assert told.stdout == '{"a": "ü"}'
    assert (told.end["cause"], told.end["exit_code"], told.end["signal"]) == (None, 0, None)
    assert told.end["image"] == host.image and told.started[0]["image"] == host.image
    assert wait_for(lambda: host.ran)[-1].project == "sums"


def test_without_an_action_the_images_own_command_runs(host: Host) -> None:
    assert host.run(data="41").stdout == "41"


def test_a_chunk_of_a_megabyte_goes_through_a_program_that_reads_nothing(host: Host) -> None:
    assert host.run("exit", "0", data=json.dumps("x" * 2**20)).end["exit_code"] == 0


def test_placeholders_are_filled_by_the_launcher_and_never_split(host: Host) -> None:
    told = host.run("show", "{file}", data='{"file": "/in/chunk.json"}')

    assert told.stdout == '{"file": "/in/chunk.json"}'
    assert host.run("show", "{b}").end["code"] == "bad_request"


def test_a_job_is_told_what_the_contract_promises_and_nothing_that_tells_attempts_apart(host: Host) -> None:
    first = host.run("env", chunk="c.1", env={"MODE": "fast", "DOCKERCOMP_SEED": "mine"}).stdout.splitlines()
    second = host.run(
        "env", chunk="c.1", slot=1, env={"MODE": "fast", "DOCKERCOMP_SEED": "mine"}
    ).stdout.splitlines()

    assert sorted(first) == sorted(second)
    env = dict(line.split("=", 1) for line in first)
    assert env["DOCKERCOMP_SEED"].isdigit()
    assert {name: env[name] for name in ("HOME", "TZ", "LANG", "MODE", "GREETING", "OMP_NUM_THREADS")} == {
        "HOME": "/tmp",
        "TZ": "UTC",
        "LANG": "C.UTF-8",
        "MODE": "fast",
        "GREETING": "hello",
        "OMP_NUM_THREADS": "1",
    }
    assert [env[f"DOCKERCOMP_{name}"] for name in ("IN", "OUT", "CHECKPOINT")] == [
        "/in",
        "/out",
        "/checkpoint",
    ]


def test_the_kernel_confirms_the_limits_of_a_process_that_was_started_in_the_container(host: Host) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in host.run("show", "/proc/self/status").stdout.splitlines()
        if ":\t" in line
    )
    limits = {
        line[:25].strip(): line[25:].split()[:2]
        for line in host.run("show", "/proc/self/limits").stdout.splitlines()
    }

    job_uid = str(host.first_uid + 1000)
    assert status["Uid"].split() == status["Gid"].split() == [job_uid] * 4
    assert status["Groups"].split() == [job_uid]
    assert all(int(status[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max open files"] == ["1024", "1024"]
    assert limits["Max file size"] == [str(POLICY.disk_a_job)] * 2
    assert host.run("show", "/proc/self/oom_score_adj").stdout == "500\n"


def test_files_come_in_by_hash_and_go_out_by_hash(host: Host) -> None:
    sha256 = host.give(0, b"some code")

    told = host.run("show", "/in/lib/code.py", files=[GivenFile(name="lib/code.py", sha256=sha256)])
    made = host.run("traces")

    assert told.stdout == "some code"
    [file] = made.end["files"]
    assert (file["name"], file["bytes"]) == ("trace", 1)
    assert host.taken(0, file["sha256"]) == b"3"
    assert (host.slots.folder(0) / "files" / file["sha256"]).stat().st_uid == host.first_uid


def test_a_file_that_is_not_there_refuses_the_chunk(host: Host) -> None:
    told = host.run("cat", files=[GivenFile(name="f", sha256="00" * 32)])

    assert told.end["code"] == "file_missing"
    assert host.run("cat").end["exit_code"] == 0


def test_the_second_chunk_of_a_task_finds_the_container_warm_and_without_a_trace_of_the_first(
    host: Host,
) -> None:
    first, second = host.run("traces", task="warm"), host.run("traces", task="warm")
    other = host.run("traces", task="other")

    assert first.started[0]["container"] == second.started[0]["container"]
    assert other.started[0]["container"] != second.started[0]["container"]
    assert first.stdout == second.stdout == other.stdout == "0 0 0\n"


def test_a_program_that_leaves_something_running_costs_its_container(
    host: Host, engine: docker.DockerClient
) -> None:
    first, second = host.run("linger", task="linger"), host.run("linger", task="linger")

    assert first.stdout == "done\n" and first.end["exit_code"] == 0
    assert first.started[0]["container"] != second.started[0]["container"]


def test_what_a_lingering_process_writes_is_not_collected_while_it_may_write(host: Host) -> None:
    told = host.run("linger", "/out")

    assert told.end["exit_code"] == 0
    for file in told.end["files"]:
        assert len(host.taken(0, file["sha256"])) == file["bytes"]


@pytest.mark.parametrize(
    ("action", "cause", "code", "number"),
    [
        (("exit", "3"), None, 3, None),
        (("exit", "65"), None, 65, None),
        (("raise", "11"), None, None, 11),
        (("raise", "9"), None, None, 9),
    ],
    ids=str,
)
def test_endings_are_told_apart(host: Host, action: Any, cause: Any, code: Any, number: Any) -> None:
    end = host.run(*action).end

    assert (end["cause"], end["exit_code"], end["signal"]) == (cause, code, number)


def test_a_program_that_is_not_there_is_reported_as_a_shell_would(host: Host) -> None:
    request = host.request("x")
    missing = replace(request, manifest=replace(request.manifest, action=("/nowhere",)))
    unusable = replace(host.request("x"), manifest=replace(request.manifest, action=("/in",)))
    told, other = Told(), Told()

    host.jobs.run(0, missing, told.events.append)
    host.jobs.run(0, unusable, other.events.append)

    assert (told.end["exit_code"], other.end["exit_code"]) == (127, 126)
    assert "/nowhere" in told.stderr


def test_at_its_timeout_a_program_is_asked_and_then_made_to_end(host: Host) -> None:
    asked = host.run("sleep", "60", timeout_s=0.5)
    began = time.monotonic()
    made = host.run("stubborn", timeout_s=0.5)

    assert (asked.end["cause"], asked.end["signal"]) == ("timeout", signal.SIGTERM)
    assert made.end["cause"] == "timeout" and made.end["ran_s"] >= 1.5
    assert time.monotonic() - began < 20


def test_frozen_time_does_not_count(host: Host) -> None:
    told, thread = host.start(host.request("sleep", "1", timeout_s=2.5))
    under_way(told)

    host.jobs.freeze()
    wait_for(lambda: all(one.frozen for one in running(host)))
    time.sleep(3)
    assert host.jobs.running() and not thread.join(0)
    host.jobs.thaw()
    thread.join(20)

    assert (told.end["cause"], told.end["exit_code"]) == (None, 0)
    assert told.end["ran_s"] < 2.5


def test_a_chunk_that_is_given_back_goes_on_from_its_checkpoint(host: Host) -> None:
    told, thread = host.start(host.request("checkpoint", "60", chunk="c.given"))
    under_way(told)
    wait_for(lambda: host.jobs.running()[0].progress == 0.25)
    host.jobs.freeze()
    wait_for(lambda: all(one.frozen for one in running(host)))

    host.jobs.give_back()
    thread.join(20)
    again = host.run("checkpoint", "0", slot=1, chunk="c.given")
    after = host.run("checkpoint", "0", slot=1, chunk="c.given")

    assert told.end["cause"] == "given_back"
    assert again.stdout == "savedend\n"
    assert after.stdout == "end\n"  # the chunk had its result: nothing is kept


def test_a_killed_job_is_gone_and_only_its_own_slot_may_kill_it(
    host: Host, engine: docker.DockerClient
) -> None:
    request = host.request("sleep", "60")
    told, thread = host.start(request)
    under_way(told)

    assert not host.jobs.kill(1, request.token)
    assert not host.jobs.kill(0, str(uuid.uuid4()))
    assert host.jobs.kill(0, request.token)
    thread.join(20)

    assert told.end["cause"] == "killed"


def test_whoever_comes_back_with_the_token_is_told_everything_again(host: Host) -> None:
    request = host.request("checkpoint", "3")
    first, thread = host.start(request)
    under_way(first)

    second = Told()
    host.jobs.run(0, request, second.events.append)
    thread.join(20)
    late = Told()
    host.jobs.run(0, request, late.events.append)

    assert first.events == second.events == late.events
    assert len(host.ran) == len({(one.chunk, one.started) for one in host.ran})


def test_another_request_waits_for_no_job_that_its_client_still_hears(host: Host) -> None:
    told, thread = host.start(host.request("sleep", "3"))
    under_way(told)

    assert host.run("cat").end["code"] == "busy"
    thread.join(20)
    assert host.run("cat").end["exit_code"] == 0


def test_a_job_whose_client_left_makes_way_for_the_next(host: Host) -> None:
    left = threading.Event()
    request, told = host.request("sleep", "60"), Told()
    thread = threading.Thread(target=host.jobs.run, args=(0, request, told.events.append, left.is_set))
    thread.start()
    under_way(told)

    left.set()
    thread.join(10)
    time.sleep(1.1)

    assert host.run("cat").end["exit_code"] == 0


def test_a_job_that_nobody_comes_back_for_is_removed(engine: docker.DockerClient, hostile_image: str) -> None:
    with lent_host(engine, hostile_image, linger_s=1.0) as host:
        told = Told()
        host.jobs.run(0, host.request("sleep", "60"), told.events.append, lambda: bool(told.started))

        wait_for(lambda: not host.jobs.running())
        wait_for(lambda: not host.containers(engine))
        assert wait_for(lambda: host.ran)[-1].cause == "killed"


def test_policy_and_pause_refuse_with_a_sentence(engine: docker.DockerClient, hostile_image: str) -> None:
    with lent_host(engine, hostile_image) as host:
        host.run("cat")
        assert len(host.containers(engine)) == 1
        host.why = "Paused by the owner."
        assert host.run("cat").end == {"event": "end", "refused": "Paused by the owner.", "code": "paused"}
        host.jobs.sweep()
        assert not host.containers(engine)  # nothing is kept warm for later

        host.why, host.policy = None, replace(POLICY, projects=("digits",))
        assert host.run("cat").end["code"] == "not_allowed"
        host.policy = POLICY
        assert host.run("cat", memory_mb=4096).end["code"] == "not_allowed"
        host.images.missing.add(hostile_image)
        assert host.run("cat").end["code"] == "image_missing"


def test_a_warm_container_that_nobody_uses_is_removed(
    engine: docker.DockerClient, hostile_image: str
) -> None:
    with lent_host(engine, hostile_image, idle_s=0.5) as host:
        host.run("cat")
        host.jobs.sweep()
        assert len(host.containers(engine)) == 1

        time.sleep(0.6)
        host.jobs.sweep()
        assert not host.containers(engine)


def test_a_new_launcher_removes_the_old_ones_jobs_and_keeps_their_checkpoints(
    engine: docker.DockerClient, hostile_image: str
) -> None:
    with lent_host(engine, hostile_image) as host:
        dying = host.start_elsewhere(("checkpoint", "60"), chunk="c.crash", timeout_s=600.0)
        folder = wait_for(lambda: next((host.home / "slots" / "jobs").iterdir(), None))
        wait_for((folder / "out" / ".progress").exists)
        (folder / "checkpoint" / "saved").write_text("before the crash, ")
        [left] = host.containers(engine)
        foreign = engine.containers.create(
            hostile_image, labels={"dockercomp.kind": "job", "dockercomp.test": "x"}
        )
        dying.kill()
        dying.wait()
        try:
            host.jobs.sweep()

            assert left.id not in {one.id for one in host.containers(engine)}
            foreign.reload()
            again = host.run("checkpoint", "0", chunk="c.crash")
            assert again.stdout == "before the crash, end\n"
        finally:
            foreign.remove()


def test_a_launcher_needs_no_root_but_five_capabilities(
    engine: docker.DockerClient, hostile_image: str
) -> None:
    if shutil.which("setpriv") is None:
        require("there is no setpriv to become another user")
    socket = Path((os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock").removeprefix("unix://"))
    caps = "+chown,+dac_override,+fowner,+kill,+sys_ptrace"
    become = [
        "setpriv",
        "--reuid=769999",
        f"--regid={socket.stat().st_gid}",
        "--clear-groups",
        "--no-new-privs",
    ]
    become += [f"--inh-caps=-all,{caps}", f"--ambient-caps={caps}", f"--bounding-set=-all,{caps}"]
    with lent_host(engine, hostile_image) as host:
        for folder in (
            host.home,
            host.home / "slots",
            *(host.home / "slots").glob("[jc]*"),
            host.home / "pause",
        ):
            os.chown(folder, 769_999, -1)

        launcher = host.start_elsewhere(
            ("traces",), ("traces",), ("stubborn",), ("litter",), chunk="c", by=become, timeout_s=2.0
        )
        said, _ = launcher.communicate(timeout=120)

        first, second, stubborn, litter = (Told(events) for events in json.loads(said))
        assert first.stdout == second.stdout == "0 0 0\n"
        assert first.started[0]["container"] == second.started[0]["container"]  # cleared by hand: warm
        assert stubborn.end["cause"] == "timeout"
        assert {file["name"] for file in litter.end["files"]} == {"good", "CASE", "closed/inside"}
        assert not list((host.home / "slots" / "jobs").iterdir())


def test_a_container_that_somebody_removes_is_the_engines_fault_and_not_the_programs(
    host: Host, engine: docker.DockerClient
) -> None:
    told, thread = host.start(host.request("sleep", "60"))
    under_way(told)

    engine.api.remove_container(told.started[0]["container"], force=True)
    thread.join(20)

    assert (told.end["cause"], told.end["exit_code"]) == ("engine", None)
    assert host.run("cat").end["exit_code"] == 0


def test_a_launcher_that_leaves_tells_no_end_and_leaves_nothing(
    engine: docker.DockerClient, hostile_image: str
) -> None:
    with lent_host(engine, hostile_image) as host:
        told, thread = host.start(host.request("sleep", "60"))
        under_way(told)

        host.jobs.close()
        thread.join(20)

        assert [event["event"] for event in told.events] == ["started"]
        assert not host.containers(engine) and not list((host.home / "slots" / "jobs").iterdir())


def test_an_image_that_declares_a_volume_is_refused(engine: docker.DockerClient, hostile_image: str) -> None:
    container = engine.containers.create(hostile_image, volumes=["/data"], labels={"dockercomp.test": "x"})
    image = container.commit(repository="dockercomp-test/volume", changes='VOLUME ["/data"]')
    container.remove(v=True)
    try:
        with lent_host(engine, image.id) as host:
            end = host.run("cat").end
            assert end["code"] == "not_allowed" and "VOLUME" in end["refused"]
    finally:
        engine.images.remove(image.id, force=True)


@pytest.mark.parametrize(
    ("entries", "change", "sentence"),
    [
        ({"out": b"a file"}, None, "No container can be made"),
        ({"tmp": b"a file"}, None, "No container can be made"),
        ({"out": "/proc"}, None, "No container can be made"),
        ({"work": b"a file"}, "WORKDIR /work", "No container can be made"),
        ({"etc/passwd": "/etc/passwd"}, None, "No container can be made"),
        ({"etc/passwd": None}, None, "no plain file"),
        ({"etc/passwd": "/out/x"}, None, "leads elsewhere"),
        ({"etc/group": "../a", "a": "dev/shm"}, None, "leads elsewhere"),
        ({}, "WORKDIR /proc/self/fd/8", "WORKDIR"),
    ],
)
def test_an_image_that_no_container_can_be_made_of_is_refused_without_the_engines_words(
    engine: docker.DockerClient, entries: dict[str, Any], change: str | None, sentence: str
) -> None:
    image = make_odd_image(engine, entries, *filter(None, [change]))
    try:
        with lent_host(engine, image) as host:
            end = host.run("cat").end
            assert end.get("code") == "not_allowed" and sentence in end["refused"], end
            assert str(host.home) not in end["refused"]
            assert not host.containers(engine)
    finally:
        engine.images.remove(image, force=True)


@pytest.mark.parametrize(
    "entries",
    [
        {"etc/passwd": "../usr/users", "usr/users": b"# nobody", "etc/group": "/nowhere"},
        {"etc": "/tmp"},  # the engine puts a folder in its place
        {"etc": b"a file"},
    ],
)
def test_an_image_whose_users_are_behind_links_of_its_own_is_run(
    engine: docker.DockerClient, entries: dict[str, Any]
) -> None:
    image = make_odd_image(engine, entries)
    try:
        with lent_host(engine, image) as host:
            assert host.run("cat").end["exit_code"] == 127, "there is no program in it"
    finally:
        engine.images.remove(image, force=True)


def test_two_slots_that_ask_at_the_same_time_do_not_both_get_the_last_place(
    engine: docker.DockerClient, hostile_image: str
) -> None:
    with lent_host(engine, hostile_image) as host:
        host.policy = replace(POLICY, containers=1, memory=96 * 2**20)
        both = threading.Barrier(2)
        find = host.images.find

        def at_once(reference: str) -> Any:
            both.wait(20)
            return find(reference)

        host.images.find = at_once  # type: ignore[method-assign]
        started = [host.start(host.request("sleep", "1"), slot=slot) for slot in (0, 1)]
        for _, thread in started:
            thread.join(30)

        assert sorted(str(told.end.get("code")) for told, _ in started) == ["None", "busy"]


def test_a_container_that_cannot_be_removed_does_not_keep_the_others(
    engine: docker.DockerClient, hostile_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lent_host(engine, hostile_image) as host:
        labels = {**host.labels, "dockercomp.kind": "job"}
        for _ in range(3):
            engine.containers.create(hostile_image, labels=labels)
        jobs_engine = host.jobs._around.engine
        remove, asked = jobs_engine.remove, []

        def hang_once(container: str, **rest: Any) -> None:
            asked.append(rest)
            if len(asked) == 1:
                raise EngineAway("It hangs.")
            remove(container, **rest)

        monkeypatch.setattr(jobs_engine, "remove", hang_once)
        host.jobs.sweep()

        assert len(host.containers(engine)) == 1 and asked == [{"within": 10}] * 3
        host.jobs.sweep()
        assert not host.containers(engine)


def test_all_jobs_of_the_host_are_in_one_group_with_the_volunteers_totals(
    engine: docker.DockerClient, hostile_image: str
) -> None:
    totals = [(2.0, POLICY.memory)]
    with lent_host(engine, hostile_image, totals=lambda: totals[0]) as host:
        told, thread = host.start(host.request("sleep", "1"))
        under_way(told)
        host.jobs.sweep()
        try:
            if host.jobs.totals_problem:
                pytest.skip(host.jobs.totals_problem)
            files = [ROOT / "memory/dockercomp/memory.limit_in_bytes", ROOT / "dockercomp/memory.max"]
            [limit] = [int(file.read_text()) for file in files if file.exists()]
            pid = engine.containers.get(told.started[0]["container"]).attrs["State"]["Pid"]
            groups = Path(f"/proc/{pid}/cgroup").read_text()
        finally:
            totals[0] = (4096.0, 2**50)
            host.jobs.sweep()
            thread.join(20)

    assert limit == POLICY.memory
    assert all("/dockercomp" in line for line in groups.splitlines() if "memory" in line or "cpu:" in line)
