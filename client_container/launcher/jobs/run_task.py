"""What a request asks to be executed, in the words of the contract that both runtimes keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from client_container.launcher.jobs.engine import ImageFacts
from client_container.launcher.jobs.execution import Task
from client_container.launcher.jobs.manifest import Allowance
from client_container.launcher.jobs.sandbox import CHECKPOINT, IN, OUT, TMP
from client_container.launcher.jobs.startable import require_workdir
from client_container.launcher.line.wire import Refusal, Run
from client_container.protocol import Chunk
from client_container.protocol import Job as ChunksJob
from client_container.runtime.contract import (
    BadChunk,
    BadJob,
    command_line,
    encoded_argv,
    encoded_input,
    environment,
    text_for_fields,
    wants_fields,
)

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def task_of(request: Run, allowance: Allowance, facts: ImageFacts) -> Task:
    """What is to be executed; raises Refusal for what no container could run."""
    if facts.volumes:
        raise Refusal(
            "not_allowed",
            f"The image declares a VOLUME ({facts.volumes[0]}), for which jobs have no room.",
        )
    require_workdir(facts.workdir)
    chunk = _as_chunk(request)
    by_fields = fills_in_from_file(request)
    places = {
        "HOME": TMP,
        "TMPDIR": TMP,
        "DOCKERCOMP_IN": IN,
        "DOCKERCOMP_OUT": OUT,
        "DOCKERCOMP_CHECKPOINT": CHECKPOINT,
    }
    try:
        # What is filled in from an input that is a file is filled in once that lies there.
        argv = list(chunk.job.action) if by_fields else _argv(chunk.job.action, chunk.input, facts.command)
        env = environment(chunk, path=facts.path or DEFAULT_PATH, cpus=allowance.cpus, places=places)
        encoded_input(chunk.input)
    except (BadJob, BadChunk) as error:
        raise Refusal("bad_request", str(error)) from error
    return Task(
        argv=argv,
        env={name.decode(): value.decode() for name, value in env.items()},
        timeout_s=allowance.timeout_s,
        disk=allowance.disk,
    )


def fills_in_from_file(request: Run) -> bool:
    """Whether the action has fields of an input that is a file: then it is known only once that is there."""
    return request.chunk.input_file is not None and wants_fields(request.manifest.action)


def argv_from_file(request: Run, stdin: Path) -> list[str]:
    """The command line with the fields of the input in this file; raises Refusal, OSError."""
    try:
        return _argv(request.manifest.action, text_for_fields(stdin), ())
    except (BadJob, BadChunk) as error:
        raise Refusal("bad_request", str(error)) from error


def _argv(action: Sequence[str], text: str, own: Sequence[str]) -> list[str]:
    """The command line of a chunk; raises BadJob, BadChunk."""
    argv = command_line(action, text) or list(own)
    if not argv:
        raise BadJob("The job has no action, and its image no command of its own.")
    encoded_argv(argv)
    return argv


def _as_chunk(request: Run) -> Chunk:
    """The chunk as the contract of both runtimes knows it."""
    manifest = request.manifest
    job = ChunksJob(
        id=manifest.task,
        image=manifest.image,
        action=manifest.action,
        env=manifest.env,
        timeout_s=manifest.timeout_s,
        rows=manifest.rows,
    )
    return Chunk(
        id=request.chunk.id,
        run=request.chunk.run,
        input=request.chunk.input,
        job=job,
        ticket="",
        token=request.token,
    )
