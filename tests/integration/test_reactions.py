"""Reactions over a real MongoDB: success or failure, then after; where they go, how they are steered and shown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from people import Scientist, Volunteer

from source_server.housekeeping import Housekeeper
from source_server.services.reactions.react import React

JOBS: dict[str, Any] = {
    "success": {"action": ["/bin/report", "good", "{task}"]},
    "failure": {"action": ["/bin/report", "bad", "{task}"]},
    "after": {"action": ["/bin/report", "end", "{outcome}"]},
}

Volunteers = Callable[..., Volunteer]


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


def keep_house(keeper: Housekeeper, times: int = 4) -> None:
    for _ in range(times):
        keeper.tasks()
        keeper.reactions()


def claim_soon(who: Volunteer, seconds: float = 60) -> dict[str, Any]:
    """The next chunk; for two seconds a server may believe that there is none."""
    deadline = time.monotonic() + seconds
    while not (chunks := who.claim()):
        assert time.monotonic() < deadline, "nothing was handed out"
        time.sleep(0.1)
    return chunks[0]


def compute(who: Volunteer, number: int) -> None:
    """Answer so many chunks of the main job."""
    for _ in range(number):
        chunk = claim_soon(who)
        assert "--" not in chunk["id"]
        assert who.add(who.attempt(chunk)).status_code == 200


def react(who: Volunteer, said: str = "done\n") -> dict[str, Any]:
    """Answer the next reaction; its chunk."""
    chunk = claim_soon(who)
    assert "--" in chunk["id"], f"no reaction: {chunk['id']}"
    assert who.add(who.attempt(chunk, said)).status_code == 200
    return chunk


def set_aside(raw: Any, task: str, number: int = 1) -> None:
    """Quarantine some chunks of a task."""
    ids = [f"{task}.{n}" for n in range(number)]
    change = {"state": "quarantined", "wanted": 0}
    raw.chunks.update_many({"_id": {"$in": ids}}, {"$set": change})


def shown(scientist: Scientist, task: str) -> dict[str, dict[str, Any]]:
    """The reactions to the present outcome, by name."""
    found = scientist.ok("GET", f"/tasks/{task}")["reaction_runs"]
    return {one["reaction"]: one for one in found}


def test_after_success_runs_success_and_then_after_each_with_one_accepted_result(
    scientist: Scientist, volunteer: Volunteers, raw: Any
) -> None:
    task = scientist.running(2, **JOBS)
    who = volunteer()

    compute(who, 2)
    between = scientist.ok("GET", f"/tasks/{task}")
    first = react(who, "all is well\n")
    last = react(who, "that was it\n")
    ended = scientist.ok("GET", f"/tasks/{task}")

    assert (between["state"], between["outcome"], between["reacting"]) == ("complete", "succeeded", True)
    assert (first["id"], last["id"]) == (f"{task}--success-0.0", f"{task}--after-0.0")
    assert (ended["reacting"], ended["outcome"]) == (False, "succeeded") and ended["reacted"] is not None
    assert [
        (one["reaction"], one["state"], one["outcome"], one["answer"]) for one in ended["reaction_runs"]
    ] == [
        ("success", "complete", "succeeded", "all is well\n"),
        ("after", "complete", "succeeded", "that was it\n"),
    ]
    accepted = raw.results.count_documents({"task": {"$regex": "--"}, "verdict": "accepted"})
    assert accepted == 2 and raw.tasks.count_documents({"reacts_to": task}) == 2


def test_with_more_chunks_set_aside_than_max_failed_it_has_failed_and_failure_runs_in_place_of_success(
    scientist: Scientist, volunteer: Volunteers, raw: Any
) -> None:
    task = scientist.running(3, max_failed=1, **JOBS)
    set_aside(raw, task, 2)
    who = volunteer()

    compute(who, 1)
    reactions = [react(who)["id"], react(who)["id"]]

    assert scientist.ok("GET", f"/tasks/{task}")["outcome"] == "failed"
    assert reactions == [f"{task}--failure-0.0", f"{task}--after-0.0"]
    assert raw.tasks.find_one({"_id": f"{task}--success-0"}) is None


def test_with_as_many_set_aside_as_max_failed_it_has_succeeded(
    scientist: Scientist, volunteer: Volunteers, raw: Any
) -> None:
    task = scientist.running(3, max_failed=2, **JOBS)
    set_aside(raw, task, 2)
    who = volunteer()

    compute(who, 1)

    assert scientist.ok("GET", f"/tasks/{task}")["outcome"] == "succeeded"
    assert react(who)["id"] == f"{task}--success-0.0"


def test_a_late_good_answer_of_a_chunk_that_was_set_aside_changes_its_row_and_not_the_outcome(
    scientist: Scientist, volunteer: Volunteers, raw: Any, keeper: Housekeeper
) -> None:
    task = scientist.running(2, **JOBS)
    late, who = volunteer(), volunteer()
    [held] = late.claim()
    set_aside(raw, task, 2)
    raw.chunks.update_one({"_id": f"{task}.{1 - held['n']}"}, {"$set": {"state": "ready", "wanted": 1}})
    compute(who, 1)
    before = scientist.ok("GET", f"/tasks/{task}")

    assert late.add(late.attempt(held, "late\n")).status_code == 200
    keep_house(keeper)
    after = scientist.ok("GET", f"/tasks/{task}")

    assert (before["outcome"], after["outcome"]) == ("failed", "failed")
    assert after["chunks"] == {"total": 2, "done": 2}
    assert "late" in scientist.call("GET", f"/results.csv?task={task}").text
    assert react(who)["id"] == f"{task}--failure-0.0"


def test_a_reaction_gets_the_summary_as_its_input_and_the_table_as_a_file(
    scientist: Scientist, volunteer: Volunteers, stores: Any
) -> None:
    task = scientist.running(2, name="weather", **JOBS)
    who = volunteer()
    compute(who, 2)

    first = react(who, "reported\n")
    last = react(who)

    summary, later = json.loads(first["input"]), json.loads(last["input"])
    assert (summary["task"], summary["name"], summary["outcome"]) == (task, "weather", "succeeded")
    assert summary["chunks"] == {"total": 2, "done": 2} and summary["before"] is None
    assert later["before"] == {
        "reaction": "success",
        "outcome": "succeeded",
        "answer": "reported\n",
        "error": None,
    }
    [table] = first["files"]
    assert (table["name"], table["bytes"]) == ("results.csv", summary["results"]["bytes"])
    kept = services_of(scientist).blobs.open(table["sha256"]).read()
    assert kept == scientist.call("GET", f"/results.csv?task={task}").data


def services_of(scientist: Scientist) -> Any:
    from source_server.web.http.access import EXTENSION

    return scientist._http.application.extensions[EXTENSION]


def test_reactions_go_to_trusted_containers_while_one_that_fits_is_live(
    scientist: Scientist, volunteer: Volunteers, stores: Any, raw: Any
) -> None:
    task = scientist.running(1, **JOBS)
    anyone, trusted = volunteer(), volunteer()
    stores.containers.set_trusted(trusted.id, True)
    compute(anyone, 1)

    assert anyone.claim() == []
    assert react(trusted)["id"] == f"{task}--success-0.0"
    stores.containers.set_trusted(trusted.id, False)
    time.sleep(0)  # nobody is trusted any more: from the next look on it may be anyone
    assert react(anyone)["id"] == f"{task}--after-0.0"


def test_a_trusted_container_tries_again_what_failed_on_it_and_nobody_else_does(
    scientist: Scientist, volunteer: Volunteers, stores: Any, raw: Any, keeper: Housekeeper
) -> None:
    task = scientist.running(1, **JOBS)
    anyone, trusted = volunteer(), volunteer()
    stores.containers.set_trusted(trusted.id, True)
    compute(anyone, 1)
    chunk = claim_soon(trusted)
    trusted.add(trusted.failure(chunk))
    raw.chunks.update_one({"_id": chunk["id"]}, {"$set": {"not_before": stores.clock.now()}})
    keep_house(keeper)

    assert anyone.claim() == []
    assert react(trusted)["id"] == f"{task}--success-0.0"
    assert shown(scientist, task)["success"]["attempts"] == 2


def test_under_a_quorum_what_the_trusted_ones_cannot_give_comes_from_others(
    scientist: Scientist, volunteer: Volunteers, new_key: Any, stores: Any
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums", "validation": {"quorum": 2}})
    own = {"validation": {"quorum": 1}}
    task = scientist.running(1, **own, **JOBS)
    trusted, other = volunteer(), volunteer(account_key=new_key("volunteer"))
    stores.containers.set_trusted(trusted.id, True)
    compute(trusted, 1)

    assert other.claim() == []
    first = react(trusted, "same\n")
    second = react(other, "same\n")

    assert first["id"] == second["id"] == f"{task}--success-0.0"
    assert shown(scientist, task)["success"]["answer"] == "same\n"


def test_in_an_assigned_only_project_reactions_go_to_whoever_asks(
    scientist: Scientist, volunteer: Volunteers
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums", "assigned_only": True})
    task, who = scientist.task(1, **JOBS), volunteer()
    scientist.ok("POST", "/assign/sums")
    compute(who, 1)

    assert react(who)["id"] == f"{task}--success-0.0"


def test_a_failed_reaction_is_shown_and_does_not_stop_after(
    scientist: Scientist, volunteer: Volunteers, raw: Any, stores: Any, keeper: Housekeeper
) -> None:
    task, who = scientist.running(1, **JOBS), volunteer()
    compute(who, 1)
    for _ in range(3):
        chunk = claim_soon(who)
        who.add(who.failure(chunk, stderr_tail="no such report\n"))
        raw.chunks.update_one({"state": "delayed"}, {"$set": {"not_before": stores.clock.now()}})
        keep_house(keeper, 1)

    last = react(who)
    ended = scientist.ok("GET", f"/tasks/{task}")
    success = shown(scientist, task)["success"]

    assert (success["state"], success["outcome"], success["attempts"]) == ("complete", "failed", 3)
    assert "no such report" in success["error"] and success["answer"] is None
    assert json.loads(last["input"])["before"]["outcome"] == "failed"
    assert (ended["outcome"], ended["reacting"]) == ("succeeded", False)


def test_a_companion_is_no_task_of_its_own_and_is_not_steered(
    scientist: Scientist, volunteer: Volunteers, stores: Any
) -> None:
    task, who = scientist.running(1, **JOBS), volunteer()
    compute(who, 1)
    companion = f"{task}--success-0"

    listed = [one["id"] for one in scientist.ok("GET", "/tasks")["tasks"]]
    refused = [scientist.call("POST", f"/tasks/{companion}/{verb}") for verb in ("pause", "cancel", "start")]
    refused.append(scientist.call("POST", f"/tasks/{companion}/rerun", {"which": "all"}))
    refused.append(scientist.call("POST", "/errors/requeue", {"chunks": [f"{companion}.0"]}))
    refused.append(scientist.call("DELETE", f"/tasks/{companion}"))

    assert listed == [task]
    assert {(one.status_code, f"task {task}" in one.get_json()["error"]) for one in refused} == {(409, True)}


# --- steering while reactions are under way: docs/explanation/tasks.md has the table


def test_a_paused_task_hands_out_no_reaction_until_it_is_resumed(
    scientist: Scientist, volunteer: Volunteers, keeper: Housekeeper
) -> None:
    task, who, other = scientist.running(1, **JOBS), volunteer(), volunteer()
    [held] = who.claim()
    scientist.ok("POST", f"/tasks/{task}/pause")
    who.add(who.attempt(held))
    keep_house(keeper)

    assert scientist.ok("GET", f"/tasks/{task}")["reacting"] is True
    assert other.claim() == []
    scientist.ok("POST", f"/tasks/{task}/resume")
    assert react(other)["id"] == f"{task}--success-0.0"


def test_pausing_while_a_reaction_waits_keeps_it_and_the_next_one(
    scientist: Scientist, volunteer: Volunteers, keeper: Housekeeper, raw: Any
) -> None:
    task, who = scientist.running(1, **JOBS), volunteer()
    compute(who, 1)
    [held] = [claim_soon(who)]
    scientist.ok("POST", f"/tasks/{task}/pause")

    assert who.add(who.attempt(held)).status_code == 200
    keep_house(keeper)

    assert raw.tasks.find_one({"_id": f"{task}--after-0"})["paused"] is True
    assert who.claim() == []
    scientist.ok("POST", f"/tasks/{task}/resume")
    assert react(who)["id"] == f"{task}--after-0.0"


def test_a_pause_that_a_crash_broke_off_reaches_the_companion_with_housekeeping(
    scientist: Scientist, volunteer: Volunteers, keeper: Housekeeper, raw: Any
) -> None:
    task, who = scientist.running(1, **JOBS), volunteer()
    compute(who, 1)
    raw.tasks.update_one({"_id": task}, {"$set": {"paused": True}})

    keep_house(keeper, 1)

    assert raw.tasks.find_one({"_id": f"{task}--success-0"})["paused"] is True


def test_cancelling_a_running_task_runs_after_alone(
    scientist: Scientist, volunteer: Volunteers, keeper: Housekeeper, raw: Any
) -> None:
    task, who = scientist.running(2, **JOBS), volunteer()

    scientist.ok("POST", f"/tasks/{task}/cancel")
    keep_house(keeper)
    last = react(who)

    assert last["id"] == f"{task}--after-0.0" and json.loads(last["input"])["outcome"] == "cancelled"
    assert raw.tasks.count_documents({"reacts_to": task}) == 1


def test_cancelling_a_waiting_task_without_data_runs_after_too(
    scientist: Scientist, volunteer: Volunteers, keeper: Housekeeper
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    task = scientist.ok("POST", "/projects/sums/tasks", {"action": ["/bin/cat"], **JOBS})["id"]

    scientist.ok("POST", f"/tasks/{task}/cancel")
    keep_house(keeper)

    assert json.loads(react(volunteer())["input"])["chunks"] == {"total": 0}


def test_cancelling_while_reactions_are_under_way_ends_them_and_keeps_the_outcome(
    scientist: Scientist, volunteer: Volunteers, keeper: Housekeeper, raw: Any
) -> None:
    task, who = scientist.running(1, **JOBS), volunteer()
    compute(who, 1)
    held = claim_soon(who)

    scientist.ok("POST", f"/tasks/{task}/cancel")
    keep_house(keeper)
    late = who.add(who.attempt(held))
    keep_house(keeper)
    ended = scientist.ok("GET", f"/tasks/{task}")

    assert late.status_code == 200
    assert (ended["outcome"], ended["reacting"]) == ("succeeded", False)
    assert shown(scientist, task)["success"]["outcome"] == "cancelled"
    assert raw.tasks.find_one({"_id": f"{task}--after-0"}) is None
    assert scientist.call("POST", f"/tasks/{task}/cancel").status_code == 409


@pytest.mark.parametrize("when", ["under way", "ended"])
def test_a_rerun_ends_with_a_decision_and_companions_of_its_own_and_keeps_the_earlier_ones(
    scientist: Scientist, volunteer: Volunteers, keeper: Housekeeper, raw: Any, when: str
) -> None:
    task, who = scientist.running(1, **JOBS), volunteer()
    compute(who, 1)
    if when == "ended":
        react(who), react(who)

    assert scientist.call("POST", f"/tasks/{task}/rerun", {"which": "all"}).status_code == 200
    keep_house(keeper)
    between = scientist.ok("GET", f"/tasks/{task}")
    compute(who, 1)
    reactions = [react(who)["id"], react(who)["id"]]
    ended = scientist.ok("GET", f"/tasks/{task}")

    assert (between["state"], between["outcome"], between["reacting"]) == ("running", None, False)
    assert reactions == [f"{task}--success-1.0", f"{task}--after-1.0"]
    assert ended["reacting"] is False and [one["current"] for one in ended["reaction_runs"]][-2:] == [
        True,
        True,
    ]
    earlier = raw.tasks.find_one({"_id": f"{task}--success-0"})
    assert earlier["outcome"] == ("succeeded" if when == "ended" else "cancelled")


def test_a_requeue_that_goes_well_is_followed_by_success_after_an_earlier_failure(
    scientist: Scientist, volunteer: Volunteers, raw: Any
) -> None:
    task, who = scientist.running(2, **JOBS), volunteer()
    set_aside(raw, task)
    compute(who, 1)
    first = [react(who)["id"], react(who)["id"]]

    assert scientist.call("POST", "/errors/requeue", {"task": task}).status_code == 200
    compute(who, 1)
    second = [react(who)["id"], react(who)["id"]]

    assert first == [f"{task}--failure-0.0", f"{task}--after-0.0"]
    assert second == [f"{task}--success-1.0", f"{task}--after-1.0"]
    assert scientist.ok("GET", f"/tasks/{task}")["outcome"] == "succeeded"


def test_a_companion_that_a_slow_process_makes_after_its_task_runs_again_is_ended(
    scientist: Scientist, volunteer: Volunteers, stores: Any, raw: Any, keeper: Housekeeper
) -> None:
    from source_server.domain.reactions import Reaction, companion
    from source_server.domain.validation import Validation

    task, who = scientist.running(1, after=JOBS["after"]), volunteer()
    [held] = who.claim()
    raw.tasks.update_one({"_id": task}, {"$set": {"reacting": False}})
    late = companion(stores.tasks.find(task), Reaction.AFTER, Validation(), None, stores.clock.now())
    stores.tasks.ensure(late)

    keep_house(keeper)

    assert stores.tasks.find(late.id).outcome.value == "cancelled"
    assert who.add(who.attempt(held)).status_code == 200


def test_what_a_crash_left_undone_is_done_by_housekeeping(
    scientist: Scientist, volunteer: Volunteers, raw: Any, keeper: Housekeeper
) -> None:
    task, who = scientist.running(1, **JOBS), volunteer()
    compute(who, 1)
    raw.tasks.delete_many({"reacts_to": task})  # as if it had died before the companion came into being

    keep_house(keeper, 1)

    assert raw.chunks.count_documents({"task": f"{task}--success-0"}) == 1
    assert react(who)["id"] == f"{task}--success-0.0"


def test_a_task_without_reactions_is_complete_and_nothing_follows(
    scientist: Scientist, volunteer: Volunteers, raw: Any
) -> None:
    task = scientist.running(1)
    compute(volunteer(), 1)

    ended = scientist.ok("GET", f"/tasks/{task}")

    assert (ended["state"], ended["reacting"], ended["reaction_runs"]) == ("complete", False, [])
    assert raw.tasks.count_documents({}) == 1


def test_a_reaction_that_nobody_could_run_is_warned_of_at_submission_and_why_says_what_it_lacks(
    scientist: Scientist, volunteer: Volunteers
) -> None:
    who = volunteer()
    scientist.ok("POST", "/projects", {"name": "sums"})
    picky = {"action": ["/bin/report"], "requires": {"gpu": "yes"}}
    made = scientist.ok("POST", "/projects/sums/tasks", {"action": ["/bin/cat"], "after": picky})
    task = scientist.running(1, after=picky)
    compute(who, 1)

    why = scientist.ok("GET", f"/chunks/{task}--after-0.0/why")

    assert made["warnings"] == [
        "Nobody could run the job after now. The one live container does not fit. "
        f"The job needs gpu = yes: none of them has it. Nearest is container {who.id} on host {who.host}: it lacks "
        "gpu = yes (it has nothing of the kind)."
    ]
    assert why["summary"] == "The one live container does not fit."
    assert scientist.ok("GET", f"/tasks/{task}")["reacting"] is True


def test_failures_of_reactions_are_among_the_errors_of_their_task(
    scientist: Scientist, volunteer: Volunteers
) -> None:
    task, who = scientist.running(1, **JOBS), volunteer()
    compute(who, 1)
    chunk = claim_soon(who)

    who.add(who.failure(chunk, stderr_tail="no paper\n"))

    assert [one["chunk"] for one in scientist.ok("GET", f"/errors?task={task}")["errors"]] == [chunk["id"]]


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ({"action": ["/bin/report", "{answer}"]}, "there is no 'answer'"),
        ({"action": ["/bin/report"], "inputs": {"{task}.txt": "0" * 64}}, "no {field} placeholders"),
        ({"action": ["/bin/report"], "inputs": {"Results.csv": "0" * 64}}, "as results.csv"),
    ],
)
def test_a_reaction_that_could_never_run_is_refused(
    scientist: Scientist, job: dict[str, Any], sentence: str
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})

    answer = scientist.call("POST", "/projects/sums/tasks", {"action": ["/bin/cat"], "success": job})

    assert answer.status_code == 400 and sentence in answer.get_json()["error"]


def test_when_it_has_reacted_a_pause_changes_nothing_and_a_late_answer_only_its_row(
    scientist: Scientist, volunteer: Volunteers, raw: Any, keeper: Housekeeper
) -> None:
    task = scientist.running(2, **JOBS)
    late, who = volunteer(), volunteer()
    [held] = late.claim()
    set_aside(raw, task, 2)
    raw.chunks.update_one({"_id": f"{task}.{1 - held['n']}"}, {"$set": {"state": "ready", "wanted": 1}})
    compute(who, 1)
    reactions = [react(who)["id"], react(who)["id"]]
    before = scientist.ok("GET", f"/tasks/{task}")

    scientist.ok("POST", f"/tasks/{task}/pause"), scientist.ok("POST", f"/tasks/{task}/resume")
    assert late.add(late.attempt(held, "late\n")).status_code == 200
    keep_house(keeper)
    after = scientist.ok("GET", f"/tasks/{task}")

    assert reactions == [f"{task}--failure-0.0", f"{task}--after-0.0"]
    assert (before["chunks"]["quarantined"], after["chunks"]) == (1, {"total": 2, "done": 2})
    for field in ("state", "outcome", "reacting", "reacted", "ended", "reaction_runs"):
        assert after[field] == before[field]


def test_a_rerun_while_it_runs_ends_in_one_decision_with_companions_of_its_number(
    scientist: Scientist, volunteer: Volunteers, raw: Any
) -> None:
    task, who = scientist.running(2, **JOBS), volunteer()
    compute(who, 1)

    assert scientist.call("POST", f"/tasks/{task}/rerun", {"which": "all"}).status_code == 200
    compute(who, 2)
    reactions = [react(who)["id"], react(who)["id"]]

    assert reactions == [f"{task}--success-1.0", f"{task}--after-1.0"]
    assert raw.tasks.count_documents({"reacts_to": task}) == 2


@pytest.mark.parametrize("there", [False, True])
def test_who_made_the_table_until_the_task_was_deleted_leaves_nothing_for_the_next_one_of_its_id(
    scientist: Scientist, volunteer: Volunteers, stores: Any, raw: Any, there: bool
) -> None:
    task, who = scientist.running(1, **JOBS), volunteer()
    compute(who, 1)
    companion = f"{task}--success-0"
    raw.tasks.delete_one({"_id": companion})
    raw.chunks.delete_one({"_id": f"{companion}.0"})

    def table(*_: Any) -> tuple[str, tuple[()]]:
        gone = raw.tasks.find_one_and_delete({"_id": task})
        if there:
            raw.tasks.insert_one({**gone, "created": stores.clock.now()})
        return "{}", ()

    React(stores, table)(task)  # type: ignore[arg-type]

    assert raw.chunks.count_documents({"task": companion}) == 0
    assert raw.tasks.count_documents({"_id": companion}) == 0
