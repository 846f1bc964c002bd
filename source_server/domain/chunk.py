"""A chunk and all that it carries: where it stands, who computes it, what was answered, who failed.

What may happen to it is decided in `transitions`, by whom it may be taken in `eligibility`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class ChunkState(str, Enum):
    """Where a chunk stands. Assigned is not a state, but a ready chunk with `assigned` set."""

    READY = "ready"  #: a replica is still to hand out, even while others compute it
    LEASED = "leased"  #: all wanted replicas are handed out
    DELAYED = "delayed"  #: waits until `not_before`
    VALIDATING = "validating"  #: candidates wait for a verdict (quorum)
    DONE = "done"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"


OPEN_STATES = (ChunkState.READY, ChunkState.LEASED, ChunkState.DELAYED, ChunkState.VALIDATING)

MAX_LISTED = 16  #: bound of every array a chunk carries


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A container in one of its lives: who a chunk is assigned to."""

    container: str
    life: str


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A claim on a chunk by a container's current life."""

    token: str
    container: str
    life: str
    host: str
    account: str
    since: datetime
    until: datetime
    started: datetime | None = None
    platform: str = ""  #: what `same` of a quorum compares, as the container said when it claimed
    established: bool = False  #: whether its account had a long record of agreement when it claimed
    canary: bool = False  #: the chunk is settled: this lease only tests its holder
    variant: str = ""  #: of the job: in which of its images the attempt is made


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A result that the chunk's verdict is made from; the accepted one is among them."""

    result: str
    account: str
    host: str
    container: str
    digest: str
    platform: str = ""
    established: bool = False  #: whether its account had a long record of agreement when it came
    variant: str = ""  #: of the job: in which of its images it was computed


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Who failed, and how."""

    error: str  #: id of the stored error; counted once, however often it is settled
    host: str
    account: str
    signature: str
    bad_data: bool = False  #: exit 65: the program says that the data is bad


@dataclass(frozen=True, kw_only=True)
class ChunkFile:
    """A file that a chunk brings: a blob, and the name that it has below /in."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One unit of a task's data. `rev` is a random number, new with every write: the guard of the next one."""

    id: str
    project: str
    task: str
    n: int
    r: float  #: random place in the order of claims
    rev: int
    upload: str  #: the upload attempt that brought it
    run: int = 0  #: raised by a rerun; part of every guard, ticket and result id
    round: int = 0  #: number of the last round that sent it out again (see `rounds`)
    state: ChunkState = ChunkState.READY
    replicas: int = 1  #: attempts that are to come to a result; a disagreement raises it
    wanted: int = 1  #: of those, still to hand out
    not_before: datetime | None = None
    input: str | None = None  #: JSON text; None where it was not read
    #: Input rows, each with a line of the answer; None: one value for the whole chunk.
    rows: int | None = None
    first_row: int = 0  #: number of the first of them within the task
    variant: str | None = None  #: the job's variant that it has to be computed in; None: any
    files: tuple[ChunkFile, ...] = ()  #: its own; those of the whole task are the job's inputs
    input_file: ChunkFile | None = None  #: where the input is too large to lie here: then `input` is None
    assigned: Holder | None = None
    leases: tuple[Lease, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    failed: tuple[Failure, ...] = ()
    failures: int = 0  #: failed attempts so far, on any host; `failed` has the last of them
    losses: int = 0  #: leases lost while the chunk was being executed
    result: str | None = None  #: id of the accepted result
