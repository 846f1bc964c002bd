"""The parts that jobs are made of, each by itself: no engine."""

import base64
import os
import platform
import signal
import struct
import subprocess
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from client_container.launcher.files.folders import Usage
from client_container.launcher.files.open_files import hidden_bytes
from client_container.launcher.jobs.cgroups import KeptTotals, Totals, group_of, parent_name, remove_parents
from client_container.launcher.jobs.control import Control
from client_container.launcher.jobs.demux import BadStream, Demultiplexer
from client_container.launcher.jobs.door import Door, Turns
from client_container.launcher.jobs.engine import Cgroups, images_fault
from client_container.launcher.jobs.execution import MOST_INODES, Stopwatch, disk_problem
from client_container.launcher.jobs.pause_elf import NoSuchMachine, pause_program, write_pause_program
from client_container.launcher.jobs.startable import require_workdir
from client_container.launcher.jobs.story import Story
from client_container.launcher.line.wire import Refusal, Stats
from client_container.launcher.service.upkeep import Upkeep
from client_container.protocol import Chunk, Job
from client_container.runtime.verdict import verdict


def test_the_pause_program_is_a_whole_program_for_each_machine():
    for machine, number in (("x86_64", 62), ("aarch64", 183)):
        program = pause_program(machine)
        assert program[:4] == b"\x7fELF" and struct.unpack_from("<H", program, 18) == (number,)
        assert len(program) < 512
        [size] = struct.unpack_from("<Q", program, 64 + 32)
        assert size == len(program)
    with pytest.raises(NoSuchMachine, match="riscv64"):
        pause_program("riscv64")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no pause program for it")
def test_the_pause_program_waits_without_using_the_processor_and_can_be_ended(tmp_path):
    process = subprocess.Popen([write_pause_program(tmp_path / "pause")])
    try:
        time.sleep(0.3)
        assert process.poll() is None
        ticks = (tmp_path / "/proc" / str(process.pid) / "stat").read_text().rsplit(")", 1)[1].split()[11:13]
        assert sum(map(int, ticks)) <= 1
    finally:
        process.terminate()
    assert process.wait(10) == -signal.SIGTERM


def test_the_pause_program_is_written_once_and_mended(tmp_path):
    path = write_pause_program(tmp_path / "pause", "x86_64")
    written = path.stat().st_ino

    assert write_pause_program(path, "x86_64").stat().st_ino == written
    path.write_bytes(b"other")
    assert write_pause_program(path, "x86_64").read_bytes() == pause_program("x86_64")
    assert path.stat().st_mode & 0o777 == 0o755
    assert [one.name for one in tmp_path.iterdir()] == ["pause"]


def frame(number, data):
    return struct.pack(">BxxxI", number, len(data)) + data


@given(
    some.lists(some.tuples(some.sampled_from([1, 2]), some.binary(max_size=50)), max_size=10),
    some.integers(1, 30),
)
def test_the_engines_stream_is_taken_apart_however_it_is_cut(pieces, cut):
    stream = b"".join(frame(number, data) for number, data in pieces)
    demultiplexer, heard = Demultiplexer(), {"stdout": b"", "stderr": b""}

    for start in range(0, len(stream), cut):
        for name, data in demultiplexer.feed(stream[start : start + cut]):
            heard[name] += data

    for name, number in (("stdout", 1), ("stderr", 2)):
        assert heard[name] == b"".join(data for one, data in pieces if one == number)


def test_a_stream_of_another_kind_is_not_taken():
    with pytest.raises(BadStream):
        list(Demultiplexer().feed(frame(7, b"x")))


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_stopwatch_does_not_count_what_it_was_stopped_for():
    clock = Clock()
    watch = Stopwatch(clock)
    clock.now = 2
    watch.stop()
    clock.now = 10
    watch.stop()
    assert watch.elapsed() == 2
    watch.resume()
    watch.resume()
    clock.now = 11

    assert watch.elapsed() == 3


def heard(story, gone=lambda: False):
    events = []
    story.tell(events.append, gone)
    return events


