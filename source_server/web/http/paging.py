"""`?limit=`: how much of a list is in one answer."""

from __future__ import annotations

from typing import Any

from flask import request

from source_server.domain.refusal import BadInput


def limit_query(default: int, largest: int) -> tuple[str, dict[str, Any]]:
    """How the document describes it."""
    return "So many at most.", {"type": "integer", "minimum": 1, "maximum": largest, "default": default}


def page_limit(default: int, largest: int) -> int:
    """What the request asks for; raises BadInput."""
    text = request.args.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= largest):
        raise BadInput(f"limit is a whole number from 1 to {largest}.")
    return int(text)
