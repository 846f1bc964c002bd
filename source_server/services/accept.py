"""`/add`: attempts are stored for good first; then the chunk points at one of them; then each gets its verdict.

Every step can be repeated, by the same request sent again or by housekeeping after a crash between any two of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from source_server.domain import chunk as rules
from source_server.domain import tickets
from source_server.domain.attempt import Attempt, Origin, Outcome, Verdict, stored_id
from source_server.domain.chunk import Chunk, ChunkState, Failure, WrongState
from source_server.domain.container import Container
from source_server.domain.refusal import Conflict, NotAllowed, NotFound, Refusal, Unavailable
from source_server.services.complete import Complete
from source_server.stores.attempts import (
    DIFFERENT_ERRORS,
    DIFFERENT_RESULTS,
    Stored,
    error_document,
    is_answer,
    result_document,
)
from source_server.stores.database import Stores
from source_server.stores.gate import Document

log = logging.getLogger(__name__)

TRIES = 4  #: times a contended chunk is read anew before housekeeping has to settle it
SETTLE_AFTER = timedelta(
    seconds=5
)  #: how old a stored attempt without verdict is before housekeeping takes it up
SETTLE_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What became of one attempt: stored (`refusal` is None), or refused and why."""

    chunk: str
    refusal: Refusal | None = None


class Accept:
    """Stores attempts and settles what follows from them."""

    def __init__(self, stores: Stores, *, secret: bytes, complete: Complete) -> None:
        self._stores = stores
        self._secret = secret
        self._complete = complete

    def __call__(self, container: Container, attempts: Sequence[Attempt]) -> list[Delivered]:
        """One answer for each attempt, in order; raises Unavailable when the outcome is not known."""
        chunks = self._stores.chunks.read({one.chunk for one in attempts})
        refusals = [self._refusal(container, one, chunks) for one in attempts]
        sound = [one for one, refusal in zip(attempts, refusals, strict=True) if refusal is None]
        too_many = self._store(container, sound, chunks) if sound else {}
        return [
            Delivered(chunk=one.chunk, refusal=refusal or too_many.get(stored_id(one)))
            for one, refusal in zip(attempts, refusals, strict=True)
        ]

    def settle(self, now: datetime) -> int:
        """Housekeeping: finish what a crash, a failover or a quarrel left without verdict; how many were looked at."""
        results = self._stores.results.unsettled(before=now - SETTLE_AFTER, limit=SETTLE_BATCH)
        errors = self._stores.errors.unsettled(before=now - SETTLE_AFTER, limit=SETTLE_BATCH)
        self._settle(results, errors, now)
        return len(results) + len(errors)

    def _refusal(self, container: Container, attempt: Attempt, chunks: dict[str, Chunk]) -> Refusal | None:
        if not tickets.fits(
            attempt.ticket,
            self._secret,
            chunk=attempt.chunk,
            run=attempt.run,
            container=container.id,
            token=attempt.token,
        ):
            return NotAllowed("The ticket does not fit this chunk, run, token and container.")
        if attempt.chunk not in chunks:
            return NotFound("There is no such chunk any more.")
        return None

    def _store(
        self, container: Container, attempts: Sequence[Attempt], chunks: dict[str, Chunk]
    ) -> dict[str, Refusal]:
        """Store and settle; the refusals of those that were one different answer too many, by stored id."""
        origin = Origin(container=container.id, host=container.host.id, account=container.account)
        now = self._stores.clock.now()
        results: list[Document] = []
        errors: list[Document] = []
        refused: dict[str, Refusal] = {}
        named = {one.chunk for one in attempts}
        given = self._stores.results.given(named, container.id)
        failed = self._stores.errors.given(named, container.id)
        for one in attempts:
            chunk = chunks[one.chunk]
            attempt = _with_lines_checked(one, chunk)
            answer = is_answer(attempt)
            before = (given if answer else failed).setdefault(one.chunk, set())
            most = DIFFERENT_RESULTS if answer else DIFFERENT_ERRORS
            if stored_id(attempt) not in before and len(before) >= most:
                what = "answers" if answer else "failures"
                refused[stored_id(one)] = Conflict(
                    f"This container has already given {most} different {what} for the chunk."
                )
                continue
            before.add(stored_id(attempt))
            if answer:
                results.append(result_document(attempt, origin, chunk, now))
            else:
                errors.append(error_document(attempt, origin, chunk, now))
        self._put(results, errors, now)
        return refused

    def _put(self, results: list[Document], errors: list[Document], now: datetime) -> None:
        if results:
            self._stores.results.put(results)
        if errors:
            self._stores.errors.put(errors)
        # From here on the attempts are safe with a majority: whatever fails now, housekeeping finishes.
        try:
            self._settle(
                self._stores.results.of([one["_id"] for one in results]) if results else [],
                self._stores.errors.of([one["_id"] for one in errors]) if errors else [],
                now,
            )
        except Unavailable as error:
            log.warning("verdicts left to housekeeping", extra={"reason": str(error)})

    def _settle(self, results: Sequence[Stored], errors: Sequence[Stored], now: datetime) -> None:
        self._settle_results([one for one in results if one.verdict is Verdict.NEW])
        for error in errors:
            if error.verdict is Verdict.NEW:
                self._settle_error(error, now)
        for task in sorted({one.task for one in (*results, *errors)}):
            self._complete.if_done(task)

    def _settle_results(self, results: Sequence[Stored]) -> None:
        if not results:
            return
        ids = {one.chunk for one in results}
        for _ in range(TRIES):
            changes = _pointing(results, self._stores.chunks.read(ids))
            if len(self._stores.chunks.apply(changes)) == len(changes):
                break
        # Verdicts follow only from what a majority has: never from the primary's latest word.
        decided = self._stores.chunks.read(ids, majority=True)
        verdicts: dict[Verdict, list[Stored]] = {}
        for one in results:
            verdict = _verdict(one, decided.get(one.chunk))
            if verdict is not None:
                verdicts.setdefault(verdict, []).append(one)
        for verdict, judged in verdicts.items():
            self._stores.results.settle([one.id for one in judged], verdict)
        self._drop_equal_payloads(verdicts.get(Verdict.DUPLICATE, ()), decided)

    def _drop_equal_payloads(self, duplicates: Sequence[Stored], decided: dict[str, Chunk]) -> None:
        accepted_ids = [decided[one.chunk].result for one in duplicates]
        accepted = {
            one.id: one.digest
            for one in self._stores.results.of([one for one in accepted_ids if one is not None])
        }
        equal = [one.id for one in duplicates if accepted.get(decided[one.chunk].result or "") == one.digest]
        self._stores.results.drop_payload(equal)

    def _settle_error(self, error: Stored, now: datetime) -> None:
        failure = Failure(
            host=error.origin.host, account=error.origin.account, signature=error.signature or ""
        )
        for _ in range(TRIES):
            chunk = self._stores.chunks.read([error.chunk]).get(error.chunk)
            if chunk is None or chunk.run != error.run:
                return self._stores.errors.settle([error.id], Verdict.STALE)
            try:
                failed = rules.fail(
                    chunk, container=error.origin.container, token=error.token, failure=failure, now=now
                )
            except WrongState:
                return self._stores.errors.settle([error.id], Verdict.STALE)
            if self._stores.chunks.apply([(chunk, failed)]):
                return self._stores.errors.settle([error.id], Verdict.COUNTED)
        return None


