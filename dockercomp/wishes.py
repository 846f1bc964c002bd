"""What a scientist asks for: a task and its jobs, as values. Here they are put together; the server checks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is executed for each chunk, or as a reaction; the HTTP reference says what each field may be."""

    action: Sequence[str] = ()  #: the whole command line; empty: the image's own command
    #: `sha256:...`, or REGISTRY/NAME@sha256:... (see `images.resolve`); None: any container.
    image: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)  #: public to volunteers
    timeout_s: float | None = None  #: seconds; None: 60
    requires: Mapping[str, Any] = field(default_factory=dict)  #: labels and resources of a container
    cpus: float | None = None
    memory_mb: int | None = None
    disk_mb: int | None = None
    #: Name below /in -> SHA-256 of a blob, or {field}.
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[str] = ()  #: patterns of files below /out that are kept
    #: {"type": "text" | "number" | "json" | "files", "schema": {...}}.
    result: Mapping[str, Any] | None = None
    variants: Sequence[Mapping[str, Any]] = ()  #: images of which each attempt takes one, instead of `image`
    variant_field: str | None = None  #: the field of a row that names its variant

    def body(self) -> dict[str, Any]:
        """As JSON, without what was not said."""
        said = {one.name: _plain(getattr(self, one.name)) for one in fields(self)}
        action = said.pop("action")
        return {
            "action": action,
            **{name: value for name, value in said.items() if value not in (None, {}, [])},
        }


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """A task that is to be made: its jobs, and what is to happen with it."""

    main: Job
    success: Job | None = None  #: runs once when the task has succeeded
    failure: Job | None = None  #: runs once when it has failed
    after: Job | None = None  #: runs once behind either
    id: str | None = None  #: of your choice: the same id and task again is the same task
    name: str | None = None  #: for people; None: the project's
    rows_per_chunk: int = 1
    priority: int = 0  #: among the tasks of the project, higher first
    validation: Mapping[str, Any] | None = None  #: how answers are checked; None: the project's rule
    max_failed: int = 0  #: chunks that may be set aside before the task has failed
    after_tasks: Sequence[str] = ()  #: tasks that have to end well first
    open_ended: bool = False  #: more rows may come while it runs
    limits: Mapping[str, Any] | None = None  #: {"cpu_hours": 20, "until": "2026-12-01T00:00:00Z", ...}
    notify: Any = None  #: who is told when it ends or pauses itself; None: whom the project names

    def body(self) -> dict[str, Any]:
        """As JSON, the main job's fields beside the task's own; without what was not said."""
        whole = self.main.body()
        reactions = {"success": self.success, "failure": self.failure, "after": self.after}
        whole |= {name: job.body() for name, job in reactions.items() if job is not None}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name not in ("main", *reactions) and value != one.default:
                whole[one.name] = _plain(value)
        return whole


def _plain(value: Any) -> Any:
    """Values as JSON has them, whatever kinds of mappings and sequences they came in."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value
