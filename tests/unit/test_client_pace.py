import pytest

from client_container.pace import GROWTH, MOST, Pace


def test_the_first_claim_is_for_one_chunk():
    assert Pace().want() == 1


def test_claims_of_trivial_chunks_grow_at_most_fourfold_up_to_the_cap():
    pace = Pace()
    wants = []

    for _ in range(6):
        wants.append(pace.want())
        pace.granted(wants[-1])
        pace.finished(0.002, timeout_s=1)

    assert wants == [1, 4, 16, 64, 256, 256]
    assert wants[1] == GROWTH and wants[-1] == MOST


@pytest.mark.parametrize(("seconds", "timeout_s", "expected"), [(1.0, 1, 10), (30, 60, 1), (0.001, 60, 10)])
def test_a_claim_is_ten_seconds_of_work_and_ten_minutes_of_timeouts_at_most(seconds, timeout_s, expected):
    pace = Pace()
    pace.granted(MOST)

    pace.finished(seconds, timeout_s=timeout_s)

    assert pace.want() == expected
