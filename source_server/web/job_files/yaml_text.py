"""YAML from strangers: read event by event, with JSON's types only, within bounds that hold while it is read.

Read from events rather than loaded: bounds on size, depth and what aliases blow up hold before anything is built, a
name that stands twice is refused, and `no`, `on` or `12:30` stay the texts that people meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from source_server.domain.refusal import BadInput

MOST_BYTES = 256 * 1024
MOST_NODES = 20_000  #: values, counted again wherever an alias repeats them
DEEPEST = 20
LONGEST_NUMBER = 300  #: letters

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_TEXT = "tag:yaml.org,2002:str"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Place:
    """Where a text value stands: the names and numbers that lead to it, and its letters, quotes included."""

    path: tuple[str | int, ...]
    value: str
    start: int
    end: int


def read_yaml(text: bytes | str, places: list[Place] | None = None) -> Any:
    """The one document in this text; raises BadInput with a sentence that names the line where it can.

    `places` gets the place of every value that is written out as a text (no alias), in the text without its BOM.
    """
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > MOST_BYTES:
        raise BadInput(f"It has {len(raw)} bytes, more than {MOST_BYTES}.")
    try:
        decoded = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput("It is not UTF-8.") from error
    try:
        return _Reader(yaml.parse(decoded, Loader=_LOADER), [] if places is None else places).document()
    except yaml.MarkedYAMLError as error:
        raise BadInput(
            f"{_line(error.problem_mark)}: {_said(error.problem or 'this is not YAML')}."
        ) from error
    except yaml.YAMLError as error:
        raise BadInput("It has characters that YAML does not allow.") from error


def _said(problem: str) -> str:
    if "cannot start any token" in problem:
        return (
            "nothing begins with a tab, @ or ` in YAML: indent with spaces, and write such a text in quotes"
        )
    return problem


@dataclass
class _Reader:
    """Builds values from events, and counts."""

    events: Iterator[Any]
    places: list[Place]
    path: list[str | int] = field(default_factory=list)
    nodes: int = 0
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)  #: the value, and how many nodes it is

    def document(self) -> Any:
        """The only document."""
        found: list[Any] = []
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if found:
                    raise BadInput(f"{_line(event.start_mark)}: a second document begins; there must be one.")
                found.append(self._value(next(self.events), 0))
        return found[0] if found else None

    def _value(self, event: Any, depth: int) -> Any:
        before = self.nodes
        self._count(event, 1)
        if depth > DEEPEST:
            raise BadInput(f"{_line(event.start_mark)}: it is nested more than {DEEPEST} levels deep.")
        if isinstance(event, yaml.AliasEvent):
            return self._again(event)
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
            if isinstance(value, str):
                self.places.append(_place(self.path, value, event))
        elif event.tag is not None:
            raise BadInput(f"{_line(event.start_mark)}: the tag {event.tag} is not understood.")
        elif isinstance(event, yaml.SequenceStartEvent):
            value = list(self._items(depth))
        else:
            value = self._mapping(depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, self.nodes - before)
        return value

    def _items(self, depth: int) -> Iterator[Any]:
        number = 0
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            yield self._below(number, event, depth)
            number += 1

    def _mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            name = event.value if isinstance(event, yaml.ScalarEvent) else None
            if not name:
                raise BadInput(f"{_line(event.start_mark)}: a name must be a text.")
            if name in found:
                raise BadInput(f"{_line(event.start_mark)}: {name!r} stands here a second time.")
            self._count(event, 1)
            found[name] = self._below(name, next(self.events), depth)
        return found

    def _below(self, name: str | int, event: Any, depth: int) -> Any:
        self.path.append(name)
        value = self._value(event, depth + 1)
        self.path.pop()
        return value

    def _again(self, event: Any) -> Any:
        if event.anchor not in self.anchors:
            raise BadInput(f"{_line(event.start_mark)}: *{event.anchor} stands for nothing before it.")
        value, nodes = self.anchors[event.anchor]
        self._count(event, nodes)
        return value

    def _count(self, event: Any, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MOST_NODES:
            raise BadInput(f"{_line(event.start_mark)}: it has more than {MOST_NODES} values.")


def _place(path: Sequence[str | int], value: str, event: Any) -> Place:
    return Place(tuple(path), value, event.start_mark.index, event.end_mark.index)


def _scalar(event: Any) -> Any:
    text: str = event.value
    if event.tag not in (None, _TEXT, "!"):
        raise BadInput(f"{_line(event.start_mark)}: the tag {event.tag} is not understood.")
    if event.tag is not None or not event.implicit[0]:
        return text  # in quotes
    if text in _WORDS:
        return _WORDS[text]
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    if len(text) > LONGEST_NUMBER:
        raise BadInput(f"{_line(event.start_mark)}: the number is too long; write it in quotes.")
    if number.group(2) is None and number.group(3) is None:
        return int(text)
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise BadInput(f"{_line(event.start_mark)}: {text} is beyond the range of a number.")
    return value


def _line(mark: Any) -> str:
    return f"Line {mark.line + 1}" if mark is not None else "It"
