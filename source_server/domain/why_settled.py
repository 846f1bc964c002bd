"""What became of a chunk that is settled: done, cancelled, or set aside and by which rule."""

from __future__ import annotations

from collections import Counter

from source_server.domain.attempt import Outcome, Verdict
from source_server.domain.chunk import Chunk
from source_server.domain.facts import Facts, clock, giver, last_failure, times
from source_server.domain.prospects import Obstacle, counted
from source_server.domain.quarantine import FAILED_HOSTS, MAX_FAILURES, MAX_LOSSES


def done(facts: Facts) -> Obstacle:
    """Whose answer was accepted, and what the others said."""
    accepted = next((one for one in facts.attempts if one.id == facts.chunk.result), None)
    by = f" by container {giver(accepted)} at {clock(accepted.stored, facts.now)}" if accepted else ""
    verdicts = Counter(one.verdict for one in facts.attempts if one.run == facts.chunk.run)
    details, helps = [], f"Its line is in the table: dockercomp results --task {facts.task.id}"
    if accepted is not None and accepted.suspect:
        details.append("The answer is suspect: nobody checked it, and its host's later answers were wrong.")
        helps = f"Have it computed anew: dockercomp rerun {facts.task.id} --suspect"
    if agreed := verdicts[Verdict.AGREED]:
        details.append(f"{counted(agreed, 'other answer')} agreed with it.")
    if disagreed := verdicts[Verdict.DISAGREED]:
        details.append(f"{counted(disagreed, 'other answer')} disagreed with it.")
    if failures := facts.chunk.failures:
        details.append(f"It failed {times(failures)} before.")
    return Obstacle(
        says=f"It is done: answered{by}.",
        details=tuple(details),
        helps=helps,
    )


def cancelled(facts: Facts) -> Obstacle:
    """It ended with its task."""
    why = facts.task.cancelled_why
    return Obstacle(
        says="It is cancelled, as its task is.",
        details=() if why is None else (why,),
        helps="Nothing: submit the data again to have it.",
    )


def quarantined(facts: Facts) -> Obstacle:
    """Which rule set it aside, and how to give it another round."""
    chunk, last = facts.chunk, last_failure(facts)
    if last is not None and last.outcome == Outcome.DISAGREEMENT.value:
        says, details = _disagreement(chunk)
    else:
        says, details = _failures(chunk)
        if last is not None:
            details = (*details, f"The last failure: {last.signature}")
    return Obstacle(
        says=f"It is set aside (quarantined): {says}.",
        details=details,
        helps=f"Put right what fails, then give it another round: dockercomp requeue --chunk {chunk.id}",
    )


def _disagreement(chunk: Chunk) -> tuple[str, tuple[str, ...]]:
    answers = len({one.digest for one in chunk.candidates})
    says = f"all the attempts that were allowed came to {counted(len(chunk.candidates), 'answer')}"
    return f"{says}, {answers} of them different, and no quorum agrees", ("All of them are kept.",)


def _failures(chunk: Chunk) -> tuple[str, tuple[str, ...]]:
    """The rules in their own order, and what lies behind each."""
    hosts = {failure.host for failure in chunk.failed}
    accounts = {failure.account for failure in chunk.failed}
    bad = {failure.host for failure in chunk.failed if failure.bad_data}
    where = (f"It failed on {counted(len(hosts), 'host')} of {counted(len(accounts), 'account')}.",)
    if chunk.failures >= MAX_FAILURES:
        return f"it failed {times(chunk.failures)}, and {MAX_FAILURES} times is the most that is tried", where
    if chunk.losses >= MAX_LOSSES:
        return f"{chunk.losses} containers vanished while they computed it", ()
    if len(bad) > 1:
        return f"the program says on {len(bad)} hosts that the data is bad (exit code 65)", ()
    if len(hosts) >= FAILED_HOSTS:
        return f"it failed on {len(hosts)} different hosts", where
    if bad:
        return "the program says that the data is bad (exit code 65), and no other host could be asked", ()
    return f"it failed {times(chunk.failures)}, on every host that could compute it", where
