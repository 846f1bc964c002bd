"""Why a chunk is not running, over a real MongoDB; the warnings of a submission; trusted containers."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from werkzeug.serving import make_server

from dockercomp.cli import main
from source_server.cli import main as operator
from source_server.housekeeping import Housekeeper

QUORUM = {"quorum": 2}
VALIDATOR = {"comparator": {"kind": "validator", "validator": {"action": ["compare"]}}}


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


@pytest.fixture
def why(scientist: Any) -> Callable[[str], Any]:
    """What is said about a chunk, to its owner."""
    return lambda chunk: scientist.ok("GET", f"/chunks/{chunk}/why")


def text(told: Any) -> str:
    return "\n".join((told["summary"], *told["reasons"], told["next"]))


# --- where it stands


def test_a_task_that_was_not_started_is_the_reason(scientist: Any, why: Any) -> None:
    task = scientist.task(1)

    told = why(f"{task}.0")

    assert (told["chunk"], told["state"], told["attempts"]) == (f"{task}.0", "ready", [])
    assert told["summary"] == "Its task has not been started."
    assert told["next"] == "Start it: dockercomp assign --project sums"


def test_an_incomplete_upload_is_the_reason(scientist: Any, why: Any, raw: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    empty = scientist.ok("POST", "/projects/sums/tasks", {"action": ["true"]})["id"]
    under_way = scientist.task(1)
    raw.tasks.update_one({"_id": under_way}, {"$set": {"sealed": False, "upload.complete": False}})

    nothing = scientist.call("GET", f"/chunks/{empty}.0/why")

    assert nothing.status_code == 404 and "its data is not complete" in nothing.get_json()["error"]
    assert "data is not complete" in why(f"{under_way}.0")["summary"]


def test_a_running_and_a_done_chunk_name_their_container(scientist: Any, volunteer: Any, why: Any) -> None:
    scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()

    handed_out = why(chunk["id"])
    who.beat(started=[chunk["id"]])
    running = why(chunk["id"])
    who.add(who.attempt(chunk))
    done = why(chunk["id"])

    assert handed_out["summary"].startswith("It is handed out to 1 container since ")
    assert (
        running["summary"].startswith("It is running on 1 container since ")
        and who.id in running["reasons"][0]
    )
    assert done["summary"].startswith(
        f"It is done: answered by container {who.id} on host {who.host} (volunteer-"
    )
    (attempt,) = done["attempts"]
    assert (attempt["outcome"], attempt["verdict"], attempt["host"]) == ("ok", "accepted", who.host)
    assert attempt["account"].startswith("volunteer-")


def test_what_only_tested_a_host_is_no_part_of_a_chunks_history(
    scientist: Any, volunteer: Any, why: Any, raw: Any
) -> None:
    scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()
    who.add(who.attempt(chunk))
    raw.results.insert_one({**raw.results.find_one(), "_id": "test", "canary": True, "verdict": "agreed"})

    told = why(chunk["id"])

    assert len(told["attempts"]) == 1 and told["reasons"] == []


def test_with_a_quorum_the_other_answers_are_counted(
    scientist: Any, volunteer: Any, why: Any, new_key: Any
) -> None:
    scientist.running(1, validation={"quorum": 2, "replicas": 3})
    crowd = [volunteer(account_key=new_key("volunteer")) for _ in range(3)]
    claims = [who.claim()[0] for who in crowd]

    for who, chunk, answer in zip(crowd, claims, ("1\n", "2\n", "1\n"), strict=True):
        who.add(who.attempt(chunk, answer))
    told = why(claims[0]["id"])

    assert "1 other answer agreed with it." in told["reasons"]
    assert "1 other answer disagreed with it." in told["reasons"]
    assert sorted(one["verdict"] for one in told["attempts"]) == ["accepted", "agreed", "disagreed"]


def test_a_pause_by_the_owner_and_one_by_the_task_itself(
    scientist: Any, volunteer: Any, why: Any, raw: Any
) -> None:
    volunteer()
    task = scientist.running(1)
    scientist.ok("POST", f"/tasks/{task}/pause")

    by_owner = why(f"{task}.0")
    raw.tasks.update_one(
        {"_id": task}, {"$set": {"paused_why": "19 of its first 20 attempts failed alike: boom"}}
    )
    by_itself = why(f"{task}.0")

    assert by_owner["summary"] == "Its task is paused: nothing more of it is handed out."
    assert by_itself["summary"] == "Its task paused itself: 19 of its first 20 attempts failed alike: boom."
    assert by_owner["next"] == by_itself["next"] == f"Go on with: dockercomp resume {task}"


def test_a_cancelled_task_before_and_after_the_sweep(scientist: Any, why: Any, keeper: Housekeeper) -> None:
    task = scientist.running(1)
    scientist.ok("POST", f"/tasks/{task}/cancel")

    before = why(f"{task}.0")
    keeper.tasks()
    after = why(f"{task}.0")

    assert before["summary"] == "Its task is cancelled."
    assert (after["state"], after["summary"]) == ("cancelled", "It is cancelled, as its task is.")


def test_a_failed_chunk_says_until_when_it_rests(scientist: Any, volunteer: Any, why: Any, raw: Any) -> None:
    scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()
    who.add(who.failure(chunk))

    told = why(chunk["id"])

    until = raw.chunks.find_one({"_id": chunk["id"]})["not_before"]
    assert f"It failed once and rests until {until:%H:%M:%S} UTC" in told["summary"]
    assert told["reasons"][0] == "The last failure: failed, exit 1: boom N"
    assert told["attempts"][0]["outcome"] == "failed"


def test_bad_data_is_told_as_the_reason_of_a_quarantine(scientist: Any, volunteer: Any, why: Any) -> None:
    scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()
    who.add(who.failure(chunk, exit_code=65, stderr_tail="row 3 is no number\n"))

    told = why(chunk["id"])

    assert told["state"] == "quarantined"
    assert "data is bad (exit code 65), and no other host could be asked" in told["summary"]
    assert "requeue" in told["next"]


def test_disagreement_is_told_with_the_number_of_answers(
    scientist: Any, volunteer: Any, why: Any, new_key: Any
) -> None:
    scientist.running(1, validation={"quorum": 2, "most": 2})
    crowd = [volunteer(account_key=new_key("volunteer")) for _ in range(2)]
    claims = [who.claim()[0] for who in crowd]

    for n, (who, chunk) in enumerate(zip(crowd, claims, strict=True)):
        who.add(who.attempt(chunk, f"{n}\n"))
    told = why(claims[0]["id"])

    assert told["state"] == "quarantined"
    assert "came to 2 answers, 2 of them different" in told["summary"]
    assert "disagreement" in [one["outcome"] for one in told["attempts"]]


# --- nobody takes it


def test_no_live_container_at_all(scientist: Any, why: Any) -> None:
    task = scientist.running(1)

    assert why(f"{task}.0")["summary"] == "No client container is live."


def test_live_ones_of_which_none_fits(scientist: Any, volunteer: Any, why: Any) -> None:
    image = f"sha256:{'a' * 64}"
    volunteer(), volunteer()
    task = scientist.running(1, image=image)

    told = why(f"{task}.0")

    assert told["summary"] == "None of the 2 live containers fits."
    assert told["reasons"][0] == f"The job needs image {image} or a sandbox runtime: none of them has it."
    assert told["reasons"][1].startswith("Nearest is container ")


def test_requirements_are_told_with_what_the_nearest_container_has_instead(
    scientist: Any, volunteer: Any, why: Any
) -> None:
    volunteer(resources={"memory_mb": 8000}, labels={"arch": "arm64"})
    near = volunteer(resources={"memory_mb": 7000}, labels={"arch": "x86_64"})
    task = scientist.running(1, requires={"arch": "x86_64", "memory_mb": {"at_least": 65536}})

    told = why(f"{task}.0")

    assert told["summary"] == "None of the 2 live containers fits."
    assert told["reasons"] == [
        "The job needs memory_mb at least 65536: none of them has it.",
        "The job needs arch = x86_64: 1 of 2 lack it.",
        f"Nearest is container {near.id} on host {near.host}: it lacks memory_mb at least 65536 (it has 7000).",
    ]


def test_a_second_container_of_an_account_that_answered_is_barred_under_a_quorum(
    scientist: Any, volunteer: Any, why: Any
) -> None:
    task = scientist.running(1, validation=QUORUM)
    who, same_account = volunteer(), volunteer()
    (chunk,) = who.claim()

    who.add(who.attempt(chunk))
    told = why(f"{task}.0")

    assert same_account.claim() == []
    assert told["summary"] == "None of the 2 live containers that fit may take this chunk."
    assert "its account has given one of the answers" in told["reasons"][0]
    assert "belong to only 1 account" in told["reasons"][-1]
    assert told["next"] == "It waits for a container of another account that fits."


def test_a_chunk_that_failed_on_one_host_waits_for_another_that_has_its_hands_full(
    scientist: Any, volunteer: Any, why: Any, raw: Any
) -> None:
    scientist.running(5)
    full = volunteer(newcomer=True, host=str(uuid.uuid4()))
    assert 0 < len(full.claim(5)) < 5
    raw.tasks.update_many({}, {"$set": {"paused": True}})
    task = scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()
    who.add(who.failure(chunk))
    raw.chunks.update_many({"task": task}, {"$set": {"state": "ready", "not_before": None}})

    told = why(f"{task}.0")

    assert "can take it just now" in told["summary"]
    assert any("holds as many chunks as it may" in reason for reason in told["reasons"])
    assert "1 container: may not take this chunk." in told["reasons"]


def test_a_chunk_that_failed_on_one_host_does_not_wait_for_a_paused_one(
    scientist: Any, volunteer: Any, why: Any, raw: Any
) -> None:
    task = scientist.running(1)
    who = volunteer()
    volunteer(host=str(uuid.uuid4()))
    (chunk,) = who.claim()
    who.add(who.failure(chunk))
    raw.chunks.update_many({}, {"$set": {"state": "ready", "not_before": None}})
    raw.containers.update_many({"_id": {"$ne": who.id}}, {"$set": {"paused": True}})

    told = why(f"{task}.0")

    assert "next to be handed out" in told["summary"]


def test_a_host_that_holds_all_it_may_is_the_reason(scientist: Any, volunteer: Any, why: Any) -> None:
    task = scientist.running(5)
    held = {chunk["id"] for chunk in volunteer(newcomer=True).claim(5)}
    assert 0 < len(held) < 5
    rest = next(one for one in (f"{task}.{n}" for n in range(5)) if one not in held)

    told = why(rest)

    assert told["summary"] == "No live container that fits can take it just now."
    assert "holds as many chunks as it may" in told["reasons"][0]


def test_a_quarantined_host_is_told_while_another_could_compute(
    scientist: Any, volunteer: Any, why: Any, raw: Any
) -> None:
    task = scientist.running(1)
    bad, paused = volunteer(), volunteer()
    account = raw.containers.find_one({"_id": bad.id})["account"]
    since = raw.containers.find_one({"_id": bad.id})["last_seen"]
    raw.hosts.update_one({"_id": f"{account} {bad.host}"}, {"$set": {"quarantined": since, "why": "x"}})
    raw.containers.update_one({"_id": paused.id}, {"$set": {"paused": True}})

    told = why(f"{task}.0")

    assert "1 container: the host is in quarantine, until test chunks clear it." in told["reasons"]


def test_a_dealt_chunk_names_the_container_that_has_it_before_it(
    scientist: Any, volunteer: Any, why: Any, raw: Any
) -> None:
    who = volunteer()
    task = scientist.running(1)
    scientist.ok("POST", "/assign/all")

    shared = why(f"{task}.0")
    raw.projects.update_one({"_id": "sums"}, {"$set": {"assigned_only": True}})
    only = why(f"{task}.0")

    assert shared["summary"].startswith(f"It is dealt to container {who.id} on host {who.host}")
    assert "or for one with nothing to do" in shared["next"]
    assert only["next"] == "It waits for that container."


def test_an_undealt_chunk_of_an_assigned_only_project_has_to_be_dealt(
    scientist: Any, volunteer: Any, why: Any, raw: Any
) -> None:
    volunteer()
    task = scientist.running(1)
    raw.projects.update_one({"_id": "sums"}, {"$set": {"assigned_only": True}})

    assert why(f"{task}.0")["next"] == "Deal it: dockercomp assign --project sums"


def test_a_ready_chunk_counts_what_goes_before_it(scientist: Any, volunteer: Any, why: Any, raw: Any) -> None:
    volunteer()
    task = scientist.running(3)
    alone = why(f"{task}.0")
    scientist.running(4, project="urgent")
    raw.projects.update_one({"_id": "urgent"}, {"$set": {"priority": 1}})
    other = scientist.running(5)
    raw.tasks.update_one({"_id": other}, {"$set": {"priority": 1}})

    told = why(f"{task}.0")

    assert alone["summary"] == "It is ready and in the queue, with at most 2 chunks before it."
    assert told["summary"] == "It is ready and in the queue, with at most 11 chunks before it."
    assert told["reasons"][:3] == [
        "4 ready chunks of projects with a higher priority go first.",
        "5 ready chunks of its project's tasks with a higher priority go first.",
        "Its project is number 2 in turn of 2 that have chunks ready.",
    ]


# --- the validator


def test_answers_wait_for_a_validator_until_a_container_is_trusted(
    scientist: Any, volunteer: Any, why: Any, new_key: Any, stores: Any, raw: Any
) -> None:
    task = scientist.running(1, validation={**QUORUM, **VALIDATOR})
    crowd = [volunteer(account_key=new_key("volunteer")) for _ in range(2)]
    for n, (who, chunk) in enumerate([(who, who.claim()[0]) for who in crowd]):
        who.add(who.attempt(chunk, f"{n}\n"))

    untrusted = why(f"{task}.0")
    stores.containers.set_trusted(crowd[0].id, True)
    trusted = why(f"{task}.0")
    companion = why(f"{task}-v.0")
    raw.chunks.update_one({"_id": f"{task}-v.0"}, {"$set": {"state": "quarantined", "failures": 6}})
    failing = why(f"{task}.0")

    assert untrusted["state"] == "validating"
    assert untrusted["reasons"] == ["No live container that can run it is labelled trusted by the operator."]
    assert "dockercomp-server container trust" in untrusted["next"]
    assert trusted["reasons"][0] == f"The validator's own chunk {task}-v.0: {companion['summary']}"
    assert companion["summary"] == "It is ready, and next to be handed out."
    assert "it failed 6 times" in failing["reasons"][0]


# --- who may ask


def test_only_the_owner_and_an_admin_may_ask(scientist: Any, admin: Any, app: Any, new_key: Any) -> None:
    from people import Scientist

    task = scientist.running(1)
    stranger = Scientist(app, new_key("scientist"))
    path = f"/chunks/{task}.0/why"

    asked = [stranger.call("GET", path), Scientist(app, new_key("volunteer")).call("GET", path)]

    assert [one.status_code for one in asked] == [404, 403]
    assert asked[0].get_json()["error"] == f"There is no chunk {task}.0 of yours."
    assert admin.ok("GET", path)["summary"] == "No client container is live."


@pytest.mark.parametrize(
    "name", ["x", ".", "x.0", "%00.1", "TASK", "TASK.1", "TASK.-1", "TASK.0.0", "TASK.0x"]
)
def test_what_is_no_chunk_is_404_with_a_sentence(scientist: Any, name: str) -> None:
    task = scientist.running(1)

    answer = scientist.call("GET", f"/chunks/{name.replace('TASK', task)}/why")

    assert answer.status_code == 404 and answer.get_json()["error"].endswith(".")


# --- warnings at submission


def test_a_task_that_a_live_container_can_compute_brings_no_warning(scientist: Any, volunteer: Any) -> None:
    volunteer()
    task = scientist.task(2)

    assert scientist.ok("POST", f"/tasks/{task}/start")["warnings"] == []
    assert scientist.ok("POST", "/assign/all")["warnings"] == []


def test_submission_says_when_live_accounts_cannot_meet_the_quorum(
    scientist: Any, volunteer: Any, new_key: Any
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    job = {"action": ["true"], "validation": QUORUM}
    volunteer(), volunteer()

    too_few = scientist.ok("POST", "/projects/sums/tasks", job)["warnings"]
    volunteer(account_key=new_key("volunteer"))
    enough = scientist.ok("POST", "/projects/sums/tasks", job)["warnings"]

    assert too_few == [
        "2 answers of different accounts have to agree, and the live containers that fit belong to only 1 account."
    ]
    assert enough == []


def test_submission_says_that_nobody_is_there_or_fits_or_is_trusted(
    scientist: Any, volunteer: Any, new_key: Any, stores: Any
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    validated = {"action": ["true"], "validation": {**QUORUM, **VALIDATOR}}

    def warnings(**job: Any) -> Any:
        return scientist.ok("POST", "/projects/sums/tasks", {"action": ["true"], **job})["warnings"]

    assert warnings() == ["No client container is live."]
    who, _ = volunteer(), volunteer(account_key=new_key("volunteer"))
    (unfit,) = warnings(image=f"sha256:{'a' * 64}")
    assert unfit.startswith("None of the 2 live containers fits. The job needs image sha256:a")
    assert warnings(**validated) == [
        "The validator runs only in a container that the operator labelled trusted, and none is live."
    ]
    stores.containers.set_trusted(who.id, True)
    assert warnings(**validated) == []


def test_assigning_several_tasks_names_those_that_a_warning_is_about(scientist: Any, volunteer: Any) -> None:
    volunteer()
    scientist.task(1)
    lonely = scientist.task(1, validation=QUORUM)

    (warning,) = scientist.ok("POST", "/assign/all")["warnings"]

    assert warning.startswith(f"Task {lonely}: 2 answers of different accounts have to agree")


# --- the commands


@pytest.fixture
def served(app: Any) -> Iterator[str]:
    """The app's address on a real socket."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def run(served: str, key: str, tmp_path: Path, *argv: str) -> Any:
    (tmp_path / "key").write_text(key)
    env = {"DOCKERCOMP_SERVER": served, "DOCKERCOMP_KEY_FILE": str(tmp_path / "key")}
    return CliRunner().invoke(main, list(argv), env=env)


