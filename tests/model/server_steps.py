"""What goes on at the server: requests between any two database operations, settling, sweeps, a scientist's wishes."""

from __future__ import annotations

from collections.abc import Iterator

from model.rulebook import Rulebook
from model.state import OPEN, Request, State, rewritten, verdict_of, with_request, with_verdict
from source_server.domain.chunk import ChunkState

Step = tuple[str, State]


def server_steps(rules: Rulebook, state: State) -> Iterator[Step]:
    """Every next operation of every request, every request that housekeeping may begin, every guarded write."""
    for request in dict.fromkeys(state.requests):
        rest = list(state.requests)
        rest.remove(request)
        without = state._replace(requests=tuple(rest))
        yield f"who was busy with {request.attempt or 'the chunk'} ({request.step}) dies", without
        yield from _NEXT[request.step](rules, without, request)
    if len(state.requests) < rules.setting.at_work:
        yield from _begin_counting(rules, state)
        yield from _begin_judging(rules, state)
    yield from _sweeps(rules, state)
    yield from _wishes(rules, state)


# --- settling: by the request that stored it, or by housekeeping; both begin here


def _begin_counting(rules: Rulebook, state: State) -> Iterator[Step]:
    """Read the chunk, and make of it what it has to become."""
    chunk, rev = state.primary.chunk, state.primary.rev
    for attempt in _unsettled(rules, state):
        if rules.settled(chunk, attempt) != chunk:
            reading = with_request(state, Request(attempt, "counting", chunk, rev))
            yield f"the chunk is read to count {attempt or 'its candidates'}", reading


def _unsettled(rules: Rulebook, state: State) -> list[str]:
    stored = {one for one, _ in state.majority.attempts}
    found = [one for one, verdict in state.primary.attempts if verdict == "new" and one in stored]
    if rules.variant.settles_unconfirmed and state.old is not None:
        found += [one for one in state.old.attempts if verdict_of(state.primary, one) is None]
    validating = rules.chunk(state.primary.chunk).state is ChunkState.VALIDATING
    return [*found, *([""] if validating and not rules.variant.forgets_validating else [])]


def _counting(rules: Rulebook, state: State, request: Request) -> Iterator[Step]:
    what = request.attempt or "its candidates"
    if state.primary.rev != request.rev:
        yield f"the write that counts {what} finds another revision", state
        return
    after = _rewritten(rules, state, rules.settled(request.seen, request.attempt))
    yield f"{what} counted: the chunk is written", after


def _begin_judging(rules: Rulebook, state: State) -> Iterator[Step]:
    """Read the chunk as a majority has it, and see which verdicts follow."""
    local = rules.variant.judges_locally
    seen = state.primary.chunk if local else state.majority.chunk
    views = [("the primary's own chunk" if local else "a majority's chunk", seen, None)]
    if state.old is not None:
        # Who has seen an attempt stored asks no primary that was deposed before that.
        shown = state.old.majority_attempts
        views.append(("the chunk that the deposed primary shows", state.old.majority_chunk, shown))
    stored = {one for one, _ in state.majority.attempts}
    for attempt, verdict in state.primary.attempts:
        if attempt not in stored or verdict not in OPEN:
            continue
        if verdict == "candidate" and rules.variant.forgets_candidates:
            continue
        for view, seen, known in views:
            if (known is None or attempt in known) and _next_verdict(rules, state, attempt, seen):
                judging = with_request(state, Request(attempt, "judging", seen))
                yield f"{view} is read to judge {attempt}", judging


def _judging(rules: Rulebook, state: State, request: Request) -> Iterator[Step]:
    attempt, verdict = _next_verdict(rules, state, request.attempt, request.seen) or ("", "")
    if not attempt:
        yield f"nothing is left to judge beside {request.attempt}", state
        return
    written = state._replace(primary=with_verdict(state.primary, attempt, verdict))
    yield f"{attempt} is {verdict}", with_request(written, request)


def _next_verdict(rules: Rulebook, state: State, attempt: str, seen: int) -> tuple[str, str] | None:
    """The next verdict to write, on this attempt or on a candidate beside it: in the order of the verdicts' names."""
    chunk = rules.chunk(seen)
    beside = [one.result for one in chunk.candidates] if chunk.result is not None else []
    open_: list[tuple[str, str]] = []
    for one in {attempt, *beside}:
        now, then = verdict_of(state.primary, one), rules.verdict(seen, one)
        if now in OPEN and then is not None and then != now:
            open_.append((then, one))
    if not open_:
        return None
    verdict, which = min(open_)
    return which, verdict


# --- housekeeping's sweeps and a scientist's wishes: one guarded write each


def _sweeps(rules: Rulebook, state: State) -> Iterator[Step]:
    number = state.primary.chunk
    chunk = rules.chunk(number)
    if chunk.state is ChunkState.DELAYED:
        yield "the pause ends", _rewritten(rules, state, rules.plain("wake", number))
    # The gate, and the wish for a new run, are with a majority before any chunk is touched.
    if state.majority.cancelled:
        yield "the chunk is swept", _rewritten(rules, state, rules.plain("cancel", number))
    elif state.majority.run > chunk.run:
        yield "the chunk begins anew", _rewritten(rules, state, rules.rerun(number))


def _wishes(rules: Rulebook, state: State) -> Iterator[Step]:
    setting, primary, spent = rules.setting, state.primary, state.spent
    if setting.assigns:
        for who, name in enumerate(rules.names):
            if primary.lives[who] > 0:
                dealt = rules.assigned(primary.chunk, who, primary.lives[who])
                yield f"the chunk is dealt to {name}", _rewritten(rules, state, dealt)
    if spent.requeues < setting.requeues and rules.chunk(primary.chunk).state is ChunkState.QUARANTINED:
        again = _rewritten(rules, state, rules.plain("requeue", primary.chunk))
        yield "the chunk is requeued", again._replace(spent=spent._replace(requeues=spent.requeues + 1))
    if setting.cancels and not primary.cancelled:
        yield "the task is cancelled", state._replace(primary=primary._replace(cancelled=True))
    if spent.reruns < setting.reruns and not primary.cancelled:
        wished = state._replace(primary=primary._replace(run=primary.run + 1))
        yield "a rerun is asked for", wished._replace(spent=spent._replace(reruns=spent.reruns + 1))


def _rewritten(rules: Rulebook, state: State, chunk: int) -> State:
    return rewritten(state, chunk, counting=rules.variant.counts_revs)


_NEXT = {"counting": _counting, "judging": _judging}
