"""Which attempts are stored: so many different ones, in the form in which they hold up to what their job says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from source_server.domain.attempt import Attempt, Outcome, digest, stored_id
from source_server.domain.chunk import Chunk
from source_server.domain.job import Job
from source_server.domain.refusal import Conflict, Refusal, Unavailable
from source_server.domain.result_type import MOST_WORK, effort, misfit
from source_server.domain.task import Task
from source_server.services.answers.answer_files import wrong_files
from source_server.services.tasks.validate import asked_about, read_groups
from source_server.stores.attempts import DIFFERENT_ERRORS, DIFFERENT_RESULTS, is_answer
from source_server.stores.database import Stores

MOST_CHECKED = 2 * MOST_WORK  #: work that a request's answers may make when they are held to schemas

#: (chunk, run), and of failures the token, -> digests of what one container gave.
Given = dict[tuple[str | int, ...], set[str]]


class CheckAttempts:
    """Looks at the attempts of one request before they are stored."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def __call__(
        self,
        container: str,
        attempts: Sequence[Attempt],
        chunks: Mapping[str, Chunk],
        tasks: Mapping[str, Task],
    ) -> tuple[list[Attempt], dict[str, Refusal]]:
        """Those that are to be stored, as checked, each once; and why others are not, by their ids as sent."""
        named = {one.chunk for one in attempts}
        looking = _Looking(
            self._stores.results.given(named, container), self._stores.errors.given(named, container)
        )
        kept: list[Attempt] = []
        refused: dict[str, Refusal] = {}
        for id_, sent in {stored_id(one): one for one in attempts}.items():
            chunk = chunks[sent.chunk]
            try:
                kept.append(looking.at(sent, chunk, tasks.get(chunk.task)))
            except Refusal as refusal:
                refused[id_] = refusal
        return kept, refused


class _Looking:
    """At one request: what its container gave before, and how much has been checked so far.

    At most so many different answers of one container in a run, and failures a lease. What takes long to check is
    checked only where it may count, and not more of it in a request than a moment's work.
    """

    def __init__(self, given: Given, failed: Given) -> None:
        self._given, self._failed = given, failed
        self._spent = 0

    def at(self, sent: Attempt, chunk: Chunk, task: Task | None) -> Attempt:
        """The attempt, as checked; raises Conflict for one too many, Unavailable for too much at once."""
        answers = self._given.setdefault((sent.chunk, sent.run), set())
        failures = self._failed.setdefault((sent.chunk, sent.run, sent.token), set())
        known = sent.outcome is Outcome.OK and digest(sent) in answers  # checked when it came before
        work = 0 if known else _effort(sent, task)
        if work and (len(answers) >= DIFFERENT_RESULTS or len(failures) >= DIFFERENT_ERRORS):
            raise _one_too_many(answer=len(answers) >= DIFFERENT_RESULTS)
        if work and self._spent and self._spent + work > MOST_CHECKED:
            raise Unavailable("Checking the other answers took long: send this one again.")
        self._spent += work
        attempt = sent if known else _checked(sent, chunk, task)
        before, most = (answers, DIFFERENT_RESULTS) if is_answer(attempt) else (failures, DIFFERENT_ERRORS)
        # The same answer again is no different one, though another lease brought it.
        if digest(attempt) not in before and len(before) >= most:
            raise _one_too_many(answer=is_answer(attempt))
        before.add(digest(attempt))
        return attempt


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
