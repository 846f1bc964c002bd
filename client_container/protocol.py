"""The client's half of protocol 1 (docs/protocol.md): what it says and what it hears.

Answers are read leniently: unknown fields are ignored, a missing or mistyped one raises BadAnswer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from client_container.blob import Blob, NamedBlob, Pass, blob_from, named_blobs
from client_container.failures import BadAnswer
from client_container.fields import a_list, an_object, number, optional_text, required, text, texts

PROTOCOL = 1
#: What jobs may have that the protocol's first clients ignored: a server gives such jobs to those that say these words.
FEATURES = ("files", "outputs", "limits", "gpu")
#: 4xx statuses of a delivered attempt that are about the moment, not about the attempt.
PASSING = frozenset({401, 408, 410, 425, 429})


@dataclass(frozen=True, kw_only=True)
class Introduction:
    """What a container says of itself when it registers."""

    container: str  #: UUID kept in the spool
    host: str  #: UUID of the machine
    host_name: str | None = None
    labels: Mapping[str, str | int | float] = field(default_factory=dict)
    cpus: float = 1.0
    memory_mb: int | None = None
    disk_mb: int | None = None  #: MiB of a job's files
    runtimes: tuple[str, ...] = ("process",)
    image: str | None = None  #: the image this client runs in
    features: tuple[str, ...] = ()  #: what it knows of jobs beyond the protocol's beginnings (see FEATURES)
    projects: tuple[str, ...] | None = None  #: ids of those that the volunteer runs; None: all
    shares: Mapping[str, float] | None = None  #: weight by project id; None where no launcher says
    self_test: str | None = None  #: passed, failed or unknown; None where nobody tests

    def to_message(self) -> dict[str, Any]:
        """The body of POST /containers."""
        host = {"id": self.host} | ({"name": self.host_name} if self.host_name else {})
        memory = {"memory_mb": self.memory_mb} if self.memory_mb is not None else {}
        if self.disk_mb is not None:
            memory["disk_mb"] = self.disk_mb
        return {
            "protocol": PROTOCOL,
            "id": self.container,
            "host": host,
            "labels": dict(self.labels),
            "resources": {"cpus": self.cpus} | memory,
            "runtimes": list(self.runtimes),
            "image": self.image,
            **({"features": list(self.features)} if self.features else {}),
            **self._from_launcher(),
        }

    def _from_launcher(self) -> dict[str, Any]:
        """What only a launcher knows."""
        said: dict[str, Any] = {}
        if self.shares is not None:
            projects = None if self.projects is None else list(self.projects)
            said["policy"] = {"projects": projects, "shares": dict(self.shares)}
        if self.self_test is not None:
            said["self_test"] = self.self_test
        return said


@dataclass(frozen=True, kw_only=True)
class Registration:
    """One life of this container: from a registration to the next, or to a purge."""

    id: str
    life: str
    key: str = field(repr=False)  #: the container's own credential, held in memory only
    beat_s: float

    @classmethod
    def from_message(cls, message: Any) -> Registration:
        """Read the answer of POST /containers; raises BadAnswer."""
        fields = an_object(message, "the registration")
        return cls(
            id=text(fields, "id"),
            life=text(fields, "life"),
            key=text(fields, "key"),
            beat_s=number(fields, "beat_s", above=0),
        )


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Where a job's image comes from when no registry has it: GET /images/<id>.tar."""

    sha256: str  #: of the file, in hex
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to execute for a chunk."""

    id: str
    image: str | None
    action: tuple[str, ...]  #: argv with {placeholders}; empty means the image's own command
    env: Mapping[str, str]
    timeout_s: float
    rows: int | None  #: rows per chunk; None when a chunk is one value
    project: str = ""  #: id
    task: str = ""  #: id
    archive: Archive | None = None  #: None when the image is in a registry, or there is none
    cpus: float | None = None  #: processors; None: what this host gives one job; so are the next two
    memory_mb: int | None = None
    disk_mb: int | None = None
    files: tuple[NamedBlob, ...] = ()  #: for /in, the same for all chunks
    outputs: tuple[str, ...] = ()  #: patterns of files below /out that are kept; none: no file is
    gpu: bool = False  #: it asks for graphics processors

    @classmethod
    def from_message(cls, job_id: str, message: Any) -> Job:
        """Read one entry of `jobs`; raises BadAnswer."""
        fields = an_object(message, f"job {job_id}")
        env = an_object(required(fields, "env"), "env")
        return cls(
            id=job_id,
            image=optional_text(fields, "image"),
            action=tuple(texts(fields, "action")),
            env={name: text(env, name) for name in env},
            timeout_s=number(fields, "timeout_s", above=0),
            rows=None if fields.get("rows") is None else int(number(fields, "rows", above=0)),
            project=optional_text(fields, "project") or "",
            task=optional_text(fields, "task") or "",
            archive=_archive(fields.get("archive")),
            cpus=_optional_number(fields, "cpus"),
            memory_mb=_optional_int(fields, "memory_mb"),
            disk_mb=_optional_int(fields, "disk_mb"),
            files=named_blobs(fields, "files"),
            outputs=tuple(texts(fields, "outputs")) if fields.get("outputs") else (),
            gpu=fields.get("gpu") is True,
        )


def _optional_number(fields: Mapping[str, Any], name: str) -> float | None:
    return None if fields.get(name) is None else number(fields, name, above=0)


def _optional_int(fields: Mapping[str, Any], name: str) -> int | None:
    value = _optional_number(fields, name)
    return None if value is None else int(value)


def _archive(message: Any) -> Archive | None:
    if message is None:
        return None
    fields = an_object(message, "archive")
    return Archive(sha256=text(fields, "sha256"), bytes=int(number(fields, "bytes", above=0)))


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One claimed unit of work, with the proof that this container was given it."""

    id: str
    run: int
    input: str  #: JSON text, passed to the program as it is; empty when it is a file
    job: Job
    ticket: str
    token: str  #: the claim it came with
    ends_in_s: float | None = None  #: seconds until the lease ends unless a beat says the chunk started
    files: tuple[NamedBlob, ...] = ()  #: for /in, this chunk's own
    input_file: Blob | None = None  #: where the input is too large for `input`

    @property
    def proof(self) -> Pass:
        """What the server asks for before it hands out this chunk's files, and takes those of its answer."""
        return Pass(chunk=self.id, run=self.run, token=self.token, ticket=self.ticket)

    @classmethod
    def from_message(cls, message: Any, *, jobs: Mapping[str, Job], token: str) -> Chunk:
        """Read one entry of `chunks`; raises BadAnswer, also when its job is not in the answer."""
        fields = an_object(message, "a chunk")
        job = jobs.get(text(fields, "job"))
        if job is None:
            raise BadAnswer(f"The server's answer lacks the job {fields['job']!r} of a chunk.")
        input_file = None if fields.get("input") is not None else fields.get("input_file")
        return cls(
            id=text(fields, "id"),
            run=int(number(fields, "run")),
            input=text(fields, "input") if input_file is None else "",
            job=job,
            ticket=text(fields, "ticket"),
            token=token,
            ends_in_s=None if fields.get("ends_in_s") is None else number(fields, "ends_in_s"),
            files=named_blobs(fields, "files"),
            input_file=None if input_file is None else blob_from(input_file, "input_file"),
        )


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What became of one delivered attempt."""

    chunk: str
    stored: bool
    error: str | None = None
    status: int | None = None

    @property
    def final(self) -> bool:
        """Whether the attempt need not be kept any longer: stored, or refused for good."""
        return self.stored or (
            self.status is not None and 400 <= self.status < 500 and self.status not in PASSING
        )

    @classmethod
    def from_message(cls, message: Any) -> Delivery:
        """Read one entry of `results`; raises BadAnswer."""
        fields = an_object(message, "a result's answer")
        status = fields.get("status")
        return cls(
            chunk=text(fields, "chunk"),
            stored=fields.get("stored") is True,
            error=optional_text(fields, "error"),
            status=status if isinstance(status, int) else None,
        )


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The answer of POST /next."""

    chunks: tuple[Chunk, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    retry_after: float | None = None  #: seconds, when there was nothing; None when the server did not say

    @classmethod
    def from_message(cls, message: Any, *, token: str) -> Claim:
        """Read a 200; raises BadAnswer."""
        fields = an_object(message, "the claim")
        jobs = {
            name: Job.from_message(name, job)
            for name, job in an_object(fields.get("jobs", {}), "jobs").items()
        }
        return cls(
            chunks=tuple(
                Chunk.from_message(chunk, jobs=jobs, token=token)
                for chunk in a_list(required(fields, "chunks"), "chunks")
            ),
            deliveries=deliveries_from(fields) if "results" in fields else (),
        )


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What a heartbeat says."""

    beat: int  #: rises within a life
    held: Mapping[str, int]  #: claim token -> chunks known under it
    started: tuple[str, ...]  #: chunks being executed
    paused: bool = False
    #: Images whose jobs cannot run here, each with why.
    cannot: Mapping[str, str] = field(default_factory=dict)

    def to_message(self, life: str) -> dict[str, Any]:
        """The body of POST /heartbeat."""
        cannot = {"cannot": dict(self.cannot)} if self.cannot else {}
        return {
            "life": life,
            "beat": self.beat,
            "held": dict(self.held),
            "started": list(self.started),
            "paused": self.paused,
            **cannot,
        }


@dataclass(frozen=True, kw_only=True)
class BeatAnswer:
    """What the server asks for in answer to a heartbeat."""

    drop: tuple[str, ...] = ()  #: chunks to stop and forget
    lost: tuple[str, ...] = ()  #: chunks not to start; finish and deliver what runs
    claim_again: tuple[str, ...] = ()  #: tokens whose count differs
    beat_s: float | None = None  #: new interval, if the server named one

    @classmethod
    def from_message(cls, message: Any) -> BeatAnswer:
        """Read the answer of POST /heartbeat; raises BadAnswer."""
        fields = an_object(message, "the heartbeat's answer")
        config = an_object(fields.get("config", {}), "config")
        return cls(
            drop=tuple(texts(fields, "drop")),
            lost=tuple(texts(fields, "lost")),
            claim_again=tuple(texts(fields, "claim_again")),
            beat_s=number(config, "beat_s", above=0) if "beat_s" in config else None,
        )


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One execution of a chunk, as it is reported and as it lies in the spool."""

    chunk: str
    run: int
    token: str
    ticket: str
    outcome: str  #: ok, failed, timeout, oom, output_limit or engine
    exit_code: int | None
    signal: int | None
    stdout: str
    stderr_tail: str
    started: datetime
    ended: datetime
    cpu_s: float
    runtime: str
    image: str | None
    files: tuple[NamedBlob, ...] = ()  #: what the program left in /out, if the job asked for it

    def to_json(self) -> bytes:
        """One entry of `results`, encoded: these bytes are kept, and sent as they are."""
        message = dict(vars(self), started=instant(self.started), ended=instant(self.ended))
        message["files"] = [vars(file) for file in self.files]
        if not self.files:  # said only where there are any: servers of last year never heard of it
            del message["files"]
        return json.dumps(message, separators=(",", ":")).encode("ascii")


def instant(when: datetime) -> str:
    """An aware datetime as RFC 3339 in UTC with milliseconds."""
    return when.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def results_body(results: Sequence[bytes], **others: Any) -> bytes:
    """A JSON object with `others` and the encoded attempts as its list `results`."""
    head = json.dumps(others)[:-1].encode("ascii")
    comma = b", " if others else b""
    return head + comma + b'"results": [' + b",".join(results) + b"]}"


def deliveries_from(message: Any) -> tuple[Delivery, ...]:
    """Read the list `results` of an answer; raises BadAnswer."""
    entries = a_list(required(an_object(message, "the answer"), "results"), "results")
    return tuple(Delivery.from_message(entry) for entry in entries)


def released_from(message: Any) -> int:
    """Read `released` of an answer; raises BadAnswer."""
    return int(number(an_object(message, "the answer"), "released"))


def received_from(message: Any) -> int:
    """Read `received` of an answer: bytes; raises BadAnswer."""
    return int(number(an_object(message, "the answer"), "received", above=-1))
