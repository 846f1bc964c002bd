"""What the launcher reads of power, heat, network and use, on machines made of files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from client_container.launcher.policy.policy import Policy
from client_container.launcher.policy.sensors import (
    ASK_AGAIN_S,
    UNTOUCHED_S,
    Sensors,
    ask_program,
    jobs_cpu_s,
)

WALL = 1_800_000_000.0


class FakeMachine:
    """Files of /sys, /proc and /dev, programs' answers, two clocks."""

    def __init__(self, root: Path) -> None:
        self.root, self.now, self.own_cpu_s = root, 0.0, 0.0
        self.answers: dict[str, str] = {}
        self.asked: list[str] = []
        self.sensors = Sensors(
            root=root,
            clock=lambda: self.now,
            wall=lambda: WALL + self.now,
            ask=self._ask,
            own_cpu_s=lambda: self.own_cpu_s,
        )

    def _ask(self, command: Sequence[str]) -> str | None:
        self.asked.append(command[0])
        return next((said for words, said in self.answers.items() if words in " ".join(command)), None)

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def supply(self, name: str, **files: str) -> None:
        for file, text in files.items():
            self.write(f"sys/class/power_supply/{name}/{file}", f"{text}\n")

    def stat(self, *, busy_s: float, cpus: int = 4) -> None:
        lines = [
            f"cpu  {int(busy_s * 100)} 0 0 999 999 0 0 0 0 0",
            *(f"cpu{n} 0 0 0 0 0 0 0" for n in range(cpus)),
        ]
        self.write("proc/stat", "\n".join(lines) + "\n")

    def typed(self, terminal: str, *, seconds_ago: float) -> None:
        file = self.write(f"dev/{terminal}", "")
        when = WALL + self.now - seconds_ago
        os.utime(file, (when, when))


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


# --- power


def test_a_machine_without_a_battery_does_not_say(machine: FakeMachine) -> None:
    assert machine.sensors.on_battery() is None


def test_a_laptop_on_mains_or_on_battery(machine: FakeMachine) -> None:
    machine.supply("AC", type="Mains", online="1")
    machine.supply("BAT0", type="Battery", status="Full")
    assert machine.sensors.on_battery() is False

    machine.supply("AC", online="0")
    machine.supply("BAT0", status="Discharging")
    assert machine.sensors.on_battery() is True


def test_a_laptop_charged_over_usb_c_is_not_on_battery(machine: FakeMachine) -> None:
    machine.supply("ucsi", type="USB", online="1")
    machine.supply("BAT0", type="Battery", status="Discharging")

    assert machine.sensors.on_battery() is False


def test_the_battery_of_a_mouse_is_not_the_machines(machine: FakeMachine) -> None:
    machine.supply("hidpp_0", type="Battery", status="Discharging", scope="Device")

    assert machine.sensors.on_battery() is None


# --- heat


def test_the_hottest_of_zones_and_processor_sensors_counts(machine: FakeMachine) -> None:
    assert machine.sensors.hottest() is None

    machine.write("sys/class/thermal/thermal_zone0/temp", "48000\n")
    machine.write("sys/class/thermal/thermal_zone1/temp", "garbage\n")
    machine.write("sys/class/hwmon/hwmon0/name", "k10temp\n")
    machine.write("sys/class/hwmon/hwmon0/temp1_input", "71500\n")
    machine.write("sys/class/hwmon/hwmon1/name", "nvme\n")
    machine.write("sys/class/hwmon/hwmon1/temp1_input", "99000\n")

    assert machine.sensors.hottest() == 71.5


# --- network


@pytest.mark.parametrize(
    ("answers", "metered"),
    [
        ({"Metered": "u 1\n"}, True),
        ({"Metered": "u 3\n"}, True),
        ({"Metered": "u 2\n"}, False),
        ({"Metered": "u 0\n"}, None),
        ({"nmcli": "no (guessed)\n\nunknown\n"}, False),
        ({"nmcli": "yes\n\nunknown\n"}, True),
        ({}, None),
    ],
)
def test_a_metered_network_is_what_network_manager_calls_so(
    machine: FakeMachine, answers: dict[str, str], metered: bool | None
) -> None:
    machine.answers = answers

    assert machine.sensors.metered() is metered


