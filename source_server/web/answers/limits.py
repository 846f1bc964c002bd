"""Limits, and messages about tasks, as JSON, with the names that docs/reference gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from source_server.domain.limits import Limits, Used
from source_server.domain.matching import Match
from source_server.domain.notice import Notice, Target
from source_server.domain.timing import instant

Json = dict[str, Any]


def shown_limits(one: Limits | None) -> Json | None:
    """Limits in the fields in which they were wished for."""
    if one is None:
        return None
    shown: Json = {"then": one.then.value}
    if one.cpu_hours is not None:
        shown["cpu_hours"] = one.cpu_hours
    if one.until is not None:
        shown["until"] = instant(one.until)
    if one.stop_when is not None:
        shown["stop_when"] = {"answers": one.stop_when.answers, **_shown_match(one.stop_when.match)}
    return shown


def shown_used(one: Used | None) -> Json | None:
    """What a task has used."""
    return None if one is None else {"cpu_hours": round(one.cpu_s / 3600, 6), "answers": one.answers}


def shown_targets(some: Sequence[Target]) -> list[Json]:
    """Who is told."""
    return [{one.channel.value: one.address} for one in some]


def shown_notice(one: Notice) -> Json:
    """A message and how its last try ended."""
    return {
        "id": one.id,
        "event": one.event.value,
        one.target.channel.value: one.target.address,
        "state": one.state.value,
        "tries": one.tries,
        "last": one.last,
        "created": instant(one.created),
        "due": instant(one.due),
        "ended": instant(one.ended),
    }


def _shown_match(one: Match | None) -> Json:
    if one is None:
        return {}
    said: Json = {"field": ".".join(one.field)} if one.field else {}
    said |= {"equals": one.equals} if one.has_equals else {}
    bounds = {"at_least": one.at_least, "at_most": one.at_most}
    return {"match": said | {name: value for name, value in bounds.items() if value is not None}}
