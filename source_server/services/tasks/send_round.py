"""Rounds: chunks of a task are sent out again, in batches that any process can go on with.

A round lies on its task, and beginning it has the task run again: while it is under way the task cannot end. Which
chunks were sent out already the chunks themselves say, so a batch that a crash broke off is simply gone through again.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from source_server.domain.chunk import Chunk
from source_server.domain.refusal import Conflict
from source_server.domain.rounds import Round, Which, sent_out
from source_server.domain.task import Task, TaskState
from source_server.services.messages.notices import Notices
from source_server.services.tasks.validate import companion_id
from source_server.stores.database import Stores

BATCH = 1000  #: chunks looked at in one go
IN_REQUEST = 5  #: batches carried out before the answer; the rest is housekeeping's
IN_STEP = 20  #: batches of one round that housekeeping carries out before it looks at the next
SILENCE = timedelta(seconds=15)  #: after which a process that has a round in hand counts as gone
TRIES = 20  #: times a batch is read anew because chunks of it moved on meanwhile

END = "end"  #: the place behind the last named chunk


@dataclass(frozen=True, kw_only=True)
class Sent:
    """How far a round came: chunks sent out, and whether that was all."""

    chunks: int
    done: bool


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Chunks that may be due, and the place behind them. `results`: only those that still have one of these."""

    ids: Sequence[str]
    after: str
    results: frozenset[str] | None = None


class SendRound:
    """Begins rounds, and goes on with them."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._notices = Notices(stores)

    def begin(
        self,
        task: Task,
        which: Which,
        *,
        anew: bool,
        signature: str | None = None,
        chunks: Sequence[str] = (),
    ) -> Sent:
        """Begin a round of the task and carry its first batches out; raises Conflict. Without any chunk: nothing."""
        _require_ready(task)
        round_ = Round(
            number=task.rounds + 1,
            which=which,
            anew=anew,
            signature=signature,
            chunks=tuple(chunks),
            hand=str(uuid.uuid4()),
            touched=self._stores.clock.now(),
        )
        if not self._is_about_any(task, round_):
            return Sent(chunks=0, done=True)
        self._notices.tell(task.id)  # that it was complete: afterwards nothing shows that it ever was
        if not self._stores.rounds.begin(task, round_):
            raise Conflict("Something else happened to the task at this moment: ask again.")
        return self._carry_out(task, round_, batches=IN_REQUEST)

    def go_on(self, task_id: str) -> int:
        """Housekeeping: some batches of a round that nobody has in hand; how many chunks were sent out."""
        found = self._stores.tasks.find(task_id)
        if found is None or found.round is None:
            return 0
        now, hand = self._stores.clock.now(), str(uuid.uuid4())
        free = now - SILENCE
        if not self._stores.rounds.take(task_id, found.round.number, hand, now, silent_since=free):
            return 0
        task = self._stores.tasks.find(task_id)
        if task is None or task.round is None or task.round.hand != hand:
            return 0
        before = task.round.sent
        return self._carry_out(task, task.round, batches=IN_STEP).chunks - before

    def _carry_out(self, task: Task, round_: Round, *, batches: int) -> Sent:
        """Up to so many batches of a round in hand, which is let go of then."""
        if task.validator is not None:
            # Its companion ended with it. Before any chunk is sent out: answers may come at once.
            self._stores.rounds.reopen(companion_id(task.id))
        for _ in range(batches):
            batch = None if self._was_cancelled(task.id) else self._next(task, round_)
            if batch is None:
                self._stores.rounds.finish(task.id, round_)
                return Sent(chunks=round_.sent, done=True)
            sent, all_settled = self._send(task, round_, batch)
            after = batch.after if all_settled else round_.after
            further = self._stores.rounds.advance(
                task.id, round_, after=after, sent=sent, now=self._stores.clock.now()
            )
            if further is None:
                return Sent(chunks=round_.sent, done=False)  # another process has it in hand
            round_ = further
        return self._let_go(task, round_)

    def _let_go(self, task: Task, round_: Round) -> Sent:
        if self._next(task, round_) is None:
            self._stores.rounds.finish(task.id, round_)
            return Sent(chunks=round_.sent, done=True)
        self._stores.rounds.release(task.id, round_)
        return Sent(chunks=round_.sent, done=False)

    def _send(self, task: Task, round_: Round, batch: _Batch) -> tuple[int, bool]:
        """Send the due chunks of a batch out; how many, and whether none was left that kept moving."""
        sent, ids = 0, set(batch.ids)
        for _ in range(TRIES):
            changes = []
            for chunk in self._stores.chunks.read(ids).values():
                new = self._sent_out(task, round_, batch, chunk)
                if new is not None:
                    changes.append((chunk, new))
            written = self._stores.chunks.apply(changes) if changes else set()
            sent += len(written)
            ids = {old.id for old, _ in changes} - written
            if not ids:
                return sent, True
        return sent, False

    def _sent_out(self, task: Task, round_: Round, batch: _Batch, chunk: Chunk) -> Chunk | None:
        if chunk.task != task.id or (batch.results is not None and chunk.result not in batch.results):
            return None
        return sent_out(chunk, round_, first_replicas=task.validation.first_replicas)

    def _was_cancelled(self, task_id: str) -> bool:
        task = self._stores.tasks.find(task_id, majority=True)
        return task is None or task.cancelled

    def _is_about_any(self, task: Task, round_: Round) -> bool:
        """Whether there is anything to do: a complete task is not made to run for nothing."""
        for _ in range(IN_STEP):
            batch = self._next(task, round_)
            if batch is None:
                return False
            chunks = self._stores.chunks.read(batch.ids).values()
            if any(self._sent_out(task, round_, batch, one) is not None for one in chunks):
                return True
            round_ = replace(round_, after=batch.after)
        return True  # there may be: the round itself will find out

    def _next(self, task: Task, round_: Round) -> _Batch | None:
        """The chunks to be looked at next; None: that was all."""
        if round_.which is Which.ALL:
            return _numbered(task, int(round_.after or 0))
        if round_.which is Which.SUSPECT:
            suspects = self._stores.results.suspects_of(task.id, after=round_.after, limit=BATCH)
            results = frozenset(result for result, _ in suspects)
            ids = [chunk for _, chunk in suspects]
            return _Batch(ids=ids, after=suspects[-1][0], results=results) if ids else None
        if round_.which is Which.CHUNKS:
            return None if round_.after == END else _Batch(ids=round_.chunks, after=END)
        aside = self._stores.set_aside.some(
            task.id, after=float(round_.after or -1), limit=BATCH, signature=round_.signature
        )
        return _Batch(ids=[one.id for one in aside], after=repr(aside[-1].r)) if aside else None


def _numbered(task: Task, begin: int) -> _Batch | None:
    end = min(begin + BATCH, task.upload.chunks if task.upload else 0)
    ids = [f"{task.id}.{n}" for n in range(begin, end)]
    return _Batch(ids=ids, after=str(end)) if ids else None


def _require_ready(task: Task) -> None:
    if task.reacts_to is not None:
        raise Conflict(f"This is a reaction to the outcome of the task {task.reacts_to}: rerun that one.")
    if task.cancelled:
        raise Conflict("The task was cancelled: nothing of it runs again.")
    if task.state is TaskState.WAITING:
        raise Conflict("The task has not been started yet: start it first.")
    if task.round is not None:
        raise Conflict(
            f"Chunks of the task are being sent out again just now ({task.round.sent} so far): "
            "ask again when that has ended."
        )
