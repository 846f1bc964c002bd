"""What goes out about failures and hosts, with the names that docs/reference gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from source_server.domain.rounds import Round
from source_server.domain.timing import instant
from source_server.domain.trust import HostRecord
from source_server.services.explain.errors import GroupReport

Json = dict[str, Any]

_AS_STORED = ("chunk", "run", "task", "project", "container", "host", "runtime", "image", "cpu_s", "outcome")


def error(document: Mapping[str, Any], pseudonyms: Mapping[str, str]) -> Json:
    """A stored failure."""
    return {
        "id": document["_id"],
        **{name: document[name] for name in _AS_STORED},
        "account": pseudonyms.get(document["account"]),
        "exit_code": document["exit"],
        "signal": document["signal"],
        "signature": document["signature"],
        "stderr_tail": document["stderr_tail"],
        "stdout_tail": document["stdout_tail"],
        # An earlier release did not measure it.
        "duration_s": document.get("duration_s"),
        "started": instant(document["started"]),
        "ended": instant(document["ended"]),
        "stored": instant(document["stored"]),
        "verdict": document["verdict"],
        "candidates": document.get("candidates", []),
    }


def error_group(report: GroupReport, pseudonyms: Mapping[str, str]) -> Json:
    """Alike failures, counted, with the first of them."""
    group = report.group
    return {
        "task": group.task,
        "signature": group.signature,
        "count": group.count,
        "chunks": group.chunks,
        "quarantined": report.quarantined,
        "hosts": group.hosts,
        "accounts": group.accounts,
        "first": instant(group.first),
        "last": instant(group.last),
        "sample": None if report.sample is None else error(report.sample, pseudonyms),
    }


def round_(one: Round | None) -> Json | None:
    """The round of a task that is under way."""
    if one is None:
        return None
    return {"kind": "rerun" if one.anew else "requeue", "which": one.which.value, "sent": one.sent}


def host(record: HostRecord, pseudonyms: Mapping[str, str]) -> Json:
    """A host's record."""
    return {
        "account": pseudonyms.get(record.account),
        "host": record.host,
        "limit": record.limit,
        "agreed": record.agreed,
        "streak": record.streak,
        "disagreed": record.disagreed,
        "blamed": record.blamed,
        "passed": record.passed,
        "quarantined": instant(record.quarantined),
        "why": record.why,
    }
