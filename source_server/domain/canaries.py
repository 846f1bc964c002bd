"""Which settled chunks test a host: those whose accepted answer it did not give itself."""

from __future__ import annotations

from source_server.domain.chunk import Candidate, Chunk, Lease
from source_server.domain.eligibility import Taker


def can_test(chunk: Chunk, taker: Taker) -> bool:
    """Whether the chunk, computed once more, says something about this taker; it must look new to it."""
    accepted = next((one for one in chunk.candidates if one.result == chunk.result), None)
    if accepted is None or accepted.platform != taker.platform:
        return False
    touched: tuple[Candidate | Lease, ...] = (*chunk.candidates, *chunk.leases)
    return not any((one.account, one.host) == (taker.account, taker.host) for one in touched)


def is_new_to(chunk: Chunk, account: str) -> bool:
    """Whether nobody of this account has answered it, or computes it now."""
    touched: tuple[Candidate | Lease, ...] = (*chunk.candidates, *chunk.leases)
    return all(one.account != account for one in touched)
