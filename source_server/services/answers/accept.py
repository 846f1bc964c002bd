"""`/add`: attempts are stored for good first; then they count for their chunk; then each gets its verdict.

Every step can be repeated, by the same request sent again or by housekeeping after a crash between any two of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from source_server.domain import tickets
from source_server.domain.attempt import BAD_DATA, Attempt, Origin, Outcome, Verdict, stored_id
from source_server.domain.chunk import Chunk
from source_server.domain.container import Container
from source_server.domain.eligibility import platform
from source_server.domain.refusal import NotAllowed, NotFound, Refusal, Unavailable
from source_server.domain.task import Task
from source_server.domain.timing import computed_for
from source_server.domain.trust import Standing, is_established
from source_server.services.answers.answer_files import AnswerFiles
from source_server.services.answers.check_attempts import CheckAttempts
from source_server.services.answers.forgive import Forgive
from source_server.services.answers.keep_errors import KeepErrors
from source_server.services.answers.known_tasks import KnownTasks
from source_server.services.answers.reputation import Reputation
from source_server.services.answers.settle_errors import SettleErrors
from source_server.services.answers.settle_results import SettleResults
from source_server.services.answers.spent import note_spent
from source_server.services.tasks.complete import Complete
from source_server.stores.attempts import Stored, is_answer, result_document
from source_server.stores.database import Stores
from source_server.stores.gate import Document

log = logging.getLogger(__name__)

#: How old a stored attempt without verdict is before housekeeping takes it up.
SETTLE_AFTER = timedelta(seconds=5)
SETTLE_BATCH = 500

Finished = Callable[[str, float, bool], None]  #: told task, seconds, and whether an attempt came to an answer


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What became of one attempt: stored (`refusal` is None), or refused and why."""

    chunk: str
    refusal: Refusal | None = None


