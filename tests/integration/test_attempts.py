"""Every attempt of a task or chunk, good or failed, newest first, in pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from people import Scientist, Volunteer


def of(scientist: Scientist, what: str, **query: Any) -> Any:
    """A page."""
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    return scientist.ok("GET", f"/{what}/attempts?{asked}")


def test_an_attempt_says_what_it_wrote_how_it_ended_and_who_made_it(
    scientist: Scientist, volunteer: Callable[..., Volunteer], stores: Any
) -> None:
    task, who = scientist.running(1), volunteer()
    [chunk] = who.claim()
    times = {"started": "2026-11-22T06:00:00.000Z", "ended": "2026-11-22T06:00:09.000Z"}
    who.add(who.attempt(chunk, "42\n", stderr_tail="a warning\n", cpu_s=1.5, **times))

    [one] = of(scientist, f"tasks/{task}")["attempts"]

    pseudonym = stores.accounts.pseudonyms({stores.containers.find(who.id).account}).popitem()[1]
    assert one == {
        "id": one["id"],
        "chunk": f"{task}.0",
        "run": 0,
        "outcome": "ok",
        "timeout": False,
        "oom": False,
        "verdict": "accepted",
        "exit_code": 0,
        "signal": None,
        "stdout": "42\n",
        "stdout_cut": False,
        "stderr_tail": "a warning\n",
        "signature": None,
        "files": [],
        **times,
        "stored": one["stored"],
        "cpu_s": 1.5,
        "account": pseudonym,
        "host": who.host,
        "container": who.id,
        "runtime": "process",
        "image": None,
        "variant": None,
    }


@pytest.mark.parametrize("outcome", ["failed", "timeout", "oom"])
def test_failures_stand_beside_answers_and_say_whether_time_or_memory_ran_out(
    scientist: Scientist, volunteer: Callable[..., Volunteer], raw: Any, outcome: str
) -> None:
    task, who = scientist.running(1), volunteer()
    [chunk] = who.claim()
    ended = {"outcome": outcome, "exit_code": 137, "signal": 9, "stderr_tail": "boom 17\n"}
    who.add(who.attempt(chunk, "half\n", **ended))
    raw.chunks.update_many({}, {"$set": {"state": "ready", "not_before": None, "wanted": 1}})
    [again] = who.claim()
    who.add(who.attempt(again))

    good, failed = of(scientist, f"chunks/{task}.0")["attempts"]

    assert (good["outcome"], good["timeout"], good["oom"]) == ("ok", False, False)
    assert (failed["timeout"], failed["oom"]) == (outcome == "timeout", outcome == "oom")
    assert (failed["exit_code"], failed["signal"], failed["stdout"]) == (137, 9, "half\n")
    assert failed["stderr_tail"] == "boom 17\n" and failed["signature"] is not None


def test_pages_go_on_where_the_one_before_ended_newest_first_and_nothing_is_told_twice(
    scientist: Scientist, volunteer: Callable[..., Volunteer], raw: Any, stores: Any
) -> None:
    task, who = scientist.running(7), volunteer()
    for n, chunk in enumerate(who.claim(7)):
        who.add(who.failure(chunk) if n % 2 else who.attempt(chunk))
    now = stores.clock.now()
    # Three at the same instant, and pages of two: the order has to hold there as well.
    everything = [(name, one["_id"]) for name in ("results", "errors") for one in raw[name].find()]
    for n, (name, known) in enumerate(everything):
        raw[name].update_one({"_id": known}, {"$set": {"stored": now - timedelta(seconds=n // 3)}})

    seen, after = list[dict[str, Any]](), None
    for _ in range(10):
        page = of(scientist, f"tasks/{task}", limit=2, **({"after": after} if after else {}))
        seen += page["attempts"]
        after = page["next"]
        if after is None:
            break

    assert len(seen) == len({one["id"] for one in seen}) == 7
    assert [one["stored"] for one in seen] == sorted((one["stored"] for one in seen), reverse=True)
    assert of(scientist, f"tasks/{task}", limit=7)["next"] is None


def test_long_answers_are_cut_and_an_earlier_runs_attempts_stay(
    scientist: Scientist, volunteer: Callable[..., Volunteer]
) -> None:
    task, who = scientist.running(1), volunteer()
    [chunk] = who.claim()
    who.add(who.attempt(chunk, "x" * 10_000, stderr_tail="e" * 5_000))
    scientist.ok("POST", f"/tasks/{task}/rerun", {"which": "all"})

    [one] = of(scientist, f"chunks/{task}.0")["attempts"]

    assert (len(one["stdout"]), one["stdout_cut"], len(one["stderr_tail"])) == (4096, True, 1024)
    assert one["run"] == 0


def test_another_scientist_sees_none_of_them_and_a_strange_place_is_refused(
    app: Any, new_key: Any, scientist: Scientist
) -> None:
    task = scientist.running(1)
    stranger = Scientist(app, new_key("scientist"))

    assert stranger.call("GET", f"/tasks/{task}/attempts").status_code == 404
    assert stranger.call("GET", f"/chunks/{task}.0/attempts").status_code == 404
    assert scientist.call("GET", f"/chunks/{task}.9/attempts").status_code == 404
    assert scientist.call("GET", f"/tasks/{task}/attempts?after=yesterday").status_code == 400
    assert scientist.call("GET", f"/tasks/{task}/attempts?limit=0").status_code == 400
