"""What verdicts and failures do to the record of a host and of an account."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from source_server.domain.attempt import Origin, Verdict
from source_server.domain.chunk import Chunk, Failure
from source_server.domain.task import Task
from source_server.domain.trust import CANARIES, must_quarantine
from source_server.domain.validation import Distinct
from source_server.services.containers.live import LiveContainers
from source_server.services.containers.rates import Rates
from source_server.stores.attempts import Stored
from source_server.stores.database import Stores

log = logging.getLogger(__name__)

Judged = tuple[Stored, Verdict]


class Reputation:
    """Keeps the records; each write is a hint, and may be lost."""

    def __init__(self, stores: Stores, live: LiveContainers) -> None:
        self._stores = stores
        self._live = live
        self._rates = Rates(stores)

    def delivered(self, origin: Origin, *, answers: int, failures: int, bad_data: Sequence[str] = ()) -> None:
        """Attempts were stored: more may be in flight after answers, half as many after a failure.

        `bad_data`: the ids of the failures, where each of them says that the data is bad; see `forgive`.
        """
        slots = self._live.now().slots(origin.account, origin.host)
        if answers:
            self._stores.hosts.succeeded(origin.account, origin.host, answers, slots)
        if failures:
            self._stores.hosts.halve(origin.account, origin.host, slots, bad_data)

    def forgive(self, failures: Iterable[Failure]) -> None:
        """These were right: their hosts may hold again what it cost them, each once however often this is said."""
        errors: dict[tuple[str, str], list[str]] = {}
        for one in failures:
            errors.setdefault((one.account, one.host), []).append(one.error)
        for (account, host), theirs in sorted(errors.items()):
            self._stores.hosts.restore(account, host, theirs, self._live.now().slots(account, host))

    def came_back(self, account: str, host: str) -> None:
        """Leases came back uncomputed, or ran out: half as many may be in flight there."""
        self._stores.hosts.halve(account, host, self._live.now().slots(account, host))

    def judged(
        self,
        judged: Sequence[Judged],
        chunks: Mapping[str, Chunk],
        tasks: Mapping[str, Task],
        now: datetime,
    ) -> None:
        """Verdicts were written: agreement builds trust, disagreement and blame end it."""
        doubted: set[tuple[str, str]] = set()
        right = (Verdict.ACCEPTED, Verdict.AGREED)
        self._rates.accepted(one.origin.container for one, verdict in judged if verdict in right)
        for result, verdict in judged:
            host, chunk = (result.origin.account, result.origin.host), chunks.get(result.chunk)
            if verdict in right and chunk is not None and _another_says_so(result, verdict, chunk, judged):
                self._agreed(result, now)
            elif verdict is Verdict.DISAGREED and not _compares_programs(tasks[result.task]):
                self._stores.hosts.disagreed(*host)
                self._stores.accounts.disagreed(result.origin.account)
                doubted.add(host)
            elif result.canary and tasks[result.task].validator is None:
                self._stores.hosts.canary_failed(*host)
            if verdict is Verdict.ACCEPTED and chunk is not None:
                doubted |= self._blame(chunk, host)
        self._doubt(sorted(doubted), now)

    def canary_failed(self, origins: Sequence[Origin]) -> None:
        """A canary ended in an error: the host has to begin anew."""
        for origin in origins:
            self._stores.hosts.canary_failed(origin.account, origin.host)

    def mark_suspects(self) -> int:
        """Housekeeping: mark what hosts that lost our trust answered unchecked; how many results."""
        marked = 0
        for account, host, since in self._stores.hosts.with_suspects():
            marked += self._stores.results.mark_suspect(account, host, since)
            self._stores.hosts.suspects_marked(account, host, since)
        return marked

    def _agreed(self, result: Stored, now: datetime) -> None:
        account, host = result.origin.account, result.origin.host
        self._stores.hosts.agreed(account, host, now, canary=result.canary)
        self._stores.accounts.agreed(account, now)
        if result.canary:
            record = self._stores.hosts.find(account, host)
            if record is not None and record.quarantined is not None and record.passed >= CANARIES:
                self._stores.hosts.clear(account, host)
                self._live.forget()
                log.info("host cleared by its canaries", extra={"host": host})

    def _blame(self, chunk: Chunk, solver: tuple[str, str]) -> set[tuple[str, str]]:
        failed = {(failure.account, failure.host) for failure in chunk.failed} - {solver}
        for account, host in failed:
            self._stores.hosts.blamed(account, host)
        return failed

    def _doubt(self, hosts: Sequence[tuple[str, str]], now: datetime) -> None:
        for record in self._stores.hosts.read(hosts).values() if hosts else ():
            why = must_quarantine(record)
            if why is not None and self._stores.hosts.quarantine(record, now, why):
                self._live.forget()
                log.warning("host quarantined", extra={"host": record.host, "why": why})


def _compares_programs(task: Task) -> bool:
    """Whether its answers come from different variants: then a wrong one is the program's fault, not its host's."""
    return task.validation.distinct is Distinct.VARIANT


def _another_says_so(result: Stored, verdict: Verdict, chunk: Chunk, judged: Sequence[Judged]) -> bool:
    """Whether somebody of another account came to this answer: nobody becomes trusted by agreeing with himself."""
    mine = result.origin.account
    if verdict is Verdict.AGREED:
        return any(one.result == chunk.result and one.account != mine for one in chunk.candidates)
    return any(
        its is Verdict.AGREED and one.chunk == result.chunk and one.origin.account != mine
        for one, its in judged
    )
