"""What the machine says of itself: power, heat, network, whether somebody uses it.

Reads files below an injectable root; asks D-Bus by the system's own tools. What cannot be read is unknown (None) and
stops nothing.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from client_container.launcher.policy.governor import Readings
from client_container.launcher.policy.policy import Policy

Ask = Callable[[Sequence[str]], str | None]  #: runs a program; its standard output, None if it failed

UNTOUCHED_S = 300.0  #: without a touch for so long, nobody uses the machine
BUSY_SHARE = 0.25  #: of all processors: others' use above which the machine is in use
ASK_AGAIN_S = 30.0  #: D-Bus answers are kept for so long: each costs a process
LOAD_S = 15.0  #: over which others' load is averaged

_INPUT = re.compile(r"i8042|keyboard|kbd|mouse|touch|elan|synaptics|wacom", re.IGNORECASE)
_CORE_SENSORS = frozenset({"coretemp", "k10temp", "zenpower", "cpu_thermal"})
_NETWORK_MANAGER = ["org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"]
_LOGIND = ["org.freedesktop.login1", "/org/freedesktop/login1"]


def _property(service: Sequence[str], interface: str, name: str) -> list[str]:
    """The command that prints a property of a D-Bus service, like `u 1`."""
    return ["busctl", "--system", "get-property", *service, interface, name]


_METERED = _property(_NETWORK_MANAGER, "org.freedesktop.NetworkManager", "Metered")
_SESSIONS, _IDLE = (
    _property(_LOGIND, "org.freedesktop.login1.Manager", name) for name in ("NCurrentSessions", "IdleHint")
)


def ask_program(command: Sequence[str]) -> str | None:
    """The standard output of a program that must be quick; None when it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=3, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@dataclass(frozen=True)
class _Load:
    """Processor seconds used since boot: by everything, and by our own jobs."""

    at: float
    busy: float
    ours: float


