"""The shapes of what client containers hear (docs/protocol.md)."""

from __future__ import annotations

from pydantic import Field

from source_server.web.shapes.base import Said
from source_server.web.shapes.jobs import File, Manifest


class Registration(Said):
    """A registered container, with its own key."""

    id: str
    life: str
    key: str
    beat_s: float


class Config(Said):
    """What may change while a container lives."""

    beat_s: float


class Beat(Said):
    """What became of what the container holds."""

    drop: list[str]
    lost: list[str]
    claim_again: list[str]
    config: Config


class Archive(Said):
    """An image's archive at `GET /images/ID.tar`."""

    sha256: str
    bytes: int


class ClaimedJob(Manifest):
    """The same with what a volunteer's machine decides by."""

    project: str
    task: str
    cpus: float | None = None
    memory_mb: int | None = None
    disk_mb: int | None = None
    gpu: bool | None = None
    files: list[File] | None = Field(default=None, description="Of every chunk of the task.")
    outputs: list[str] | None = None
    archive: Archive | None = None


class ClaimedChunk(Said):
    """A chunk that was handed out."""

    id: str
    n: int
    run: int
    input: str | None = Field(description="JSON text; null: it is in `input_file`.")
    input_file: Archive | None = None
    files: list[File] | None = None
    job: str
    ticket: str
    ends_in_s: float


class Delivered(Said):
    """What became of one attempt: stored, or refused and why."""

    chunk: str
    stored: bool = True
    error: str = ""
    status: int = 0
    missing: list[str] = Field(default=[], description="Hashes of its files that have to be sent first.")


class Claimed(Said):
    """Chunks, their jobs by name, and what became of the results that came along."""

    chunks: list[ClaimedChunk]
    jobs: dict[str, ClaimedJob]
    results: list[Delivered]


class Added(Said):
    """What became of each attempt."""

    results: list[Delivered] = Field(
        default_factory=list, description="Absent when the body itself is wrong."
    )
    error: str = Field(
        default="", description="With a single attempt that was refused, or no attempt at all: why."
    )


class Released(Said):
    """How many leases were given back."""

    released: int
