"""The process runtime on real child processes."""

import functools
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from client_container.allow_list import AllowList, parse_allow_list
from client_container.protocol import Chunk, Job
from client_container.runtime import Halt, HostBroken, JobHalted, checkpoints
from client_container.runtime.checkpoints import Checkpoints
from client_container.runtime.contract import STDERR_BYTES, STDOUT_BYTES
from client_container.runtime.process import JOB_UID, ProcessRuntime, prepare_parent

PATH = "/usr/local/bin:/usr/bin:/bin"
ASKED = {"memory_mb": 40, "disk_mb": 2, "cpus": 1.5}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give jobs another uid")


def chunk(*action, data="{}", env=None, timeout_s=20.0, rows=None, image=None, **job):
    job = Job(id="t/main", image=image, action=action, env=env or {}, timeout_s=timeout_s, rows=rows, **job)
    return Chunk(id="a.1", run=0, input=data, job=job, ticket="x", token="T")


def shell(script, **rest):
    return chunk("/bin/sh", "-c", script.replace("{", "{{").replace("}", "}}"), **rest)


@pytest.fixture
def runtime(tmp_path):
    def make(**settings):
        defaults = {"parent": tmp_path, "allow": AllowList(None), "path": PATH, "grace_s": 0.3}
        return ProcessRuntime(**defaults | settings)

    return make


@pytest.fixture
def run(runtime):
    def to_the_end(work, **settings):
        made = runtime(**settings)
        execution = made.execute(work, Halt())
        made.reported(work)
        return execution

    return to_the_end


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid, within_s=5):
    deadline = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def test_an_answer_comes_with_its_times_and_the_image_it_ran_in(run):
    execution = run(shell("echo 3; echo note >&2; sleep 0.1"), image="sha256:ab")

    assert (execution.outcome, execution.stdout, execution.stderr_tail) == ("ok", "3\n", "note\n")
    assert (execution.exit_code, execution.signal) == (0, None)
    assert 0.1 <= (execution.ended - execution.started).total_seconds() < 5
    assert (execution.runtime, execution.image) == ("process", "sha256:ab")


def test_processor_time_is_that_of_the_program(run):
    execution = run(chunk(sys.executable, "-c", "sum(range(3_000_000))"))

    assert 0.01 < execution.cpu_s < 20


@pytest.mark.parametrize(
    "data",
    ['{"big": 123456789012345678901234567890, "half": "\\ud800", "nul": "\\u0000"}', '{"é": "😀"}', "1e400"],
)
def test_the_chunk_arrives_byte_for_byte_on_stdin_and_in_its_file(run, data):
    execution = run(shell('cat; echo; cat "$DOCKERCOMP_IN/chunk.json"', data=data))

    assert execution.stdout == f"{data}\n{data}"


def test_input_that_has_no_utf8_is_an_error_of_the_chunk(run):
    execution = run(shell("cat", data='"\ud800"'))

    assert execution.outcome == "failed"
    assert "Unicode" in execution.stderr_tail


def test_a_program_that_reads_nothing_and_one_that_reads_late_do_not_block(run):
    data = json.dumps({"x": "y" * 65_000})

    assert run(shell("exec <&-; echo done", data=data)).stdout == "done\n"
    assert run(shell("sleep 0.1; wc -c", data=data)).stdout.strip() == str(len(data))


