"""Why a chunk is not running, or what became of it: turns what is known about it into sentences."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from source_server.domain.chunk import ChunkState, Lease
from source_server.domain.facts import MANY, Explanation, Facts, Queue, clock, given, last_failure, times
from source_server.domain.prospects import Obstacle, counted, obstacle, quorum_shortage
from source_server.domain.task import Task, TaskState
from source_server.domain.why_settled import cancelled, done, quarantined


def explain(facts: Facts) -> Explanation:
    """The words for all of it."""
    found = list(_findings(facts)) or [Obstacle(says=f"It is {facts.chunk.state.value}.")]
    first, *rest = found
    besides = [sentence for one in rest for sentence in (one.says, *one.details)]
    return Explanation(summary=first.says, reasons=(*first.details, *besides), next=first.helps)


def _findings(facts: Facts) -> Iterator[Obstacle]:
    """The most important first."""
    settled = {
        ChunkState.DONE: done,
        ChunkState.CANCELLED: cancelled,
        ChunkState.QUARANTINED: quarantined,
    }.get(facts.chunk.state)
    if settled is not None:
        yield settled(facts)
        if _goes_out_again(facts):
            yield Obstacle(says="A rerun or requeue of its task is under way and may send it out again.")
    elif (gate := _closed(facts)) is not None:
        yield gate
    elif facts.chunk.state is ChunkState.VALIDATING:
        yield _validating(facts)
    else:
        if any(not one.canary for one in facts.chunk.leases):
            yield _running(facts)
        if facts.task.paused:
            yield _paused(facts.task)
        if facts.chunk.wanted:
            yield from _waiting(facts)


# --- gates


def _closed(facts: Facts) -> Obstacle | None:
    """Why nothing of the task is handed out for good, or not yet; a pause is neither."""
    task = facts.task
    if task.cancelled:
        why = () if task.cancelled_why is None else (task.cancelled_why,)
        return Obstacle(says="Its task is cancelled.", details=why, helps="It is about to be cancelled too.")
    if not task.sealed:
        return Obstacle(
            says="Its task's data is not complete: the upload is under way, or was broken off.",
            helps="Once the upload is complete, start the task.",
        )
    if task.state is TaskState.WAITING and task.start_wanted:
        return Obstacle(
            says="Its task was started, and waits for other tasks.",
            details=tuple(facts.waits_for),
            helps="It starts by itself once all of those have succeeded.",
        )
    if task.state is TaskState.WAITING:
        return Obstacle(
            says="Its task has not been started.",
            details=tuple(facts.waits_for),
            helps=f"Start it: dockercomp assign --project {task.project}",
        )
    return None


def _paused(task: Task) -> Obstacle:
    says = "Its task is paused: nothing more of it is handed out."
    if task.paused_why is not None:
        says = f"Its task paused itself: {task.paused_why.rstrip('.')}."
    return Obstacle(says=says, helps=f"Go on with: dockercomp resume {task.id}")


def _goes_out_again(facts: Facts) -> bool:
    """Whether a round is under way that has not come to this chunk."""
    round_ = facts.task.round
    return round_ is not None and not facts.task.cancelled and facts.chunk.round < round_.number


# --- open


def _running(facts: Facts) -> Obstacle:
    shown = [one for one in facts.chunk.leases if not one.canary]
    started = [one for one in shown if one.started is not None]
    details = [_lease(one, facts) for one in shown]
    if started:
        since = min(one.started for one in started if one.started is not None)
        says = f"It is running on {counted(len(started), 'container')} since {clock(since, facts.now)}."
    else:
        since = min(one.since for one in shown)
        says = (
            f"It is handed out to {counted(len(shown), 'container')} since {clock(since, facts.now)}, "
            "and has not begun there."
        )
    if facts.chunk.candidates:
        details.append(f"{counted(len(facts.chunk.candidates), 'answer')} of it came already.")
    return Obstacle(
        says=says, details=tuple(details), helps="It ends with its answer, or when its time is over."
    )


def _lease(one: Lease, facts: Facts) -> str:
    who = f"Container {one.container} on host {one.host} ({facts.pseudonyms.get(one.account, 'unknown')})"
    what = "has it in its queue" if one.started is None else f"began at {clock(one.started, facts.now)}"
    if one.until < facts.now:
        return (
            f"{who} {what}; its time was over at {clock(one.until, facts.now)}, and it is being taken back."
        )
    return f"{who} {what}; its time ends at {clock(one.until, facts.now)}."


def _waiting(facts: Facts) -> Iterator[Obstacle]:
    """Why an attempt that is still to hand out is not handed out."""
    chunk, task = facts.chunk, facts.task
    if chunk.state is ChunkState.DELAYED and chunk.not_before is not None:
        yield _resting(facts, chunk.not_before)
    stopped = obstacle(facts.prospects, task.validation)
    if stopped is not None:
        yield stopped
    elif chunk.state is ChunkState.READY and not task.paused:
        yield _dealt(facts) or _queued(facts)
    able = [one for one in facts.prospects if not (one.lacks or one.paused or one.quarantined)]
    shortage = quorum_shortage(task.validation, able, given(facts))
    if shortage is not None:
        yield Obstacle(says=shortage)


def _resting(facts: Facts, until: datetime) -> Obstacle:
    failures = facts.chunk.failures
    last = last_failure(facts)
    details = (f"The last failure: {last.signature}",) if last is not None else ()
    if until <= facts.now:
        helps = "Its rest is over; it is offered again in seconds."
    else:
        helps = f"It is offered again at {clock(until, facts.now)}."
    says = f"It failed {times(failures)} and rests until {clock(until, facts.now)} before it is tried again."
    return Obstacle(says=says, details=details, helps=helps)


def _dealt(facts: Facts) -> Obstacle | None:
    """About the container it was dealt to; or that it has to be dealt first."""
    holder, only = facts.chunk.assigned, facts.project is not None and facts.project.assigned_only
    rule = "The project hands chunks only to the container that they were dealt to."
    if holder is None:
        if not only:
            return None
        helps = (
            "It is dealt again in seconds."
            if facts.task.dealt
            else f"Deal it: dockercomp assign --project {facts.task.project}"
        )
        return Obstacle(says="It is dealt to no container.", details=(rule,), helps=helps)
    to = next((p for p in facts.prospects if (p.container, p.life) == (holder.container, holder.life)), None)
    if to is None:
        return Obstacle(
            says=f"It is dealt to container {holder.container}, which is gone.",
            helps="It is taken back in seconds.",
        )
    details = [rule] if only else []
    if to.paused:
        details.append("The volunteer has paused that container.")
    if to.full:
        details.append("That host holds as many chunks as it may just now.")
    return Obstacle(
        says=f"It is dealt to container {to.container} on host {to.host}, which has {counted(to.holds, 'chunk')} in "
        "hand.",
        details=tuple(details),
        helps="It waits for that container."
        if only
        else "It waits for that container, or for one with nothing to do.",
    )


def _queued(facts: Facts) -> Obstacle:
    queue = facts.queue or Queue()
    details = []
    if queue.projects_ahead:
        details.append(f"{_many(queue.projects_ahead)} of projects with a higher priority go first.")
    if queue.tasks_ahead:
        details.append(f"{_many(queue.tasks_ahead)} of its project's tasks with a higher priority go first.")
    if queue.turns > 1:
        details.append(f"Its project is number {queue.turn} in turn of {queue.turns} that have chunks ready.")
    if queue.beside:
        details.append(f"{_many(queue.beside)} of its own task wait beside it; the order is random.")
    before = queue.projects_ahead + queue.tasks_ahead + queue.beside
    says = "It is ready and in the queue." if before else "It is ready, and next to be handed out."
    if 0 < before < MANY:
        says = f"It is ready and in the queue, with at most {counted(before, 'chunk')} before it."
    return Obstacle(says=says, details=tuple(details), helps=_ASKS)


_ASKS = "A container that has room asks for it."


def _validating(facts: Facts) -> Obstacle:
    came, asked = f"{counted(len(facts.chunk.candidates), 'answer')} came", facts.asked
    if facts.task.validator is None:
        return Obstacle(says=f"{came} and wait for the verdict.", helps=_VERDICT)
    if asked is None:
        return Obstacle(says=f"{came} and are about to be put to the validator.", helps="That takes seconds.")
    if asked.chunk.state is ChunkState.DONE:
        return Obstacle(says=f"{came}, and the validator has compared them.", helps=_VERDICT)
    says = f"{came} and wait for the project's validator to compare them."
    if asked.chunk.state is not ChunkState.QUARANTINED and all(one.lacks for one in asked.prospects):
        return Obstacle(
            says=says,
            details=("No live container that can run it is labelled trusted by the operator.",),
            helps="The operator labels one: dockercomp-server container trust ID",
        )
    explained = explain(asked)
    about = f"The validator's own chunk {asked.chunk.id}: {explained.summary}"
    return Obstacle(says=says, details=(about, *explained.reasons), helps=explained.next)


_VERDICT = "The verdict is made in seconds."


def _many(number: int) -> str:
    return f"{MANY} or more ready chunks" if number >= MANY else counted(number, "ready chunk")
