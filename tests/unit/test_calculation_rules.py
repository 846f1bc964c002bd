"""What people type is one calculation, or is refused with a sentence; and the sessions of pages."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_server.domain.calculation import Environment, matching, parse
from source_server.domain.refusal import BadInput
from source_server.domain.session import LIFE, Session, csrf_token, fingerprint, is_csrf_token, seal, unseal

NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
SECRET = b"s" * 32


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1.21 / -32.33", ("1.21", "/", "-32.33")),
        ("1+2", ("1", "+", "2")),
        ("  -1e3*+.5\t", ("-1e3", "*", "+.5")),
        ("1-2", ("1", "-", "2")),
        ("1--2", ("1", "-", "-2")),
        ("1e-5-3", ("1e-5", "-", "3")),
        ("5. + 010", ("5.", "+", "010")),
        ("1/0", ("1", "/", "0")),
        ("-0*5e-324", ("-0", "*", "5e-324")),
    ],
)
def test_a_calculation_is_taken_as_it_was_typed(text: str, parts: tuple[str, str, str]) -> None:
    found = parse(text)

    assert (found.left, found.operator, found.right) == parts


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "Write two numbers"),
        ("1/3/4", "more than two"),
        ("1 - 2 + 3", "more than two"),
        ("(1+2)*3", "Parentheses"),
        ("1 2", "not understood"),
        ("42", "two numbers"),
        ("1 +", "two numbers"),
        ("* 3", "two numbers"),
        ("2**3", "not understood"),
        ("2//3", "not understood"),
        ("1 - - 2", "not understood"),
        ("7 % 2", "not understood"),
        ("1 − 2", "write - "),
        ("2 × 3", r"write \* "),
        ("6 ÷ 2", "write / "),
        ("0x10 + 1", "decimal"),
        ("inf + 1", "decimal"),
        ("nan * 1", "decimal"),
        ("1_000 + 1", "decimal"),
        ("1e999 + 1", "outside the range"),
        ("1e-999 + 1", "outside the range"),
        ("1,5 + 1", "comma"),
        ("٣ + 1", "not understood"),
        ("1 + 2\n+ 3", "not understood"),
        ("1 + 2\0", "not understood"),
        ("9" * 61 + " + 1", "at most 60"),
        ("1 + " + " " * 300 + "2", "at most 200"),
        ("<script>alert(1)</script>", "Parentheses"),
    ],
)
def test_anything_else_is_refused_with_a_sentence_that_says_why(text: str, word: str) -> None:
    with pytest.raises(BadInput, match=word) as refused:
        parse(text)

    assert str(refused.value).endswith(".")


@given(st.text(alphabet="0123456789.eE+-*/ ()", max_size=14))
def test_what_is_taken_is_what_was_typed_but_for_blanks(text: str) -> None:
    try:
        found = parse(text)
    except BadInput as refused:
        assert str(refused)
    else:
        assert found.left + found.operator + found.right == text.replace(" ", "")


@given(st.text(max_size=40))
def test_no_text_at_all_breaks_the_parser(text: str) -> None:
    try:
        parse(text)
    except BadInput as refused:
        str(refused).encode()


def environment(name: str) -> Environment:
    language, _, release = name.partition("-")
    system = {"bookworm": "debian-12", "trixie": "debian-13"}.get(release, release)
    return Environment(
        name=name,
        image="sha256:" + "0" * 64,
        action=("calc",),
        os=system,
        release=release,
        language=language,
        version="1",
    )


def test_an_environment_is_chosen_by_system_and_language() -> None:
    known = [environment(name) for name in ("perl-bookworm", "perl-trixie", "lua-trixie", "c-scratch")]

    def names(os: str | None, language: str | None) -> list[str]:
        return [one.name for one in matching(known, os, language)]

    assert names(None, "perl") == ["perl-bookworm", "perl-trixie"]
    assert names("debian-13", None) == ["perl-trixie", "lua-trixie"]
    assert names("debian-13", "lua") == ["lua-trixie"]
    assert len(names(None, None)) == 4
    with pytest.raises(BadInput, match="c, lua, perl"):
        names(None, "cobol")
    with pytest.raises(BadInput, match="debian-12, debian-13, scratch"):
        names("plan9", None)
    with pytest.raises(BadInput, match="no calculator for c on debian-13"):
        names("debian-13", "c")


def test_a_session_is_what_was_sealed_and_ends() -> None:
    session = Session(account="a" * 32, key=fingerprint(SECRET, "hash"), ends=NOW + LIFE)

    sealed = seal(SECRET, session)

    assert unseal(SECRET, sealed, NOW) == session
    assert unseal(SECRET, sealed, NOW + LIFE) is None
    assert unseal(b"t" * 32, sealed, NOW) is None
    later = sealed.replace(str(int(session.ends.timestamp())), str(int((NOW + 9 * LIFE).timestamp())))
    assert later != sealed and unseal(SECRET, later, NOW) is None
    assert unseal(SECRET, sealed.replace("a", "b", 1), NOW) is None


@given(st.text(max_size=60))
def test_no_text_but_a_sealed_one_is_a_session(text: str) -> None:
    assert unseal(SECRET, text, NOW - timedelta(days=9000)) is None
    assert not is_csrf_token(SECRET, "session", text)


def test_the_token_of_a_page_belongs_to_its_session() -> None:
    assert is_csrf_token(SECRET, "one", csrf_token(SECRET, "one"))
    assert not is_csrf_token(SECRET, "two", csrf_token(SECRET, "one"))
