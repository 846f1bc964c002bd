"""`GET /tasks` page by page, and `GET /projects/PROJECT`."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.mongo


def pages(scientist: Any, **asked: Any) -> list[list[str]]:
    found, after = [], None
    while True:
        query = {**asked, **({} if after is None else {"after": after})}
        page = scientist.ok("GET", "/tasks", query_string=query)
        found.append([one["id"] for one in page["tasks"]])
        after = page["next"]
        if after is None:
            return found


def test_every_task_is_on_one_page_and_in_order(scientist: Any, raw: Any) -> None:
    made = [scientist.task(1) for _ in range(7)]
    raw.tasks.update_many({}, {"$set": {"created": raw.tasks.find_one({"_id": made[0]})["created"]}})

    found = pages(scientist, limit=3)

    assert [len(page) for page in found] == [3, 3, 1]
    assert sorted(task for page in found for task in page) == sorted(made)
    assert pages(scientist, limit=7) == [sorted(made)], "made at the same moment: in the order of their ids"


def test_a_page_that_is_just_full_is_the_last_one(scientist: Any) -> None:
    made = [scientist.task(1) for _ in range(4)]

    assert pages(scientist, limit=2) == [made[:2], made[2:]]


def test_a_task_that_comes_or_goes_meanwhile_moves_no_other(scientist: Any, raw: Any) -> None:
    made = [scientist.task(1) for _ in range(4)]
    first = scientist.ok("GET", "/tasks", query_string={"limit": 2})

    raw.tasks.delete_one({"_id": made[1]})
    late = scientist.task(1)
    rest = scientist.ok("GET", "/tasks", query_string={"limit": 100, "after": first["next"]})

    assert [one["id"] for one in rest["tasks"]] == [*made[2:], late]


def test_only_the_state_and_project_that_are_asked_for(scientist: Any) -> None:
    waiting, running = scientist.task(1), scientist.running(1)
    other = scientist.running(1, project="digits")

    assert pages(scientist, state="waiting") == [[waiting]]
    assert pages(scientist, state="running") == [[running, other]]
    assert pages(scientist, state="running", project="digits") == [[other]]
    assert pages(scientist, state="complete") == [[]]


@pytest.mark.parametrize(
    "query",
    [
        {"state": "gone"},
        {"after": "yesterday"},
        {"after": "12.x.y"},
        {"after": "٣.a"},
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "many"},
    ],
)
def test_what_cannot_be_meant_is_400(scientist: Any, query: Any) -> None:
    assert scientist.call("GET", "/tasks", query_string=query).status_code == 400


def test_nobody_sees_the_tasks_and_projects_of_others(scientist: Any, app: Any, new_key: Any) -> None:
    from people import Scientist

    scientist.task(1)
    other = Scientist(app, new_key("scientist"))

    assert pages(other) == [[]]
    assert other.call("GET", "/tasks", query_string={"project": "sums"}).status_code == 404
    assert other.call("GET", "/projects/sums").status_code == 404


def test_a_project_can_be_looked_at(scientist: Any) -> None:
    made = scientist.ok("POST", "/projects", {"name": "sums", "share": 2})

    assert scientist.ok("GET", "/projects/sums") == made