def test_the_environment_is_clean(run, monkeypatch):
    monkeypatch.setenv("DOCKERCOMP_KEY_FILE", "/secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    work = chunk("env", env={"MODE": "fast", "LANG": "C", "DOCKERCOMP_SEED": "1", "DOCKERCOMP_KEY": "x"})

    execution = run(work, cpus=2.5)

    told = dict(line.split("=", 1) for line in execution.stdout.splitlines())
    own = {told.pop(name) for name in ("HOME", "TMPDIR")}
    places = {name: told.pop(name) for name in ("DOCKERCOMP_IN", "DOCKERCOMP_OUT", "DOCKERCOMP_CHECKPOINT")}
    assert len(own) == 1 and len(set(places.values())) == 3
    assert told == {
        "PATH": PATH,
        "TZ": "UTC",
        "LANG": "C",
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "DOCKERCOMP_SEED": "1247741676",
        "MODE": "fast",
    }


def test_a_fraction_of_a_processor_is_one_thread(run):
    assert run(shell("echo $OMP_NUM_THREADS"), cpus=0.25).stdout == "1\n"


@pytest.fixture(params=[None, pytest.param(JOB_UID, marks=needs_root)], ids=["same user", "other user"])
def run_as(request, run, tmp_path):
    """Runs jobs as our user, or as one whose limits only a privilege could change from outside."""
    if request.param is None:
        yield run
        return
    parent = prepare_parent(tmp_path, uid=request.param)
    yield functools.partial(run, parent=parent, uid=request.param)
    parent.rmdir()


def test_what_a_job_asked_for_bounds_it_from_its_first_moment(run_as):
    told = run_as(shell("ulimit -d; ulimit -f; echo $OMP_NUM_THREADS", **ASKED), cpus=4.0).stdout

    assert told.split() == [str(40 * 1024), str(2 * 2**20 // 512), "1"]


def test_a_program_that_gets_no_more_memory_ran_out_of_it(run_as):
    work = shell("head -c 200000000 /dev/zero | tail -c 190000000 | wc -c >&2; exit 1", memory_mb=40)

    execution = run_as(work)

    assert execution.outcome == "oom" and "The job may have 40 MiB of memory." in execution.stderr_tail


def test_processes_that_together_take_more_memory_than_the_job_may_are_killed(run_as):
    each = "(head -c 25000000 /dev/zero; sleep 60) | tail -c 25000000 | wc -c >&2 &"

    execution = run_as(shell(f"{each} {each} wait", memory_mb=40))

    assert (execution.outcome, execution.signal) == ("oom", 9)


def test_memory_that_processes_share_counts_once(run):
    program = (
        "import os, time\nheld = bytearray(30_000_000)\n"
        "for _ in range(4):\n    if os.fork() == 0:\n        time.sleep(1.2); os._exit(0)\n"
        "for _ in range(4): os.wait()\nprint(len(held))"
    )

    execution = run(chunk(sys.executable, "-c", program, memory_mb=100))

    assert (execution.outcome, execution.stdout) == ("ok", "30000000\n")


def test_files_that_together_are_more_than_the_job_may_write_end_it(run):
    script = 'for i in 1 2 3; do head -c 900000 /dev/zero > "$DOCKERCOMP_OUT/$i"; done; sleep 60'

    execution = run(shell(script, disk_mb=2))

    assert (execution.outcome, execution.signal) == ("output_limit", 9)
    assert "The program wrote more than the 2 MiB that the job may write." in execution.stderr_tail


@pytest.mark.parametrize("script", ["exec head -c 9000000 /dev/zero > f", "head -c 9000000 /dev/zero > f"])
def test_a_file_larger_than_the_job_may_write_is_told_from_a_program_that_failed(run, script):
    execution = run(shell(script, disk_mb=2))

    assert execution.outcome == "output_limit" and "2 MiB" in execution.stderr_tail


def test_limits_change_nothing_else_of_how_a_program_begins(run):
    script = "env | grep -v -e PWD= -e HOME= -e TMPDIR= -e DOCKERCOMP_ | sort; grep -e Sig /proc/self/status"

    bound, free = (run(shell(script, env={"LANG": "C", "ODD": "a=\u00e9\n"}, **one)) for one in (ASKED, {}))

    assert bound.outcome == "ok"
    ignoring = [line for line in bound.stdout.splitlines() if "OMP_" not in line]
    assert ignoring == [line for line in free.stdout.splitlines() if "OMP_" not in line]


@pytest.mark.parametrize(("program", "code"), [("/bin/none", 127), ("/etc/passwd", 126)])
def test_a_program_with_limits_that_cannot_be_run_says_so_as_a_shell_would(run, program, code):
    execution = run(chunk(program, memory_mb=100))

    assert (execution.outcome, execution.exit_code) == ("failed", code)
    assert f"'{program}' cannot be run: " in execution.stderr_tail


def test_the_job_has_a_folder_of_its_own_that_is_gone_afterwards(run, tmp_path):
    execution = run(
        shell(
            'set -e; pwd; touch here "$DOCKERCOMP_OUT/file" "$DOCKERCOMP_CHECKPOINT/state"; '
            "mkdir -p deep/er; touch deep/er/file; ln -s / deep/root; chmod 0 deep/er deep"
        )
    )

    assert execution.outcome == "ok"
    assert execution.stdout.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "outcome"), [(0, "ok"), (1, "failed"), (3, "failed"), (65, "failed")])
def test_exit_codes_are_told(run, code, outcome):
    execution = run(shell(f"echo why >&2; exit {code}"))

    assert (execution.outcome, execution.exit_code, execution.signal) == (outcome, code, None)
    assert execution.stderr_tail == "why\n"


def test_a_signal_is_told_from_an_exit_code(run):
    execution = run(shell("kill -SEGV $$"))

    assert (execution.outcome, execution.exit_code, execution.signal) == ("failed", None, 11)


def test_a_program_that_ignores_term_is_killed_after_the_grace(run):
    began = time.monotonic()

    execution = run(
        shell("trap '' TERM; echo said >&2; while :; do sleep 0.05; done", timeout_s=0.3), grace_s=0.4
    )

    assert (execution.outcome, execution.signal) == ("timeout", 9)
    assert 0.7 <= time.monotonic() - began < 5
    assert execution.stderr_tail.startswith("said\n")
    assert "timeout of 0.3 s" in execution.stderr_tail


def test_a_program_that_heeds_term_may_say_goodbye_and_is_a_timeout_all_the_same(run):
    execution = run(shell("trap 'echo bye >&2; exit 0' TERM; while :; do sleep 0.05; done", timeout_s=0.3))

    assert (execution.outcome, execution.exit_code) == ("timeout", 0)
    assert "bye\n" in execution.stderr_tail


def test_a_flood_on_stdout_is_cut_off(run):
    began = time.monotonic()

    execution = run(shell("while :; do echo flood; done"))

    assert execution.outcome == "output_limit"
    assert 0 < len(execution.stdout) <= STDERR_BYTES and "flood\nflood" in execution.stdout
    assert time.monotonic() - began < 10


def test_exactly_the_limit_is_an_answer_and_one_byte_more_is_not(run):
    assert len(run(shell(f"head -c {STDOUT_BYTES} /dev/zero | tr '\\0' x")).stdout) == STDOUT_BYTES
    assert run(shell(f"head -c {STDOUT_BYTES + 1} /dev/zero")).outcome == "output_limit"


def test_a_flood_on_stderr_costs_nothing_and_its_end_is_kept(run):
    execution = run(shell("head -c 3000000 /dev/zero | tr '\\0' e >&2; echo end >&2; echo 3"))

    assert (execution.outcome, execution.stdout) == ("ok", "3\n")
    assert len(execution.stderr_tail) == STDERR_BYTES
    assert execution.stderr_tail.endswith("eend\n")


def test_stderr_that_is_no_text_is_kept_as_far_as_it_is_and_within_its_bytes(run):
    execution = run(shell("head -c 20000 /dev/zero | tr '\\0' '\\377' >&2; printf 'a\\0b\\n' >&2; exit 1"))

    assert execution.stderr_tail.endswith("a\0b\n")
    assert len(execution.stderr_tail.encode()) <= STDERR_BYTES


@pytest.mark.parametrize("bad", ["\\377", "\\355\\240\\200"], ids=["stray byte", "lone surrogate"])
def test_an_answer_that_is_not_utf8_is_an_error_of_the_attempt(run, bad):
    execution = run(shell(f"printf 'ab{bad}'"))

    assert (execution.outcome, execution.exit_code) == ("failed", 0)
    assert execution.stdout.startswith("ab\ufffd")
    assert execution.stderr_tail == "dockercomp: The answer is not UTF-8 (byte 3).\n"


def test_what_a_failing_test_says_on_stdout_is_kept_with_the_attempt(run):
    execution = run(shell("echo '1 failed'; echo why >&2; exit 1"))

    assert (execution.outcome, execution.exit_code) == ("failed", 1)
    assert (execution.stdout, execution.stderr_tail) == ("1 failed\n", "why\n")


def test_of_a_failing_program_that_said_much_the_end_is_kept(run):
    execution = run(shell("head -c 100000 /dev/zero | tr '\\0' x; echo; echo the end; exit 1"))

    assert len(execution.stdout) <= STDERR_BYTES and execution.stdout.endswith("x\nthe end\n")


def test_what_the_program_left_running_is_killed(run):
    execution = run(shell("sleep 60 & echo $!"))

    assert execution.outcome == "ok"
    assert gone(int(execution.stdout))


def test_a_descendant_that_escaped_with_the_pipes_open_does_not_hold_us(run):
    began = time.monotonic()

    execution = run(shell("setsid sleep 3 & echo 3"))

    assert execution.stdout == "3\n"
    assert time.monotonic() - began < 2


ROWS = json.dumps({"rows": [{"a": "1"}, {"a": "2"}, {"a": "3"}], "first_row": 0})


@pytest.mark.parametrize("script", ["seq 3", "printf '1\\n2\\n3'", "printf '\\n\\n\\n'"])
def test_one_line_for_each_row_is_an_answer(run, script):
    assert run(shell(script, data=ROWS, rows=5)).outcome == "ok"


@pytest.mark.parametrize(
    ("script", "lines"), [("seq 2", 2), ("seq 4", 4), ("true", 0), ("printf '1\\n2\\n3\\n\\n'", 4)]
)
def test_any_other_number_of_lines_is_an_error_of_the_attempt(run, script, lines):
    execution = run(shell(script, data=ROWS, rows=5))

    assert (execution.outcome, execution.exit_code) == ("failed", 0)
    assert f"The answer has {lines} lines, its chunk has 3 rows." in execution.stderr_tail


def test_a_chunk_of_one_value_may_answer_with_any_number_of_lines(run):
    assert run(shell("seq 4")).stdout == "1\n2\n3\n4\n"


def test_arguments_arrive_whole_and_without_a_shell(run):
    work = chunk("printf", "%s|", "{a}", "x{b}y", data='{"a": "two words; $HOME *", "b": 1.50}')

    assert run(work).stdout == "two words; $HOME *|x1.50y|"


@pytest.mark.parametrize("value", ["\\u0000", "\\ud800"])
def test_a_field_no_command_line_can_hold_is_an_error_of_the_chunk(run, value):
    execution = run(chunk("echo", "{a}", data=f'{{"a": "{value}"}}'))

    assert execution.outcome == "failed"
    assert "command line" in execution.stderr_tail


def test_a_number_of_any_length_is_passed_digit_by_digit(run):
    digits = "9" * 6000

    assert run(chunk("echo", "{a}", data=f'{{"a": {digits}}}')).stdout == digits + "\n"


def test_programs_that_cannot_be_run_fail_as_in_a_shell(run, tmp_path):
    for name, text, mode in (
        ("plain", "x", 0o644),
        ("headless", "\x01\x02", 0o755),
        ("lost", "#!/no/such\n", 0o755),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)

    codes = {
        name: run(chunk(name if name == "nowhere" else f"{tmp_path}/{name}")).exit_code
        for name in ("nowhere", "absent", "plain", "headless", "lost")
    }

    assert codes == {"nowhere": 127, "absent": 127, "plain": 126, "headless": 126, "lost": 127}


def test_a_job_without_an_action_is_for_an_engine(run):
    execution = run(chunk())

    assert execution.outcome == "engine"
    assert "no action" in execution.stderr_tail


def test_a_job_that_names_an_image_runs_only_in_that_image(run):
    assert run(chunk("true", image="sha256:ab"), image="sha256:ab").outcome == "ok"
    assert run(chunk("true"), image="sha256:ab").outcome == "ok"
    assert run(chunk("true", image="sha256:ab"), image="sha256:cd").outcome == "engine"
    assert run(chunk("true", image="sha256:ab")).outcome == "engine"


def test_only_allowed_programs_run(run):
    allow = parse_allow_list('[["/bin/echo", "fixed"]]')

    assert run(chunk("/bin/echo", "{a}", "x", data='{"a": "fixed"}'), allow=allow).stdout == "fixed x\n"
    for work in (
        chunk("/bin/echo", "free"),
        chunk("echo", "fixed"),
        chunk("/bin/echo", "fixed", env={"LD_PRELOAD": "x"}),
    ):
        refused = run(work, allow=allow)
        assert refused.outcome == "engine"
        assert "This host does not" in refused.stderr_tail


def test_a_halt_kills_the_whole_group_at_once_and_reports_nothing(runtime, tmp_path):
    halt = Halt()
    mark = tmp_path / "mark"
    threading.Timer(0.5, halt.set).start()
    began = time.monotonic()

    with pytest.raises(JobHalted):
        runtime(grace_s=30).execute(shell(f"trap '' TERM; sleep 60 & echo $! > {mark}; wait; sleep 60"), halt)

    assert time.monotonic() - began < 5
    assert gone(int(mark.read_text()))


def test_a_halt_that_came_first_ends_the_job_as_soon_as_it_starts(runtime):
    halt = Halt()
    halt.set()
    began = time.monotonic()

    with pytest.raises(JobHalted):
        runtime().execute(shell("sleep 60"), halt)

    assert time.monotonic() - began < 5


def test_without_pidfd_the_end_is_noticed_all_the_same(run, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)

    assert run(shell("sleep 0.1; echo 3; sleep 60 >/dev/null 2>&1 &")).stdout == "3\n"


def test_a_folder_for_jobs_that_someone_tidied_away_is_made_again(run, tmp_path):
    parent = prepare_parent(tmp_path, uid=None)
    parent.rmdir()

    assert run(shell("echo 3"), parent=parent).outcome == "ok"


def test_a_machine_that_cannot_make_the_folder_is_broken_and_not_the_chunk(run, tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(HostBroken):
        run(shell("true"), parent=tmp_path / "file" / "jobs")


@needs_root
def test_under_root_the_job_is_an_unprivileged_user_that_can_use_its_folders_only(run, tmp_path):
    parent = prepare_parent(tmp_path, uid=JOB_UID)
    script = (
        'id -u; id -g; id -G; cat "$DOCKERCOMP_IN/chunk.json"; echo; '
        'touch x "$DOCKERCOMP_OUT/x" "$DOCKERCOMP_CHECKPOINT/x" && echo writes; '
        'touch "$DOCKERCOMP_IN/x" 2>/dev/null || echo bounded'
    )

    execution = run(shell(script), parent=parent, uid=JOB_UID)

    assert execution.stdout.split("\n") == [*[str(JOB_UID)] * 3, "{}", "writes", "bounded", ""]
    assert list(parent.iterdir()) == []
    parent.rmdir()


def test_limits_are_inherited_by_jobs(tmp_path):
    program = (
        "import sys; from pathlib import Path; from client_container.runtime.limits import limit_this_process\n"
        "from client_container.allow_list import AllowList; from client_container.runtime import Halt\n"
        "from client_container.runtime.process import ProcessRuntime; from client_container.protocol import *\n"
        "limit_this_process(processes=False)\n"
        "job = Job(id='j', image=None, action=('sh', '-c', 'ulimit -c; ulimit -n; ulimit -f'),"
        " env={}, timeout_s=9.0, rows=None)\n"
        "chunk = Chunk(id='t.1', run=0, input='1', job=job, ticket='x', token='T')\n"
        "runtime = ProcessRuntime(parent=Path(sys.argv[1]), allow=AllowList(None), path='/usr/bin:/bin')\n"
        "print(runtime.execute(chunk, Halt()).stdout)"
    )

    limits = subprocess.check_output([sys.executable, "-c", program, tmp_path], text=True).split()

    assert limits[0] == "0"
    assert int(limits[1]) <= 4096
    assert int(limits[2]) * 512 <= 1 << 30


def test_what_a_killed_client_left_behind_is_swept_at_the_next_start(tmp_path):
    parent = prepare_parent(tmp_path, uid=None)
    (parent / "job-left" / "out").mkdir(parents=True)
    orphan = subprocess.Popen(
        ["sleep", "60"], env={"DOCKERCOMP_OUT": f"{parent}/job-left/out"}, start_new_session=True
    )
    other = subprocess.Popen(["sleep", "60"], env={"DOCKERCOMP_OUT": f"{parent}-else/job-left/out"})

    prepare_parent(tmp_path, uid=None)

    assert list(parent.iterdir()) == []
    assert orphan.wait(5) == -9
    assert other.poll() is None
    other.kill()
    other.wait()


def outputs(script, *patterns, **rest):
    return shell(f'cd "$DOCKERCOMP_OUT"; {script}', outputs=patterns, **rest)


def contents(execution):
    return {file.name: (execution.folder / file.sha256).read_bytes() for file in execution.files}


def test_files_that_the_job_asked_for_are_taken_out_before_its_folder_goes(run, tmp_path):
    execution = run(outputs("mkdir -p a/b; echo 1 > a/b/c; echo 2 > d; echo 3 > .progress", "a/**", "*"))

    assert contents(execution) == {"a/b/c": b"1\n", "d": b"2\n"}
    assert {path.name for path in tmp_path.iterdir()} == {"outbox"}


@pytest.mark.parametrize(
    "script",
    [
        "ln -s /etc/passwd f",
        "ln -s /etc d; ln -s d/passwd f",
        "ln $HOME/../in/chunk.json f",
        "mkfifo f",
        'ln -s "$DOCKERCOMP_IN" f',
        "mkdir f",
        r"""touch "$(printf 'a\nb')" """,
    ],
)
def test_what_is_no_plain_file_is_left_out_and_said(run, script):
    execution = run(outputs(f"{script} || exit 9; echo good > g", "**", data='{"secret": 1}'))

    assert execution.outcome == "ok" and contents(execution) == {"g": b"good\n"}


def test_a_flood_of_files_is_bounded(run):
    execution = run(outputs("i=0; while [ $i -lt 1200 ]; do : > f$i; i=$((i+1)); done", "**"))

    assert execution.outcome == "ok" and len(execution.files) == 1000
    assert "Left out of /out" in execution.stderr_tail and "and 197 more" in execution.stderr_tail


def test_of_what_is_larger_than_the_job_said_nothing_is_kept(run):
    script = "for i in 1 2 3; do head -c 700000 /dev/zero > f$i; done"

    execution = run(outputs(script, "**", disk_mb=1))

    assert execution.outcome == "output_limit" and not execution.files


def test_a_process_that_escaped_may_write_on_and_what_is_taken_has_its_hash(run):
    script = "setsid timeout 3 sh -c 'while :; do echo more >> f; done' >/dev/null 2>&1 & while [ ! -s f ]; do :; done"

    execution = run(outputs(script, "f"))

    [file] = execution.files
    data = (execution.folder / file.sha256).read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.bytes)


def kept(runtime, work):
    """Run it until it is halted, once it wrote its checkpoint."""
    halt, parent = Halt(), runtime._parent
    before = len(list(parent.glob("checkpoints/*/*")))

    def end():
        _wait_for(lambda: len(list(parent.glob("checkpoints/*/*"))) > before)
        halt.set()

    ending = threading.Thread(target=end)
    ending.start()
    with pytest.raises(JobHalted):
        runtime.execute(work, halt)
    ending.join()
    return list(parent.glob("checkpoints/*/*"))


def _wait_for(condition, within_s=20):
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_checkpoint_is_kept_for_the_same_run_of_the_same_chunk_until_it_is_reported(runtime):
    first, work = (
        runtime(),
        shell('cat "$DOCKERCOMP_CHECKPOINT"/n; echo 7 > n; mv n "$DOCKERCOMP_CHECKPOINT/n"; sleep 60'),
    )
    assert kept(first, work)
    quick = shell('cat "$DOCKERCOMP_CHECKPOINT"/n || echo none')

    again = runtime()
    assert again.execute(replace(quick, run=1), Halt()).stdout == "none\n"
    assert again.execute(replace(quick, id="a.2"), Halt()).stdout == "none\n"
    assert again.execute(quick, Halt()).stdout == "7\n"
    assert again.execute(quick, Halt()).stdout == "7\n", "nobody said that it was reported"
    again.reported(quick)

    assert again.execute(quick, Halt()).stdout == "none\n"


def test_checkpoints_are_swept_when_they_are_old_or_too_many_or_too_big(runtime, monkeypatch, tmp_path):
    work = shell('head -c 100000 /dev/zero > n; mv n "$DOCKERCOMP_CHECKPOINT/n"; sleep 60')
    for n in range(4):
        kept(runtime(), replace(work, id=f"a.{n}"))
    monkeypatch.setattr(checkpoints, "MOST", 3)
    Checkpoints(tmp_path / "checkpoints", uid=None).sweep()
    assert len(list(tmp_path.glob("checkpoints/*"))) == 3
    monkeypatch.setattr(checkpoints, "MOST_BYTES", 250_000)
    Checkpoints(tmp_path / "checkpoints", uid=None).sweep()
    assert len(list(tmp_path.glob("checkpoints/*"))) == 2

    later = time.time() + checkpoints.KEPT_S + 10
    Checkpoints(tmp_path / "checkpoints", uid=None, clock=lambda: later).sweep()

    assert not list(tmp_path.glob("checkpoints"))
