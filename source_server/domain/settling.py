"""What stored answers and failures do to their chunk, and which verdict each of them gets.

Pure: the service reads the chunk, applies what is made here by compare-and-set, and asks for verdicts only with the
chunk as a majority has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from source_server.domain import transitions as rules
from source_server.domain.agreement import Agree, Decision, decide, gave
from source_server.domain.attempt import Verdict
from source_server.domain.chunk import MAX_LISTED, Candidate, Chunk, ChunkState, Failure
from source_server.domain.quarantine import Fleet
from source_server.domain.validation import Comparison, Validation

#: What agreeing means for these answers of a chunk; None: its validator has not said yet.
Judge = Callable[[Sequence[Candidate]], Agree | None]


def counted(chunk: Chunk, new: Candidate, token: str, rule: Validation) -> Chunk:
    """The chunk with this answer among its candidates; one too many of its giver only ends its lease."""
    if any(known.result == new.result for known in chunk.candidates):
        return chunk
    if not (rule.checks and gave(rule, chunk.candidates, new)):
        try:
            return rules.propose(chunk, new)
        except rules.WrongState:
            pass
    return _without_lease(chunk, new.container, token)


def counted_failure(
    chunk: Chunk, new: Failure, run: int, *, container: str, token: str, now: datetime, fleet: Fleet | None
) -> Chunk:
    """The chunk with this failure of this run counted, once; a stale one changes nothing but ends its own lease."""
    if chunk.run != run or _is_counted(chunk, new.error):
        return chunk
    try:
        return rules.fail(chunk, container=container, token=token, failure=new, now=now, fleet=fleet)
    except rules.WrongState:
        return _without_lease(chunk, container, token)


def decided(chunk: Chunk, rule: Validation, judge: Judge, *, trusted: bool = False) -> Chunk:
    """The chunk with its result if the candidates suffice, else asking for more of them, or set aside.

    `trusted`: the first candidate needs no second opinion (adaptive tasks).
    """
    if chunk.result is not None or not chunk.candidates or not rules.MAY["accept"](chunk):
        return chunk
    if not rule.checks or (rule.adaptive and trusted and len(chunk.candidates) == 1):
        return rules.accept(chunk, chunk.candidates[0].result)
    decision = _decision(chunk, rule, judge)
    if decision is None:
        return chunk
    if decision.accepted is not None:
        return rules.accept(chunk, decision.accepted)
    return _sent_on(chunk, rule, decision)


def verdict(
    answer: Candidate, run: int, chunk: Chunk, rule: Validation, judge: Judge, *, canary: bool = False
) -> Verdict | None:
    """What a majority's view of the chunk says about an answer of this run; None: not decided yet.

    `canary`: the answer was asked for only to test who gave it.
    """
    if chunk.state is ChunkState.CANCELLED:
        return Verdict.CANCELLED
    if chunk.run != run:
        # A deposed primary may still show the run before; only a later one outdates an answer.
        return Verdict.DUPLICATE if chunk.run > run else None
    proposed = any(known.result == answer.result for known in chunk.candidates)
    if chunk.result is None:
        if proposed:
            return Verdict.CANDIDATE
        full = len(chunk.candidates) >= MAX_LISTED
        return Verdict.DUPLICATE if full or (rule.checks and gave(rule, chunk.candidates, answer)) else None
    if chunk.result == answer.result:
        return Verdict.ACCEPTED
    return _beside_accepted(answer, chunk, rule, judge, proposed=proposed, canary=canary)


def failure_verdict(error: str, run: int, chunk: Chunk, *, container: str, token: str) -> Verdict | None:
    """What a majority's view of the chunk says about a failure of this run; None: it is still to be counted."""
    if _is_counted(chunk, error):
        return Verdict.COUNTED
    if chunk.run < run:
        return None
    may_count = chunk.run == run and rules.MAY["fail"](chunk) and _holds(chunk, container, token)
    return None if may_count else Verdict.STALE


def _is_counted(chunk: Chunk, error: str) -> bool:
    return any(known.error == error for known in chunk.failed)


def _holds(chunk: Chunk, container: str, token: str) -> bool:
    return any(held.container == container and held.token == token for held in chunk.leases)


def _without_lease(chunk: Chunk, container: str, token: str) -> Chunk:
    held = _holds(chunk, container, token)
    return rules.give_back(chunk, container=container, token=token) if held else chunk


def _decision(chunk: Chunk, rule: Validation, judge: Judge) -> Decision | None:
    lacking = rule.quorum - len(chunk.candidates)
    if lacking > 0:
        return Decision(missing=lacking)
    agree = judge(chunk.candidates)
    return None if agree is None else decide(chunk.candidates, rule, agree)


def _sent_on(chunk: Chunk, rule: Validation, decision: Decision) -> Chunk:
    """Without agreement: wait for what is out, then ask for more, and at the limit give up."""
    if chunk.state is not ChunkState.VALIDATING:
        return chunk
    needed = len(chunk.candidates) + decision.missing
    if needed > rule.most:
        return rules.give_up(chunk)
    return rules.ask_more(chunk, max(needed, rule.replicas))


def _beside_accepted(
    answer: Candidate, chunk: Chunk, rule: Validation, judge: Judge, *, proposed: bool, canary: bool
) -> Verdict:
    accepted = next(known for known in chunk.candidates if known.result == chunk.result)
    same = answer.digest == accepted.digest
    if not rule.checks:
        return Verdict.AGREED if canary and same else Verdict.DUPLICATE
    if not proposed and not canary and gave(rule, chunk.candidates, answer):
        return Verdict.DUPLICATE
    if not proposed and rule.comparison is Comparison.VALIDATOR:
        return Verdict.AGREED if same else Verdict.DUPLICATE  # the validator never saw it
    agree = judge(chunk.candidates if proposed else (*chunk.candidates, answer))
    if agree is None:
        return Verdict.DUPLICATE
    if agree(accepted, answer):
        return Verdict.AGREED
    if answer.platform != accepted.platform:
        return Verdict.DUPLICATE  # answers of different platforms prove nothing against each other
    # Accepted on its giver's word alone, it is no proof against another; nobody is blamed before Q agree.
    backed = sum(known is accepted or agree(accepted, known) for known in chunk.candidates)
    return Verdict.DISAGREED if backed >= rule.quorum else Verdict.DUPLICATE
