"""What has become of calculations: their chunks, results and errors, put together in a few bounded reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from source_server.domain.attempt import Verdict
from source_server.domain.calculation import Asked, Calculators, Opinion, Progress, Reading
from source_server.domain.chunk import Chunk, ChunkState
from source_server.stores.database import Stores

LOOKED_AT = 1000  #: checked calculations from which the calculators' standing is made

Document = dict[str, Any]


@dataclass(frozen=True)
class _Known:
    """All that was read about some calculations."""

    chunks: Mapping[str, Chunk]
    results: Mapping[str, Document]
    errors: Mapping[str, Document]
    pseudonyms: Mapping[str, str]


class ReadCalculations:
    """Reads only."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def of(self, asked: Sequence[Asked]) -> list[Reading]:
        """Each of these as it stands now, in their order."""
        known = self._known(asked)
        return [_reading(one, known) for one in asked]

    def standing(self, setting: Calculators) -> dict[str, dict[str, int]]:
        """environment -> verdict -> how often, among the last checked calculations."""
        counts: dict[str, dict[str, int]] = {one.name: {} for one in setting.environments}
        task = None if setting.checked is None else self._stores.tasks.find(setting.checked)
        if task is None or task.upload is None:
            return counts
        last = task.upload.chunks
        ids = [f"{task.id}.{n}" for n in range(max(0, last - LOOKED_AT), last)]
        for variant, verdict in self._stores.results.verdicts(ids) if ids else ():
            if variant in counts:
                counts[variant][verdict] = counts[variant].get(verdict, 0) + 1
        return counts

    def _known(self, asked: Sequence[Asked]) -> _Known:
        ids = [f"{one.task}.{one.n}" for one in asked if one.n is not None]
        chunks = self._stores.chunks.read(ids) if ids else {}
        wanted = {candidate.result for one in chunks.values() for candidate in one.candidates}
        wanted |= {one.result for one in chunks.values() if one.result is not None}
        errors = [one.failed[-1].error for one in chunks.values() if one.failed and one.result is None]
        results = self._stores.results.full(sorted(wanted)) if wanted else {}
        accounts = {one["account"] for one in results.values()}
        return _Known(
            chunks=chunks,
            results=results,
            errors=self._stores.errors.read(errors) if errors else {},
            pseudonyms=self._stores.accounts.pseudonyms(accounts) if accounts else {},
        )


UNDECIDED = (Verdict.NEW.value, Verdict.CANDIDATE.value)


def _reading(asked: Asked, known: _Known) -> Reading:
    chunk = known.chunks.get(f"{asked.task}.{asked.n}")
    if chunk is None:
        return Reading(asked=asked, state=Progress.WAITING)
    opinions = _opinions(chunk, known)
    # Who looks at it once it is answered looks no more: until then every opinion has its verdict.
    judged = all(one.verdict not in UNDECIDED for one in opinions)
    if chunk.state is ChunkState.DONE and chunk.result in known.results and judged:
        return _answered(asked, chunk, known, opinions)
    if chunk.state in (ChunkState.QUARANTINED, ChunkState.CANCELLED):
        return replace(_failed(asked, chunk, known), opinions=opinions)
    now = tuple(lease.variant for lease in chunk.leases)
    state = Progress.COMPUTING if now or chunk.state is ChunkState.DONE else Progress.WAITING
    return Reading(asked=asked, state=state, environments=now, opinions=opinions)


def _answered(asked: Asked, chunk: Chunk, known: _Known, opinions: tuple[Opinion, ...]) -> Reading:
    accepted = known.results[str(chunk.result)]
    wrong = Verdict.DISAGREED.value
    return Reading(
        asked=asked,
        state=Progress.ANSWERED,
        environments=(accepted.get("variant", ""),),
        account=known.pseudonyms.get(accepted["account"]),
        answer=str(accepted.get("answer", "")).strip(),
        opinions=opinions,
        disagreed=tuple(one.environment for one in opinions if one.verdict == wrong),
    )


def _failed(asked: Asked, chunk: Chunk, known: _Known) -> Reading:
    if chunk.state is ChunkState.CANCELLED:
        return Reading(asked=asked, state=Progress.ERROR, error="It was cancelled.")
    error = known.errors.get(chunk.failed[-1].error) if chunk.failed else None
    if error is None:
        said = "The environments that were asked do not agree." if chunk.candidates else "It was set aside."
        return Reading(asked=asked, state=Progress.ERROR, error=said)
    return Reading(
        asked=asked,
        state=Progress.ERROR,
        environments=(error.get("variant") or "",),
        account=known.pseudonyms.get(error["account"]),
        error=_sentence(error),
    )


def _sentence(error: Document) -> str:
    """What the program said last, or how it ended."""
    lines = [line.strip() for line in str(error.get("stderr_tail") or "").splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"The program ended with {error['outcome']} and said nothing."


def _opinions(chunk: Chunk, known: _Known) -> tuple[Opinion, ...]:
    """What each environment said, where several were asked. A payload that equals the accepted one is kept once."""
    if len(chunk.candidates) < 2:
        return ()
    found = [(one.digest, known.results.get(one.result, {})) for one in chunk.candidates]
    said = {digest: result["answer"] for digest, result in found if "answer" in result}
    return tuple(
        Opinion(
            environment=one.variant,
            answer=str(said.get(one.digest, "")).strip(),
            verdict=str(known.results.get(one.result, {}).get("verdict", "")),
        )
        for one in chunk.candidates
    )
