"""Files that jobs and rows name: looked at when they come in, kept while they are named, told to those who compute."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from source_server.domain.blob import BlobNotFound, require_quota
from source_server.domain.chunk import Chunk, ChunkFile
from source_server.domain.inputs import literals, of_rows, require_inputs, resolved
from source_server.domain.job import Job
from source_server.domain.refusal import BadInput, Conflict, Unavailable
from source_server.domain.table import MAX_INPUT, Cut
from source_server.domain.task import Task
from source_server.services.files.blobs import Blobs

MOST_SIZES = 20_000  #: blobs whose sizes a process remembers

Cuts = Sequence[tuple[Chunk, Cut]]  #: chunks about to be stored, each with the rows that it was made of


class Inputs:
    """What lies below a job's /in, and inputs that are too large to lie in a chunk."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}

    def require(self, account: str, jobs: Iterable[Job]) -> None:
        """The jobs' files are the account's, and stay for the grace period; raises BadInput naming the first other."""
        for job in jobs:
            require_inputs(job.inputs)
            named = literals(job.inputs)
            here = self._blobs.touch(account, {sha256 for sha256, _ in named})
            for sha256, name in named:
                if sha256 not in here:
                    raise BadInput(
                        f"inputs: {name!r} names the blob {sha256}, which is none of yours here; upload it first."
                    )

    def complete(self, task: Task, made: Cuts, *, strict: bool = True) -> list[Chunk]:
        """The chunks with their own files, and with large inputs as blobs.

        Raises BadInput naming the line, and OverQuota; not `strict`: neither, a file that is gone has no bytes then.
        """
        chunks = [chunk for chunk, _ in made]
        if of_rows(task.job.inputs):
            chunks = self._with_files(task, made, strict=strict)
        if any(_is_large(chunk) for chunk in chunks):
            large = sum(len(chunk.input or "") for chunk in chunks if _is_large(chunk))
            if strict:
                require_quota(self._blobs.usage(task.owner), large, self._blobs.limits)
            chunks = [self._with_input_file(task, chunk) if _is_large(chunk) else chunk for chunk in chunks]
        return chunks

    def require_files(self, task: Task, made: Cuts) -> None:
        """What these rows name is there, and stays for the grace period; raises BadInput naming the line."""
        if of_rows(task.job.inputs):
            self._with_files(task, made, strict=True)

    def require_still(self, task: Task, chunks: Iterable[Chunk]) -> None:
        """What these chunks, stored by now, name has not been swept meanwhile; raises Conflict."""
        named = {file.sha256 for chunk in chunks for file in (*chunk.files, *_input_file(chunk))}
        if len(self._blobs.touch(task.owner, named)) < len(named):
            raise Conflict(
                "A file that the data names was removed at this moment; upload it again, then the data."
            )

    def of_tasks(self, tasks: Iterable[Task]) -> dict[str, list[ChunkFile]]:
        """The files of whole tasks, by task; none for those without."""
        return {task.id: self._of_task(task) for task in tasks if task.job.inputs}

    def read(self, chunk: Chunk) -> str:
        """The chunk's input (read with it), wherever it lies."""
        if chunk.input_file is None:
            return chunk.input or "{}"
        try:
            with self._blobs.open(chunk.input_file.sha256) as content:
                return content.read().decode("utf-8", "surrogatepass")
        except BlobNotFound as error:
            raise Unavailable("The input of a chunk cannot be read.") from error

    def _of_task(self, task: Task) -> list[ChunkFile]:
        named = literals(task.job.inputs)
        with self._lock:
            sizes = {sha256: self._sizes[sha256] for sha256, _ in named if sha256 in self._sizes}
        missing = {sha256 for sha256, _ in named} - sizes.keys()
        if missing:
            sizes |= self._blobs.owned(task.owner, missing)
            with self._lock:
                if len(self._sizes) + len(sizes) > MOST_SIZES:
                    self._sizes.clear()
                self._sizes |= sizes
        return [ChunkFile(name=name, sha256=sha, bytes=sizes[sha]) for sha, name in named if sha in sizes]

    def _with_files(self, task: Task, made: Cuts, *, strict: bool) -> list[Chunk]:
        named = [
            (chunk, cut.line, resolved(task.job.inputs, _row(cut), line=cut.line)) for chunk, cut in made
        ]
        here = self._blobs.touch(task.owner, {sha256 for _, _, files in named for _, sha256 in files})
        completed = []
        for chunk, line, files in named:
            for name, sha256 in files:
                if strict and sha256 not in here:
                    raise BadInput(
                        f"Line {line}: {name!r} names the blob {sha256}, which is none of yours here; upload it first."
                    )
            known = tuple(ChunkFile(name=name, sha256=sha, bytes=here.get(sha, 0)) for name, sha in files)
            completed.append(replace(chunk, files=known))
        return completed

    def _with_input_file(self, task: Task, chunk: Chunk) -> Chunk:
        text = (chunk.input or "").encode("utf-8", "surrogatepass")
        sha256, size = self._blobs.put_stream(task.owner, io.BytesIO(text), counted=False)
        return replace(chunk, input=None, input_file=ChunkFile(name="chunk.json", sha256=sha256, bytes=size))


def _is_large(chunk: Chunk) -> bool:
    text = chunk.input or ""
    return len(text) * 4 > MAX_INPUT and len(text.encode("utf-8", "surrogatepass")) > MAX_INPUT


def _input_file(chunk: Chunk) -> tuple[ChunkFile, ...]:
    return () if chunk.input_file is None else (chunk.input_file,)


def _row(cut: Cut) -> Mapping[str, object]:
    row: Mapping[str, object] = json.loads(cut.text)
    return row