def joined(events, stream):
    return b"".join(base64.b64decode(one["data"]) for one in events if one["event"] == stream)


def test_a_story_is_told_whole_to_whoever_comes_late():
    story = Story()
    story.start({"event": "started"})
    story.add_stdout(b"x" * 100_000)
    story.add_stderr(b"y" * 20_000 + b"end")
    story.finish({"event": "end"})

    first, second = heard(story), heard(story)

    assert first == second
    assert (first[0]["event"], first[-1]["event"]) == ("started", "end")
    assert joined(first, "stdout") == b"x" * 100_000
    assert len(joined(first, "stderr")) == 8192 and joined(first, "stderr").endswith(b"end")


def test_a_story_keeps_no_more_than_an_answer_may_have():
    story = Story()

    assert story.add_stdout(b"x" * 256 * 1024)
    assert not story.add_stdout(b"x")
    assert story.stdout_bytes == 256 * 1024


def test_a_listener_hears_as_it_happens_and_is_missed_when_it_leaves():
    clock = Clock()
    story, told, left = Story(clock), [], threading.Event()
    thread = threading.Thread(target=story.tell, args=(told.append, left.is_set))
    thread.start()
    story.add_stdout(b"1")
    ends = time.monotonic() + 10
    while not told and time.monotonic() < ends:
        time.sleep(0.01)
    clock.now = 5
    assert joined(told, "stdout") == b"1" and story.unheard_s() == 0

    left.set()
    thread.join(10)
    clock.now = 12

    assert story.unheard_s() == 7 and not story.finished


def test_a_story_that_is_dropped_has_no_end():
    story = Story()
    story.start({"event": "started"})
    story.drop()

    assert heard(story) == [{"event": "started"}] and story.finished


def test_the_first_reason_to_stop_counts_and_orders_wake():
    control = Control()
    control.stop("given_back")
    control.stop("killed")
    control.freeze(True)

    assert (control.stop_cause, control.to_be_frozen) == ("given_back", True)
    assert os.read(control.descriptor, 10)
    control.heard()
    control.close()
    control.stop("killed")  # late, and of no consequence


@pytest.mark.parametrize(
    ("usage", "word"),
    [
        (Usage(bytes=2**21), "MiB"),
        (Usage(inodes=MOST_INODES + 1), "files"),
        (Usage(too_deep=True), "deeper"),
        (Usage(bytes=2**20, inodes=MOST_INODES), ""),
    ],
)
def test_what_is_wrong_with_a_jobs_disk_is_said(usage, word):
    said = disk_problem(usage, most_bytes=2**20)

    assert word in said and bool(said) == bool(word)


