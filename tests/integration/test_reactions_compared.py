"""Reactions of a project whose answers a validator compares: it compares theirs, and its own failing ends them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from people import Scientist, Volunteer

from source_server.domain.image import StoredImage
from source_server.housekeeping import Housekeeper

JOBS: dict[str, Any] = {
    "success": {"action": ["/bin/report", "good"]},
    "after": {"action": ["/bin/report", "end"]},
}
COMPARED = {
    "quorum": 2,
    "comparator": {"kind": "validator", "validator": {"action": ["/opt/same.py"]}},
}


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


@pytest.fixture
def two(app: Any, stores: Any, new_key: Callable[[str], str]) -> list[Volunteer]:
    """Trusted containers of two accounts."""
    made = [Volunteer(app, new_key("volunteer")) for _ in range(2)]
    for one in made:
        stores.containers.set_trusted(one.id, True)
    return made


@pytest.fixture
def task(scientist: Scientist, two: list[Volunteer]) -> str:
    """A task that has succeeded, whose own answers nobody compares."""
    scientist.ok("POST", "/projects", {"name": "sums", "validation": COMPARED})
    made = scientist.running(1, validation={"quorum": 1}, **JOBS)
    who, chunk = handed_out(two)
    assert who.add(who.attempt(chunk)).status_code == 200
    return made


def handed_out(two: list[Volunteer]) -> tuple[Volunteer, dict[str, Any]]:
    """The next chunk, and who got it."""
    deadline = time.monotonic() + 60
    while True:
        for who in two:
            for chunk in who.claim():
                return who, chunk
        assert time.monotonic() < deadline, "nothing was handed out"
        time.sleep(0.1)


def both_answer(two: list[Volunteer], name: str) -> None:
    """Both give an answer to the reaction of this name."""
    for said in ("sent\n", "sent!\n"):
        who, chunk = handed_out(two)
        assert f"--{name}-0.0" in chunk["id"]
        assert who.add(who.attempt(chunk, said)).status_code == 200


def shown(scientist: Scientist, task: str) -> dict[str, dict[str, Any]]:
    """The reactions by name."""
    return {one["reaction"]: one for one in scientist.ok("GET", f"/tasks/{task}")["reaction_runs"]}


def test_the_answers_of_a_reaction_are_compared_by_the_projects_validator(
    scientist: Scientist, two: list[Volunteer], task: str
) -> None:
    both_answer(two, "success")
    who, question = handed_out(two)
    answered = who.call("POST", "/next", {"token": question["token"], "want": 1}).get_json()
    who.add(who.attempt(question, "[0, 0]\n"))

    assert question["id"] == f"{task}--success-0-v.0"
    assert answered["jobs"][question["job"]]["action"] == ["/opt/same.py"]
    assert json.loads(question["input"])["count"] == 2
    assert shown(scientist, task)["success"]["answer"] == "sent\n"
    assert handed_out(two)[1]["id"] == f"{task}--after-0.0"


def test_a_reaction_whose_answers_cannot_be_compared_has_failed_and_after_runs(
    scientist: Scientist, two: list[Volunteer], task: str, stores: Any, raw: Any, keeper: Housekeeper
) -> None:
    both_answer(two, "success")
    while raw.chunks.find_one({"_id": f"{task}--success-0-v.0"})["state"] != "quarantined":
        who, question = handed_out(two)
        assert question["id"] == f"{task}--success-0-v.0"
        who.add(who.failure(question, stderr_tail="no such module\n"))
        raw.chunks.update_one({"state": "delayed"}, {"$set": {"not_before": stores.clock.now()}})
        keeper.tasks()

    keeper.verdicts()
    keeper.tasks()
    keeper.reactions()
    success = shown(scientist, task)["success"]

    assert (success["state"], success["outcome"], success["answer"]) == ("complete", "failed", None)
    assert "could not be compared" in success["error"]
    assert handed_out(two)[1]["id"] == f"{task}--after-0.0"


def test_a_reactions_job_and_its_validator_run_in_the_images_that_are_known_by_now(
    scientist: Scientist, two: list[Volunteer], task: str, stores: Any, raw: Any
) -> None:
    image, registry = f"sha256:{'1' * 64}", f"reports@sha256:{'2' * 64}"
    raw.tasks.update_one({"_id": task}, {"$set": {"success.image": image}})
    raw.chunks.delete_one({"_id": f"{task}--success-0.0"})
    raw.tasks.delete_one({"_id": f"{task}--success-0"})
    raw.projects.update_one({"_id": "sums"}, {"$set": {"image": registry}})
    stored = StoredImage(
        id=image, architecture="arm64", os="linux", size=1, bytes=1, sha256="3" * 64, added=stores.clock.now()
    )
    stores.images.add(stored, None)

    Housekeeper(stores, beat_s=20.0).reactions()

    made = stores.tasks.find(f"{task}--success-0")
    assert (made.job.image, made.job.architecture) == (image, "arm64")
    assert made.validator.image == registry
