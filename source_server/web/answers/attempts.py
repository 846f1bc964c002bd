"""What goes out about attempts and reactions, with the names that docs/reference gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from source_server.domain.attempt import Outcome
from source_server.domain.timing import instant
from source_server.services.explain.attempts import Page
from source_server.services.reactions.reaction_reports import ReactionReport

Json = dict[str, Any]


def page(found: Page) -> Json:
    """A page of attempts."""
    return {"attempts": [_attempt(one, found.pseudonyms) for one in found.attempts], "next": found.next}


def _attempt(one: Mapping[str, Any], pseudonyms: Mapping[str, str]) -> Json:
    outcome = one.get("outcome", Outcome.OK.value)
    stdout = one.get("answer") if outcome == Outcome.OK.value else one.get("stdout_tail", "")
    return {
        "id": one["_id"],
        "chunk": one["chunk"],
        "run": one["run"],
        "outcome": outcome,
        "timeout": outcome == Outcome.TIMEOUT.value,
        "oom": outcome == Outcome.OOM.value,
        "verdict": one["verdict"],
        "exit_code": one["exit"],
        "signal": one["signal"],
        "stdout": stdout,
        "stdout_cut": one["answer_letters"] > len(stdout or "") if outcome == Outcome.OK.value else False,
        "stderr_tail": one.get("stderr_tail", ""),
        "signature": one.get("signature"),
        "files": [dict(file) for file in one.get("files", ())],
        "started": instant(one["started"]),
        "ended": instant(one["ended"]),
        "stored": instant(one["stored"]),
        "cpu_s": one["cpu_s"],
        "account": pseudonyms.get(one["account"]),
        "host": one["host"],
        "container": one["container"],
        "runtime": one["runtime"],
        "image": one["image"],
        "variant": one.get("variant") or None,
    }


def reaction(report: ReactionReport) -> Json:
    """What became of a reaction."""
    one = report.companion
    return {
        "reaction": one.reaction,
        "task": one.id,
        "current": report.current,
        "state": one.state.value,
        "outcome": one.outcome.value if one.outcome else None,
        "answer": report.answer,
        "error": report.error,
        "attempts": report.attempts,
        "started": instant(one.started),
        "ended": instant(one.ended),
    }
