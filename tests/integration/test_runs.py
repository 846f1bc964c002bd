"""Job files from a scientist's machine: checked, pinned and run by the command, over real clients."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from people import Scientist
from product import Product, running
from repositories import Repository

from dockercomp.api import Server
from dockercomp.cli.standstill import Standstill
from dockercomp.job_files import CheckedJobFile, pack, pin
from source_server.receivers.git_fetch import GitSettings, fetched

IMAGE = "sha256:" + "1" * 64
JOB = "dockercomp: 1\nmain: {action: [/bin/echo, '{a}']}\ndata: {rows: [{a: 1}, {a: 2}]}\n"

pytestmark = pytest.mark.mongo


# --- the HTTP side


def run(ada: Scientist, **body: Any) -> Any:
    ada.ok("POST", "/projects", {"name": "tests"})
    return ada.call("POST", "/projects/tests/runs", {"file": JOB, **body})


def test_a_run_makes_a_task_with_its_rows_and_starts_it(scientist: Scientist) -> None:
    made = run(scientist)

    assert made.status_code == 201
    task = made.get_json()
    assert (task["state"], task["rows"], task["chunks"]["total"]) == ("running", 2, 2)


def test_the_same_run_again_is_the_same_task_and_another_of_its_id_is_refused(scientist: Scientist) -> None:
    first = run(scientist, id="mine")
    again = run(scientist, id="mine")
    other_rows = run(scientist, id="mine", file=JOB.replace("{a: 2}", "{a: 3}"))
    other_job = run(scientist, id="mine", file=JOB.replace("echo", "cat"))

    assert [one.status_code for one in (first, again, other_rows, other_job)] == [201, 200, 409, 409]
    assert len(scientist.ok("GET", "/tasks")["tasks"]) == 1


def test_a_run_that_broke_off_before_it_began_goes_on(scientist: Scientist, raw: Any) -> None:
    run(scientist, id="mine")
    raw.tasks.update_one({"_id": "mine"}, {"$set": {"state": "waiting"}})

    assert run(scientist, id="mine").get_json()["state"] == "running"


def test_the_rows_of_a_file_come_from_a_blob(scientist: Scientist) -> None:
    content = b"a\n1\n2\n3\n"
    sha256 = hashlib.sha256(content).hexdigest()
    scientist.ok("PUT", f"/blobs/{sha256}", data=content)
    file = JOB.replace("{rows: [{a: 1}, {a: 2}]}", "{file: d/r.csv}")

    made = run(scientist, file=file, files={"d/r.csv": sha256})
    lacking = run(scientist, file=file)
    unknown = run(scientist, file=file, files={"d/r.csv": "0" * 64})

    assert made.get_json()["rows"] == 3
    assert lacking.status_code == unknown.status_code == 400
    assert len(scientist.ok("GET", "/tasks")["tasks"]) == 1


def test_a_file_of_another_account_is_not_to_be_had(
    scientist: Scientist, new_key: Callable[[str], str]
) -> None:
    eve = Scientist.__new__(Scientist)
    eve.key, eve._http = new_key("scientist"), scientist._http
    content = b"a\n1\n"
    sha256 = hashlib.sha256(content).hexdigest()
    scientist.ok("PUT", f"/blobs/{sha256}", data=content)
    eve.ok("POST", "/projects", {"name": "hers"})
    file = JOB.replace("{rows: [{a: 1}, {a: 2}]}", "{file: r.csv}")

    answer = eve.call("POST", "/projects/hers/runs", {"file": file, "files": {"r.csv": sha256}})

    assert answer.status_code == 400 and "no blob" in answer.get_json()["error"]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (JOB + "mian: 1", "There is no field 'mian'"),
        (JOB.replace("main: {", "main: {image: 'python:3.12', "), "dockercomp pin"),
        (JOB.replace("'{a}'", "'{b}'"), "'b'"),
        (JOB.replace("'{a}'", "'{a'"), "brace"),
        (JOB + "validation: {quorum: 99}", "quorum"),
        (JOB + "after_tasks: [a--b]", "after_tasks"),
    ],
)
def test_what_cannot_run_is_refused_with_a_sentence(
    scientist: Scientist, raw: Any, file: str, says: str
) -> None:
    answer = run(scientist, file=file)

    assert answer.status_code == 400 and says in answer.get_json()["error"]
    assert raw.tasks.count_documents({"cancelled": False}) == 0


def test_a_check_lists_images_and_files_and_makes_nothing(scientist: Scientist) -> None:
    file = (
        "dockercomp: 1\nmain: {action: [x], inputs: {m: data/m}}\n"
        f"matrix: [{{name: a, image: 'python:3.12'}}, {{name: b, image: '{IMAGE}'}}]\n"
    )

    found = scientist.ok("POST", "/job-files/check", {"file": file})

    assert [(one["image"], one["pinned"]) for one in found["images"]] == [
        ("python:3.12", False),
        (IMAGE, True),
    ]
    assert (found["files"], found["tree"], found["rows"]) == (["data/m"], True, 2)
    assert scientist.ok("GET", "/tasks")["tasks"] == []


def test_a_check_refuses_what_a_run_would_refuse(scientist: Scientist) -> None:
    answer = scientist.call("POST", "/job-files/check", {"file": JOB + "validation: {quorum: 99}\n"})

    assert answer.status_code == 400 and "quorum" in answer.get_json()["error"]


# --- the scientist's side


def checked(scientist: Scientist, text: str) -> CheckedJobFile:
    return CheckedJobFile(**scientist.ok("POST", "/job-files/check", {"file": text}))


def test_pinning_changes_the_images_and_not_a_letter_else(scientist: Scientist) -> None:
    text = (
        "# image: python:3.12 is what we use\r\n"
        "dockercomp: 1\n"
        "main:\n"
        "  action: [sh, -c, 'echo image: python:3.12 é']\n"
        "  env: {image: python:3.12}\n"
        "matrix:\n"
        '  - {name: a, image: "python:3.12", labels: {image: x}}\n'
        "  - name: b\n"
        "    image: debian:12\n"
        f"  - {{name: c, image: '{IMAGE}'}}\n"
        "after: {image: 'busybox', action: [x]}  # the end\n"
    )

    pinned = pin(text, checked(scientist, text), lambda tag: f"docker.io/library/{tag.split(':')[0]}@{IMAGE}")

    assert pinned == text.replace('"python:3.12"', f'"docker.io/library/python@{IMAGE}"').replace(
        "debian:12", f'"docker.io/library/debian@{IMAGE}"  # debian:12'
    ).replace("'busybox'", f'"docker.io/library/busybox@{IMAGE}"')
    assert checked(scientist, pinned).tags == []


def test_what_a_scientist_packs_is_what_the_server_makes_of_the_commit(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    (repository.work / "bin").mkdir()
    (repository.work / "bin" / "run").write_text("#!/bin/sh\n")
    (repository.work / "bin" / "run").chmod(0o755)
    (repository.work / "link").symlink_to("bin/run")
    commit = repository.commit({"a": "1", "ü/" + "l" * 150: "2", ".gitignore": "ignored\n"})
    (repository.work / "ignored").write_text("mine")
    (repository.work / "untracked-secret").write_text("mine")
    local, remote = tmp_path / "local.tar", tmp_path / "remote.tar"

    with local.open("wb") as out:
        count = pack(repository.work, out)
    with (
        fetched(repository.url, commit, GitSettings(listed=(repository.url,))) as tree,
        remote.open("wb") as out,
    ):
        tree.copy_tar(out)

    assert count == 5 and local.read_bytes() == remote.read_bytes()


GREET = ["/bin/sh", "-c", 'tar -xOf "$DOCKERCOMP_IN/tree.tar" greeting; echo $1', "sh"]
REFUSE = ["/bin/sh", "-c", "exit 65"]


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    allow = json.dumps([GREET, REFUSE])
    with running("--beat-seconds", "1", "--processes", "2", "--allow", allow) as product:
        yield product


def dockercomp(product: Product, folder: Path, *arguments: str, status: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        ["dockercomp", *arguments], cwd=folder, env=product.env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == status, f"{done.stdout}\n{done.stderr}\n{product.log()}"
    return done.stdout, done.stderr


def server_of(product: Product) -> Server:
    return Server(product.address, Path(product.env["DOCKERCOMP_KEY_FILE"]).read_text().strip())


def test_a_local_job_file_is_run_with_the_files_that_git_follows_and_printed(
    product: Product, tmp_path: Path
) -> None:
    repository = Repository(tmp_path, "study")
    job = f"dockercomp: 1\nmain: {{action: {json.dumps([*GREET, '{a}'])}}}\ndata: {{file: rows.csv}}\n"
    repository.commit({"dockercomp.yml": job, "rows.csv": "a\nx\ny\n", "greeting": "hello "}, push=False)

    out, err = dockercomp(
        product, repository.work, "run", "--project", "tests", "-o", str(tmp_path / "out.csv")
    )

    assert "row 0: accepted hello x" in out and "row 1: accepted hello y" in out
    assert "succeeded: 2 of 2 chunks have a result." in out and "3 files of" in err
    assert (tmp_path / "out.csv").read_text().count("\n") == 3


def test_an_answer_of_any_length_is_shown_as_far_as_it_fits(product: Product, tmp_path: Path) -> None:
    repository = Repository(tmp_path, "study")
    job = f"dockercomp: 1\nmain: {{action: {json.dumps([*GREET, '{a}'])}}}\ndata: {{rows: [{{a: x}}]}}\n"
    repository.commit({"dockercomp.yml": job, "greeting": "h" * 200_000}, push=False)

    out, _ = dockercomp(product, repository.work, "run", "--project", "tests")

    assert f"row 0: accepted {'h' * 200}\n" in out


def test_who_waits_for_a_task_that_nobody_can_compute_is_told_why_once_and_how_to_end(
    product: Product, tmp_path: Path
) -> None:
    job = f"dockercomp: 1\ntree: false\nmain: {{action: [x], image: '{IMAGE}'}}\n"
    (tmp_path / "dockercomp.yml").write_text(job)
    out, _ = dockercomp(product, tmp_path, "run", "--no-wait")
    source, task = server_of(product), out.strip()
    standstill, patient = Standstill(source, after_s=0.0), Standstill(source)

    lines = [line for _ in range(3) for one in (standstill, patient) for line in one.look(source.task(task))]

    said = "\n".join(lines)
    assert said.count("Nothing of it has moved") == 1
    assert f"{task}.0 (ready): " in said and f"end the task with: dockercomp cancel {task}" in said
    source.cancel(task)


def test_ctrl_c_ends_the_waiting_and_not_the_task(product: Product, tmp_path: Path) -> None:
    job = f"dockercomp: 1\ntree: false\nmain: {{action: [x], image: '{IMAGE}'}}\n"
    (tmp_path / "dockercomp.yml").write_text(job)
    waiting = subprocess.Popen(
        ["dockercomp", "run"],
        cwd=tmp_path,
        env=product.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )
    assert waiting.stdout is not None and waiting.stderr is not None
    task = waiting.stdout.readline().strip()
    while "have a result" not in waiting.stderr.readline():
        assert waiting.poll() is None

    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=60)

    assert waiting.returncode == 130 and f"The task goes on: dockercomp watch {task}" in err
    assert server_of(product).task(task)["state"] == "running"
    server_of(product).cancel(task)


def test_a_run_that_fails_ends_with_1(product: Product, tmp_path: Path) -> None:
    job = f"dockercomp: 1\ntree: false\nmain: {{action: {json.dumps(REFUSE)}}}\n"
    (tmp_path / "dockercomp.yml").write_text(job)

    out, err = dockercomp(product, tmp_path, "run", status=1)

    assert "failed: 0 of 1 chunks have a result." in out and "dockercomp errors --task" in err


def test_check_and_run_say_what_is_missing(product: Product, tmp_path: Path) -> None:
    file = tmp_path / "dockercomp.yml"

    file.write_text("dockercomp: 1\nmain: {action: [x]}\n")
    _, no_repository = dockercomp(product, tmp_path, "check", status=2)
    file.write_text("dockercomp: 1\ntree: false\nmain: {action: [x], inputs: {m: data/m}}\n")
    _, no_file = dockercomp(product, tmp_path, "run", status=2)
    file.write_text("dockercomp: 1\ntree: false\nmain: {action: [x], image: 'python:3.12'}\n")
    in_order, not_pinned = dockercomp(product, tmp_path, "check", status=1)
    file.write_text("dockercomp: 1\nmain: {action: x}\n")
    _, wrong = dockercomp(product, tmp_path, "check", status=2)

    assert "no git repository" in no_repository and "There is no file" in no_file
    assert "is in order: 1 row; jobs: main." in in_order and "Not pinned: python:3.12" in not_pinned
    assert "dockercomp.yml: The field 'main.action'" in wrong
