"""One run: start everything, let it work while things go wrong, put it right again, wait, check, stop everything."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pymongo.database import Database

from faults.checks import violations
from faults.crew import Crew
from faults.director import Director
from faults.evidence import Document, Evidence, read_evidence
from faults.ledger import Ledger
from faults.plan import make_plan
from faults.programs import CannotGoOn, processes_of
from faults.proxy import Proxy
from faults.report import Progress, say, summary
from faults.roster import FORGER, LATE, Member, make_roster, make_stranger
from faults.strangers import Forger, LateOne
from faults.workload import Scientist, Workload

TICK_S = 0.1
SETTLE_S = 90.0  #: longest wait for spools and verdicts once all tasks are complete
END_S = 20.0  #: longest a program takes to end after SIGTERM


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for."""

    seed: int
    seconds: float  #: of faults
    chunks: int  #: at least
    clients: int
    drain_s: float  #: longest wait for the end of the work once nothing goes wrong any more
    clock_s: int  #: by how much some clocks are wrong; 0: none is


class Run:
    """Use `go` once, from the main thread."""

    def __init__(self, options: Options, folder: Path, mongod: Path) -> None:
        self.options, self.folder = options, folder
        self.ledger = Ledger()
        clocks = (options.clock_s, -options.clock_s) * 2
        roster = make_roster(options.clients, clocks_s=clocks)
        self.crew = Crew(folder, mongod, roster, self.ledger, seed=options.seed, clock_s=options.clock_s)
        self.director = Director(self.crew, make_plan(options.seed, options.seconds, roster))
        self.progress = Progress(self.ledger, self.director)
        self.stopping = threading.Event()
        self.evidence: Evidence | None = None
        self.work: Workload

    def go(self) -> list[str]:
        """What is wrong at the end, one sentence each; nothing runs any longer then."""
        try:
            self.crew.start()
            say(f"{self.progress.elapsed_s:5.0f} s  everything runs: {len(self.crew.programs)} programs")
            found = self._work()
            return found + self._end_servers()
        finally:
            self.stopping.set()
            self._clear_up()

    def _work(self) -> list[str]:
        scientist = Scientist(self.crew.ports, self._key("scientist"), self.stopping)
        options, program = self.options, self.crew.program
        self.work = Workload(scientist, self.ledger, program, seed=options.seed, chunks=options.chunks)
        late, forger = self._strangers()
        self.work.start()
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < self.options.seconds:
            self.director.tick(elapsed)
            self._tick()
        self._put_right()
        late.stop()
        forger.stop()
        finished = self._until(self.work.done, self.options.drain_s)
        found = [] if finished else [f"the work is not done in time: {self.work.state()}"]
        found += [f"{one.member.name}: {one.failure}" for one in (late, forger) if one.failure]
        found += [] if forger.tried and late.delivered else ["nothing was forged, or nothing came late"]
        return found + self._check(scientist, {late.container: late.member, forger.container: forger.member})

    def _put_right(self) -> None:
        self.director.finish()
        for proxy in self.crew.proxies:
            proxy.active = False
        self.work.enough()
        say(f"{self.progress.elapsed_s:5.0f} s  no more faults; the rest of the work is done in peace")

    def _check(self, scientist: Scientist, strangers: dict[str, Member]) -> list[str]:
        with self.crew.set.database() as database:
            settled = lambda: not self.crew.undelivered() and not _unsettled(database)  # noqa: E731
            found = [] if self._until(settled, SETTLE_S) else ["attempts wait to be delivered or settled"]
            for client in self.crew.clients:
                code = client.end(within_s=END_S)
                found += [] if code == 0 else [f"{client.name} ended with {code} after SIGTERM"]
            say(f"{self.progress.elapsed_s:5.0f} s  checking")
            members = {**self.crew.members(), **strangers}
            self.evidence = read_evidence(database, self.work.given, self.ledger, members, scientist)
        return found + violations(self.evidence) + self._set_aside()

    def _set_aside(self) -> list[str]:
        """Results that a client put away as refused or broken."""
        found = [
            path for where in ("refused", "broken") for path in self.folder.glob(f"client-*/spool/{where}/*")
        ]
        return [f"{path.relative_to(self.folder)}: {path.read_text()[:500]}" for path in found]

    def _end_servers(self) -> list[str]:
        found = []
        for program in (*self.crew.housekeepers, *self.crew.servers):
            code = program.end(within_s=END_S)
            found += [] if code == 0 else [f"{program.name} ended with {code} after SIGTERM"]
        for program in self.crew.programs:
            found += [f"{one.program} ended by itself ({one.code}): {one.words}" for one in program.deaths]
        self.crew.stop()
        found += [f"process {pid} was left behind: {_command(pid)}" for pid in processes_of(self.folder)]
        return found

    def _clear_up(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # once is enough
        self.crew.stop()
        for pid in processes_of(self.folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _tick(self) -> None:
        for program in self.crew.programs:
            program.look()
        if self.work.failure is not None:
            raise CannotGoOn(f"the scientist: {self.work.failure!r}") from self.work.failure
        self.progress.show(self.work)
        time.sleep(TICK_S)

    def _until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._tick()
        return True

    def _strangers(self) -> tuple[LateOne, Forger]:
        number, seed = self.options.clients, self.options.seed
        proxies = [Proxy(number + n, self.crew.ports, self.ledger, seed=seed, active=False) for n in (0, 1)]
        late = LateOne(make_stranger(number, LATE), self._key(LATE), proxies[0])
        forger = Forger(
            make_stranger(number + 1, FORGER), self._key(FORGER), proxies[1], self.ledger, seed=seed
        )
        late.start()
        forger.start()
        return late, forger

    def _key(self, account: str) -> str:
        return self.crew.key(account).read_text().strip()

    def summary(self) -> str:
        """What happened, in counts."""
        mischief: Counter[str] = Counter()
        for proxy in self.crew.proxies:
            mischief.update(proxy.done)
        stored = self.evidence.counts() if self.evidence else {}
        stored["by hand"] = self.work.helped
        stored["starts without a database"] = Counter(
            {one.name: one.excused for one in self.crew.programs if one.excused}
        )
        return summary(self.director.done, mischief, self.ledger, stored)


def _unsettled(database: Database[Document]) -> int:
    return sum(database[name].count_documents({"verdict": "new"}) for name in ("results", "errors"))


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return "gone by now"
