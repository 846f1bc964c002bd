"""Tasks and deals as JSON, with the names that docs/reference gives them."""

from __future__ import annotations

from typing import Any

from source_server.domain.task import Task
from source_server.domain.template import template_digest
from source_server.domain.timing import instant
from source_server.services.dispatch.assign import DealReport
from source_server.services.tasks.tasks import TaskReport
from source_server.web.answers.attempts import reaction
from source_server.web.answers.failures import round_
from source_server.web.answers.jobs import job_wishes, manifest, requires
from source_server.web.answers.limits import shown_limits, shown_notice, shown_targets, shown_used
from source_server.web.answers.projects import rule

Json = dict[str, Any]


def reaction_jobs(one: Task) -> Json:
    """The jobs that run once the outcome is known."""
    jobs = {"success": one.success, "failure": one.failure, "after": one.after}
    return {
        name: {**manifest(job, 1), **job_wishes(job), "requires": requires(job)}
        for name, job in jobs.items()
        if job is not None
    }


def task(one: Task) -> Json:
    """A task without its counts."""
    return {
        "id": one.id,
        "project": one.project,
        "name": one.name,
        "state": one.state.value,
        "outcome": one.outcome.value if one.outcome else None,
        "paused": one.paused,
        "paused_why": one.paused_why,
        "ended_why": one.ended_why,
        "limits": shown_limits(one.limits),
        "notify": shown_targets(one.notify),
        "round": round_(one.round),
        "cancelled": one.cancelled,
        "cancelled_why": one.cancelled_why,
        "sealed": one.sealed,
        "job": {**manifest(one.job, one.rows_per_chunk), **job_wishes(one.job)},
        "rows_per_chunk": one.rows_per_chunk,
        "requires": requires(one.job),
        "priority": one.priority,
        "validation": rule(one.validation, one.validator),
        "reactions": reaction_jobs(one),
        "reacting": one.reacting,
        "reacted": instant(one.reacted),
        "reacts_to": one.reacts_to,
        "max_failed": one.max_failed,
        "after_tasks": list(one.after_tasks),
        "start_wanted": one.start_wanted,
        "open_ended": one.open_ended,
        "origin": one.origin,
        "template": template_digest(one),
        "fields": list(one.fields),
        "rows": one.upload.rows if one.upload else 0,
        "created": instant(one.created),
        "started": instant(one.started),
        "ended": instant(one.ended),
    }


def task_report(report: TaskReport) -> Json:
    """A task with its chunks counted by state."""
    total = report.task.upload.chunks if report.task.upload else 0
    return {
        **task(report.task),
        "used": shown_used(report.used),
        "notices": [shown_notice(one) for one in report.notices],
        "reaction_runs": [reaction(one) for one in report.reactions],
        "chunks": {"total": total, **report.chunks},
    }


def deal(report: DealReport) -> Json:
    """What a deal did and what is left."""
    return {
        "id": report.deal.id,
        "done": report.deal.done,
        "tasks": list(report.deal.tasks),
        "dealt": dict(report.deal.dealt),
        "holding": dict(report.holding),
        "remaining": report.remaining,
        "unassignable": report.unassignable,
    }
