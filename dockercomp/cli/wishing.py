"""The options of `submit` that say what a job may use and give, and what is to happen with its task."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from dockercomp.images import resolve
from dockercomp.wishes import Job, NewTask

Command = TypeVar("Command", bound=Callable[..., Any])

RESULTS = ("text", "number", "json", "files")
REACTIONS = ("success", "failure", "after")
LIMITS = ("cpu_hours", "until", "stop_when", "then")
SPEC = "a .json file (or JSON) with a job's fields, or a command line for the main job's image."

OPTIONS = (
    click.option("--id", "task_id", help="The task's id, of your choice; the same again is the same task."),
    click.option(
        "--cpus", type=float, help="Processors that a job may use.  [default: the volunteer's limit]"
    ),
    click.option("--memory", type=int, metavar="MB", help="Memory that a job may use."),
    click.option("--disk", type=int, metavar="MB", help="Disk space that a job may use."),
    click.option(
        "--output", "outputs", multiple=True, metavar="PATTERN", help="Keep such files; repeatable."
    ),
    click.option(
        "--result", metavar="TYPE", help="text, number, json or files; or json:FILE with a JSON Schema."
    ),
    click.option("--success", metavar="JOB", help=f"What runs once when the task has succeeded: {SPEC}"),
    click.option("--failure", metavar="JOB", help="What runs once when it has failed, likewise."),
    click.option("--after", metavar="JOB", help="What runs once behind either, likewise."),
    click.option(
        "--max-failed", type=int, default=0, help="Chunks that may fail before the task has failed."
    ),
    click.option(
        "--after-task", "after_tasks", multiple=True, metavar="TASK", help="Start only after it succeeded."
    ),
    click.option(
        "--limit",
        "limits",
        multiple=True,
        metavar="NAME=VALUE",
        help="cpu_hours, until, stop_when (answers), or then (pause, end); repeatable.",
    ),
    click.option(
        "--notify",
        "notify",
        multiple=True,
        metavar="WHO",
        help="An e-mail address or a webhook's; repeatable.",
    ),
)


def wishing_options(command: Command) -> Command:
    """Give a command these options."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def wanted(main: Job, chosen: dict[str, Any], **rest: Any) -> NewTask:
    """Take these options out of `chosen`; the task that they and the main job make, its images pinned.

    `rest` are other fields of the task. Raises BadParameter or ImageUnknown.
    """
    result = chosen.pop("result")
    main = replace(
        main,
        cpus=chosen.pop("cpus"),
        memory_mb=chosen.pop("memory"),
        disk_mb=chosen.pop("disk"),
        outputs=chosen.pop("outputs"),
        result=None if result is None else result_type(result),
    )
    main = pinned(main)
    reactions = {name: _reaction(chosen.pop(name), main, f"--{name}") for name in REACTIONS}
    return NewTask(
        main=main,
        id=chosen.pop("task_id"),
        max_failed=chosen.pop("max_failed"),
        after_tasks=chosen.pop("after_tasks"),
        limits=_limits(chosen.pop("limits")),
        notify=_notify(chosen.pop("notify")),
        success=reactions["success"],
        failure=reactions["failure"],
        after=reactions["after"],
        **rest,
    )


def _reaction(text: str | None, main: Job, option: str) -> Job | None:
    return None if text is None else pinned(job(text, main, option))


def pinned(one: Job) -> Job:
    """The same job with its images named by what is in them; what a tag stands for now is shown."""
    if one.image is not None:
        one = replace(one, image=_pinned(one.image))
    variants = [
        {**variant, "image": _pinned(variant["image"])} for variant in one.variants if "image" in variant
    ]
    return replace(one, variants=variants) if one.variants else one


def _pinned(reference: str) -> str:
    found = resolve(reference)
    if found.image != reference:
        click.echo(f"{reference} is {found.image}", err=True)
    if found.hint is not None:
        click.echo(f"Note: {found.hint}", err=True)
    return found.image


def job(text: str, main: Job, option: str) -> Job:
    """A job as an option says it; without an image of its own it runs in the main job's."""
    spec = _spec(text, option)
    known = {one.name for one in fields(Job)}
    if unknown := sorted(spec.keys() - known):
        raise click.BadParameter(f"a job has no field {unknown[0]!r}.", param_hint=option)
    if not spec.get("action") and "image" not in spec:
        raise click.BadParameter("a job needs an 'action', or an 'image' of its own.", param_hint=option)
    return Job(**{"image": main.image, **spec})


def _spec(text: str, option: str) -> Mapping[str, Any]:
    if not text.lstrip().startswith("{") and not text.endswith(".json"):
        try:
            return {"action": shlex.split(text)}
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is no command line: {error}.", param_hint=option) from error
    spec = _json(text if text.lstrip().startswith("{") else _file(text, option), option)
    if not isinstance(spec, dict):
        raise click.BadParameter("it must hold one JSON object.", param_hint=option)
    return spec


def result_type(text: str) -> dict[str, Any]:
    """What answers must be: {"type": ...}, and the schema of the file that is named."""
    kind, colon, name = text.partition(":")
    if kind not in RESULTS or (colon and kind != "json"):
        sentence = f"{text!r} must be {', '.join(RESULTS)}, or json:FILE."
        raise click.BadParameter(sentence, param_hint="--result")
    return {"type": kind, "schema": _json(_file(name, "--result"), "--result")} if colon else {"type": kind}


def _file(name: str, option: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{name} cannot be read: {error}.", param_hint=option) from error


def _json(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"it is not JSON: {error}.", param_hint=option) from error


def _limits(texts: Iterable[str]) -> dict[str, Any] | None:
    limits: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if name not in LIMITS or not equals:
            sentence = f"{text!r} must be one of {', '.join(LIMITS)}, with = and a value."
            raise click.BadParameter(sentence, param_hint="--limit")
        limits[name] = _limit(name, value)
    return limits or None


def _limit(name: str, value: str) -> Any:
    if name in ("until", "then"):
        return value
    if name == "stop_when" and value.lstrip().startswith("{"):
        return _json(value, "--limit")
    try:
        return {"answers": int(value)} if name == "stop_when" else float(value)
    except ValueError:
        raise click.BadParameter(f"{name} takes a number, not {value!r}.", param_hint="--limit") from None


def _notify(texts: Iterable[str]) -> list[dict[str, str]] | None:
    return [{"webhook" if "://" in text else "email": text} for text in texts] or None
