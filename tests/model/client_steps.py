"""What clients do: claim, compute, die, deliver, be purged and come back; and how their leases end."""

from __future__ import annotations

from collections.abc import Iterator

from model.rulebook import Rulebook
from model.state import State, rewritten, verdict_of, with_client, with_life, with_verdict
from source_server.domain.chunk import ChunkState

Step = tuple[str, State]

REFUSED = "a finished answer was refused while the chunk had none"
ROBBED = "a message took a lease that it did not name"


def client_steps(rules: Rulebook, state: State) -> Iterator[Step]:
    """Every step of every client, and every end of a lease or an assignment."""
    for who in range(len(state.clients)):
        yield from _claims(rules, state, who)
        yield from _late_claims(rules, state, who)
        yield from _computes(rules, state, who)
        yield from _delivers(rules, state, who)
        yield from _lives(rules, state, who)
    yield from _leases_end(rules, state)
    yield from _assignments_end(rules, state)


def _claims(rules: Rulebook, state: State, who: int) -> Iterator[Step]:
    client, name = state.clients[who], rules.names[who]
    if client.running or state.primary.lives[who] != client.life:
        return
    token, claims = client.asking, client.claims
    if not token:
        claims += 1
        token = f"{name}{claims}"
        if claims > rules.setting.givers[who].claims:
            return
    old = state.primary.chunk
    held = rules.holds(old, name, token)
    leased = old if held else rules.leased(old, who, token, client.life)
    if leased == old and not held:
        return
    after = _rewritten(rules, state, leased)
    won = client._replace(claims=claims, asking="", running=token, run=rules.chunk(leased).run)
    yield f"{name} claims the chunk as {token}", with_client(after, who, won)
    if not held and rules.setting.lost_answers:
        lost = client._replace(claims=claims, asking=token)
        yield f"{name} claims the chunk as {token}, the answer is lost", with_client(after, who, lost)


def _late_claims(rules: Rulebook, state: State, who: int) -> Iterator[Step]:
    """A duplicate of a claim, delayed on its way or by a slow server that read the container's record before."""
    client = state.clients[who]
    token = f"{rules.names[who]}{client.claims}"
    if not rules.setting.late_claims or not client.claims or token in (client.asking, client.running):
        return
    leased = rules.leased(state.primary.chunk, who, token, client.life)
    yield f"a late duplicate of the claim {token} arrives", _rewritten(rules, state, leased)


def _computes(rules: Rulebook, state: State, who: int) -> Iterator[Step]:
    client, name = state.clients[who], rules.names[who]
    if not client.running:
        return
    for outcome in rules.setting.givers[who].outcomes:
        made = rules.attempt_id(who, client.running, client.run, outcome)
        spool = tuple(sorted({*client.spool, made}))
        yield (
            f"{name} finishes {made}",
            with_client(state, who, client._replace(running="", run=0, spool=spool)),
        )
    yield f"{name} dies while computing", with_client(state, who, client._replace(running="", run=0))


def _delivers(rules: Rulebook, state: State, who: int) -> Iterator[Step]:
    """Sent, lost, sent again: a request that waits for a majority is a spool that still has the attempt."""
    variant, name = rules.variant, rules.names[who]
    for attempt in state.clients[who].spool:
        known = verdict_of(state.primary, attempt) is not None
        if variant.refuses_stale and not rules.holds(state.primary.chunk, *rules.giver_of(attempt)):
            yield (
                f"{name} sends {attempt}, and is refused: its lease has ended",
                _refused(rules, state, who, attempt),
            )
        elif (
            variant.points_first
            and (early := rules.settled(state.primary.chunk, attempt)) != state.primary.chunk
        ):
            yield f"{name} sends {attempt}, the chunk is written", _rewritten(rules, state, early)
        elif not known:
            stored = state._replace(primary=with_verdict(state.primary, attempt, "new"))
            yield f"{name} sends {attempt}, the primary stores it", stored
            if variant.acknowledges_at_once:
                told = _told(stored, who, attempt)
                yield f'{name} sends {attempt}, the primary stores it, "stored" is said', told
        if verdict_of(state.majority, attempt) is not None:
            yield f'a majority has {attempt}, "stored" is said', _told(state, who, attempt)
        elif known and variant.acknowledges_known:
            yield f'{name} sends {attempt} again, it is there, "stored" is said', _told(state, who, attempt)


def _told(state: State, who: int, attempt: str) -> State:
    told = state._replace(told=tuple(sorted({*state.told, attempt})))
    return _despooled(told, who, attempt)


def _refused(rules: Rulebook, state: State, who: int, attempt: str) -> State:
    chunk = rules.chunk(state.primary.chunk)
    wanted = chunk.result is None and chunk.state is not ChunkState.CANCELLED
    after = _despooled(state, who, attempt)
    return after._replace(broken=REFUSED) if wanted else after


def _despooled(state: State, who: int, attempt: str) -> State:
    """A final word has come: the client deletes the attempt."""
    client = state.clients[who]
    kept = tuple(one for one in client.spool if one != attempt)
    return with_client(state, who, client._replace(spool=kept))


def _lives(rules: Rulebook, state: State, who: int) -> Iterator[Step]:
    client, name, recorded = state.clients[who], rules.names[who], state.primary.lives[who]
    if recorded > 0 and state.spent.purges < rules.setting.purges:
        spent = state.spent._replace(purges=state.spent.purges + 1)
        yield f"{name} is purged", with_life(state, who, -recorded)._replace(spent=spent)
    if recorded != client.life:
        # Purged, or its registration was rolled back: it is told so, and registers anew.
        life = max(abs(recorded), client.life) + 1
        back = with_client(with_life(state, who, life), who, client._replace(life=life))
        yield f"{name} comes back in life {life}", back


def _leases_end(rules: Rulebook, state: State) -> Iterator[Step]:
    old = state.primary.chunk
    for held in rules.chunk(old).leases:
        name, token = held.container, held.token
        who = rules.names.index(name)
        client = state.clients[who]
        after = _rewritten(rules, state, rules.given_back(old, name, token))
        if rules.setting.expiry:
            yield f"the lease {token} expires", after
        elif int(held.life) != state.primary.lives[who]:
            yield f"the lease {token} of an ended life is given back", after
        elif token not in (client.running, client.asking):
            yield f"{name} does not list {token}, which is given back", after
        if rules.setting.late_claims:
            yield from _late_release(rules, state, name, token)


def _late_release(rules: Rulebook, state: State, name: str, token: str) -> Iterator[Step]:
    """An earlier claim is given back by a message that comes late: it must not touch a later claim's lease."""
    number = int(token.removeprefix(name))
    if number > 1:
        named = token if rules.variant.ignores_tokens else f"{name}{number - 1}"
        after = _rewritten(rules, state, rules.given_back(state.primary.chunk, name, named))
        if after is not state:
            after = after._replace(broken=ROBBED)
        yield f"a late message gives {name}{number - 1} back", after


def _assignments_end(rules: Rulebook, state: State) -> Iterator[Step]:
    dealt = rules.chunk(state.primary.chunk).assigned
    if dealt is not None and int(dealt.life) != state.primary.lives[rules.names.index(dealt.container)]:
        freed = _rewritten(rules, state, rules.plain("unassign", state.primary.chunk))
        yield f"what was dealt to an ended life of {dealt.container} is given back", freed


def _rewritten(rules: Rulebook, state: State, chunk: int) -> State:
    return rewritten(state, chunk, counting=rules.variant.counts_revs)
