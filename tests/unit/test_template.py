"""The part of a task that a project's owner can sign."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from source_server.domain.job import Job, ResultKind, ResultType, Variant
from source_server.domain.requirements import Requirement
from source_server.domain.task import Task, TaskState
from source_server.domain.template import template, template_digest

IMAGE = "sha256:" + "a" * 64
JOB = Job(action=("fit", "{C}"), image=IMAGE, env={"A": "1", "B": "2"}, inputs=(("code.py", "c" * 64),))
TASK = Task(id="t", project="digits", owner="o", name="n", job=JOB, created=datetime(2026, 11, 22))


@pytest.mark.parametrize(
    "change",
    [
        {"id": "u"},
        {"name": "other"},
        {"state": TaskState.RUNNING},
        {"priority": 3},
        {"fields": ("C",)},
        {"rounds": 2},
        {"job": replace(JOB, architecture="x86_64")},
        {"job": replace(JOB, env={"B": "2", "A": "1"})},
    ],
)
def test_data_and_progress_change_nothing_in_a_template(change: dict[str, Any]) -> None:
    assert template_digest(replace(TASK, **change)) == template_digest(TASK)


@pytest.mark.parametrize(
    "change",
    [
        {"project": "other"},
        {"after": JOB},
        {"validator": JOB},
        {"job": replace(JOB, image="sha256:" + "b" * 64)},
        {"job": replace(JOB, action=("fit",))},
        {"job": replace(JOB, env={"A": "1"})},
        {"job": replace(JOB, timeout_s=61.0)},
        {"job": replace(JOB, memory_mb=512)},
        {"job": replace(JOB, inputs=(("code.py", "d" * 64),))},
        {"job": replace(JOB, outputs=("*.png",))},
        {"job": replace(JOB, requires=(Requirement(name="gpu", at_least=1.0),))},
        {"job": replace(JOB, result=ResultType(kind=ResultKind.NUMBER))},
        {"job": replace(JOB, image=None, variants=(Variant(name="v", image=IMAGE),))},
    ],
)
def test_whatever_decides_what_runs_changes_the_template(change: dict[str, Any]) -> None:
    assert template_digest(replace(TASK, **change)) != template_digest(TASK)


def test_the_digest_of_a_known_template_stays_what_it_was() -> None:
    assert template(TASK) == {
        "version": 1,
        "project": "digits",
        "jobs": {
            "main": {
                "action": ("fit", "{C}"),
                "image": IMAGE,
                "env": {"A": "1", "B": "2"},
                "timeout_s": 60.0,
                "inputs": (("code.py", "c" * 64),),
            }
        },
    }
    assert template_digest(TASK) == "9d016097c956ec0953782fa5961bd413db1a0d0dfb5d693ec9e7f268a7d72373"