class Accept:
    """Stores attempts and settles what follows from them."""

    def __init__(
        self,
        stores: Stores,
        *,
        secret: bytes,
        known: KnownTasks,
        settle_results: SettleResults,
        settle_errors: SettleErrors,
        reputation: Reputation,
        forgive: Forgive,
        complete: Complete,
        finished: Finished = lambda task, seconds, ok: None,
    ) -> None:
        self._stores = stores
        self._secret = secret
        self._check = CheckAttempts(stores)
        self._keep_errors = KeepErrors(stores)
        self._answer_files = AnswerFiles(stores)
        self._known = known
        self._settle_results = settle_results
        self._settle_errors = settle_errors
        self._reputation = reputation
        self._forgive = forgive
        self._complete = complete
        self._finished = finished

    def __call__(self, container: Container, attempts: Sequence[Attempt]) -> list[Delivered]:
        """One answer for each attempt, in order; raises Unavailable when the outcome is not known."""
        chunks = self._read(attempts)
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
        waiting = self._stores.results.waiting(before=now - SETTLE_AFTER, limit=SETTLE_BATCH)
        try:
            self._settle([*results, *waiting], errors, now)
        except Unavailable:
            raise
        except Exception:
            log.exception("attempts could not be settled together, now one by one")
            self._settle_each([*results, *waiting], errors, now)
        return len(results) + len(errors)

    def _settle_each(self, results: Sequence[Stored], errors: Sequence[Stored], now: datetime) -> None:
        """One that cannot be settled must not hold the others up."""
        alone = [([one], list[Stored]()) for one in results] + [(list[Stored](), [one]) for one in errors]
        for answers, failures in alone:
            try:
                self._settle(answers, failures, now)
            except Exception:
                [one] = answers + failures
                log.exception("attempt cannot be settled", extra={"attempt": one.id, "chunk": one.chunk})

    def _read(self, attempts: Sequence[Attempt]) -> dict[str, Chunk]:
        chunks = self._stores.chunks.read({one.chunk for one in attempts})
        tasks = self._known.read({one.task for one in chunks.values()})
        questions = [one.id for one in chunks.values() if one.task in tasks and tasks[one.task].validates]
        return chunks | (self._stores.chunks.read(questions, with_input=True) if questions else {})

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
        if attempt.files and attempt.outcome is Outcome.OK:
            chunk = chunks[attempt.chunk]
            return self._answer_files.refusal(container, attempt, self._known.read([chunk.task])[chunk.task])
        return None

    def _store(
        self, container: Container, attempts: Sequence[Attempt], chunks: dict[str, Chunk]
    ) -> dict[str, Refusal]:
        """Store and settle; the refusals of those that were one different answer too many, or too much work, by id."""
        tasks = self._known.read({one.task for one in chunks.values()})
        kept, refused = self._check(container.id, attempts, chunks, tasks)
        now = self._stores.clock.now()
        origin = Origin(container=container.id, host=container.host.id, account=container.account)
        established = self._is_established(container, tasks, now)
        results = [
            self._result(one, origin, container, chunks[one.chunk], tasks, now, established)
            for one in kept
            if is_answer(one)
        ]
        failed = [one for one in kept if not is_answer(one)]
        errors = self._keep_errors.documents(failed, origin, chunks, now)
        note_spent([*results, *errors], chunks, tasks, now)
        new = self._put(results, errors, now)
        # What was sent before has been counted before.
        self._note(origin, [one for one in kept if stored_id(one) in new], chunks, now)
        return refused

    def _result(
        self,
        attempt: Attempt,
        origin: Origin,
        container: Container,
        chunk: Chunk,
        tasks: Mapping[str, Task],
        now: datetime,
        established: bool,
    ) -> Document:
        rule = tasks[chunk.task].validation
        return result_document(
            attempt,
            origin,
            chunk,
            now,
            platform=platform(rule, container.labels),
            established=established,
            unchecked=not rule.checks,
            self_test=container.self_test,
        )

    def _is_established(self, container: Container, tasks: Mapping[str, Task], now: datetime) -> bool:
        if not any(task.validation.checks for task in tasks.values()):
            return False
        standing = self._stores.accounts.standing([container.account])
        return is_established(standing.get(container.account, Standing()), now)

    def _put(self, results: list[Document], errors: list[Document], now: datetime) -> set[str]:
        new = self._stores.results.put(results) if results else set()
        new |= self._stores.errors.put(errors) if errors else set()
        # From here on the attempts are safe with a majority: whatever fails now, housekeeping finishes.
        try:
            self._settle(
                self._stores.results.of([one["_id"] for one in results]) if results else [],
                self._stores.errors.of([one["_id"] for one in errors]) if errors else [],
                now,
            )
        except Unavailable as error:
            log.warning("verdicts left to housekeeping", extra={"reason": str(error)})
        except Exception:
            # A bug of ours is no reason for a client to send for ever what is safe already.
            log.exception("verdicts left to housekeeping")
        return new

    def _settle(self, results: Sequence[Stored], errors: Sequence[Stored], now: datetime) -> None:
        undecided = (Verdict.NEW, Verdict.CANDIDATE)
        self._settle_results([one for one in results if one.verdict in undecided], now)
        self._settle_errors([one for one in errors if one.verdict is Verdict.NEW], now)
        touched = {one.task for one in (*results, *errors)}
        validated = {one.validates for one in self._known.read(touched).values() if one.validates}
        for task in sorted(touched | validated):
            self._complete.if_done(task)

    def _note(
        self, origin: Origin, attempts: Sequence[Attempt], chunks: Mapping[str, Chunk], now: datetime
    ) -> None:
        """Tell those who keep figures; losing one is no harm, and fails no delivery."""
        failed = [one for one in attempts if not is_answer(one)]
        bad = [one for one in failed if one.exit_code == BAD_DATA]
        ids = [stored_id(one) for one in bad] if len(bad) == len(failed) else []
        answers = len(attempts) - len(failed)
        try:
            self._reputation.delivered(origin, answers=answers, failures=len(failed), bad_data=ids)
            # Settled before they cost anything: they may be confirmed already.
            self._forgive({one.chunk for one in bad})
            for one in attempts:
                self._note_duration(origin, one, chunks[one.chunk], now)
        except Unavailable as error:
            log.warning("figures not kept", extra={"reason": str(error)})

    def _note_duration(self, origin: Origin, attempt: Attempt, chunk: Chunk, now: datetime) -> None:
        task = self._known.read([chunk.task])[chunk.task]
        for held in chunk.leases:
            if held.container == origin.container and held.token == attempt.token:
                seconds = computed_for(
                    held.since, held.started, held.until, now, timeout_s=task.job.timeout_s
                )
                self._finished(task.id, seconds, is_answer(attempt))
