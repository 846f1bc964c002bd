"""What others wrote, fit for a terminal: a volunteer's program may print what a terminal would obey."""

from __future__ import annotations

from typing import Any

from dockercomp.api import Server

LAID_OUT = "\n\t\u00a0\u3000"  #: letters that are not printed and yet only lay a text out


def plain(text: str) -> str:
    """The text, in which escape sequences, marks of direction and the like are written out, as `\\x1b`."""
    if text.isprintable():
        return text
    lines = text.replace("\r\n", "\n").replace("\r", "\n")  # as of programs that draw a bar of progress
    return "".join(
        letter
        if letter.isprintable() or letter in LAID_OUT
        else letter.encode("unicode_escape").decode("ascii")
        for letter in lines
    )


class PlainServer(Server):
    """A source server whose answers are shown to people: all texts in them are plain. Files and tables stay raw."""

    def _call(self, method: str, path: str, **rest: Any) -> Any:
        return _plain(super()._call(method, path, **rest))


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value