def test_nameless_files_that_are_open_are_seen(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        os.fsync(file.fileno())
        device = path.stat().st_dev
        assert hidden_bytes([os.getpid()], device) == 0
        path.unlink()

        assert hidden_bytes([os.getpid(), 2**22 + 1], device) >= 100_000
        assert hidden_bytes([os.getpid()], device + 1) == 0


def lay(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_group_of_a_process_is_found_under_version_1(tmp_path):
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    lay(
        proc,
        **{"7__cgroup": "3:pids:/dockercomp/x\n2:cpu,cpuacct:/dockercomp/x\n1:memory:/dockercomp/x\n0::/\n"},
    )
    lay(root / "pids/dockercomp/x", **{"pids.current": "2\n", "cgroup.procs": "7\n8\n"})
    lay(root / "cpu,cpuacct/dockercomp/x", **{"cpuacct.usage": "1500000000\n"})
    lay(root / "memory/dockercomp/x", **{"memory.oom_control": "under_oom 0\noom_kill 3\n"})

    group = group_of(7, root=root, proc=proc)

    assert (group.tasks(), group.processes(), group.cpu_s(), group.oom_kills()) == (2, [7, 8], 1.5, 3)


def test_the_group_of_a_process_is_found_under_version_2(tmp_path):
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    lay(proc, **{"7__cgroup": "0::/dockercomp.slice/docker-x.scope\n"})
    lay(
        root / "dockercomp.slice/docker-x.scope",
        **{
            "pids.current": "3\n",
            "cgroup.procs": "7\n8\n9\n",
            "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
            "memory.events": "low 0\noom 1\noom_kill 1\n",
        },
    )

    group = group_of(7, root=root, proc=proc)

    assert (group.tasks(), group.processes(), group.cpu_s(), group.oom_kills()) == (3, [7, 8, 9], 2.5, 1)


def test_a_process_whose_group_cannot_be_read_is_no_guess(tmp_path):
    lay(tmp_path / "proc", **{"7__cgroup": "0::/elsewhere\n"})

    with pytest.raises(OSError):
        group_of(7, root=tmp_path / "cgroup", proc=tmp_path / "proc")


def test_the_totals_of_all_jobs_are_written_where_the_engine_uses_files(tmp_path):
    lay(tmp_path / "cpu/dockercomp", **{"cpu.cfs_period_us": "1", "cpu.cfs_quota_us": "-1"})
    lay(tmp_path / "memory/dockercomp", **{"memory.limit_in_bytes": "9223372036854771712"})
    lay(tmp_path / "two/dockercomp", **{"cpu.max": "max 100000", "memory.max": "max"})

    assert Totals(Cgroups(driver="cgroupfs", version=1), root=tmp_path).ensure(cpus=1.5, memory=2**30 + 5)
    assert Totals(Cgroups(driver="cgroupfs", version=2), root=tmp_path / "two").ensure(cpus=1.5, memory=2**30)

    assert (tmp_path / "cpu/dockercomp/cpu.cfs_quota_us").read_text() == "150000"
    assert (tmp_path / "memory/dockercomp/memory.limit_in_bytes").read_text() == str(2**30)
    assert (tmp_path / "two/dockercomp/cpu.max").read_text() == "150000 100000"
    assert (tmp_path / "two/dockercomp/memory.max").read_text() == str(2**30)


def test_an_empty_group_of_jobs_goes_with_its_launcher_and_the_next_one_gets_the_totals_at_once(tmp_path):
    kept = KeptTotals(
        Totals(Cgroups(driver="cgroupfs", version=2), root=tmp_path), lambda: (1.0, 2**30), lambda: 0.0
    )
    fresh = {"cpu.max": "max 100000", "memory.max": "max"}
    lay(tmp_path / "dockercomp", **fresh)
    kept.ensure()
    (tmp_path / "pids/dockercomp/a job").mkdir(parents=True)
    (tmp_path / "cpu/dockercomp").mkdir(parents=True)

    remove_parents(tmp_path)
    lay(tmp_path / "dockercomp", **fresh)  # as the engine does for its next container
    kept.ensure()

    assert (tmp_path / "dockercomp/memory.max").read_text() == str(2**30)
    assert (tmp_path / "pids/dockercomp/a job").is_dir() and not (tmp_path / "cpu/dockercomp").exists()


def test_totals_that_cannot_be_set_are_said_to_be_so(tmp_path):
    totals = Totals(Cgroups(driver="cgroupfs", version=2), root=tmp_path / "missing")

    assert not totals.ensure(cpus=1, memory=2**30)
    assert "could not be set" in totals.problem


def test_the_parent_is_named_as_the_engine_wants_it():
    assert parent_name(Cgroups(driver="cgroupfs", version=1)) == "/dockercomp"
    assert parent_name(Cgroups(driver="systemd", version=2)) == "dockercomp.slice"


def chunk(rows=None, data="1"):
    job = Job(id="j", image=None, action=(), env={}, timeout_s=60.0, rows=rows)
    return Chunk(id="c", run=0, input=data, job=job, ticket="", token="")


def judged(of=None, **changes):
    facts = {"cause": None, "exit_code": 0, "signal": None, "cpu_s": 0.0, "stdout": b"42\n", "stderr": b""}
    return verdict(of or chunk(), **{**facts, **changes})


@pytest.mark.parametrize(
    ("changes", "outcome", "said"),
    [
        ({}, "ok", ""),
        ({"exit_code": 3, "stderr": b"boom\n"}, "failed", "boom\n"),
        ({"exit_code": None, "signal": 11}, "failed", ""),
        ({"stdout": b"\xff"}, "failed", "UTF-8"),
        ({"of": chunk(rows=2, data='{"rows": [1, 2]}')}, "failed", "2 rows"),
        ({"cause": "timeout", "exit_code": None, "signal": 15}, "timeout", "60 s"),
        ({"cause": "oom"}, "oom", "memory"),
        ({"cause": "output_limit"}, "output_limit", "256 KiB"),
        ({"cause": "disk_limit", "note": "Too much."}, "output_limit", "dockercomp: Too much.\n"),
    ],
    ids=str,
)
def test_an_end_means_the_same_in_every_runtime(changes, outcome, said):
    facts = judged(**changes)

    assert facts["outcome"] == outcome and said in facts["stderr_tail"]
    # What failed is told with what the program said; characters that are none are shown as such.
    assert facts["stdout"] == ("\ufffd" if changes.get("stdout") else "42\n")


@pytest.mark.parametrize("path", ["", "/", "/work", "//srv/../data", "/procedures", "/home/sys"])
def test_a_working_directory_in_the_image_is_kept(path):
    require_workdir(path)


@pytest.mark.parametrize(
    "path", ["/proc", "//proc/1", "/proc/self/fd/8", "/a/../proc/self/cwd", "/./sys", "/x/proc/self/fd/7"]
)
def test_a_working_directory_among_the_kernels_files_is_refused(path):
    with pytest.raises(Refusal, match="WORKDIR") as refused:
        require_workdir(path)
    assert refused.value.code == "not_allowed"


@pytest.mark.parametrize(
    ("said", "image"),
    [
        ("OCI runtime create failed: ... mounting x to rootfs at /out: not a directory", True),
        ("unable to find user nobody: no matching entries in passwd file", True),
        ("Cannot mkdir: /w is not a directory", True),
        ("OCI runtime create failed: ... write memory.limit_in_bytes: cgroup is gone", False),
        ("OCI runtime create failed: mkdir /x: no space left on device", False),
        ("No such container: abc", False),
        ("driver failed programming external connectivity", False),
    ],
)
def test_the_machine_is_not_blamed_for_an_image(said, image):
    assert images_fault(said) is image


def test_few_requests_are_read_at_a_time_and_one_of_each_slot():
    turns = Turns(2, patience_s=0.05)

    with turns.of(0):
        with pytest.raises(Refusal) as refused, turns.of(0):
            pass
        with turns.of(1), pytest.raises(Refusal), turns.of(2):
            pass
        with turns.of(2):
            pass
    with turns.of(0):
        pass

    assert refused.value.code == "busy"


class SlowCaller:
    """A client that takes its time to ask how things stand."""

    reading, ready = [], threading.Event()

    def request(self):
        self.reading.append(self)
        assert self.ready.wait(20)
        return Stats()

    def emit(self, event):
        self.answer = event


def test_a_door_reads_few_requests_at_a_time_of_all_slots():
    door = Door(None, None, None, lambda slot: {"slot": slot})
    callers = [SlowCaller() for _ in range(5)]
    threads = [threading.Thread(target=door._serve, args=pair) for pair in enumerate(callers)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    at_once = len(SlowCaller.reading)
    SlowCaller.ready.set()
    for thread in threads:
        thread.join(20)

    assert at_once == 2
    assert [caller.answer["slot"] for caller in callers] == [0, 1, 2, 3, 4]


def test_a_removal_that_hangs_keeps_nothing_waiting_but_the_next_round():
    upkeep, hangs, rounds = Upkeep(), threading.Event(), []

    def fail():
        raise OSError("full")

    assert upkeep.start(hangs.wait)
    assert not upkeep.start(lambda: rounds.append(1))
    hangs.set()
    upkeep.wait(10)
    assert upkeep.start(fail)
    upkeep.wait(10)
    assert upkeep.problem == "full"
    assert upkeep.start(lambda: rounds.append(2))
    upkeep.wait(10)

    assert rounds == [2] and upkeep.problem is None
