"""Tasks are made, started, paused, cancelled and described."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from source_server.domain.account import Account, Role
from source_server.domain.limits import Used
from source_server.domain.notice import Notice
from source_server.domain.refusal import BadInput, Conflict, NotFound, Unavailable
from source_server.domain.task import Task, TaskState, Upload
from source_server.domain.validation import Validation
from source_server.domain.wish import Wish, require_sound, require_variants
from source_server.services.files.blobs import Blobs
from source_server.services.files.inputs import Inputs
from source_server.services.files.job_images import JobImages
from source_server.services.messages.notices import Notices
from source_server.services.reactions.reaction_reports import ReactionReport, ReactionReports
from source_server.services.tasks.append import OPEN
from source_server.services.tasks.depend import Depend
from source_server.services.tasks.used import used_of
from source_server.services.tasks.validate import companion
from source_server.stores.database import Stores
from source_server.stores.gate import AlreadyThere

TRIES = 3  #: times a task is resumed that pauses itself again at the same moment


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """A task and how far it is. `chunks` maps a state to the number of chunks in it."""

    task: Task
    chunks: Mapping[str, int]
    used: Used | None = None  #: of its limits
    notices: Sequence[Notice] = ()  #: the newest messages about it
    reactions: Sequence[ReactionReport] = ()  #: to its outcomes, the newest last


class Tasks:
    """What scientists ask for; everybody sees and changes only their own, an admin everything."""

    def __init__(self, stores: Stores, inputs: Inputs | None = None) -> None:
        self._stores = stores
        self._inputs = inputs or Inputs(Blobs(stores))
        self._depend = Depend(stores)
        self._notices = Notices(stores)

    def own_projects(self, account: Account) -> list[str] | None:
        """The names of the caller's projects; None means every project (admins)."""
        return None if account.role is Role.ADMIN else self._stores.projects.names(account.id)

    def require_project(self, account: Account, name: str) -> None:
        """Raises NotFound unless the project exists and the caller may use it."""
        owner = self._stores.projects.find_owner(name)
        if owner is None or (owner != account.id and account.role is not Role.ADMIN):
            raise NotFound(f"There is no project {name} of yours.")

    def add(self, account: Account, project: str, wish: Wish) -> tuple[Task, bool]:
        """Make a waiting task without data yet, and whether it is new: the same id and body again is the same task.

        A wish without a rule for checking answers takes the project's. Raises BadInput for a job that could never
        run, Conflict for an id that stands for another task.
        """
        self.require_project(account, project)
        require_sound(wish)
        task = self._made(account, project, wish)
        self._depend.require_own(task.owner, task.after_tasks)
        self._require_files(task)
        try:
            self._stores.tasks.add(task)
            self._depend.require_no_circle(task)
        except AlreadyThere:
            task = self._same(account, wish, task.id)
            self._stores.tasks.ensure(task)  # what a failover could still take away is not to be acknowledged
            self._depend.require_no_circle(task)  # its maker may have died before it looked
            if task.validator is not None:
                # Its maker may have died between the two.
                self._stores.tasks.ensure(companion(task, task.created))
            return task, False
        if task.validator is not None:
            self._stores.tasks.ensure(companion(task, task.created))
        try:
            # Now that the task names them they stay: had they been swept before that?
            self._require_files(task)
        except BadInput:
            self._stores.tasks.close_gate(task.id)
            raise
        return task, True

    def _require_files(self, task: Task) -> None:
        named = (task.job, task.success, task.failure, task.after)
        self._inputs.require(task.owner, [one for one in named if one is not None and one.inputs])

    def _made(self, account: Account, project: str, wish: Wish) -> Task:
        of_project = self._stores.projects.find(project)
        rule = wish.validation or (of_project.validation if of_project else None) or Validation()
        validator = wish.validator if wish.validation else (of_project.validator if of_project else None)
        require_variants(wish.job, rule)
        default = None if of_project is None else of_project.image
        whole = JobImages(self._stores).whole
        return Task(
            id=wish.id or uuid.uuid4().hex[:16],
            project=project,
            owner=account.id,
            name=wish.name,
            job=whole(wish.job, default),
            rows_per_chunk=wish.rows_per_chunk,
            priority=wish.priority,
            validation=rule,
            validator=None if validator is None else whole(validator, default),
            success=None if wish.success is None else whole(wish.success, default),
            failure=None if wish.failure is None else whole(wish.failure, default),
            after=None if wish.after is None else whole(wish.after, default),
            max_failed=wish.max_failed,
            after_tasks=wish.after_tasks,
            limits=wish.limits,
            counted=wish.limits is not None and wish.limits.counting,
            notify=(of_project.notify if of_project else ()) if wish.notify is None else wish.notify,
            open_ended=wish.open_ended,
            sealed=wish.open_ended,
            # Its rows come one after the other: what the first of them come to says nothing about the rest.
            examined=wish.open_ended,
            upload=Upload(id=OPEN, attempt=OPEN, complete=True) if wish.open_ended else None,
            body_digest=wish.digest if wish.id else None,
            origin=wish.origin,
            created=self._stores.clock.now(),
        )

    def _same(self, account: Account, wish: Wish, task_id: str) -> Task:
        found = self._stores.tasks.find(task_id)
        if found is None:
            raise Unavailable("The task of this id was removed at this moment; send the same request again.")
        if found.owner != account.id and account.role is not Role.ADMIN:
            raise Conflict(f"The id {task_id} is taken; choose another.")
        if found.deleting is not None:
            raise Conflict(f"The task {task_id} is being deleted; its id is free again in a few minutes.")
        if wish.digest is None or found.body_digest != wish.digest:
            raise Conflict(
                f"The id {task_id} stands for another task already; choose another, or say the same."
            )
        return found

    def get(self, account: Account, task_id: str) -> Task:
        """The task with this id; raises NotFound unless it is the caller's."""
        task = self._stores.tasks.find(task_id)
        if task is None or (task.owner != account.id and account.role is not Role.ADMIN):
            raise NotFound(f"There is no task {task_id} of yours.")
        if task.deleting is not None:
            raise NotFound(f"There is no task {task_id} of yours any more: it is being deleted.")
        return task

    def owner_of(self, task_id: str) -> str | None:
        """Whose task has this id; None: nobody's."""
        found = self._stores.tasks.find(task_id)
        return None if found is None else found.owner

    def of(self, account: Account, project: str | None) -> list[Task]:
        """The caller's tasks, oldest first; of one project where it is named."""
        if project is None:
            return self._stores.tasks.of_projects(self.own_projects(account))
        self.require_project(account, project)
        return self._stores.tasks.of_projects([project])

    def report(self, task: Task) -> TaskReport:
        """The task with its chunks counted by state."""
        visible = task.upload is not None and task.upload.complete
        return TaskReport(
            task=task,
            chunks=self._stores.chunks.counts(task.id) if visible else {},
            used=None if task.limits is None else used_of(self._stores, task),
            notices=self._notices.of(task) if task.notify else (),
            reactions=ReactionReports(self._stores)(task),
        )

    def start(self, account: Account, task_id: str) -> Task:
        """Start a waiting task; one that runs already stays as it is; raises Conflict without complete data."""
        task = self.steerable(account, task_id)
        if not task.sealed:
            raise Conflict(
                "The task has no complete data yet: upload it with PUT /tasks/ID/chunks/UPLOAD first."
            )
        if task.state is TaskState.WAITING:
            self._depend.require_no_circle(task)
            self._depend.start(task)
        elif not self._stores.tasks.confirm_started(task_id):
            raise Unavailable("The database has just lost that the task runs; send the same request again.")
        return self.get(account, task_id)

    def pause(self, account: Account, task_id: str, *, paused: bool) -> Task:
        """Close or open the gate: a paused task hands nothing out, what runs goes on."""
        self.steerable(account, task_id)
        if paused:
            self._stores.tasks.set_paused(task_id, True)
        else:
            self._resume(account, task_id)
        self._stores.reactions.set_paused(task_id, paused=paused)
        return self.get(account, task_id)

    def _resume(self, account: Account, task_id: str) -> None:
        """Open the gate. That the task paused itself is told first: afterwards nothing shows that it did."""
        for _ in range(TRIES):
            self._notices.tell(task_id)
            if self._stores.tasks.resume(task_id):
                return
        self.get(account, task_id)
        raise Conflict("Something else happened to the task at this moment: ask again.")

    def cancel(self, account: Account, task_id: str) -> Task:
        """Close the task's gate for good; housekeeping sweeps its chunks. Raises Conflict when it is complete.

        Of a complete task whose reactions have not ended it ends those; the outcome stays.
        """
        self.steerable(account, task_id)
        ended = self._stores.tasks.close_gate(task_id)
        if not ended and not self._stores.reactions.end(task_id, self._stores.clock.now()):
            raise Conflict("The task is complete already.")
        return self.get(account, task_id)

    def steerable(self, account: Account, task_id: str) -> Task:
        """The task with this id; raises NotFound, and Conflict for one that goes with another."""
        task = self.get(account, task_id)
        if task.validates is not None:
            raise Conflict(f"This only compares answers of the task {task.validates}: steer that one.")
        if task.reacts_to is not None:
            raise Conflict(f"This is a reaction to the outcome of the task {task.reacts_to}: steer that one.")
        return task

    def ids(self, account: Account, task_id: str | None) -> list[str] | None:
        """The ids of the caller's tasks, or of the one named; None means every task (admins)."""
        if task_id is not None:
            return [self.get(account, task_id).id]
        if account.role is Role.ADMIN:
            return None
        return self._stores.tasks.ids(self._stores.projects.names(account.id))

    def chosen(self, account: Account, task_id: str | None, project: str | None) -> list[Task]:
        """The task named, or a project's tasks, or all of the caller's, oldest first."""
        if task_id is not None:
            return [self.get(account, task_id)]
        return self.of(account, project)
