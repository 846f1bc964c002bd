"""What scientists and operators send: projects, tasks, rules for checking, rounds. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, GetJsonSchemaHandler, StringConstraints, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from source_server.web.bodies.job import JobBody, JobImage, ProgramBody
from source_server.web.bodies.limits import LimitsBody, NotifyBody
from source_server.web.wire import ChunkId, Name, Strict, Text, Uuid, matching

MOST_CHUNKS = 1000  #: chunks named in one request of a scientist


def _not_reserved(name: str) -> str:
    if name == "all":
        raise ValueError("must not be 'all', which stands for every project")
    return name


Slug = Annotated[
    str,
    AfterValidator(
        matching(r"[a-z0-9][a-z0-9-]{0,62}", "must have 1 to 63 small letters, digits and dashes")
    ),
    AfterValidator(_not_reserved),
]
Priority = Annotated[int, Field(ge=-1000, le=1000)]


class ValidatorBody(ProgramBody):
    """The project's own command that compares answers."""

    files: bool = False
    """The files of the input and of the answers lie in its `/in`; without this it is told of them."""
    disk_mb: Annotated[int, Field(ge=32, le=2**31)] | None = None
    """With `files`: disk space that it needs, in which those files must fit; none: 1,024."""

    @model_validator(mode="after")
    def _for_files(self) -> ValidatorBody:
        if self.disk_mb is not None and not self.files:
            raise ValueError("'disk_mb' of a validator goes with 'files'")
        return self


class ComparatorBody(Strict):
    """When two answers agree."""

    kind: Literal["exact", "json", "validator"] = "exact"
    relative: Annotated[float, Field(ge=0, le=1, strict=False, allow_inf_nan=False)] = 0.0
    absolute: Annotated[float, Field(ge=0, le=1e300, strict=False, allow_inf_nan=False)] = 0.0
    validator: ValidatorBody | None = None

    @model_validator(mode="after")
    def _fitting(self) -> ComparatorBody:
        if (self.kind == "validator") != (self.validator is not None):
            raise ValueError("kind 'validator' and the field 'validator' go together")
        if self.kind != "json" and (self.relative or self.absolute):
            raise ValueError("a tolerance needs kind 'json'")
        return self


class ValidationBody(Strict):
    """How answers are checked."""

    quorum: Annotated[int, Field(ge=1, le=8)] = 1
    replicas: Annotated[int, Field(ge=1, le=16)] | None = None
    most: Annotated[int, Field(ge=1, le=16)] | None = None
    distinct: Literal["account", "host", "container", "variant"] = "account"
    same: Literal["any", "arch", "cpu-family"] = "any"
    comparator: ComparatorBody = ComparatorBody()
    adaptive: bool = False
    canaries: Annotated[float, Field(ge=0, le=0.5, strict=False)] = 0.0

    @model_validator(mode="after")
    def _fitting(self) -> ValidationBody:
        replicas = self.quorum if self.replicas is None else self.replicas
        if replicas < self.quorum:
            raise ValueError("replicas must not be less than quorum")
        if self.most is not None and self.most < replicas:
            raise ValueError("most must not be less than replicas")
        if self.quorum == 1 and (replicas > 1 or self.adaptive or self.comparator.kind != "exact"):
            raise ValueError("replicas, adaptive and a comparator need a quorum of at least 2")
        return self


def _no_companion(name: str) -> str:
    if "--" in name or name.endswith("-v"):
        raise ValueError("must neither contain '--' nor end with '-v', which mark the server's own tasks")
    return name


#: The id of a task, chosen by who makes it (a commit's hash, a date).
TaskId = Annotated[
    str,
    AfterValidator(
        matching(
            r"[A-Za-z0-9_][A-Za-z0-9_-]{0,47}", "must have 1 to 48 letters, digits, dashes and underscores"
        )
    ),
    AfterValidator(_no_companion),
]


class ReactionBody(JobBody):
    """A job that runs once when the outcome of a task is known."""

    @model_validator(mode="after")
    def _plain(self) -> ReactionBody:
        if self.variants:
            raise ValueError("a reaction runs in one image: 'image', and no 'variants'")
        return self


