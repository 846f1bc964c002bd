"""Limits and addresses to tell, as documents, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from source_server.domain.limits import Limits, StopWhen, Then
from source_server.domain.matching import Match
from source_server.domain.notice import Channel, Target

Document = dict[str, Any]


def limits_document(limits: Limits | None) -> Document | None:
    """How a task's limits are stored."""
    if limits is None:
        return None
    wanted = limits.stop_when
    stop = None if wanted is None else {"answers": wanted.answers, "match": _match_document(wanted.match)}
    return {
        "cpu_hours": limits.cpu_hours,
        "until": limits.until,
        "stop_when": stop,
        "then": limits.then.value,
    }


def read_limits(document: Document | None) -> Limits | None:
    """Stored limits; None where there are none."""
    if document is None:
        return None
    stop = document["stop_when"]
    wanted = None if stop is None else StopWhen(answers=stop["answers"], match=_match(stop["match"]))
    return Limits(
        cpu_hours=document["cpu_hours"],
        until=document["until"],
        stop_when=wanted,
        then=Then(document["then"]),
    )


def targets_document(targets: Iterable[Target]) -> list[Document]:
    """How the addresses to tell are stored."""
    return [{"channel": one.channel.value, "address": one.address} for one in targets]


def read_targets(documents: Sequence[Document] | None) -> tuple[Target, ...]:
    """Stored addresses."""
    return tuple(Target(channel=Channel(one["channel"]), address=one["address"]) for one in documents or ())


def _match_document(match: Match | None) -> Document | None:
    if match is None:
        return None
    return {
        "field": list(match.field),
        "has_equals": match.has_equals,
        "equals": match.equals,
        "at_least": match.at_least,
        "at_most": match.at_most,
    }


def _match(document: Document | None) -> Match | None:
    return None if document is None else Match(**{**document, "field": tuple(document["field"])})
