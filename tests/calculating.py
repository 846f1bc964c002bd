"""Calculators under test: environments that are enabled, and volunteers that compute as they would."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from people import Volunteer

NAMES = ("c-scratch", "lua-bookworm", "perl-bookworm", "perl-trixie", "python-trixie")
SYSTEMS = {"bookworm": "debian-12", "trixie": "debian-13", "scratch": "scratch"}


def environments(names: Sequence[str] = NAMES) -> list[Any]:
    """Environments whose images nobody has."""
    from source_server.domain.calculation import Environment

    return [
        Environment(
            name=name,
            image=image_of(name),
            action=("calculate",),
            os=SYSTEMS[name.split("-")[1]],
            release=name.split("-")[1],
            language=name.split("-")[0],
            version="1.2",
        )
        for name in names
    ]


def image_of(name: str) -> str:
    """The id of the image of an environment that nobody has."""
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def enable(stores: Any, quorum: int | None = 3, names: Sequence[str] = NAMES) -> Any:
    """Enable calculators as the operator's command does."""
    service = enabling(stores)
    return service(environments(names), quorum)


def enabling(stores: Any) -> Any:
    """The service behind the operator's command."""
    from source_server.app import build_services
    from source_server.services.calculators.enable_calculators import EnableCalculators

    services = build_services(stores, beat_s=20.0)
    return EnableCalculators(stores, services.tasks, services.append)


def arithmetic(left: str, operator: str, right: str) -> float:
    """Python's own answer."""
    a, b = float(left), float(right)
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[operator]()


def compute(volunteer: Volunteer, wrong: Callable[[str], bool] = lambda variant: False) -> list[str]:
    """The volunteer computes all that it is given, as the calculators do; the variants in which it did."""
    answer = volunteer.call("POST", "/next", {"token": (token := _token()), "want": 50})
    if answer.status_code != 200:
        return []
    said = answer.get_json()
    volunteer.held[token] = len(said["chunks"])
    done = []
    for chunk in said["chunks"]:
        job = said["jobs"][chunk["job"]]
        variant = next(name for name in NAMES if image_of(name) == job["image"])
        row = json.loads(chunk["input"]) if isinstance(chunk["input"], str) else chunk["input"]
        words = [word.format(**row) for word in job["action"]]
        attempt = _attempt(volunteer, {**chunk, "token": token}, words[-3:], wrong(variant))
        volunteer.ok("POST", "/add", {"results": [{**attempt, "runtime": "sandbox", "image": job["image"]}]})
        done.append(variant)
    return done


def _attempt(volunteer: Volunteer, chunk: dict[str, Any], words: list[str], wrong: bool) -> dict[str, Any]:
    try:
        value = arithmetic(*words)
    except ZeroDivisionError:
        said = {"exit_code": 65, "stderr_tail": "Division by zero.\n"}
        return volunteer.failure(chunk, **said)
    return volunteer.attempt(chunk, f"{value * (1.001 if wrong else 1):.17g}\n")


def _token() -> str:
    import uuid

    return str(uuid.uuid4())
