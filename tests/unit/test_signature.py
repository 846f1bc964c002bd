"""Alike failures have one signature, others have not; and what a task's first attempts say."""

from __future__ import annotations

import json
import random
import string
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_server.domain.attempt import Attempt, Outcome
from source_server.domain.first_attempts import Ended, Finding, first_attempts_say
from source_server.domain.quarantine import Fleet
from source_server.domain.signature import FULL_TAIL, SHORT_TAIL, kept, signature

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


def failed(stderr: str, **other: object) -> Attempt:
    known: dict[str, object] = {
        "chunk": "t.1",
        "run": 0,
        "token": "token",
        "ticket": "ticket",
        "outcome": Outcome.FAILED,
        "exit_code": 1,
        "signal": None,
        "stdout": "",
        "stderr_tail": stderr,
        "started": NOW,
        "ended": NOW,
        "cpu_s": 0.0,
        "runtime": "process",
        "image": None,
    }
    return Attempt(**{**known, **other})  # type: ignore[arg-type]


def of(stderr: str, **row: object) -> str:
    return signature(failed(stderr), json.dumps(row) if row else None)


# --- the last line, masked


@pytest.mark.parametrize(
    ("said", "masked"),
    [
        ("row 17 is bad", "row N is bad"),
        ("took 3.5e-05 s of -2,000.25", "took N s of N"),
        ("at 0x7f3a11 in deadbeefcafe", "at HEX in HEX"),
        ("task 9a0c4f failed", "task HEX failed"),
        ("id 3f2504e0-4f89-11d3-9a0c-0305e82c3301", "id HEX"),
        ("cannot open '/tmp/a b1/x.csv'", "cannot open 'PATH bN/x.csv'"),
        ("cannot open ../data/x.csv: no such file", "cannot open PATH: no such file"),
        (r"cannot open C:\data\x.csv", "cannot open PATH"),
        ("first\nsecond\n\n   \n", "second"),
        ("", ""),
        ("\x00\x1b[31mred", "  [Nmred"),
    ],
)
def test_what_differs_from_chunk_to_chunk_is_masked(said: str, masked: str) -> None:
    assert of(said) == f"failed, exit 1: {masked}"


@pytest.mark.parametrize(
    ("said", "row", "masked"),
    [
        ("no such city: Graz", {"city": "Graz"}, "no such city: VALUE"),
        ("no such city: 'São Tomé'", {"city": "São Tomé"}, "no such city: 'VALUE'"),
        ("unknown key 'x'", {"letter": "x"}, "unknown key 'VALUE'"),
        ("a bad thing", {"letter": "a"}, "a bad thing"),
        ("Grazer Platz", {"city": "Graz"}, "Grazer Platz"),
        ("Graz/Graz", {"city": "Graz", "n": "17"}, "VALUE/VALUE"),
        ("row 17 of 20", {"n": "17"}, "row N of N"),
        (r"bad line 'one\ntwo'", {"text": "one\ntwo"}, "bad line 'VALUE'"),
        ("bad word: two", {"deep": {"list": [1, "two"]}}, "bad word: VALUE"),
        ("no column city", {"city": "Graz"}, "no column city"),
        ("lost: a.*b(", {"text": "a.*b("}, "lost: VALUE"),
    ],
)
def test_the_values_of_the_chunk_are_masked_and_nothing_else_is(
    said: str, row: dict[str, object], masked: str
) -> None:
    assert of(said, **row) == f"failed, exit 1: {masked}"


def test_the_longer_of_two_values_is_masked_first() -> None:
    assert of("no city New York", a="New", b="New York").endswith("no city VALUE")


def test_many_rows_in_a_chunk_are_masked_as_one_is() -> None:
    rows = {"rows": [{"city": f"city-of-{letter}"} for letter in string.ascii_lowercase], "first_row": 0}

    assert of("no city-of-q here", **rows).endswith("no VALUE here")


@pytest.mark.parametrize("text", ["{", "[" * 5000, "null", "7", '"text"', '{"a": "\\ud800"}'])
def test_an_input_that_is_no_table_masks_nothing_and_breaks_nothing(text: str) -> None:
    assert signature(failed("it broke"), text) == "failed, exit 1: it broke"


@given(st.text(max_size=300), st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=5))
def test_a_signature_is_one_short_printable_line_whatever_was_said(said: str, row: dict[str, str]) -> None:
    found = signature(failed(said), json.dumps(row))

    assert found.isprintable() and len(found) < 240
    found.encode()


def test_a_signature_of_the_largest_chunk_takes_no_time() -> None:
    dice = random.Random(1)
    rows = [{"w": "".join(dice.choices("pq", k=12))} for _ in range(3000)]
    said = " ".join(row["w"] for row in rows)[:8000]

    found = signature(failed(said), json.dumps({"rows": rows, "first_row": 0}))

    assert found.startswith("failed, exit 1: VALUE VALUE")


# --- tracebacks

TRACEBACK = """Traceback (most recent call last):
  File "{folder}/fit.py", line {line}, in <module>
    main()
  File "{folder}/model.py", line 12, in solve
    raise ValueError({number})
          ^^^^^^^^^^
ValueError: {number} of {city} is too large
"""


