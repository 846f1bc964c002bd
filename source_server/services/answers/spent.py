"""What attempts of limited tasks have used, by the server's own clock; noted with them as they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from source_server.domain.chunk import Chunk
from source_server.domain.task import Task
from source_server.domain.timing import computed_for
from source_server.stores.gate import Document


def note_spent(
    documents: Iterable[Document], chunks: Mapping[str, Chunk], tasks: Mapping[str, Task], now: datetime
) -> None:
    """Mark those of these new results and errors that count for limits, with the processor seconds that they took.

    A task whose limits count nothing pays nothing. An attempt whose lease had ended counts no time: nobody knows it.
    """
    for one in documents:
        task, chunk = tasks.get(one["task"]), chunks.get(one["chunk"])
        if task is None or chunk is None or not task.counted:
            continue
        one["uncounted"] = True
        one["spent_s"] = _seconds(one, chunk, task, now)
        if "answer" in one and not one.get("canary"):
            one["unmatched"] = True


def _seconds(document: Document, chunk: Chunk, task: Task, now: datetime) -> float:
    for held in chunk.leases:
        if held.container == document["container"] and held.token == document["token"]:
            taken = computed_for(held.since, held.started, held.until, now, timeout_s=task.job.timeout_s)
            return taken * (task.job.cpus or 1.0)
    return 0.0
