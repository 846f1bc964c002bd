"""Carries the plan out. Each fault is a generator: it does its harm, yields how long to wait, and puts it right."""

from __future__ import annotations

import heapq
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from faults.crew import Crew
from faults.plan import Fault, survivors
from faults.programs import Program

LAG_S = 2.5  #: how long nothing of the primary's writes is replicated before it is killed
PATIENCE_S = 20.0  #: how long a host may go on misbehaving until it has something to do

Steps = Iterator[float]


class Director:
    """Call `tick` often, from the main thread; `finish` puts right whatever is wrong still."""

    def __init__(self, crew: Crew, plan: Sequence[Fault]) -> None:
        self.done: Counter[str] = Counter()
        self._crew, self._plan = crew, list(plan)
        self._next = 0
        self._waiting: list[tuple[float, int, Steps]] = []
        self._handlers: dict[str, Callable[[Fault], Steps]] = {
            "pause client beyond its lease": self._pause,
            "pause server beyond a lease": self._pause,
            "pause housekeeper beyond a lease": self._pause,
            "pause client": self._pause,
            "pause server": self._pause,
            "pause housekeeper": self._pause,
            "kill client": self._kill,
            "kill housekeeper": self._kill,
            "kill server": self._kill_server,
            "kill primary": self._kill_primary,
            "kill lagging primary": self._kill_lagging_primary,
            "cut client off": self._cut_off,
            "failing host": self._misbehave,
            "crashing host": self._misbehave,
            "hanging host": self._misbehave,
            "only one host": self._leave_only,
            "only one account": self._leave_only,
        }

    @property
    def planned(self) -> int:
        """How many faults there are to be."""
        return len(self._plan)

    def tick(self, elapsed_s: float) -> None:
        """Begin and end what is due."""
        while self._next < len(self._plan) and self._plan[self._next].at_s <= elapsed_s:
            fault = self._plan[self._next]
            self._next += 1
            self.done[fault.kind] += 1
            self._go_on(elapsed_s, self._handlers[fault.kind](fault))
        while self._waiting and self._waiting[0][0] <= elapsed_s:
            self._go_on(elapsed_s, heapq.heappop(self._waiting)[2])

    def finish(self) -> None:
        """No further faults; every one that lasts ends now."""
        self._next = len(self._plan)
        while self._waiting:
            self._go_on(0.0, heapq.heappop(self._waiting)[2])

    def _go_on(self, elapsed_s: float, steps: Steps) -> None:
        with suppress(StopIteration):
            # The number tells faults that are due at one instant apart: generators have no order.
            heapq.heappush(self._waiting, (elapsed_s + next(steps), id(steps), steps))

    def _program(self, fault: Fault) -> Program:
        crew = self._crew
        for word, programs in (
            ("client", crew.clients),
            ("server", crew.servers),
            ("housekeeper", crew.housekeepers),
        ):
            if word in fault.kind:
                return programs[fault.target]
        raise LookupError(fault.kind)

    def _pause(self, fault: Fault) -> Steps:
        program = self._program(fault)
        program.signal_all(signal.SIGSTOP)
        yield fault.lasts_s
        program.signal_all(signal.SIGCONT)

    def _kill(self, fault: Fault) -> Steps:
        program = self._program(fault)
        program.kill()
        yield fault.lasts_s
        program.start()

    def _kill_server(self, fault: Fault) -> Steps:
        workers = _children(self._program(fault).pid)
        if fault.variant == "worker" and workers:
            os.kill(workers[0], signal.SIGKILL)  # gunicorn starts another one
            return
        yield from self._kill(fault)

    def _kill_primary(self, fault: Fault) -> Steps:
        primary = self._crew.set.find_primary()
        if primary is None:
            return
        self._crew.set.members[primary].kill()
        yield fault.lasts_s
        self._crew.set.members[primary].start()

    def _kill_lagging_primary(self, fault: Fault) -> Steps:
        """What it acknowledged alone, it takes to the grave."""
        primary = self._crew.set.find_primary()
        if primary is None:
            return
        self._crew.set.hold_replication(held=True, besides=primary)
        yield LAG_S
        self._crew.set.members[primary].kill()
        self._crew.set.hold_replication(held=False, besides=primary)
        yield fault.lasts_s
        self._crew.set.members[primary].start()

    def _cut_off(self, fault: Fault) -> Steps:
        proxy = self._crew.proxies[fault.target]
        proxy.closed = True
        yield fault.lasts_s
        proxy.closed = False

    def _misbehave(self, fault: Fault) -> Steps:
        """At least until it has failed once: the host may have nothing to do at first."""
        crew, rule = self._crew, fault.kind.split()[0]
        clients = {one.number for one in crew.roster if one.host == fault.target}
        before = crew.ledger.failures(clients)
        crew.rule(fault.target, rule)
        yield fault.lasts_s
        for _ in range(int(PATIENCE_S)):
            if crew.ledger.failures(clients) > before or crew.rule_of(fault.target) != rule:
                break
            yield 1.0
        if crew.rule_of(fault.target) == rule:
            crew.rule(fault.target, "honest")

    def _leave_only(self, fault: Fault) -> Steps:
        crew = self._crew
        left = survivors(fault.kind, fault.target, crew.roster)
        away = [crew.clients[one.number] for one in crew.roster if one not in left]
        # Those that are paused longer than this lasts stay as they are.
        away = [client for client in away if not _is_stopped(client.pid)]
        for client in away:
            if fault.variant == "killed":
                client.kill()
            else:
                client.signal_all(signal.SIGSTOP)
        yield fault.lasts_s
        for client in away:
            client.signal_all(signal.SIGCONT)
            client.start()


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False
