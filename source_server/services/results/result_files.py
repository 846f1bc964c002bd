"""Files that came with the accepted answers of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from source_server.domain.task import Task
from source_server.stores.database import Stores

PAGE = 64  #: chunks that are looked at in one go
PAGES = 16  #: of them for one answer, however few files they have


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """One of the files."""

    n: int  #: of the chunk
    name: str
    sha256: str
    bytes: int


class ResultFiles:
    """Lists them, chunk by chunk."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def __call__(self, task: Task, *, start: int, limit: int) -> tuple[list[ResultFile], int | None]:
        """The files of whole chunks from number `start` on, until there are `limit` of them or more, or enough chunks
        were looked at; and the number of the chunk to go on from, None at the end."""
        chunks = task.upload.chunks if task.upload is not None and task.upload.complete else 0
        found: list[ResultFile] = []
        for _ in range(PAGES):
            if start >= chunks:
                break
            page = range(start, min(start + PAGE, chunks))
            for n, files in zip(page, self._page(task, page), strict=True):
                found += files
                start = n + 1
                if len(found) >= limit:
                    return found, start if start < chunks else None
        return found, start if start < chunks else None

    def _page(self, task: Task, numbers: Sequence[int]) -> list[list[ResultFile]]:
        ids = [f"{task.id}.{n}" for n in numbers]
        chunks = self._stores.chunks.read(ids, majority=True)
        listed = self._stores.results.files([one.result for one in chunks.values() if one.result])
        return [
            [
                ResultFile(n=n, name=file["name"], sha256=file["sha256"], bytes=file["bytes"])
                for file in listed.get((chunks[chunk_id].result or "") if chunk_id in chunks else "", ())
            ]
            for n, chunk_id in zip(numbers, ids, strict=True)
        ]
