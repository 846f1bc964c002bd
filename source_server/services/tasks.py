"""Tasks are made, started, paused, cancelled and described."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

from source_server.domain.account import Account, Role
from source_server.domain.refusal import BadInput, Conflict, NotFound
from source_server.domain.task import MAX_JOB, BadAction, Job, Task, job_bytes, placeholders
from source_server.domain.validation import Validation
from source_server.services.validate import companion
from source_server.stores.database import Stores


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """A task and how far it is. `chunks` maps a state to the number of chunks in it."""

    task: Task
    chunks: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A task that somebody wants."""

    name: str
    job: Job
    rows_per_chunk: int = 1
    priority: int = 0
    validation: Validation | None = None  #: None: the project's
    validator: Job | None = None


class Tasks:
    """What scientists ask for; everybody sees and changes only their own, an admin everything."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def own_projects(self, account: Account) -> list[str] | None:
        """The names of the caller's projects; None means every project (admins)."""
        return None if account.role is Role.ADMIN else self._stores.projects.names(account.id)

    def require_project(self, account: Account, name: str) -> None:
        """Raises NotFound unless the project exists and the caller may use it."""
        owner = self._stores.projects.find_owner(name)
        if owner is None or (owner != account.id and account.role is not Role.ADMIN):
            raise NotFound(f"There is no project {name} of yours.")

    def add(self, account: Account, project: str, wish: Wish) -> Task:
        """Make a waiting task without data yet; raises BadInput for a job that could never run.

        A wish without a rule for checking answers takes the project's.
        """
        self.require_project(account, project)
        _require_sound(wish)
        of_project = self._stores.projects.find(project) if wish.validation is None else None
        rule = wish.validation or (of_project.validation if of_project else None) or Validation()
        validator = wish.validator if wish.validation else (of_project.validator if of_project else None)
        task = Task(
            id=uuid.uuid4().hex[:16],
            project=project,
            owner=account.id,
            name=wish.name,
            job=self._for_its_architecture(wish.job),
            rows_per_chunk=wish.rows_per_chunk,
            priority=wish.priority,
            validation=rule,
            validator=None if validator is None else self._for_its_architecture(validator),
            created=self._stores.clock.now(),
        )
        if task.validator is not None:
            # First: a task whose answers nobody could compare must not come into being.
            self._stores.tasks.add(companion(task, task.created))
        self._stores.tasks.add(task)
        return task

    def _for_its_architecture(self, job: Job) -> Job:
        """The same job; it says on what its image runs, if the image is here."""
        image = None if job.image is None else self._stores.images.find(job.image)
        return job if image is None else replace(job, architecture=image.architecture)

    def get(self, account: Account, task_id: str) -> Task:
        """The task with this id; raises NotFound unless it is the caller's."""
        task = self._stores.tasks.find(task_id)
        if task is None or (task.owner != account.id and account.role is not Role.ADMIN):
            raise NotFound(f"There is no task {task_id} of yours.")
        return task

    def of(self, account: Account, project: str | None) -> list[Task]:
        """The caller's tasks, oldest first; of one project where it is named."""
        if project is None:
            return self._stores.tasks.of_projects(self.own_projects(account))
        self.require_project(account, project)
        return self._stores.tasks.of_projects([project])

    def report(self, task: Task) -> TaskReport:
        """The task with its chunks counted by state."""
        visible = task.upload is not None and task.upload.complete
        return TaskReport(task=task, chunks=self._stores.chunks.counts(task.id) if visible else {})

    def start(self, account: Account, task_id: str) -> Task:
        """Start a waiting task; one that runs already stays as it is; raises Conflict without complete data."""
        task = self._steerable(account, task_id)
        if not task.sealed:
            raise Conflict(
                "The task has no complete data yet: upload it with PUT /tasks/ID/chunks/UPLOAD first."
            )
        self._stores.tasks.start(task_id, self._stores.clock.now())
        return self.get(account, task_id)

    def pause(self, account: Account, task_id: str, *, paused: bool) -> Task:
        """Close or open the gate: a paused task hands nothing out, what runs goes on."""
        self._steerable(account, task_id)
        self._stores.tasks.set_paused(task_id, paused)
        return self.get(account, task_id)

    def cancel(self, account: Account, task_id: str) -> Task:
        """Close the task's gate for good; housekeeping sweeps its chunks. Raises Conflict when it is complete."""
        self._steerable(account, task_id)
        if not self._stores.tasks.close_gate(task_id):
            raise Conflict("The task is complete already.")
        return self.get(account, task_id)

    def _steerable(self, account: Account, task_id: str) -> Task:
        task = self.get(account, task_id)
        if task.validates is not None:
            raise Conflict(f"This only compares answers of the task {task.validates}: steer that one.")
        return task

    def ids(self, account: Account, task_id: str | None) -> list[str] | None:
        """The ids of the caller's tasks, or of the one named; None means every task (admins)."""
        if task_id is not None:
            return [self.get(account, task_id).id]
        if account.role is Role.ADMIN:
            return None
        return [task.id for task in self.of(account, None)]

    def chosen(self, account: Account, task_id: str | None, project: str | None) -> list[Task]:
        """The task named, or a project's tasks, or all of the caller's, oldest first."""
        if task_id is not None:
            return [self.get(account, task_id)]
        return self.of(account, project)


def _require_sound(wish: Wish) -> None:
    for job in (wish.job, wish.validator):
        if job is not None and (size := job_bytes(job)) > MAX_JOB:
            raise BadInput(f"action and env have together {size} bytes, more than {MAX_JOB}.")
    try:
        asked = placeholders(wish.job.action)
        if wish.validator is not None and placeholders(wish.validator.action):
            raise BadInput(
                "A validator's action has no {field} placeholders: what it compares comes on stdin."
            )
    except BadAction as error:
        raise BadInput(str(error)) from error
    if asked and wish.rows_per_chunk > 1:
        raise BadInput(
            "An action with {field} placeholders needs rows_per_chunk 1: many rows come on stdin only."
        )
