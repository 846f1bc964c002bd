"""What a volunteer allows, and what a host cannot, decides with the job's own needs who computes it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from source_server.domain.container import Container, Host
from source_server.domain.job import Job
from source_server.domain.requirements import Requirement
from source_server.domain.task import Task, fits, lacks

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)
IMAGE = "sha256:" + "4f" * 32


def container(**more: Any) -> Container:
    known = {"runtimes": ("sandbox",), "labels": {"arch": "x86_64"}, **more}
    return Container(id="C", host=Host(id="H"), account="A", life="L", registered=NOW, last_seen=NOW, **known)


def task(*, project: str = "sums", **job: Any) -> Task:
    whole = {"action": ("fit",), "image": IMAGE, **job}
    return Task(id="T", project=project, owner="O", name="t", job=Job(**whole), created=NOW)


@pytest.mark.parametrize(
    ("allowed", "shares", "may"),
    [
        (None, {}, True),
        (("sums", "digits"), {}, True),
        (("digits",), {}, False),
        ((), {}, False),
        (None, {"sums": 0.5}, True),
        (None, {"sums": 0.0}, False),
        (("sums",), {"digits": 0.0}, True),
    ],
)
def test_a_project_runs_only_where_the_volunteer_lets_it(allowed: Any, shares: Any, may: bool) -> None:
    assert fits(task(), container(projects=allowed, shares=shares)) is may


@pytest.mark.parametrize(
    ("change", "job", "sentence"),
    [
        (
            {"projects": ("digits", "fits")},
            {},
            "the volunteer's leave to run project sums (it has leave for digits, fits)",
        ),
        (
            {"projects": ("a", "b", "c", "d", "e")},
            {},
            "the volunteer's leave to run project sums (it has leave for a, b, c and 2 more)",
        ),
        ({"projects": ()}, {}, "the volunteer's leave to run project sums (it has no such leave)"),
        (
            {"cannot": {IMAGE: "image too large here: 7.1 GB unpacked, at most 5.0 GB."}},
            {},
            f"image {IMAGE} (image too large here: 7.1 GB unpacked, at most 5.0 GB)",
        ),
        ({}, {"image": None}, "the runtime process, as the job names no image (it has only sandbox)"),
        ({}, {"architecture": "arm64"}, "arch = arm64 (it has x86_64)"),
        (
            {"runtimes": ("process",), "image": IMAGE},
            {"action": (), "own_command": True},
            "a sandbox runtime, as the job runs its image's own command (it has nothing of the kind)",
        ),
    ],
)
def test_what_is_missing_is_said_in_words(change: Any, job: Any, sentence: str) -> None:
    [missing] = lacks(task(**job), container(**change))

    assert str(missing) == sentence
    assert lacks(task(), container()) == []


def test_an_architecture_that_was_asked_for_is_not_asked_for_twice() -> None:
    wanted = (Requirement(name="arch", one_of=("arm64",)),)

    assert len(lacks(task(architecture="arm64", requires=wanted), container())) == 1


def test_another_image_that_a_host_refuses_does_not_matter() -> None:
    assert fits(task(), container(cannot={"sha256:" + "0" * 64: "image too large here"}))