class Sensors:
    """Reads what a policy asks about, and nothing else. `clock` tells monotonic seconds, `wall` epoch seconds."""

    def __init__(
        self,
        *,
        root: Path,
        clock: Callable[[], float],
        wall: Callable[[], float],
        ask: Ask = ask_program,
        own_cpu_s: Callable[[], float] = lambda: 0.0,
        ticks: int = 100,
    ) -> None:
        self._root, self._clock, self._wall, self._ask = root, clock, wall, ask
        self._own_cpu_s, self._ticks = own_cpu_s, ticks
        self._answers: dict[str, tuple[float, str | None]] = {}
        self._touches: int | None = None
        self._touched_at = float("-inf")
        self._loads: list[_Load] = []

    def read(self, policy: Policy, *, transferred: int) -> Readings:
        """The readings now."""
        return Readings(
            local=datetime.fromtimestamp(self._wall()),
            transferred=transferred,
            in_use=self.in_use() if policy.idle_only else None,
            on_battery=None if policy.on_battery else self.on_battery(),
            metered=None if policy.metered else self.metered(),
            hottest=None if policy.hottest is None else self.hottest(),
        )

    def on_battery(self) -> bool | None:
        """Whether a battery feeds the machine; None without a battery (mice and the like have theirs, too)."""
        supplies = [
            {name: _line(folder / name) for name in ("type", "online", "status", "scope")}
            for folder in _folders(self._root / "sys/class/power_supply")
        ]
        if any(one["type"] in ("Mains", "USB") and one["online"] == "1" for one in supplies):
            return False
        batteries = [one for one in supplies if one["type"] == "Battery" and one["scope"] != "Device"]
        return any(one["status"] == "Discharging" for one in batteries) if batteries else None

    def hottest(self) -> float | None:
        """Degrees Celsius of the hottest thermal zone or processor sensor; None without any."""
        files = [folder / "temp" for folder in _folders(self._root / "sys/class/thermal", "thermal_zone*")]
        for folder in _folders(self._root / "sys/class/hwmon"):
            if _line(folder / "name") in _CORE_SENSORS:
                files += folder.glob("temp*_input")
        degrees = [int(text) / 1000 for file in files if re.fullmatch(r"-?\d{1,6}", text := _line(file))]
        return max(degrees, default=None)

    def metered(self) -> bool | None:
        """Whether NetworkManager takes the network for metered (or guesses so); None when it does not say."""
        said = self._asked(_METERED)
        number = re.fullmatch(r"u (\d)", said.strip()) if said else None
        if number:
            return {"1": True, "3": True, "2": False, "4": False}.get(number[1])
        said = self._asked(["nmcli", "-g", "GENERAL.METERED", "device", "show"])
        words = set(said.split()) if said else set()
        return True if "yes" in words else False if "no" in words else None

    def in_use(self) -> str | None:
        """By what somebody seems to use the machine; None when nobody does."""
        if self._touched_s_ago() < UNTOUCHED_S:
            return "a terminal, keyboard or mouse"
        if self._asked_number(_SESSIONS) and (self._asked(_IDLE) or "").strip() == "b false":
            return "a login session that is not idle"
        share = self.others_share()
        return f"other programs use {share:.0%} of its processors" if share and share > BUSY_SHARE else None

    def others_share(self) -> float | None:
        """What others than our jobs used of all processors, 0..1, over the last LOAD_S; None until that is known."""
        text = _text(self._root / "proc/stat")
        cpus = re.findall(r"^cpu\d+ ", text, re.MULTILINE)
        total = re.search(r"^cpu +(\d+) (\d+) (\d+) \d+ \d+ (\d+) (\d+)", text, re.MULTILINE)
        if not cpus or total is None:
            return None
        busy = sum(map(int, total.groups())) / self._ticks
        now = _Load(self._clock(), busy, self._own_cpu_s())
        self._loads = [*(one for one in self._loads if now.at - one.at <= 2 * LOAD_S), now]
        before = next((one for one in reversed(self._loads) if now.at - one.at >= LOAD_S), None)
        if before is None:
            return None
        others = (now.busy - before.busy) - max(0.0, now.ours - before.ours)
        return min(1.0, max(0.0, others / ((now.at - before.at) * len(cpus))))

    def _touched_s_ago(self) -> float:
        """Seconds since somebody typed at a terminal, or a keyboard or mouse interrupted."""
        touches = sum(_interrupts(_text(self._root / "proc/interrupts")))
        if self._touches is not None and touches != self._touches:
            self._touched_at = self._clock()
        self._touches = touches
        read_at = max(_access_times(self._root / "dev"), default=float("-inf"))
        return max(0.0, min(self._wall() - read_at, self._clock() - self._touched_at))

    def _asked_number(self, command: Sequence[str]) -> int:
        number = re.fullmatch(r"[a-z] (\d{1,6})", (self._asked(command) or "").strip())
        return int(number[1]) if number else 0

    def _asked(self, command: Sequence[str]) -> str | None:
        """What a program says, asked at most every ASK_AGAIN_S."""
        name, now = " ".join(command), self._clock()
        kept = self._answers.get(name)
        if kept is None or now - kept[0] >= ASK_AGAIN_S:
            kept = self._answers[name] = (now, self._ask(command))
        return kept[1]


def jobs_cpu_s(root: Path) -> float:
    """Processor seconds that jobs of all instances have used so far; 0 where their control group cannot be read."""
    groups = root / "sys/fs/cgroup"
    for folder in ("cpuacct", "cpu,cpuacct"):
        if (usage := _line(groups / folder / "dockercomp" / "cpuacct.usage")).isdigit():
            return int(usage) / 1e9
    for name in ("dockercomp", "dockercomp.slice"):
        used = re.search(r"^usage_usec (\d+)$", _text(groups / name / "cpu.stat"), re.MULTILINE)
        if used:
            return int(used[1]) / 1e6
    return 0.0


def _interrupts(text: str) -> Iterator[int]:
    """Counts of the lines of /proc/interrupts that belong to something a person touches."""
    for line in text.splitlines():
        if _INPUT.search(line):
            yield sum(
                int(word) for word in line.partition(":")[2].split() if word.isdigit() and len(word) < 19
            )


def _access_times(dev: Path) -> Iterator[float]:
    """When something was last typed at each terminal: the kernel keeps it as its access time, to 8 s."""
    for path in (*dev.glob("tty[0-9]*"), *dev.glob("ttyS[0-9]*"), *dev.glob("pts/[0-9]*")):
        try:
            yield path.stat().st_atime
        except OSError:
            continue


def _folders(parent: Path, pattern: str = "*") -> Iterable[Path]:
    return sorted(parent.glob(pattern))


def _line(path: Path) -> str:
    return _text(path).strip()


def _text(path: Path) -> str:
    """The text of a file of the kernel's; empty when it cannot be read (sensors may answer with an error)."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