class PolicyBody(Strict):
    """`PATCH /projects/NAME`: what is named is changed."""

    share: Annotated[float, Field(ge=0.01, le=1000, allow_inf_nan=False)] | None = None
    assigned_only: bool | None = None
    priority: Priority | None = None
    validation: ValidationBody | None = None
    image: JobImage | None = None
    notify: NotifyBody | None = None


class ProjectBody(PolicyBody):
    """`POST /projects`."""

    name: Slug


class TaskBody(JobBody):
    """`POST /projects/NAME/tasks`: the main job's fields, the other jobs, and what is to happen with the task.

    The jobs may also stand together: {"jobs": {"main": {...}, "success": {...}, "failure": {...}, "after": {...}}}.
    """

    id: TaskId | None = None
    """The task's id: the same id and body again is the same task."""
    name: Name | None = None
    """For people; none: the project's."""
    rows_per_chunk: Annotated[int, Field(ge=1, le=100_000)] = 1
    """More than 1: rows come on stdin only."""
    priority: Priority = 0
    """Among the tasks of its project: higher ones go first."""
    validation: ValidationBody | None = None
    """How answers are checked; none: as the project says."""
    success: ReactionBody | None = None
    """Runs once when the task has succeeded."""
    failure: ReactionBody | None = None
    """Runs once when it has failed."""
    after: ReactionBody | None = None
    """Runs once behind either."""
    max_failed: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Chunks that may be set aside without the task having failed."""
    after_tasks: list[TaskId] = Field(default_factory=list, max_length=100)
    """Tasks that have to succeed before this one starts."""
    open_ended: bool = False
    """Rows are added while it runs."""
    limits: LimitsBody | None = None
    """How far it may go."""
    notify: NotifyBody | None = None
    """Who is told when it is complete or pauses itself; none: whom the project names."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        said = handler(schema)
        fields = handler.resolve_ref_schema(said)["properties"]
        job = fields["after"]["anyOf"][0]
        fields["jobs"] = {
            "type": "object",
            "properties": dict.fromkeys(("main", "success", "failure", "after"), job),
            "required": ["main"],
            "additionalProperties": False,
            "description": "The jobs together, instead of the main job's fields and the others beside them.",
        }
        return said

    @model_validator(mode="before")
    @classmethod
    def _jobs_apart(cls, body: Any) -> Any:
        if not isinstance(body, dict) or "jobs" not in body:
            return body
        jobs = body["jobs"]
        if not isinstance(jobs, dict) or not isinstance(jobs.get("main"), dict):
            raise ValueError("'jobs' must be an object with the job 'main'")
        others = {name: job for name, job in jobs.items() if name != "main"}
        if unknown := others.keys() - {"success", "failure", "after"}:
            raise ValueError(f"there is no job {min(unknown)!r}: jobs are main, success, failure and after")
        rest = {name: value for name, value in body.items() if name != "jobs"}
        if twice := rest.keys() & (jobs["main"].keys() | others.keys()):
            raise ValueError(f"{min(twice)!r} is said twice, in 'jobs' and beside it")
        return {**rest, **others, **jobs["main"]}


class RowsBody(Strict):
    """`POST /tasks/TASK/chunks`."""

    rows: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1000)]
    key: Annotated[Name, StringConstraints(max_length=100)] | None = None


class RequeueBody(Strict):
    """`POST /errors/requeue`."""

    chunks: Annotated[list[ChunkId], Field(min_length=1, max_length=MOST_CHUNKS)] | None = None
    task: Name | None = None
    signature: Annotated[Text, StringConstraints(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="after")
    def _fitting(self) -> RequeueBody:
        if (self.chunks is None) == (self.task is None):
            raise ValueError("Say either 'chunks' or 'task'")
        if self.chunks is not None and self.signature is not None:
            raise ValueError("'signature' goes with 'task'")
        return self


class RerunBody(Strict):
    """`POST /tasks/TASK/rerun`."""

    which: Literal["all", "failed", "suspect"] | None = None
    chunks: Annotated[list[ChunkId], Field(min_length=1, max_length=MOST_CHUNKS)] | None = None

    @model_validator(mode="after")
    def _fitting(self) -> RerunBody:
        if (self.which is None) == (self.chunks is None):
            raise ValueError("Say either 'which' or 'chunks'")
        return self


class ClearHostBody(Strict):
    """`POST /hosts/clear`."""

    account: Name
    host: Uuid


class EmptyBody(Strict):
    """Calls that take nothing: an empty body, or `{}`."""
