"""The supervisor's rules: how long it waits before it starts a dead part again."""

from __future__ import annotations

import pytest

from source_server.server_home import Address, BadAddress
from source_server.supervisor import RestartPolicy, Watched

POLICY = RestartPolicy(first_s=0.5, cap_s=30.0, settled_s=60.0)


def test_the_delay_doubles_with_each_death_up_to_the_cap() -> None:
    delays = [POLICY.delay_s(deaths) for deaths in (1, 2, 3, 7, 10_000)]

    assert delays == [0.5, 1.0, 2.0, 30.0, 30.0]


def test_a_part_that_keeps_dying_waits_longer_each_time() -> None:
    seen = Watched(deaths=2, started_at=100.0)

    noted = seen.died(101.0, POLICY)

    assert noted == Watched(deaths=3, started_at=100.0, due_at=103.0)


def test_a_part_that_lived_a_while_starts_over_with_the_first_delay() -> None:
    seen = Watched(deaths=9, started_at=100.0)

    noted = seen.died(160.0, POLICY)

    assert noted == Watched(deaths=1, started_at=100.0, due_at=160.5)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::1]:8765", "http://[::1]:8765"),
        ("localhost:1", "http://localhost:1"),
    ],
)
def test_an_address_reads_back_as_written_and_has_a_local_url(text: str, url: str) -> None:
    address = Address.parse(text)

    assert (str(address), address.url) == (text, url)


@pytest.mark.parametrize(
    "text", ["", "8765", ":8765", "host", "host:", "host:0", "host:65536", "host:-1", "::1:80"]
)
def test_what_is_not_an_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadAddress, match=r"HOST:PORT, such as 127\.0\.0\.1:8765, not"):
        Address.parse(text)
