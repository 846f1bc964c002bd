"""Pushes become tasks: the webhook, the fetch from a real git server, the job file, and what must never be let in."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from people import Person, Scientist
from repositories import Repository, git, push_body, signed

from source_server.app import build_services, create_app
from source_server.receivers.git_fetch import GitSettings
from source_server.services.intake.handle_events import HandleEvents

pytestmark = pytest.mark.mongo

IMAGE = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
JOB = f"""
dockercomp: 1
main:
  action: [sh, -c, 'tar -xf "$DOCKERCOMP_IN/tree.tar" -C /tmp && sh /tmp/test.sh']
  timeout: 2m
  memory: 256m
matrix:
  - {{name: old, image: "{IMAGE}", labels: {{os: bookworm}}}}
  - {{name: new, image: "{OTHER}", env: {{LEVEL: 2}}}}
success: {{image: "{IMAGE}", action: [echo, good]}}
after: {{image: "{IMAGE}", action: [echo, over]}}
"""
FILES = {"dockercomp.yml": JOB, "test.sh": "echo ok\n"}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def settings(tmp_path: Path) -> GitSettings:
    return GitSettings(listed=(f"file://{tmp_path}/",), most_bytes=2_000_000, most_files=50, seconds=30)


@pytest.fixture
def ada(stores: Any, settings: GitSettings, new_key: Callable[[str], str]) -> Scientist:
    app = create_app(stores, beat_s=20.0, git=settings)
    return Scientist(app, new_key("scientist"))


@pytest.fixture
def receiver(ada: Scientist, repository: Repository) -> dict[str, Any]:
    return open_receiver(ada, repository)


@pytest.fixture
def handle(stores: Any, settings: GitSettings) -> Callable[[], int]:
    """What housekeeping does with events."""
    services = build_services(stores, beat_s=20.0, git=settings)
    return lambda: HandleEvents(stores, services.intake).work(slow=True)


def open_receiver(ada: Scientist, repository: Repository, **settings: Any) -> dict[str, Any]:
    ada.ok("POST", "/projects", {"name": "tests"})
    body = {"kind": "git", "repository": repository.url, **settings}
    return ada.ok("POST", "/projects/tests/receivers", body)


def send(ada: Person, receiver: dict[str, Any], body: bytes, **how: Any) -> Any:
    headers = signed(how.pop("secret", receiver["secret"]), body, **how)
    return ada._http.post(receiver["address"], data=body, headers=headers)


def events(ada: Scientist) -> list[dict[str, Any]]:
    return ada.ok("GET", "/projects/tests/events")["events"]


def test_a_push_makes_a_task_of_that_commit_with_its_tree_and_runs_it(
    ada: Scientist, receiver: dict[str, Any], repository: Repository, handle: Callable[[], int], raw: Any
) -> None:
    commit = repository.commit(FILES)

    answer = send(ada, receiver, push_body(commit))
    handle()

    assert answer.status_code == 202 and answer.get_json()["about"] == {"commit": commit, "branch": "main"}
    [event] = events(ada)
    assert (event["state"], event["task"]) == ("done", commit)
    task = ada.ok("GET", f"/tasks/{commit}")
    assert (task["state"], task["chunks"]["total"]) == ("running", 2)
    chunks = list(raw.chunks.find({"task": commit}, sort=[("n", 1)]))
    assert [json.loads(one["input"]) for one in chunks] == [{"variant": "old"}, {"variant": "new"}]
    job = raw.tasks.find_one({"_id": commit})
    assert "GIT_COMMIT" in json.dumps(job, default=str) and "tree.tar" in json.dumps(job, default=str)


def test_the_tree_is_one_tar_that_is_the_same_for_the_same_commit(
    ada: Scientist, receiver: dict[str, Any], repository: Repository, handle: Callable[[], int], stores: Any
) -> None:
    repository.work.joinpath("bin").mkdir()
    repository.work.joinpath("bin/link").symlink_to("../test.sh")
    program = repository.work / "bin" / "run"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    commit = repository.commit(FILES)

    send(ada, receiver, push_body(commit))
    handle()

    [blob] = ada.ok("GET", "/blobs")["blobs"]
    content = ada.call("GET", f"/blobs/{blob['sha256']}").data
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        found = {one.name: (one.type, one.mode, one.mtime, one.uid, one.linkname) for one in archive}
    assert found == {
        "bin/link": (tarfile.SYMTYPE, 0o644, 0, 0, "../test.sh"),
        "bin/run": (tarfile.REGTYPE, 0o755, 0, 0, ""),
        "dockercomp.yml": (tarfile.REGTYPE, 0o644, 0, 0, ""),
        "test.sh": (tarfile.REGTYPE, 0o644, 0, 0, ""),
    }
    assert hashlib.sha256(content).hexdigest() == blob["sha256"]


def test_the_same_push_again_and_another_word_of_the_same_commit_are_the_same_task(
    ada: Scientist, receiver: dict[str, Any], repository: Repository, handle: Callable[[], int]
) -> None:
    commit = repository.commit(FILES)
    body = push_body(commit)

    first = send(ada, receiver, body).get_json()
    handle()
    replayed = send(ada, receiver, body).get_json()
    renamed = send(ada, receiver, body, delivery="d-2").get_json()
    elsewhere = send(ada, receiver, push_body(commit, ref="refs/heads/other")).get_json()
    handle()

    assert {one["id"] for one in (first, replayed, renamed, elsewhere)} == {first["id"]}
    assert (replayed["state"], replayed["task"]) == ("done", commit)
    assert len(ada.ok("GET", "/tasks")["tasks"]) == 1


def test_broken_off_after_the_task_was_made_it_is_finished_by_the_next_hand(
    ada: Scientist, receiver: dict[str, Any], repository: Repository, handle: Callable[[], int], raw: Any
) -> None:
    commit = repository.commit(FILES)
    send(ada, receiver, push_body(commit))
    handle()

    # As if whoever handled it had died before the last two writes.
    raw.events.update_one({}, {"$set": {"state": "new", "task": None}})
    raw.tasks.update_one({"_id": commit}, {"$set": {"state": "waiting"}})
    handle()

    assert events(ada)[0]["state"] == "done"
    assert ada.ok("GET", f"/tasks/{commit}")["state"] == "running"


def test_a_message_that_makes_no_task_is_one_event_under_whatever_delivery_it_comes(
    ada: Scientist, receiver: dict[str, Any]
) -> None:
    body = push_body("a" * 40, ref="refs/tags/v1")

    for n in range(5):
        assert send(ada, receiver, body, delivery=f"d-{n}").status_code == 202

    assert len(events(ada)) == 1


@pytest.mark.parametrize("secret", ["", "dcr_wrong", "x" * 200])
def test_a_wrong_signature_is_refused_and_nothing_is_kept(
    ada: Scientist, receiver: dict[str, Any], secret: str
) -> None:
    answer = send(ada, receiver, push_body("a" * 40), secret=secret)

    assert answer.status_code == 401 and "signed" in answer.get_json()["error"]
    assert events(ada) == []


def test_the_signature_of_another_body_is_refused(ada: Scientist, receiver: dict[str, Any]) -> None:
    headers = signed(receiver["secret"], push_body("a" * 40))

    answer = ada._http.post(receiver["address"], data=push_body("b" * 40), headers=headers)

    assert answer.status_code == 401


def test_what_makes_no_task_is_answered_and_said(
    ada: Scientist, receiver: dict[str, Any], repository: Repository, handle: Callable[[], int]
) -> None:
    only_main = open_receiver(ada, repository, branches=["main", "release/*"])
    sent = [
        send(ada, receiver, b'{"zen": "Keep it simple."}', kind="ping", delivery="1"),
        send(ada, receiver, push_body("0" * 40, deleted=True), delivery="2"),
        send(ada, receiver, push_body("a" * 40, ref="refs/tags/v1"), delivery="3"),
        send(ada, only_main, push_body("a" * 40, ref="refs/heads/feature"), delivery="4"),
    ]
    handle()

    notes = [one.get_json()["about"]["note"] for one in sent]
    assert notes == [
        "The ping has arrived: pushes will, too.",
        "refs/heads/main was deleted: there is nothing to compute.",
        "refs/tags/v1 is not a branch: pushes of branches become tasks.",
        "The branch feature is not one of main, release/*.",
    ]
    assert {(one["state"], one["task"]) for one in events(ada)} == {("done", None)}


def test_a_webhook_that_sends_forms_is_understood(
    ada: Scientist, receiver: dict[str, Any], repository: Repository
) -> None:
    from urllib.parse import quote

    commit = repository.commit(FILES)
    body = b"payload=" + quote(push_body(commit)).encode()
    headers = {**signed(receiver["secret"], body), "Content-Type": "application/x-www-form-urlencoded"}

    answer = ada._http.post(receiver["address"], data=body, headers=headers)

    assert answer.get_json()["about"]["commit"] == commit


def test_a_push_of_as_many_commits_as_github_ever_lists_is_taken_and_a_larger_one_told_so(
    ada: Scientist, receiver: dict[str, Any]
) -> None:
    commits = [{"message": "m" * 12_000, "added": ["a"]}] * 2_040  # GitHub's own limit is 25 MB

    largest = send(ada, receiver, push_body("a" * 40, commits=commits))
    beyond = send(ada, receiver, push_body("b" * 40, commits=[*commits, {"message": "m" * 3_000_000}]))

    assert (largest.status_code, largest.get_json()["about"]["commit"]) == (202, "a" * 40)
    assert beyond.status_code == 413 and beyond.get_json()["error"]


def test_a_push_by_force_without_new_commits_is_the_commit_that_it_points_to(
    ada: Scientist, receiver: dict[str, Any], repository: Repository, handle: Callable[[], int]
) -> None:
    commit = repository.commit(FILES)

    send(
        ada, receiver, push_body(commit, before="c" * 40, forced=True, commits=[], head_commit={"id": commit})
    )
    handle()

    [event] = events(ada)
    assert (event["state"], event["task"]) == ("done", commit), event["why"]
    assert ada.ok("GET", f"/tasks/{commit}")["name"] == f"study {commit[:12]}"


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (b"not json", "push", "JSON"),
        (b"[]", "push", "must be a JSON object"),
        (push_body("a" * 40), "issues", "push and ping"),
        (push_body("HEAD"), "push", "whole hash"),
        (push_body("--upload-pack=/bin/true".ljust(40, "a")), "push", "whole hash"),
        (push_body("a" * 40, ref="refs/heads/x\n--upload-pack=y"), "push", "ref"),
        (push_body("a" * 40, ref="--upload-pack=y"), "push", "ref"),
        (push_body("a" * 40, ref="refs/heads/" + "x" * 5000), "push", "ref"),
        (json.dumps({"ref": ["refs/heads/main"], "after": {"$gt": ""}}).encode(), "push", "ref"),
    ],
)
def test_what_is_not_a_push_is_refused_with_a_sentence(
    ada: Scientist, receiver: dict[str, Any], body: bytes, kind: str, says: str
) -> None:
    answer = send(ada, receiver, body, kind=kind)

    assert answer.status_code == 400 and says in answer.get_json()["error"]
    assert events(ada) == []


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"readme": "no job file"}, "has no dockercomp.yml"),
        (
            {"dockercomp.yml": "dockercomp: 1\nmain: {action: [x], imge: y}\n"},
            "There is no field 'main.imge'",
        ),
        ({"dockercomp.yml": JOB.replace(IMAGE, "python:3.12")}, "dockercomp pin dockercomp.yml"),
        ({"dockercomp.yml": JOB.replace("matrix:", "data: {file: rows.csv}\nmatrix:")}, "rows.csv"),
        ({"dockercomp.yml": JOB.replace("timeout: 2m", "timeout: 2 moons")}, "main.timeout"),
        ({"dockercomp.yml": JOB.replace("timeout: 2m", "requires: {a: {b: c}}")}, "requires"),
        ({"dockercomp.yml": "dockercomp: 1\nmain: &a [*a]\n"}, "stands for nothing"),
        ({**FILES, "big": "x" * 3_000_000}, "more than 2000000 bytes"),
        ({**FILES, **{f"f{n}": "" for n in range(60)}}, "more than 50 files"),
        ({**FILES, "Readme": "a", "README": "b"}, "where case does not count"),
        ({**FILES, "a\nb": "a"}, "cannot be shown"),
    ],
)
def test_a_commit_that_cannot_become_a_task_is_refused_with_its_reason(
    ada: Scientist,
    receiver: dict[str, Any],
    repository: Repository,
    handle: Callable[[], int],
    files: dict[str, str],
    says: str,
) -> None:
    commit = repository.commit(files)

    send(ada, receiver, push_body(commit))
    handle()

    [event] = events(ada)
    assert event["state"] == "refused" and says in event["why"]
    assert ada.ok("GET", "/tasks")["tasks"] == []
    assert send(ada, receiver, push_body(commit)).get_json()["why"] == event["why"]


def test_rows_of_a_file_of_the_repository_run_in_every_entry_of_the_matrix(
    ada: Scientist, receiver: dict[str, Any], repository: Repository, handle: Callable[[], int], raw: Any
) -> None:
    job = JOB.replace("matrix:", "data: {file: data/rows.csv}\nmatrix:").replace(
        "timeout: 2m", "inputs: {model.bin: data/model.bin}"
    )
    commit = repository.commit(
        {"dockercomp.yml": job, "data/rows.csv": "a\n1\n2\n", "data/model.bin": b"\0\1"}
    )

    send(ada, receiver, push_body(commit))
    handle()

    assert events(ada)[0]["why"] is None
    chunks = raw.chunks.find({"task": commit}, sort=[("n", 1)])
    assert [json.loads(one["input"]) for one in chunks] == [
        {"variant": "old", "a": "1"},
        {"variant": "new", "a": "1"},
        {"variant": "old", "a": "2"},
        {"variant": "new", "a": "2"},
    ]
    assert hashlib.sha256(b"\0\1").hexdigest() in {one["sha256"] for one in ada.ok("GET", "/blobs")["blobs"]}


def test_a_commit_that_is_not_there_and_one_of_another_kind_are_refused(
    ada: Scientist, receiver: dict[str, Any], repository: Repository, handle: Callable[[], int]
) -> None:
    repository.commit(FILES)
    tree = git("rev-parse", "main^{tree}", cwd=repository.bare)

    send(ada, receiver, push_body("0" * 39 + "1"))
    send(ada, receiver, push_body(tree))
    handle()

    whys = [one["why"] for one in events(ada)]
    assert any("not in file://" in why for why in whys) and all("commit" in why for why in whys)


@pytest.mark.parametrize(
    "address",
    [
        "ext::sh -c 'touch /tmp/owned'",
        "--upload-pack=touch /tmp/owned",
        "file:///etc",
        "file:///root/../etc",
        "/etc",
        "https://user:word@example.org/x",
        "ssh://-oProxyCommand=touch/x",
        "https://example.org/x?y",
        "https://example.org/%2e%2e/x",
        "git://example.org/x",
        "https://example.org/x\n",
    ],
)
def test_an_address_that_is_not_allowed_opens_no_receiver(
    ada: Scientist, repository: Repository, address: str
) -> None:
    ada.ok("POST", "/projects", {"name": "tests"})

    answer = ada.call("POST", "/projects/tests/receivers", {"kind": "git", "repository": address})

    assert answer.status_code in (400, 403), answer.text
    assert not Path("/tmp/owned").exists()


def test_a_commit_whose_id_is_anothers_task_becomes_a_task_under_an_id_beside_it(
    ada: Scientist,
    receiver: dict[str, Any],
    repository: Repository,
    handle: Callable[[], int],
    new_key: Callable[[str], str],
    raw: Any,
) -> None:
    commit = repository.commit(FILES)
    other = Scientist(ada._http.application, new_key("scientist"))
    other.ok("POST", "/projects", {"name": "squatters"})
    other.ok("POST", "/projects/squatters/tasks", {"id": commit, "action": ["/bin/true"]})
    beside = f"{commit}-{receiver['id'][:7]}"

    send(ada, receiver, push_body(commit))
    handle()
    assert (events(ada)[0]["state"], events(ada)[0]["task"]) == ("done", beside)

    # Broken off before it was noted, and the other id is free again by then: still the same task.
    raw.events.update_one({}, {"$set": {"state": "new", "task": None}})
    raw.tasks.delete_one({"_id": commit})
    handle()
    assert events(ada)[0]["task"] == beside
    assert [one["id"] for one in ada.ok("GET", "/tasks")["tasks"]] == [beside]


def test_a_second_receiver_of_a_repository_makes_tasks_of_its_own_with_a_prefix(
    ada: Scientist, receiver: dict[str, Any], repository: Repository, handle: Callable[[], int]
) -> None:
    other = open_receiver(ada, repository, job_file="ci/long.yml", prefix="long-")
    commit = repository.commit({**FILES, "ci/long.yml": JOB.replace("2m", "3m")})

    for one in (receiver, other):
        send(ada, one, push_body(commit))
    handle()

    assert {one["task"] for one in events(ada)} == {commit, f"long-{commit}"}