def _with_lines_checked(attempt: Attempt, chunk: Chunk) -> Attempt:
    """An answer with a wrong number of lines is an error of that attempt, whatever the client says."""
    if attempt.outcome is not Outcome.OK or chunk.rows is None:
        return attempt
    lines = attempt.stdout.count("\n") + (not attempt.stdout.endswith("\n") and attempt.stdout != "")
    if lines == chunk.rows:
        return attempt
    sentence = f"The answer has {lines} lines for {chunk.rows} rows."
    return replace(attempt, outcome=Outcome.FAILED, stderr_tail=f"{attempt.stderr_tail}\n{sentence}".lstrip())


def _pointing(results: Iterable[Stored], chunks: dict[str, Chunk]) -> list[tuple[Chunk, Chunk]]:
    """(as read, as wanted) for each chunk that may take one of these results; the first one has it."""
    changes: dict[str, tuple[Chunk, Chunk]] = {}
    for one in results:
        chunk = chunks.get(one.chunk)
        if chunk is None or chunk.run != one.run or chunk.id in changes:
            continue
        try:
            changes[chunk.id] = (chunk, rules.accept(chunk, one.id))
        except WrongState:
            continue
    return list(changes.values())


def _verdict(result: Stored, chunk: Chunk | None) -> Verdict | None:
    """What a majority's view of the chunk says about a result; None: not decided yet."""
    if chunk is None or chunk.state is ChunkState.CANCELLED:
        return Verdict.CANCELLED
    if chunk.run != result.run:
        return Verdict.DUPLICATE
    if chunk.result is None:
        return None
    return Verdict.ACCEPTED if chunk.result == result.id else Verdict.DUPLICATE
