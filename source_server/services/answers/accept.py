"""`/add`: attempts are stored for good first; then they count for their chunk; then each gets its verdict.

Every step can be repeated, by the same request sent again or by housekeeping after a crash between any two of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from source_server.domain import tickets
from source_server.domain.attempt import Attempt, Origin, Outcome, Verdict, digest, stored_id
from source_server.domain.chunk import Chunk
from source_server.domain.container import Container
from source_server.domain.eligibility import platform
from source_server.domain.job import Job
from source_server.domain.refusal import Conflict, NotAllowed, NotFound, Refusal, Unavailable
from source_server.domain.result_type import MOST_WORK, effort, misfit
from source_server.domain.task import Task
from source_server.domain.timing import computed_for
from source_server.domain.trust import Standing, is_established
from source_server.services.answers.answer_files import AnswerFiles, wrong_files
from source_server.services.answers.keep_errors import KeepErrors
from source_server.services.answers.known_tasks import KnownTasks
from source_server.services.answers.reputation import Reputation
from source_server.services.answers.settle_errors import SettleErrors
from source_server.services.answers.settle_results import SettleResults
from source_server.services.answers.spent import note_spent
from source_server.services.tasks.complete import Complete
from source_server.services.tasks.validate import asked_about, read_groups
from source_server.stores.attempts import (
    DIFFERENT_ERRORS,
    DIFFERENT_RESULTS,
    Stored,
    is_answer,
    result_document,
)
from source_server.stores.database import Stores
from source_server.stores.gate import Document

log = logging.getLogger(__name__)

SETTLE_AFTER = timedelta(
    seconds=5
)  #: how old a stored attempt without verdict is before housekeeping takes it up
SETTLE_BATCH = 500
MOST_CHECKED = 2 * MOST_WORK  #: work that a request's answers may make when they are held to schemas

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
        complete: Complete,
        finished: Finished = lambda task, seconds, ok: None,
    ) -> None:
        self._stores = stores
        self._secret = secret
        self._keep_errors = KeepErrors(stores)
        self._answer_files = AnswerFiles(stores)
        self._known = known
        self._settle_results = settle_results
        self._settle_errors = settle_errors
        self._reputation = reputation
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
        kept, refused = self._look_at(container, attempts, chunks, tasks)
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

    def _look_at(
        self,
        container: Container,
        attempts: Sequence[Attempt],
        chunks: Mapping[str, Chunk],
        tasks: Mapping[str, Task],
    ) -> tuple[list[Attempt], dict[str, Refusal]]:
        """Those that are to be stored, as checked, each once; and why others are not, by their ids as sent.

        At most so many different answers of one container in a run, and failures a lease. What takes long to check is
        checked only where it may count, and not more of it in a request than a moment's work.
        """
        named = {one.chunk for one in attempts}
        given = self._stores.results.given(named, container.id)
        failed = self._stores.errors.given(named, container.id)
        kept: list[Attempt] = []
        refused: dict[str, Refusal] = {}
        spent = 0
        for id_, sent in {stored_id(one): one for one in attempts}.items():
            chunk, run = chunks[sent.chunk], (sent.chunk, sent.run)
            task = tasks.get(chunk.task)
            answers = given.setdefault(run, set())
            failures = failed.setdefault((*run, sent.token), set())
            known = sent.outcome is Outcome.OK and digest(sent) in answers  # checked when it came before
            work = 0 if known else _effort(sent, task)
            if work and (len(answers) >= DIFFERENT_RESULTS or len(failures) >= DIFFERENT_ERRORS):
                refused[id_] = _one_too_many(answer=len(answers) >= DIFFERENT_RESULTS)
                continue
            if work and spent and spent + work > MOST_CHECKED:
                refused[id_] = Unavailable("Checking the other answers took long: send this one again.")
                continue
            spent += work
            attempt = sent if known else _checked(sent, chunk, task)
            before, most = answers, DIFFERENT_RESULTS
            if not is_answer(attempt):
                before, most = failures, DIFFERENT_ERRORS
            # The same answer again is no different one, though another lease brought it.
            if digest(attempt) not in before and len(before) >= most:
                refused[id_] = _one_too_many(answer=is_answer(attempt))
            else:
                before.add(digest(attempt))
                kept.append(attempt)
        return kept, refused

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
        answers = sum(is_answer(one) for one in attempts)
        try:
            self._reputation.delivered(origin, answers=answers, failures=len(attempts) - answers)
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


def _one_too_many(*, answer: bool) -> Refusal:
    what = f"{DIFFERENT_RESULTS} different answers" if answer else f"{DIFFERENT_ERRORS} different failures"
    return Conflict(f"This container has already given {what} for the chunk.")


def _effort(attempt: Attempt, task: Task | None) -> int:
    """What checking takes that depends on a scientist's schema."""
    if attempt.outcome is not Outcome.OK or task is None or task.validates is not None:
        return 0
    return effort(task.job.result, attempt.stdout)


def _checked(attempt: Attempt, chunk: Chunk, task: Task | None) -> Attempt:
    """An answer of the wrong form is an error of that attempt, whatever the client says."""
    if attempt.outcome is not Outcome.OK:
        return attempt
    if task is not None and task.validates is not None:
        count = asked_about(chunk)
        if read_groups(attempt.stdout, count) is None:
            return _failed(attempt, f"A validator answers with a JSON list of {count} groups.")
        return attempt
    lines = attempt.stdout.count("\n") + (not attempt.stdout.endswith("\n") and attempt.stdout != "")
    if chunk.rows is not None and lines != chunk.rows:
        return _failed(attempt, f"The answer has {lines} lines for {chunk.rows} rows.")
    wrong = None if task is None else wrong_files(attempt, task.job) or _misfit(attempt, chunk, task.job)
    return attempt if wrong is None else _failed(attempt, wrong)


def _misfit(attempt: Attempt, chunk: Chunk, job: Job) -> str | None:
    """Why the answer is not what the job says that its answers are; None when it is."""
    files = [one.name for one in attempt.files]
    return misfit(job.result, attempt.stdout, rows=chunk.rows, outputs=job.outputs, files=files)


def _failed(attempt: Attempt, sentence: str) -> Attempt:
    return replace(attempt, outcome=Outcome.FAILED, stderr_tail=f"{attempt.stderr_tail}\n{sentence}".lstrip())
