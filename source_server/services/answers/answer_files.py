"""Files that come with an answer: here before it, brought by who gives it, and no others than the job keeps."""

from __future__ import annotations

from source_server.domain.attempt import Attempt
from source_server.domain.container import Container
from source_server.domain.file_names import BadName, require_together
from source_server.domain.job import Job
from source_server.domain.patterns import fits
from source_server.domain.refusal import Conflict
from source_server.domain.task import Task
from source_server.services.files.blob_tickets import place
from source_server.stores.database import Stores


class FilesMissing(Conflict):
    """Files that the answer names have not been uploaded for it, or not whole. `missing`: their hashes."""

    def __init__(self, missing: list[str]) -> None:
        super().__init__(
            f"{len(missing)} files of this answer are not here (whole): upload them with PUT /blobs/{missing[0]}, "
            "then send the answer again."
        )
        self.missing = missing


class AnswerFiles:
    """Looks at the files of answers before these are stored."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def refusal(self, container: Container, attempt: Attempt, task: Task) -> FilesMissing | None:
        """What is missing; None when all is here. From then on the files stay for the grace period at least."""
        if wrong_files(attempt, task.job) is not None:
            return None  # it will be stored as a failure, without them
        brought = self._stores.deliveries.whole(place(attempt.chunk, attempt.run, container.id))
        named = {one.sha256: one.bytes for one in attempt.files}
        here = self._stores.blobs.touch(task.owner, named, self._stores.clock.now())
        missing = [one for one, size in named.items() if not brought.get(one) == here.get(one) == size]
        if missing:
            return FilesMissing(missing)
        if named:
            self._stores.deliveries.answered(place(attempt.chunk, attempt.run, container.id))
        return None


def wrong_files(attempt: Attempt, job: Job) -> str | None:
    """Why the files cannot be an answer's, as a sentence; None when they can."""
    try:
        require_together(one.name for one in attempt.files)
    except BadName as error:
        return f"Files of the answer: {error}."
    other = next((one.name for one in attempt.files if not fits(one.name, job.outputs)), None)
    return (
        None
        if other is None
        else f"The job keeps no file {other[:100]!r}: no pattern of its outputs names it."
    )
