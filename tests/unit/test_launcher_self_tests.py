"""When the sandbox is tested, and that no job starts before it passed."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from product import until

from client_container.launcher.errors import EngineAway
from client_container.launcher.self_test.schedule import AGAIN, VALID, NotTested, SelfTests, Verdict

START = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)


class Machine:
    """Self-tests, what they find, how often they ran, and the time."""

    def __init__(self, folder: Path) -> None:
        self.now, self.runs, self.finds = START, 0, "passed"
        self.tests = SelfTests(folder / "self-test.json", now=lambda: self.now)

    def run(self) -> Verdict:
        self.runs += 1
        if self.finds == "away":
            raise EngineAway("No Docker engine answers.")
        checks = ({"name": "network", "ok": self.finds == "passed", "said": "no way out"},)
        return Verdict(verdict=self.finds, at=self.now.strftime("%Y-%m-%dT%H:%M:%SZ"), checks=checks)

    def step(self, of: str = "0.1.0 on 20.10") -> str:
        """The verdict after a step and the test it may have started."""
        self.tests.use(self.run, of=of)
        self.tests.step()
        until(
            lambda: "self-test" not in {one.name for one in threading.enumerate()},
            seconds=10,
            what="the test",
        )
        return self.tests.latest.verdict


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_new_machine_is_tested_and_nothing_may_start_before(machine: Machine) -> None:
    assert machine.tests.latest.sentence == "The self-test of the sandbox has not passed yet."

    assert machine.step() == "passed"

    assert machine.tests.latest.sentence == ""


def test_a_verdict_holds_for_days_also_for_the_next_launcher(machine: Machine, tmp_path: Path) -> None:
    machine.step()
    machine.now += VALID - timedelta(minutes=1)
    machine.tests = SelfTests(tmp_path / "self-test.json", now=lambda: machine.now)

    assert (machine.step(), machine.runs) == ("passed", 1)
    machine.now += timedelta(minutes=2)
    assert (machine.step(), machine.runs) == ("passed", 2)


def test_another_engine_or_launcher_is_tested_anew(machine: Machine) -> None:
    machine.step()

    machine.step(of="0.1.0 on 28.2")

    assert machine.runs == 2


def test_a_wall_that_does_not_hold_stops_all_jobs_and_says_which(machine: Machine) -> None:
    machine.finds = "failed"

    assert machine.step() == "failed"

    assert machine.tests.latest.sentence.startswith("The self-test of the sandbox failed (network)")


def test_a_test_that_could_not_be_finished_is_tried_again_later(machine: Machine) -> None:
    machine.finds = "away"
    assert (machine.step(), machine.step(), machine.runs) == ("unknown", "unknown", 1)

    machine.now += AGAIN
    machine.finds = "passed"

    assert (machine.step(), machine.runs) == ("passed", 2)


def test_without_an_engine_there_is_no_test(tmp_path: Path) -> None:
    with pytest.raises(NotTested):
        SelfTests(tmp_path / "self-test.json").run_now()


def test_a_torn_file_counts_as_not_tested(tmp_path: Path) -> None:
    (tmp_path / "self-test.json").write_text('{"verdict": "passed"')

    assert SelfTests(tmp_path / "self-test.json").latest.verdict == "unknown"


def gpu_check(ok: bool) -> dict[str, object]:
    return {"name": "job: graphics processors", "ok": ok, "said": "could not select device driver"}


def test_graphics_processors_that_jobs_cannot_have_are_no_reason_to_stop_all_others() -> None:
    walls = ({"name": "network", "ok": True, "said": ""},)
    without, missing, there = (
        Verdict(verdict="passed", checks=checks)
        for checks in (walls, (*walls, gpu_check(False)), (*walls, gpu_check(True)))
    )

    assert [one.tried_gpus for one in (without, missing, there)] == [False, True, True]
    assert [one.gpus_work for one in (without, missing, there)] == [False, False, True]
    assert missing.sentence == ""
    broken = ({"name": "network", "ok": False, "said": ""}, gpu_check(False))
    assert "(network)" in Verdict(verdict="failed", checks=broken).sentence


def test_a_test_is_repeated_when_it_is_asked_for_and_the_verdict_holds_meanwhile(machine: Machine) -> None:
    machine.step()
    machine.tests.repeat()
    held = machine.tests.latest.verdict

    assert (held, machine.step(), machine.runs) == ("passed", "passed", 2)
    assert (machine.step(), machine.runs) == ("passed", 2)
