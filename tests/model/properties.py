"""What has to hold in every state, and when a state is one of rest."""

from __future__ import annotations

from collections.abc import Iterator

from model.rulebook import Rulebook
from model.state import State, verdict_of
from source_server.domain.chunk import MAX_LISTED, Chunk, ChunkState

TWO_ACCEPTED = "two results of one run are accepted"
ELSEWHERE = "the accepted result is not the one that the chunk points at"
NOT_STORED = "the chunk points at a result that is not stored"
OUTDATED = "an answer of one run counts in another"
LOST = "an attempt of which 'stored' was said is gone"
CHANGED = "the result of a run has changed"
BLAMED = "an honest answer is blamed"
BLAMED_EARLY = "an answer is blamed without enough that agree on another"
LIE = "a lie is accepted"
COUNTED_TWICE = "failures are counted that nobody stored, or one twice"
NOT_COUNTED = "an error is said to be counted, and is not"
HELD_FOR_EVER = "a lease of an ended life cannot be given back"

SETTLED = (ChunkState.DONE, ChunkState.QUARANTINED, ChunkState.CANCELLED)


def wrongs(rules: Rulebook, state: State) -> Iterator[str]:
    """A sentence for each property that does not hold."""
    if state.broken:
        yield state.broken
    stored = {one for one, _ in state.primary.attempts}
    if not stored.issuperset(state.told):
        yield LOST
    chunk = rules.chunk(state.primary.chunk)
    if any(one.result not in stored for one in chunk.candidates):
        yield NOT_STORED
    if any(rules.attempt(one.result).run != chunk.run for one in chunk.candidates):
        yield OUTDATED
    if not stored.issuperset(failure.error for failure in chunk.failed) or _counted_twice(chunk):
        yield COUNTED_TWICE
    yield from _wrong_verdicts(rules, state)
    yield from _wrong_lives(rules, state)


def _counted_twice(chunk: Chunk) -> bool:
    errors = [failure.error for failure in chunk.failed]
    return len(set(errors)) < len(errors) or (len(errors) < MAX_LISTED and chunk.failures != len(errors))


def _wrong_verdicts(rules: Rulebook, state: State) -> Iterator[str]:
    """What a majority has of the verdicts, against what it has had of the chunk."""
    chosen, majority = dict(state.chosen), rules.chunk(state.majority.chunk)
    if chosen.get(majority.run, majority.result) != majority.result:
        yield CHANGED
    accepted: dict[int, str] = {}
    for attempt, verdict in state.majority.attempts:
        _, _, run, outcome = rules.attempt(attempt)
        if verdict == "accepted":
            if run in accepted:
                yield TWO_ACCEPTED
            accepted[run] = attempt
            if chosen.get(run) != attempt:
                yield ELSEWHERE
            if outcome == "wrong" and not _lies_may_pass(rules):
                yield LIE
        elif verdict == "disagreed":
            if outcome == "right":
                yield BLAMED
            if not _backed(rules, majority, run):
                yield BLAMED_EARLY
        elif verdict == "counted" and not _is_counted(state, majority, attempt, run):
            yield NOT_COUNTED


def _is_counted(state: State, chunk: Chunk, error: str, run: int) -> bool:
    """Whether the chunk lists the error; not known any more after a rerun or a requeue."""
    forgotten = state.spent.requeues or chunk.run != run
    return bool(forgotten) or any(failure.error == error for failure in chunk.failed)


def _backed(rules: Rulebook, chunk: Chunk, run: int) -> bool:
    """Whether Q candidates of this run say what was accepted; not known any more after a rerun."""
    if chunk.run != run:
        return True
    said = {one.result: one.digest for one in chunk.candidates}
    right = said.get(chunk.result or "")
    return sum(digest == right for digest in said.values()) >= rules.setting.rule.quorum


def _lies_may_pass(rules: Rulebook) -> bool:
    """Whether there is a trusted liar, or as many accounts that lie as have to agree."""
    liars = [one for one in rules.setting.givers if "wrong" in one.outcomes]
    accounts = {one.account for one in liars}
    return len(accounts) >= rules.setting.rule.quorum or any(one.trusted for one in liars)


def _wrong_lives(rules: Rulebook, state: State) -> Iterator[str]:
    number = state.primary.chunk
    for held in rules.chunk(number).leases:
        ended = state.primary.lives[rules.names.index(held.container)] != int(held.life)
        if ended and rules.given_back(number, held.container, held.token) == number:
            yield HELD_FOR_EVER


def is_at_rest(rules: Rulebook, state: State) -> bool:
    """Nothing is under way or waits for a verdict; the chunk is settled, or offered and nobody here may take it."""
    if state.requests or state.primary != state.majority:
        return False
    if any(client.running or client.spool for client in state.clients):
        return False
    number = state.primary.chunk
    chunk = rules.chunk(number)
    if chunk.leases or (chunk.run != state.primary.run and chunk.state is not ChunkState.CANCELLED):
        return False
    if state.primary.cancelled and chunk.state not in SETTLED:
        return False
    if chunk.state not in SETTLED and not _is_offered_in_vain(rules, state):
        return False
    return all(_is_final(chunk, *one) for one in state.primary.attempts) and (
        chunk.result is None or verdict_of(state.primary, chunk.result) == "accepted"
    )


def _is_offered_in_vain(rules: Rulebook, state: State) -> bool:
    if rules.chunk(state.primary.chunk).state is not ChunkState.READY:
        return False
    return not any(_may_take(rules, state, who) for who in range(len(state.clients)))


def _may_take(rules: Rulebook, state: State, who: int) -> bool:
    client = state.clients[who]
    if not client.asking and client.claims == rules.setting.givers[who].claims:
        return False
    token = client.asking or f"{rules.names[who]}{client.claims + 1}"
    number = state.primary.chunk
    return rules.leased(number, who, token, client.life) != number


def _is_final(chunk: Chunk, attempt: str, verdict: str) -> bool:
    waits = chunk.result is None and any(one.result == attempt for one in chunk.candidates)
    return verdict != "new" and (verdict != "candidate" or waits)
