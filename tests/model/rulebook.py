"""The server's own rules, applied to numbered chunks: each question is put to them once, and its answer remembered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import NamedTuple

from model.setting import Setting
from source_server.domain import settling
from source_server.domain import transitions as rules
from source_server.domain.agreement import same_answer
from source_server.domain.chunk import Candidate, Chunk, ChunkState, Failure, Holder, Lease
from source_server.domain.eligibility import Crowd, Taker, bar
from source_server.domain.quarantine import Fleet

NOW = datetime(
    2026, 11, 22, tzinfo=timezone.utc
)  #: clocks are adversarial: all that depends on time just happens


class Attempt(NamedTuple):
    """What an attempt's id says."""

    client: int
    token: str
    run: int
    outcome: str


class Rulebook:
    """Chunks by number; number 0 is the fresh one."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.variant = setting.variant
        self.names = tuple(one.name for one in setting.givers)
        self._numbers: dict[Chunk, int] = {}
        self._chunks: list[Chunk] = []
        self._known: dict[tuple[object, ...], int] = {}
        self._attempts: dict[str, Attempt] = {}
        self._verdicts: dict[tuple[str, int], str | None] = {}
        self._takers = tuple(
            Taker(container=one.name, host=f"host of {one.name}", account=one.account)
            for one in setting.givers
        )
        self._fleet = Fleet(
            hosts=frozenset(one.host for one in self._takers),
            accounts=frozenset(one.account for one in self._takers),
        )
        first = setting.rule.first_replicas
        self.number(
            Chunk(
                id="t.0", project="p", task="t", n=0, r=0.5, rev=0, upload="u", replicas=first, wanted=first
            )
        )

    def chunk(self, number: int) -> Chunk:
        """The chunk behind the number."""
        return self._chunks[number]

    def number(self, chunk: Chunk) -> int:
        """The chunk's number; chunks are told apart by all but their revision."""
        known = self._numbers.get(chunk)
        if known is None:
            known = self._numbers[chunk] = len(self._chunks)
            self._chunks.append(chunk)
        return known

    def attempt_id(self, client: int, token: str, run: int, outcome: str) -> str:
        """Results and errors are named by all that makes them: the same attempt again is the same document."""
        named = f"{token}.{run}.{outcome}"
        self._attempts[named] = Attempt(client, token, run, outcome)
        return named

    def attempt(self, attempt: str) -> Attempt:
        """What the id says."""
        return self._attempts[attempt]

    def giver_of(self, attempt: str) -> tuple[str, str]:
        """(container, token) that it was computed under."""
        client, token, _, _ = self.attempt(attempt)
        return self.names[client], token

    def leased(self, number: int, client: int, token: str, life: int) -> int:
        """As a claim leases it, or the same number when it may not have it."""
        return self._ask(
            ("lease", number, client, token, life), lambda old: self._lease(old, client, token, life)
        )

    def given_back(self, number: int, container: str, token: str) -> int:
        """Without this lease; the same number when there is none."""
        event = ("give back", number, container, token)
        return self._ask(event, lambda old: rules.give_back(old, container=container, token=token, lost=True))

    def assigned(self, number: int, client: int, life: int) -> int:
        """Dealt to this client."""
        holder = Holder(container=self.setting.givers[client].name, life=str(life))
        return self._ask(("assign", number, client, life), lambda old: rules.assign(old, holder))

    def plain(self, event: str, number: int) -> int:
        """As it is after an event that takes nothing more: unassign, wake, requeue, cancel."""
        return self._ask((event, number), getattr(rules, event))

    def holds(self, number: int, container: str, token: str) -> bool:
        """Whether the container has a lease under this token."""
        held = self._chunks[number].leases
        return any(one.container == container and one.token == token for one in held)

    def rerun(self, number: int) -> int:
        """Begun anew."""
        return self._ask(("rerun", number), lambda old: rules.rerun(old, self.setting.rule.first_replicas))

    def settled(self, number: int, attempt: str) -> int:
        """After the attempt has counted and the candidates were judged; the same number when nothing changes."""
        return self._ask(("settle", number, attempt), lambda old: self._settle(old, attempt))

    def verdict(self, number: int, attempt: str) -> str | None:
        """What the chunk, as a majority has it, says about an attempt."""
        known = (attempt, number)
        if known not in self._verdicts:
            self._verdicts[known] = self._judge(self.chunk(number), attempt)
        return self._verdicts[known]

    def _ask(self, event: tuple[object, ...], rule: Callable[[Chunk], Chunk]) -> int:
        after = self._known.get(event)
        if after is None:
            number = event[1]
            assert isinstance(number, int)
            try:
                after = self.number(rule(self.chunk(number)))
            except rules.WrongState:
                after = number
            self._known[event] = after
        return after

    def _lease(self, chunk: Chunk, client: int, token: str, life: int) -> Chunk:
        taker = self._takers[client]
        if bar(chunk, taker, self.setting.rule, Crowd(takers=self._takers)):
            return chunk
        new = Lease(
            token=token,
            container=taker.container,
            life=str(life),
            host=taker.host,
            account=taker.account,
            since=NOW,
            until=NOW,
        )
        if self.setting.canaries and chunk.state is ChunkState.DONE:
            return rules.canary(chunk, new)
        if self.setting.hedges and chunk.state is ChunkState.LEASED:
            return rules.hedge(chunk, new)
        return rules.lease(chunk, new)

    def _settle(self, chunk: Chunk, attempt: str) -> Chunk:
        rule, variant = self.setting.rule, self.variant
        if attempt and self.attempt(attempt).outcome == "failed":
            return self._settle_error(chunk, attempt)
        if attempt:
            run, token = self.attempt(attempt).run, self.attempt(attempt).token
            if run == chunk.run or variant.judges_old_runs:
                chunk = settling.counted(chunk, self._candidate(attempt), token, rule)
        first = self.names.index(chunk.candidates[0].container) if chunk.candidates else 0
        trusted = self.setting.givers[first].trusted
        return settling.decided(chunk, rule, lambda _: same_answer, trusted=trusted)

    def _settle_error(self, chunk: Chunk, attempt: str) -> Chunk:
        client, token, run, _ = self.attempt(attempt)
        giver = self.setting.givers[client]
        if self.variant.ignores_tokens:
            token = next((one.token for one in chunk.leases if one.container == giver.name), token)
        error = attempt
        if self.variant.recounts:
            error = f"{attempt} again" if any(one.error == attempt for one in chunk.failed) else attempt
        return settling.counted_failure(
            chunk,
            Failure(error=error, host=f"host of {giver.name}", account=giver.account, signature="failed"),
            run,
            container=giver.name,
            token=token,
            now=NOW,
            fleet=self._fleet,
        )

    def _judge(self, chunk: Chunk, attempt: str) -> str | None:
        client, token, run, outcome = self.attempt(attempt)
        if outcome == "failed":
            container = self.setting.givers[client].name
            said = settling.failure_verdict(attempt, run, chunk, container=container, token=token)
            return None if said is None else said.value
        answer, rule = self._candidate(attempt), self.setting.rule
        if self.variant.blames_early and chunk.candidates and chunk.result is None:
            return "candidate" if same_answer(chunk.candidates[0], answer) else "disagreed"
        verdict = settling.verdict(answer, run, chunk, rule, lambda _: same_answer)
        return None if verdict is None else verdict.value

    def _candidate(self, attempt: str) -> Candidate:
        client, token, _, outcome = self.attempt(attempt)
        giver = self.setting.givers[client]
        account = token if self.variant.takes_twice else giver.account
        return Candidate(
            result=attempt,
            account=account,
            host=f"host of {giver.name}",
            container=giver.name,
            digest=outcome,
        )
