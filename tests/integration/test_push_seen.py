"""What a developer sees of a push: what came, which task runs, its rows, and what failing ones have printed."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from product import Product, running, until
from repositories import Repository, git, push_body, signed

SCRIPT = """\
echo "test session starts"
for n in 1 2 3; do echo "step $n"; done
if test "$1" = bad; then
    echo "FAILED test_sum.py::test_sum"
    exit 65 # for good: one attempt is enough for these tests
fi
"""
GOOD = ["test", "session", "starts", "step", "1", "step", "2", "step", "3"]

pytestmark = pytest.mark.mongo


@pytest.fixture(scope="module")
def product(mongo_uri: str) -> Iterator[Product]:
    # Jobs of a root's processes run as another user, who has to get there: pytest's folders are closed to him.
    folder = Path(tempfile.mkdtemp(prefix="dockercomp-programs-"))
    folder.chmod(0o755)
    (folder / "test.sh").write_text(SCRIPT)
    allowed = json.dumps([["/bin/sh", str(folder / "test.sh")], ["/bin/echo"]])
    options = ("--beat-seconds", "1", "--processes", "2", "--allow", allowed)
    with running(*options, settings={"DOCKERCOMP_GIT_FROM": f"file://{folder}/"}) as started:
        (started.home / "programs").symlink_to(folder)
        until(lambda: "2 live" in started.run("dockercomp", "status"), seconds=60, what="two clients")
        yield started
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def repository(product: Product) -> Repository:
    return Repository((product.home / "programs").resolve())


def said_here(product: Product, folder: Path, *argv: str) -> tuple[int, str]:
    """Exit code and output of a command in that folder."""
    done = subprocess.run(argv, env=product.env, cwd=folder, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def task_of(product: Product, repository: Repository, *rows: str, success: str = "well done") -> str:
    """A task under the id of a new commit, as a push would make it, with one row for each of these."""
    commit = repository.commit({"test.py": "".join(rows)}, push=False)
    data = product.home / "rows.csv"
    data.write_text("kind\n" + "".join(f"{row}\n" for row in rows))
    script = str((product.home / "programs").resolve() / "test.sh")
    # fmt: off
    product.run(
        "dockercomp", "submit", str(data), "--project", "tests", "--id", commit, "--success", f"/bin/echo {success}",
        "--failure", "/bin/echo not yet", "--", "/bin/sh", script, "{kind}",
    )
    # fmt: on
    return commit


def test_the_commit_that_is_checked_out_is_summed_up_row_by_row(
    product: Product, repository: Repository
) -> None:
    commit = task_of(product, repository, "good", "bad")
    before = said_here(product, repository.work, "dockercomp", "summary")
    product.run("dockercomp", "assign", "--project", "tests")
    product.run("dockercomp", "watch", commit, status=1)

    code, said = said_here(product, repository.work, "dockercomp", "summary", "--tail", "2")

    assert before[0] == 3 and f"{commit}  " in before[1] and "waiting: 0 of 2 chunks" in before[1]
    assert code == 1
    lines = said.splitlines()
    assert lines[1].startswith("failed after ") and lines[1].endswith(": 1 of 2 chunks have a result")
    assert lines[2].split() == ["kind=good", "ok", *GOOD]
    assert lines[3].split() == ["kind=bad", "failed"]
    assert [line.strip() for line in lines[5:7]] == ["| step 3", "| FAILED test_sum.py::test_sum"]
    assert "answered not yet" in said and f"More: dockercomp errors --task {commit}" in said


def test_what_a_test_says_on_stdout_only_is_among_the_errors(
    product: Product, repository: Repository
) -> None:
    commit = task_of(product, repository, "bad")
    product.run("dockercomp", "assign", "--project", "tests")
    product.run("dockercomp", "watch", commit, status=1)

    assert "FAILED test_sum.py::test_sum" in product.run("dockercomp", "errors", "--task", commit)


def test_a_commit_whose_tests_succeed_ends_with_0(product: Product, repository: Repository) -> None:
    commit = task_of(product, repository, "good", success="to production")
    product.run("dockercomp", "assign", "--project", "tests")
    product.run("dockercomp", "watch", commit)

    code, said = said_here(product, repository.work, "dockercomp", "summary")

    assert code == 0 and "succeeded after " in said and "answered to production" in said


def test_without_a_task_and_without_a_commit_it_asks_for_one(product: Product, tmp_path: Path) -> None:
    code, said = said_here(product, tmp_path, "dockercomp", "summary")

    assert code == 2 and "Say which TASK" in said and "Traceback" not in said


def test_a_commit_that_was_not_pushed_is_no_task(product: Product, repository: Repository) -> None:
    commit = repository.commit({"test.py": "never pushed"}, push=False)

    code, said = said_here(product, repository.work, "dockercomp", "summary")

    assert code == 2 and f"There is no task {commit}" in said


def test_what_came_to_a_receiver_is_listed_in_words(product: Product, repository: Repository) -> None:
    commit = repository.commit({"test.py": "listed"})
    product.run("dockercomp", "project", "pushes")
    made = product.run(
        *(
            "dockercomp",
            "receiver",
            "add",
            "git",
            "--project",
            "pushes",
            "--set",
            f"repository={repository.url}",
        )
    )
    words = dict(line.split() for line in made.splitlines())
    for kind, body in (
        ("ping", b'{"zen": "Keep it simple."}'),
        ("push", push_body("0" * 40, ref="refs/heads/old", deleted=True)),
        ("push", push_body(commit)),
    ):
        answer = requests.post(
            words["address"], data=body, headers=signed(words["secret"], body, kind=kind), timeout=30
        )
        assert answer.status_code == 202, answer.text

    listed = product.run("dockercomp", "receiver", "events", "--project", "pushes")

    assert "The ping has arrived: pushes will, too." in listed
    assert "refs/heads/old was deleted: there is nothing to compute." in listed
    assert f"main at {git('rev-parse', 'HEAD', cwd=repository.work)}" in listed
