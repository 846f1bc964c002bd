"""Which chunks a round sends out, and that it sends none of them out twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_server.domain.chunk import Candidate, Chunk, ChunkState, Failure
from source_server.domain.rounds import Round, Which, sent_out, set_aside_for
from source_server.domain.signature import DISAGREEMENT

FRESH = Chunk(id="t.0", project="p", task="t", n=0, r=0.5, rev=1, upload="u")


def quarantined(*signatures: str, answers: int = 0, replicas: int = 1) -> Chunk:
    failed = tuple(
        Failure(error=f"e{number}", host=f"h{number}", account="a", signature=one)
        for number, one in enumerate(signatures)
    )
    candidates = tuple(
        Candidate(result=f"r{one}", account=f"a{one}", host=f"h{one}", container=f"c{one}", digest=f"{one}")
        for one in range(answers)
    )
    return replace(
        FRESH,
        state=ChunkState.QUARANTINED,
        wanted=0,
        failed=failed,
        failures=len(failed),
        candidates=candidates,
        replicas=replicas,
    )


def done() -> Chunk:
    one = quarantined(answers=1)
    return replace(one, state=ChunkState.DONE, result="r0")


def round_of(which: Which, *, anew: bool = False, **other: object) -> Round:
    return replace(Round(number=1, which=which, anew=anew), **other)


def test_a_requeued_chunk_begins_its_next_round_in_the_same_run_without_its_failures() -> None:
    again = sent_out(quarantined("boom", "boom", "boom"), round_of(Which.FAILED), first_replicas=1)

    assert again is not None and (again.state, again.wanted, again.run) == (ChunkState.READY, 1, 0)
    assert (again.failed, again.failures, again.round) == ((), 0, 1)


def test_a_rerun_chunk_begins_a_new_run_without_its_result() -> None:
    again = sent_out(done(), round_of(Which.ALL, anew=True), first_replicas=2)

    assert again is not None and (again.state, again.wanted, again.run) == (ChunkState.READY, 2, 1)
    assert again.result is None and again.candidates == ()


@pytest.mark.parametrize("state", list(ChunkState))
def test_only_a_quarantined_chunk_is_requeued_and_only_a_cancelled_one_is_never_rerun(
    state: ChunkState,
) -> None:
    chunk = replace(FRESH, state=state)

    requeued = sent_out(chunk, round_of(Which.ALL), first_replicas=1)
    rerun = sent_out(chunk, round_of(Which.ALL, anew=True), first_replicas=1)

    assert (requeued is not None) == (state is ChunkState.QUARANTINED)
    assert (rerun is not None) == (state is not ChunkState.CANCELLED)


@given(st.sampled_from(Which), st.booleans(), st.integers(1, 3))
def test_no_round_sends_a_chunk_out_twice_but_the_next_one_does(
    which: Which, anew: bool, number: int
) -> None:
    chunk = replace(quarantined("boom"), round=number - 1)
    this = round_of(which, anew=anew, number=number, signature="boom", chunks=("t.0",))
    after = sent_out(chunk, this, first_replicas=1)
    assert after is not None
    failed_again = replace(chunk, round=after.round)

    assert sent_out(failed_again, this, first_replicas=1) is None
    assert sent_out(failed_again, replace(this, number=number + 1), first_replicas=1) is not None


def test_named_chunks_and_signatures_leave_the_others_alone() -> None:
    chunk = quarantined("boom", "crash")

    for wanted, other in (({"signature": "boom"}, {"signature": "bo"}), ({"signature": "crash"}, {})):
        assert sent_out(chunk, round_of(Which.SIGNATURE, **wanted), first_replicas=1) is not None
        assert sent_out(chunk, round_of(Which.SIGNATURE, **other), first_replicas=1) is None
    assert sent_out(chunk, round_of(Which.CHUNKS, chunks=("t.1",)), first_replicas=1) is None


def test_a_chunk_is_set_aside_for_a_disagreement_only_when_all_wanted_answers_are_there() -> None:
    assert set(set_aside_for(quarantined("boom", answers=1, replicas=2))) == {"boom"}
    assert set(set_aside_for(quarantined("boom", answers=3, replicas=3))) == {"boom", DISAGREEMENT}
    assert set(set_aside_for(quarantined())) == set()