def test_the_command_why_prints_the_words_and_the_attempts(
    scientist: Any, volunteer: Any, served: str, tmp_path: Path
) -> None:
    scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()
    who.add(who.failure(chunk))

    told = run(served, scientist.key, tmp_path, "why", chunk["id"])
    unknown = run(served, scientist.key, tmp_path, "why", "nothing.0")

    assert told.exit_code == 0 and told.output.startswith(f"{chunk['id']} (delayed): It failed once")
    assert "\n  - The last failure: failed, exit 1: boom N\n" in told.output
    assert "\nNext: It is offered again at " in told.output
    assert f"host {who.host}  failed, exit 1: boom N  (counted)" in told.output
    assert unknown.exit_code == 2 and "There is no chunk nothing.0 of yours." in unknown.output


def test_submit_and_assign_show_the_warnings(scientist: Any, served: str, tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("a\n1\n")

    made = run(served, scientist.key, tmp_path, "submit", str(data), "--project", "sums", "--", "true")
    dealt = run(served, scientist.key, tmp_path, "assign", "--all")

    assert "Warning: No client container is live." in made.output
    assert "Warning: No client container is live." in dealt.output


def test_the_operator_labels_containers_trusted(
    scientist: Any, volunteer: Any, raw: Any, mongo_uri: str
) -> None:
    who, other = volunteer(), volunteer()
    env = {"DOCKERCOMP_MONGO_URI": mongo_uri, "DOCKERCOMP_DATABASE": raw.name}

    def container(*argv: str) -> Any:
        return CliRunner().invoke(operator, ["container", *argv], env=env)

    def trusted() -> Any:
        return {one["id"]: one["trusted"] for one in scientist.ok("GET", "/containers")["containers"]}

    assert container("trust", who.id).exit_code == 0
    who.register()
    assert trusted() == {who.id: True, other.id: False}
    listed = [line.split("\t") for line in container("list").output.splitlines()]
    assert {(line[0], line[1], line[2]) for line in listed} == {
        (who.id, "live", "trusted"),
        (other.id, "live", "-"),
    }
    assert container("distrust", who.id).exit_code == 0
    assert trusted() == {who.id: False, other.id: False}
    unknown = container("trust", "nobody")
    assert unknown.exit_code == 2 and "There is no container nobody" in unknown.output
