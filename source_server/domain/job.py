"""Jobs: what is executed for a chunk, in which image, with which files, and what its answer must be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from source_server.domain.requirements import Requirement

MAX_JOB = 128 * 1024  #: bytes of a job's action, environment and variants together
MOST_VARIANTS = 64


class ResultKind(str, Enum):
    """What an answer is."""

    TEXT = "text"
    NUMBER = "number"  #: finite, one for the chunk or one for each of its rows
    JSON = "json"
    FILES = "files"  #: what counts are the files that the job's `outputs` name


@dataclass(frozen=True, kw_only=True)
class ResultType:
    """What a job's answers must be; what does not fit is an error of that attempt."""

    kind: ResultKind = ResultKind.TEXT
    schema: str | None = None  #: JSON Schema (2020-12) as JSON text, for kind json


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One of several images in which a job may be executed, and what is different there."""

    name: str  #: unique within the job
    image: str
    architecture: str | None = None  #: as a job's
    action: tuple[str, ...] = ()  #: empty: the job's
    env: dict[str, str] = field(default_factory=dict)  #: added to the job's
    labels: dict[str, str] = field(default_factory=dict)  #: what it is (os, language, ...), for people


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to execute for each chunk; public to volunteers."""

    action: tuple[str, ...]  #: the whole command line, with {field} placeholders; empty: the image's own
    own_command: bool = False  #: whether it is empty: lists of tasks on offer leave the action itself out
    image: str | None = None  #: the image's id or digest; None: any container
    #: Of that image, where the server knows it: the label `arch` that it needs.
    architecture: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    requires: tuple[Requirement, ...] = ()  #: of a container's labels and resources
    cpus: float | None = None  #: None: what the volunteer gives one job; so are the next two
    memory_mb: int | None = None
    disk_mb: int | None = None
    inputs: tuple[tuple[str, str], ...] = ()
    """(name below /in, sha256) of files; both may have {field} placeholders, and such a file is the chunk's own."""
    outputs: tuple[str, ...] = ()  #: patterns of names below /out whose files are kept; none: no file is
    result: ResultType = ResultType()
    variants: tuple[Variant, ...] = ()  #: each attempt is made in one of them; then there is no `image`
    #: The field of the row that names its variant; None: any of them, at random.
    variant_field: str | None = None

    def in_variant(self, name: str) -> Job:
        """The job as it is executed in this variant; itself for a name that it does not know."""
        for one in self.variants:
            if one.name == name:
                return replace(
                    self,
                    action=one.action or self.action,
                    own_command=self.own_command and not one.action,
                    image=one.image,
                    architecture=one.architecture,
                    env={**self.env, **one.env},
                    variants=(),
                    variant_field=None,
                )
        return self


def job_bytes(job: Job) -> int:
    """The size of what a job hands to every attempt: its command line and its environment, in bytes of UTF-8."""
    texts = [*job.action, *job.env.keys(), *job.env.values()]
    for one in job.variants:
        texts += [*one.action, *one.env.keys(), *one.env.values(), *one.labels.keys(), *one.labels.values()]
    return sum(len(text.encode()) for text in texts)


class BadAction(ValueError):
    """A job's action with a brace that is neither a placeholder nor doubled; the message is one sentence."""


BRACES = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


def placeholders(action: Sequence[str]) -> set[str]:
    """The field names that an action's items ask for; raises BadAction on a stray brace."""
    names: set[str] = set()
    for item in action:
        for match in BRACES.finditer(item):
            if match.group(1) is not None:
                names.add(match.group(1))
            elif match.group() in "{}":
                raise BadAction(
                    f"The action's item {item!r} has a single {match.group()!r}; write it twice for a literal brace."
                )
    return names
