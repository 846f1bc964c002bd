"""What the launcher remembers of jobs and transfer, and that it stays small."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from client_container.launcher.service import history as history_module
from client_container.launcher.service.history import History

TODAY = "2026-11-22"
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)


def ran(**changes: Any) -> Any:
    facts: dict[str, Any] = {
        "slot": 0,
        "project": "sums",
        "task": "t1",
        "chunk": "c1",
        "image": "sha256:" + "1" * 64,
        "started": NOON,
        "ended": NOON + timedelta(seconds=10),
        "ran_s": 10.0,
        "cpu_s": 7.5,
        "cause": None,
        "exit_code": 0,
        "bytes_in": 100,
        "bytes_out": 200,
    }
    return SimpleNamespace(**{**facts, **changes})


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history.db")


def test_a_job_is_shown_before_and_after_it_is_written(history: History) -> None:
    history.record(ran(chunk="first"))
    history.flush(TODAY)
    history.record(ran(chunk="second", cause="timeout", exit_code=None))

    jobs = history.jobs(10)

    assert [job["chunk"] for job in jobs] == ["second", "first"]
    assert jobs[1]["ended"] == "2026-11-22T12:00:10Z"
    assert (jobs[0]["cause"], jobs[0]["exit_code"]) == ("timeout", None)
    assert [job["chunk"] for job in history.jobs(1)] == ["second"]


def test_what_was_written_outlives_the_process(tmp_path: Path) -> None:
    first = History(tmp_path / "history.db")
    first.record(ran())
    first.flush(TODAY)
    first.close()

    assert len(History(tmp_path / "history.db").jobs(10)) == 1


def test_the_contribution_counts_by_project(history: History) -> None:
    history.record(ran(cpu_s=3600.0))
    history.record(ran(cpu_s=1800.0, exit_code=1, ended=NOON + timedelta(days=1)))
    history.record(ran(project="digits", cpu_s=1800.0, started=NOON - timedelta(days=3)))
    history.flush(TODAY)

    given = history.contribution()

    assert (given["chunks"], given["finished"], given["cpu_hours"]) == (3, 2, 2.0)
    assert given["since"] == "2026-11-19T12:00:00Z"
    sums = given["projects"][0]
    assert (sums["project"], sums["chunks"], sums["finished"], sums["last"]) == (
        "sums",
        2,
        1,
        "2026-11-23T12:00:00Z",
    )


def test_old_and_surplus_jobs_are_forgotten_and_the_contribution_is_not(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "MOST_JOBS", 10)
    history.record(ran(chunk="ancient", ended=NOON - timedelta(days=91)))
    for number in range(30):
        history.record(ran(chunk=f"c{number}"))
    history.flush(TODAY)

    assert [job["chunk"] for job in history.jobs(100)] == [f"c{number}" for number in range(29, 19, -1)]
    assert history.contribution()["chunks"] == 31


def test_a_full_disk_loses_the_oldest_in_memory_and_no_more(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "MOST_WAITING", 5)
    for number in range(8):
        history.record(ran(chunk=f"c{number}"))

    assert [job["chunk"] for job in history.jobs(100)] == ["c7", "c6", "c5", "c4", "c3"]


def test_transfer_is_what_the_counters_gained(history: History) -> None:
    history.count_transfer(TODAY, {"a": (1000, 100)})
    history.count_transfer(TODAY, {"a": (1500, 160), "b": (10, 1)})
    history.count_transfer(TODAY, {"b": (10, 1)})

    assert history.transfer(TODAY) == (1510, 161)
    assert history.transfer("2026-11-23") == (0, 0)


def test_a_container_that_started_again_counts_from_zero(history: History) -> None:
    history.count_transfer(TODAY, {"a": (1000, 100)})
    history.count_transfer("2026-11-23", {"a": (30, 3)})

    assert history.transfer("2026-11-23") == (30, 3)
    assert [day["day"] for day in history.days(5)] == ["2026-11-23", TODAY]


def test_a_launcher_that_was_killed_does_not_count_twice(tmp_path: Path) -> None:
    first = History(tmp_path / "history.db")
    first.count_transfer(TODAY, {"a": (1000, 100)})
    first.close()

    second = History(tmp_path / "history.db")
    second.count_transfer(TODAY, {"a": (1100, 100)})

    assert second.transfer(TODAY) == (1100, 100)


def test_a_broken_database_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"this is no database, whatever its name says" * 100)

    history = History(tmp_path / "history.db")

    assert history.jobs(10) == []
    assert (tmp_path / "history.broken").exists()


def test_a_database_that_another_process_holds_is_not_set_aside(tmp_path: Path) -> None:
    History(tmp_path / "history.db").close()
    other = sqlite3.connect(tmp_path / "history.db")
    other.execute("BEGIN EXCLUSIVE")

    with pytest.raises(sqlite3.OperationalError):
        History(tmp_path / "history.db", timeout_s=0.1)

    assert not (tmp_path / "history.broken").exists()