def test_network_manager_is_not_asked_all_the_time(machine: FakeMachine) -> None:
    machine.answers = {"Metered": "u 2\n"}
    for _ in range(10):
        machine.sensors.metered()
        machine.now += ASK_AGAIN_S / 20

    assert machine.asked == ["busctl"]
    machine.now += ASK_AGAIN_S
    machine.answers = {"Metered": "u 1\n"}
    assert machine.sensors.metered() is True


def test_a_program_that_is_missing_or_fails_says_nothing() -> None:
    assert ask_program(["no-such-program-here"]) is None
    assert ask_program(["false"]) is None
    assert ask_program(["echo", "yes"]) == "yes\n"


# --- use


def test_a_machine_without_any_source_is_not_in_use(machine: FakeMachine) -> None:
    assert machine.sensors.in_use() is None


@pytest.mark.parametrize("terminal", ["tty1", "pts/0", "ttyS0"])
def test_typing_at_a_terminal_counts_for_five_minutes(machine: FakeMachine, terminal: str) -> None:
    machine.typed(terminal, seconds_ago=0)

    assert machine.sensors.in_use() == "a terminal, keyboard or mouse"
    machine.now = UNTOUCHED_S + 1
    assert machine.sensors.in_use() is None


def test_a_keyboard_that_interrupts_counts(machine: FakeMachine) -> None:
    table = "           CPU0 CPU1\n  1: {} 4 IO-APIC 1-edge i8042\n 24: {} 0 PCI-MSI nvme0q0\n"
    machine.write("proc/interrupts", table.format(10, 10))
    assert machine.sensors.in_use() is None

    machine.write("proc/interrupts", table.format(10, 99))
    assert machine.sensors.in_use() is None
    machine.write("proc/interrupts", table.format(11, 99))
    assert machine.sensors.in_use() == "a terminal, keyboard or mouse"
    machine.now += UNTOUCHED_S + 1
    assert machine.sensors.in_use() is None


def test_a_session_that_is_not_idle_counts_only_while_somebody_is_logged_in(machine: FakeMachine) -> None:
    machine.answers = {"NCurrentSessions": "t 1\n", "IdleHint": "b false\n"}
    assert machine.sensors.in_use() == "a login session that is not idle"

    for answers in (
        {"NCurrentSessions": "t 0\n", "IdleHint": "b false\n"},
        {"NCurrentSessions": "t 1\n", "IdleHint": "b true\n"},
    ):
        machine.now += ASK_AGAIN_S
        machine.answers = answers
        assert machine.sensors.in_use() is None


def test_the_load_of_others_counts_and_that_of_our_jobs_does_not(machine: FakeMachine) -> None:
    for second in range(0, 61, 5):
        machine.now = float(second)
        machine.own_cpu_s = second * 3.0
        machine.stat(busy_s=100 + second * 3.4)
        assert machine.sensors.in_use() is None
    assert machine.sensors.others_share() == pytest.approx(0.1, abs=0.01)

    for second in range(65, 101, 5):
        machine.now, machine.own_cpu_s = float(second), second * 3.0
        machine.stat(busy_s=304 + (second - 60) * 5)
        said = machine.sensors.in_use()
    assert said == "other programs use 50% of its processors"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("cpuacct/dockercomp/cpuacct.usage", "2500000000\n"),
        ("cpu,cpuacct/dockercomp/cpuacct.usage", "2500000000\n"),
        ("dockercomp/cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
        ("dockercomp.slice/cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
    ],
)
def test_what_our_jobs_used_is_read_from_their_control_group(
    machine: FakeMachine, file: str, text: str
) -> None:
    assert jobs_cpu_s(machine.root) == 0

    machine.write(f"sys/fs/cgroup/{file}", text)

    assert jobs_cpu_s(machine.root) == 2.5


def test_only_what_the_policy_asks_about_is_read(machine: FakeMachine) -> None:
    machine.answers = {"Metered": "u 1\n"}
    machine.typed("tty1", seconds_ago=0)
    generous = Policy(on_battery=True, metered=True)

    readings = machine.sensors.read(generous, transferred=7)

    assert (readings.transferred, readings.metered, readings.in_use, readings.hottest) == (
        7,
        None,
        None,
        None,
    )
    assert machine.asked == []
    strict = machine.sensors.read(Policy(idle_only=True), transferred=0)
    assert (strict.metered, strict.in_use) == (True, "a terminal, keyboard or mouse")
