"""What failures have in common: a short text that is alike for alike ones.

Kind, exit and the last line of stderr; for a Python traceback the exception's type and the innermost frame instead.
Whatever differs from chunk to chunk is masked: numbers, hexadecimal, paths, and the values of the chunk's own input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from source_server.domain.attempt import Attempt

MOST_GROUPS = 1000  #: different signatures of a task; all further ones share OTHERS
OTHERS = "other failures"
DISAGREEMENT = "disagreement: no quorum"  #: of chunks whose candidates, all that were allowed, do not agree

FULL_TAILS = 100  #: errors of one signature that keep all of their stderr's tail
FULL_TAIL = 8 * 1024  #: bytes of what these said, on stdout and on stderr
SHORT_TAIL = 1024  #: bytes that the others keep

_LONGEST = 200  #: letters of the text behind kind and exit
_READ = 2000  #: letters of a line that are looked at
_MOST_VALUES = 100  #: of the input's values in the line, the longest are masked

_WORD = re.compile(r"\w")
_PLAIN = re.compile(r"[ !#-&(-\[\]-~]*")  #: printable ASCII without quotes and backslashes
_QUOTES = frozenset("'\"`")

_FRAME = re.compile(r'^\s+File "([^"]+)", line \d+(?:, in (\S+))?')
_RAISED = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)")

# Hexadecimal first: what is left of digits are numbers.
_MASKS = (
    (re.compile(r"(?<![\w.])(?:~|\.{0,2}|[A-Za-z]:)(?:[\\/][^\s\\/:'\"(),;<>]+)+[\\/]?"), "PATH"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "HEX"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "HEX"),
    (re.compile(r"\b(?!\d+[eE]\d+\b)(?=[0-9a-fA-F]*\d)(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{4,}\b"), "HEX"),
    (re.compile(r"\b[a-fA-F]{8,}\b"), "HEX"),
    (re.compile(r"(?:(?<!\w)[-+])?\d+(?:[.,]\d+)*(?:[eE][-+]?\d+)?"), "N"),
)


def signature(attempt: Attempt, chunk_input: str | None = None) -> str:
    """The signature of a failed attempt at a chunk with this input (JSON text; None: not known)."""
    how = f"signal {attempt.signal}" if attempt.signal is not None else f"exit {attempt.exit_code}"
    lines = attempt.stderr_tail.splitlines()
    said = _raised(lines) or _masked(_last(lines), chunk_input)
    return _printable(f"{attempt.outcome.value}, {how}: {said[:_LONGEST]}")


def kept(said: str, *, whole: bool) -> str:
    """The end of what a program said, as errors keep it; `whole` for the first ones of their signature."""
    return said.encode()[-FULL_TAIL if whole else -SHORT_TAIL :].decode(errors="ignore")


def _last(lines: Iterable[str]) -> str:
    spoken = [line.strip() for line in lines if line.strip()]
    return spoken[-1][:_READ] if spoken else ""


def _raised(lines: list[str]) -> str | None:
    """Type and innermost frame of the last Python traceback, or None where there is none."""
    frames = [(number, found) for number, line in enumerate(lines) if (found := _FRAME.match(line))]
    if not frames:
        return None
    number, frame = frames[-1]
    behind = next((line for line in lines[number + 1 :] if line[:1].strip()), "")
    raised = _RAISED.match(behind)
    if raised is None:
        return None
    file = re.split(r"[\\/]", frame[1])[-1]
    return f"{raised[1]} in {file}" + (f", {frame[2]}" if frame[2] else "")


def _masked(line: str, chunk_input: str | None) -> str:
    for value in _values(chunk_input, line):
        line = _mask_value(line, value)
    for pattern, mask in _MASKS:
        line = pattern.sub(mask, line)
    return line


def _mask_value(line: str, value: str) -> str:
    # By hand: to make an expression of each of a hundred values takes longer than all the rest.
    kept, begin, at = [], 0, line.find(value)
    while at >= 0:
        end = at + len(value)
        if _stands_alone(line, at, end):
            kept += [line[begin:at], "VALUE"]
            begin = end
            at = line.find(value, end)
        else:
            at = line.find(value, at + 1)
    return "".join([*kept, line[begin:]])


def _stands_alone(line: str, at: int, end: int) -> bool:
    before, behind = line[at - 1 : at], line[end : end + 1]
    if end - at == 1:
        # A single letter is a value where it is quoted, elsewhere it is a word.
        return before in _QUOTES and behind in _QUOTES
    return not (_WORD.match(before) or _WORD.match(behind))


def _values(chunk_input: str | None, line: str) -> list[str]:
    """The longest texts of an input in this line, longest first; what other masks cover whole is left to them."""
    if chunk_input is None:
        return []
    try:
        found = set(_texts(json.loads(chunk_input)))
    except (ValueError, RecursionError):
        return []
    shown = {form for one in found for form in _as_shown(one) if form and form in line}
    # "17" is N wherever it stands: as VALUE in one chunk only, it would set that chunk apart.
    told_apart = (
        one
        for one in sorted(shown, key=lambda one: (-len(one), one))
        if not any(mask.fullmatch(one) for mask, _ in _MASKS)
    )
    return list(islice(told_apart, _MOST_VALUES))


def _as_shown(text: str) -> tuple[str, ...]:
    """A text as a program may show it: bare, or as Python or JSON write it."""
    if _PLAIN.fullmatch(text):
        return (text.strip(), text)
    return (text.strip(), repr(text)[1:-1], json.dumps(text)[1:-1])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        # The names of fields are alike in all chunks: what they are called is worth reading.
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
