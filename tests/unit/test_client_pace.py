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
        pace.finished(0.002)

    assert wants == [1, 4, 16, 64, 256, 256]
    assert wants[1] == GROWTH and wants[-1] == MOST


@pytest.mark.parametrize(("seconds", "expected"), [(1.0, 10), (30, 1), (0.001, 256)])
def test_a_claim_is_ten_seconds_of_work_at_most(seconds, expected):
    pace = Pace()
    pace.granted(MOST)

    pace.finished(seconds)

    assert pace.want() == expected