def test_a_traceback_is_known_by_its_exception_and_innermost_frame() -> None:
    one = TRACEBACK.format(folder="/opt/job", line=3, number=17, city="Graz")
    other = TRACEBACK.format(folder=r"C:\job", line=44, number=3.5, city="Wien")

    assert of(one) == of(other) == "failed, exit 1: ValueError in model.py, solve"


def test_the_last_of_chained_tracebacks_counts_and_a_message_may_have_many_lines() -> None:
    chained = (
        TRACEBACK.format(folder="/a", line=1, number=1, city="x")
        + "\nDuring handling of the above exception, another exception occurred:\n\n"
        + 'Traceback (most recent call last):\n  File "/a/job.py", line 9, in run\n    check()\n'
        + "my.module.TooLarge: first line\nsecond line\n"
    )

    assert of(chained) == "failed, exit 1: my.module.TooLarge in job.py, run"


def test_a_traceback_whose_beginning_is_cut_off_is_still_known() -> None:
    whole = TRACEBACK.format(folder="/a", line=1, number=1, city="x")

    assert of(whole[60:]) == of(whole)


def test_a_syntax_error_has_a_frame_without_a_function() -> None:
    said = "  File \"/a/job.py\", line 3\n    x = (\n        ^\nSyntaxError: '(' was never closed\n"

    assert of(said) == "failed, exit 1: SyntaxError in job.py"


def test_a_frame_without_an_exception_behind_it_is_only_text() -> None:
    assert of('  File "/a/job.py", line 3, in run\n') == 'failed, exit 1: File "PATH", line N, in run'


def test_kind_exit_and_signal_tell_failures_apart() -> None:
    endings = [
        failed("x"),
        failed("x", exit_code=2),
        failed("x", exit_code=None, signal=9),
        failed("x", exit_code=None, signal=9, outcome=Outcome.TIMEOUT),
        failed("x", exit_code=None, signal=9, outcome=Outcome.OOM),
    ]

    assert len({signature(one) for one in endings}) == len(endings)


def test_what_is_kept_of_a_text_is_its_end_and_whole_letters() -> None:
    said = "ö" * 5000 + "end"

    short, whole = kept(said, whole=False), kept(said, whole=True)

    for cut, most in ((short, SHORT_TAIL), (whole, FULL_TAIL)):
        assert cut.endswith("öend") and most - 4 < len(cut.encode()) <= most
    assert kept("short", whole=False) == "short"


# --- the first attempts of a task

BOOM = "failed, exit 1: boom"


def bad(host: str = "h1", signature: str = BOOM, account: str = "a") -> Ended:
    return Ended(host=host, account=account, signature=signature)


def good(host: str = "h1") -> Ended:
    return Ended(host=host, account="a")


def fleet(*hosts: str, accounts: tuple[str, ...] = ("a",)) -> Fleet:
    return Fleet(hosts=frozenset(hosts), accounts=frozenset(accounts))


def test_eighteen_alike_failures_of_twenty_are_a_reason_to_pause_and_seventeen_are_none() -> None:
    others = [good(), bad(signature="another")]

    eighteen = first_attempts_say([*others, *[bad()] * 18], fleet("h1"))
    seventeen = first_attempts_say([*others, good(), *[bad()] * 17], fleet("h1"))

    assert eighteen == Finding(why=f"18 of its first 20 attempts failed alike: {BOOM}.")
    assert seventeen == Finding()


def test_it_is_too_early_to_say_until_twenty_ended_unless_three_were_different() -> None:
    assert first_attempts_say([bad()] * 19, fleet("h1")) is None
    assert first_attempts_say([], fleet("h1")) is None
    assert first_attempts_say([good(), bad(), good(), good()], fleet("h1")) == Finding()


def test_only_the_first_twenty_count() -> None:
    assert first_attempts_say([*[good()] * 3, *[bad()] * 100], fleet("h1")) == Finding()
    assert first_attempts_say([*[bad()] * 20, *[good()] * 100], fleet("h1")) is not None


def test_one_broken_host_is_no_reason_while_another_could_compute() -> None:
    alone = [bad("h1")] * 30

    assert first_attempts_say(alone, fleet("h1", "h2")) is None
    assert first_attempts_say([*alone, good("h2")], fleet("h1", "h2")) == Finding()
    assert first_attempts_say([*alone, bad("h2", "another")], fleet("h1", "h2")) == Finding()
    paused = first_attempts_say([*alone, bad("h2")], fleet("h1", "h2"))
    assert paused is not None and paused.why is not None
    paused = first_attempts_say(alone, Fleet())
    assert paused is not None and paused.why is not None


def test_one_account_with_two_hosts_is_no_reason_while_another_account_could_compute() -> None:
    in_league = [bad("h1"), bad("h2")] * 10
    there = fleet("h1", "h2", "h3", accounts=("a", "b"))

    assert first_attempts_say(in_league, there) is None
    paused = first_attempts_say([*in_league, bad("h3", account="b")], there)
    assert paused is not None and paused.why is not None
