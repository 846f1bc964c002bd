"""Names of files: server, launcher and the scientist's library refuse the same ones, each by rules of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_container.launcher.line import names as launcher
from client_container.launcher.line import patterns as launcher_patterns
from dockercomp.blobs import checked_name as library_name
from dockercomp.failures import Refused
from source_server.domain import file_names as server
from source_server.domain.blob import part_of
from source_server.domain.inputs import resolved
from source_server.domain.refusal import BadInput

BAD = [
    "", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/..", "../a", "a\\b", "a\x00b", "a\nb", "a\x1bb", "u\u0308",
    "\ud800", "x" * 201, "/".join("a" * 17), "ä" * 101, "a/\u202eb",
]  # fmt: skip
GOOD = ["a", "a.b/c-d_e/f", "über", "日本/語", "x" * 200, "/".join("a" * 16), "...", "a..b", " a"]

parts = st.text(alphabet="aAbB./\\\x00ü ..ſK", max_size=6)


@pytest.mark.parametrize("name", BAD)
def test_no_side_takes_a_bad_name(name: str) -> None:
    with pytest.raises(server.BadName):
        server.checked_name(name)
    with pytest.raises(launcher.BadName):
        launcher.checked_name(name)


@pytest.mark.parametrize("name", GOOD)
def test_every_side_takes_a_good_one(name: str) -> None:
    assert server.checked_name(name) == launcher.checked_name(name) == name
    assert library_name(name).as_posix() == name


@given(st.lists(parts, max_size=5))
def test_server_and_launcher_take_the_same_sets_of_names(some: list[str]) -> None:
    def taken_by_launcher() -> bool:
        try:
            launcher.checked_names(some)
        except launcher.BadName:
            return False
        return True

    def taken_by_server() -> bool:
        try:
            server.require_together(some)
        except server.BadName:
            return False
        return True

    assert taken_by_server() == taken_by_launcher()


@given(parts)
def test_what_the_server_takes_the_library_writes_below_its_folder(name: str) -> None:
    try:
        server.checked_name(name)
    except server.BadName:
        return
    try:
        assert not library_name(name).is_absolute() and ".." not in library_name(name).parts
    except Refused:
        assert ":" in name


@given(st.text(alphabet="ab/*?.", max_size=8), st.text(alphabet="ab/.", max_size=8))
def test_server_and_launcher_mean_the_same_by_a_pattern(pattern: str, name: str) -> None:
    assert server.matches(name, [pattern]) == launcher_patterns.fits(name, [pattern])


@pytest.mark.parametrize("pattern", ["/out/*.png", "plots/", "a//b", "./a", "../*", "a\\*", ""])
def test_a_pattern_that_no_name_can_fit_is_known_for_it(pattern: str) -> None:
    assert not server.could_match(pattern)


@pytest.mark.parametrize("pattern", ["*.png", "**", "model/**", "**/*.csv", "...", "a..b/?"])
def test_a_pattern_that_some_name_fits_is_taken(pattern: str) -> None:
    assert server.could_match(pattern)


def test_a_row_fills_names_and_hashes_and_doubled_braces_stay() -> None:
    known = "a" * 64
    inputs = (("{{x}}/{n}.bin", "{h}"), ("fixed", known))

    assert resolved(inputs, {"n": 7, "h": known}, line=3) == [("{x}/7.bin", known)]
    with pytest.raises(BadInput, match="Line 3"):
        resolved(inputs, {"n": "../7", "h": known}, line=3)


@given(st.text(max_size=30), st.integers(0, 10**18))
def test_a_content_range_never_says_more_than_the_body_has(said: str, length: int) -> None:
    try:
        part = part_of(f"bytes {said}", length)
    except BadInput:
        return
    assert part.bytes == length and part.start + length <= part.total
