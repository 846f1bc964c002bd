"""Verdicts on answers: stored results become candidates of their chunk, and one of them its result.

Every step can be repeated, by the same request sent again or by housekeeping after a crash between any two of them:
results are stored for good before this begins, the chunk is changed by compare-and-set, and verdicts follow only from
what a majority has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial

from source_server.domain import settling
from source_server.domain import transitions as rules
from source_server.domain.attempt import Verdict
from source_server.domain.chunk import Candidate, Chunk, ChunkState
from source_server.domain.quarantine import must_set_aside
from source_server.domain.task import Task
from source_server.domain.trust import HostRecord, needs_no_second_opinion
from source_server.services.answers.judge import Judge
from source_server.services.answers.known_tasks import KnownTasks
from source_server.services.answers.reputation import Judged, Reputation
from source_server.services.tasks.validate import Validate
from source_server.stores.attempts import Stored
from source_server.stores.database import Stores
from source_server.stores.errors import disagreement_document

TRIES = 4  #: times a contended chunk is read anew before housekeeping has to settle it

Records = Mapping[tuple[str, str], HostRecord]


class SettleResults:
    """Decides chunks from their stored answers."""

    def __init__(
        self,
        stores: Stores,
        *,
        secret: bytes,
        known: KnownTasks,
        validate: Validate,
        reputation: Reputation,
    ) -> None:
        self._stores = stores
        self._secret = secret
        self._known = known
        self._validate = validate
        self._judge = Judge(stores, validate)
        self._reputation = reputation

    def __call__(self, results: Sequence[Stored], now: datetime) -> None:
        """Let these results count, and write every verdict that follows."""
        if not results:
            return
        by_chunk: dict[str, list[Stored]] = {}
        for one in results:
            by_chunk.setdefault(one.chunk, []).append(one)
        self._decide(by_chunk, now)
        validated = [one for one in self._known.read({r.task for r in results}).values() if one.validates]
        if validated:
            self.decide_again(_validated_chunks(results, validated), now)

    def decide_again(self, chunk_ids: Iterable[str], now: datetime) -> None:
        """Look at chunks whose candidates are there but not decided: a validator spoke, or a crash came between."""
        self._decide({chunk_id: [] for chunk_id in chunk_ids}, now)

    def _decide(self, by_chunk: Mapping[str, Sequence[Stored]], now: datetime) -> None:
        for _ in range(TRIES):
            chunks = self._stores.chunks.read(by_chunk)
            tasks = self._known.read({one.task for one in chunks.values()})
            records = self._records(by_chunk, tasks)
            changes = []
            for chunk in chunks.values():
                new = self._folded(tasks[chunk.task], chunk, by_chunk[chunk.id], records)
                if new != chunk:
                    changes.append((chunk, new))
            self._note_disagreement(changes, tasks, now)
            if not changes or len(self._stores.chunks.apply(changes)) == len(changes):
                break
        self._write_verdicts(by_chunk, now)

    def _folded(self, task: Task, chunk: Chunk, results: Sequence[Stored], records: Records) -> Chunk:
        """The chunk after these results, decided if they suffice; all of it one compare-and-set."""
        new = chunk
        for one in results:
            if one.run == new.run:
                new = settling.counted(new, candidate_of(one), one.token, task.validation)
        judge = partial(self._judge.agreement, task, new)
        new = settling.decided(new, task.validation, judge, trusted=self._is_trusted(task, new, records))
        return rules.give_up(new) if self._is_never_compared(task, new) else new

    def _is_never_compared(self, task: Task, chunk: Chunk) -> bool:
        """Whether a reaction's answers wait for a validator that was set aside itself.

        Of other tasks it is given another round by people. A reaction that has failed must not stop `after`.
        """
        if chunk.state is not ChunkState.VALIDATING or task.reacts_to is None or task.validator is None:
            return False
        return self._validate.is_given_up(task, chunk)

    def _is_trusted(self, task: Task, chunk: Chunk, records: Records) -> bool:
        if not task.validation.adaptive or not chunk.candidates:
            return False
        first = chunk.candidates[0]
        return needs_no_second_opinion(records.get((first.account, first.host)), first.result, self._secret)

    def _records(self, by_chunk: Mapping[str, Sequence[Stored]], tasks: Mapping[str, Task]) -> Records:
        givers = {
            (one.origin.account, one.origin.host)
            for results in by_chunk.values()
            for one in results
            if one.task in tasks and tasks[one.task].validation.adaptive
        }
        return self._stores.hosts.read(givers) if givers else {}

    def _note_disagreement(
        self, changes: Iterable[tuple[Chunk, Chunk]], tasks: Mapping[str, Task], now: datetime
    ) -> None:
        # Written ahead, under an id of its own: a crash before the chunk is set aside leaves no chunk without a reason.
        given_up = [(old, new) for old, new in changes if _was_given_up(old, new)]
        documents = [
            disagreement_document(new, now, compared=not self._is_never_compared(tasks[new.task], old))
            for old, new in given_up
        ]
        if documents:
            self._stores.errors.put(documents)

    def _write_verdicts(self, by_chunk: Mapping[str, Sequence[Stored]], now: datetime) -> None:
        # Verdicts follow only from what a majority has: never from the primary's latest word.
        chunks = self._stores.chunks.read(by_chunk, majority=True)
        tasks = self._known.read({one.task for one in chunks.values()})
        for chunk in chunks.values():
            if chunk.state is ChunkState.VALIDATING and tasks[chunk.task].validator is not None:
                self._validate.request(tasks[chunk.task], chunk)
        judged: list[Judged] = []
        for one in self._to_judge(by_chunk, chunks, tasks):
            verdict = self._verdict(one, chunks.get(one.chunk), tasks.get(one.task))
            if verdict is not None and verdict is not one.verdict:
                judged.append((one, verdict))
        self._settle(judged, chunks, tasks, now)

    def _to_judge(
        self, by_chunk: Mapping[str, Sequence[Stored]], chunks: Mapping[str, Chunk], tasks: Mapping[str, Task]
    ) -> list[Stored]:
        """These results, and with a chunk that is decided all of its candidates that wait."""
        given = [one for results in by_chunk.values() for one in results]
        told = {one.id for one in given}
        waiting = [
            candidate.result
            for chunk in chunks.values()
            if chunk.result is not None and tasks[chunk.task].validation.checks
            for candidate in chunk.candidates
            if candidate.result not in told
        ]
        others = self._stores.results.of(waiting) if waiting else []
        return given + [one for one in others if one.verdict in (Verdict.NEW, Verdict.CANDIDATE)]

    def _verdict(self, result: Stored, chunk: Chunk | None, task: Task | None) -> Verdict | None:
        """What a majority's view of the chunk says about a result; None: not decided yet."""
        if chunk is None or task is None:
            return Verdict.CANCELLED
        judge = partial(self._judge.agreement, task, chunk)
        return settling.verdict(
            candidate_of(result), result.run, chunk, task.validation, judge, canary=result.canary
        )

    def _settle(
        self,
        judged: Sequence[Judged],
        chunks: Mapping[str, Chunk],
        tasks: Mapping[str, Task],
        now: datetime,
    ) -> None:
        alone = [
            one.id
            for one, verdict in judged
            if verdict is Verdict.ACCEPTED
            and tasks[one.task].validation.checks
            and len(chunks[one.chunk].candidates) == 1
        ]
        self._stores.results.mark_unchecked(alone)
        own = set[str]()
        for verdict in sorted({verdict for _, verdict in judged}, key=lambda one: one.value):
            own |= self._stores.results.settle([one.id for one, its in judged if its is verdict], verdict)
        self._drop_equal_payloads(judged, chunks)
        self._reputation.judged([pair for pair in judged if pair[0].id in own], chunks, tasks, now)

    def _drop_equal_payloads(self, judged: Sequence[Judged], chunks: Mapping[str, Chunk]) -> None:
        """A result that says the same bytes as the accepted one keeps no copy of them."""
        equal = [
            one.id
            for one, verdict in judged
            if verdict in (Verdict.DUPLICATE, Verdict.AGREED)
            and (chunk := chunks.get(one.chunk)) is not None
            and any(c.result == chunk.result and c.digest == one.digest for c in chunk.candidates)
        ]
        self._stores.results.drop_payload(equal)


def candidate_of(result: Stored) -> Candidate:
    """A stored result as the chunk lists it."""
    return Candidate(
        result=result.id,
        account=result.origin.account,
        host=result.origin.host,
        container=result.origin.container,
        digest=result.digest,
        platform=result.platform,
        established=result.established,
        variant=result.variant,
    )


def _was_given_up(old: Chunk, new: Chunk) -> bool:
    set_aside = new.state is ChunkState.QUARANTINED and old.state is not ChunkState.QUARANTINED
    return set_aside and not must_set_aside(new)


def _validated_chunks(results: Iterable[Stored], companions: Iterable[Task]) -> set[str]:
    parents = {one.id: one.validates for one in companions}
    return {f"{parents[r.task]}.{r.chunk.rpartition('.')[2]}" for r in results if r.task in parents}
