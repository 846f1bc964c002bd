"""Dealing, silence, tickets, signatures, tables: small pure rules."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_server.domain import tickets
from source_server.domain.attempt import Attempt, Outcome, digest, stored_id
from source_server.domain.dealing import level
from source_server.domain.refusal import BadInput
from source_server.domain.signature import signature
from source_server.domain.table import Lines, csv_rows, cut, jsonl_rows, rows_of
from source_server.domain.timing import computed_for, lease_until, silent_since
from source_server.domain.watch import WorkingService

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 40), min_size=1),
    st.integers(0, 300),
)
def test_dealing_levels_what_is_held_as_far_as_the_new_ones_reach(
    holding: dict[str, int], chunks: int
) -> None:
    dealt = Counter(itertools.islice(level(holding), chunks))

    after = {container: held + dealt[container] for container, held in holding.items()}
    assert sum(dealt.values()) == chunks
    # Whoever got one holds at most one more than the least of all.
    assert all(after[container] <= min(after.values()) + 1 for container in dealt if dealt[container])


def test_dealing_to_nobody_deals_nothing() -> None:
    assert list(level({})) == []


def test_a_lease_later_in_its_batch_runs_longer() -> None:
    first, third = (lease_until(NOW, timeout_s=30, place=place, beat_s=20) for place in (1, 3))

    assert third - first == timedelta(seconds=60) and first - NOW > timedelta(seconds=30)


@pytest.mark.parametrize(("silence", "expected"), [(59, False), (60, False), (61, True)])
def test_three_missed_beats_are_silence(silence: int, expected: bool) -> None:
    last_seen = NOW - timedelta(seconds=silence)

    assert (last_seen < silent_since(NOW, beat_s=20)) is expected


def test_silence_is_judged_only_after_three_beats_of_service_seen_without_a_gap() -> None:
    def proved(*looks: tuple[float, bool]) -> bool:
        watch = WorkingService(beat_s=20, longest_gap_s=15)
        for instant, serving in looks:
            watch.observe(instant, serving=serving)
        return watch.proved(looks[-1][0])

    steady = [(float(second), True) for second in range(0, 61, 10)]
    assert proved(*steady)
    assert not proved(*steady[:-1])
    assert not proved(*steady[:3], (25.0, False), *steady[3:])  # the service was away
    assert not proved(*steady[:3], *((instant + 100, up) for instant, up in steady[3:]))  # we were asleep
    assert not proved((1000.0, True))


def attempt(**other: object) -> Attempt:
    known: dict[str, object] = {
        "chunk": "t.1",
        "run": 0,
        "token": "tok",
        "ticket": "tick",
        "outcome": Outcome.OK,
        "exit_code": 0,
        "signal": None,
        "stdout": "42\n",
        "stderr_tail": "",
        "started": NOW,
        "ended": NOW,
        "cpu_s": 0.0,
        "runtime": "process",
        "image": None,
    }
    return Attempt(**{**known, **other})  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"chunk": "t.2"}, {"run": 1}, {"ticket": "x"}, {"stdout": "43\n"}])
def test_another_attempt_has_another_id_and_the_same_one_the_same(change: dict[str, object]) -> None:
    assert stored_id(attempt()) == stored_id(attempt(cpu_s=9.0))
    assert stored_id(attempt()) != stored_id(attempt(**change))


def test_equal_answers_have_equal_digests_whoever_gave_them() -> None:
    assert digest(attempt()) == digest(attempt(token="other", ticket="other"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("row 17 is bad", "row 23 is bad"),
        ("no file /tmp/a1/x.csv", "no file /srv/b/y.csv"),
        ("at 0x7f3a11", "at 0x99beef"),
        ("Traceback\n  File\nValueError: 3.5", "other text\nValueError: 7"),
    ],
)
def test_alike_failures_have_one_signature(one: str, other: str) -> None:
    failed = {"outcome": Outcome.FAILED, "exit_code": 1}

    assert signature(attempt(stderr_tail=one, **failed)) == signature(attempt(stderr_tail=other, **failed))


def test_different_endings_have_different_signatures() -> None:
    endings = [
        attempt(outcome=Outcome.FAILED, exit_code=1, stderr_tail="x"),
        attempt(outcome=Outcome.FAILED, exit_code=2, stderr_tail="x"),
        attempt(outcome=Outcome.FAILED, exit_code=None, signal=9, stderr_tail="x"),
        attempt(outcome=Outcome.TIMEOUT, exit_code=None, signal=9, stderr_tail="x"),
    ]

    assert len({signature(one) for one in endings}) == 4


@pytest.mark.parametrize("change", [{"chunk": "t.2"}, {"run": 1}, {"container": "d"}, {"token": "u"}])
def test_a_ticket_fits_only_what_it_was_given_for(change: dict[str, object]) -> None:
    given_for = {"chunk": "t.1", "run": 0, "container": "c", "token": "t"}
    shown = tickets.ticket(b"secret", **given_for)  # type: ignore[arg-type]

    assert tickets.fits(shown, b"secret", **given_for)  # type: ignore[arg-type]
    assert not tickets.fits(shown, b"secret", **{**given_for, **change})  # type: ignore[arg-type]
    assert not tickets.fits(shown, b"another", **given_for)  # type: ignore[arg-type]
    assert not tickets.fits("é", b"secret", **given_for)  # type: ignore[arg-type]


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=20), st.integers(1, 7))
def test_a_csv_of_any_text_comes_through_to_the_letter(rows: list[list[str]], rows_per_chunk: int) -> None:
    import csv
    import io

    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["a", "b"])
    writer.writerows(rows)
    raw = io.BytesIO(buffer.getvalue().encode())

    cuts = list(cut(csv_rows(Lines(raw)), rows_per_chunk=rows_per_chunk, needed=set()))

    back = [list(row.values()) for one in cuts for row in rows_of(one.text, one.rows)]
    assert back == rows
    assert [one.n for one in cuts] == list(range(len(cuts)))
    assert [one.first_row for one in cuts] == [rows_per_chunk * one.n for one in cuts]


def test_a_json_row_is_kept_as_it_was_written() -> None:
    text = '{"x": 1.10, "big": 123456789012345678901234567890, "half": "\\ud800", "nul": "\\u0000"}'

    (one,) = cut(jsonl_rows(Lines([text.encode() + b"\n"])), rows_per_chunk=1, needed=set())
    (many,) = cut(jsonl_rows(Lines([text.encode() + b"\n"] * 3)), rows_per_chunk=5, needed=set())

    assert one.text == text
    assert many.text == f'{{"rows": [{text}, {text}, {text}], "first_row": 0}}' and many.rows == 3
    assert json.loads(many.text)["rows"] == [json.loads(text)] * 3


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    (one,) = cut(csv_rows(Lines([b"\xef\xbb\xbfa\n", b"1\n"])), rows_per_chunk=1, needed={"a"})

    assert json.loads(one.text) == {"a": "1"}


def test_a_line_that_is_not_utf8_is_named() -> None:
    with pytest.raises(BadInput, match="Line 3"):
        list(csv_rows(Lines([b"a\n", b"1\n", b"\xff\n"])))


def test_a_value_may_be_as_long_as_a_line() -> None:
    (one,) = cut(csv_rows(Lines([b"a,b\n", b"x" * 900_000 + b",1\n"])), rows_per_chunk=1, needed={"a"})

    assert len(json.loads(one.text)["a"]) == 900_000


def test_a_quote_that_nothing_closes_is_told_by_the_line_where_it_opens() -> None:
    with pytest.raises(BadInput, match=r"Line 3: a quote opens there, and nothing closes it."):
        list(csv_rows(Lines([b"a,b\n", b"1,2\n", b'"1,2\n', b"3,4\n"])))


def test_who_asks_for_a_field_that_is_not_there_hears_which_are() -> None:
    rows = csv_rows(Lines([b"city;year\n", b"Ulm;1879\n"]))

    with pytest.raises(BadInput, match=r"Line 2 has no field 'city', .*: it has 'city;year' "):
        list(cut(rows, rows_per_chunk=1, needed={"city"}))


def test_of_many_fields_some_are_named() -> None:
    names = ",".join(f"c{number}" for number in range(900)).encode()
    rows = csv_rows(Lines([names + b"\n", b",".join([b"1"] * 900) + b"\n"]))

    with pytest.raises(BadInput, match=r"it has 'c0', .*'c7' and 892 more ") as said:
        list(cut(rows, rows_per_chunk=1, needed={"x"}))
    assert len(str(said.value)) < 400


def test_an_attempt_that_no_beat_saw_start_took_its_share_of_the_claim_and_not_all_of_it() -> None:
    claimed = datetime(2026, 11, 22, tzinfo=timezone.utc)
    third = lease_until(claimed, timeout_s=60.0, place=3, beat_s=20.0)
    now = claimed + timedelta(seconds=30)

    unseen = computed_for(claimed, None, third, now, timeout_s=60.0)
    seen = computed_for(claimed, claimed + timedelta(seconds=22), third, now, timeout_s=60.0)

    assert (unseen, seen) == (10.0, 8.0)
