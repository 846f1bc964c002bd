"""Log lines: one event a line, whatever strangers wrote that stands in its fields."""

from __future__ import annotations

import logging

import pytest

from source_server.event_log import EventFormatter


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("r4c1f", "r4c1f"),
        (0.25, "0.25"),
        ("", "''"),
        ("two words", "'two words'"),
        ("a\n2026-11-22T06:00:00Z ERROR invented", "'a\\n2026-11-22T06:00:00Z ERROR invented'"),
        ("\x1b[2Jx", "'\\x1b[2Jx'"),
        ("a\u202eb\u0085", "'a\\u202eb\\x85'"),
    ],
)
def test_a_field_is_one_printable_word_or_quoted(value: object, shown: str) -> None:
    record = logging.makeLogRecord({"msg": "event refused", "levelname": "INFO", "reason": value})

    line = EventFormatter().format(record)

    assert line.endswith(f" INFO event refused reason={shown}") and line.isprintable()
