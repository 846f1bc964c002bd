"""`why`: reads what there is to know about one chunk, and has it put into words. Reads only; each read is bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from source_server.domain.account import Account, Role
from source_server.domain.attempt import Outcome, Verdict
from source_server.domain.chunk import OPEN_STATES, Chunk, ChunkState
from source_server.domain.facts import MANY, Explanation, Facts, Past, Queue
from source_server.domain.refusal import NotFound
from source_server.domain.task import Task, TaskState
from source_server.domain.why import explain
from source_server.services.containers.live import LiveContainers
from source_server.services.containers.prospects import for_chunk
from source_server.services.dispatch.turns import MOST_TASKS, Turns
from source_server.services.tasks.depend import Depend
from source_server.services.tasks.validate import companion_id
from source_server.stores.database import Stores

HISTORY = 20  #: attempts shown, newest first


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A chunk, the words about it, and the last of its attempts."""

    chunk: Chunk
    explanation: Explanation
    attempts: tuple[Past, ...]


class Why:
    """Explains the chunks of one's own tasks."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._depend = Depend(stores)

    def __call__(self, account: Account, chunk_id: str) -> Answer:
        """Why this chunk is not running, or what became of it; raises NotFound unless its task is the caller's."""
        task = self._task(account, chunk_id)
        chunk = self._stores.chunks.read([chunk_id]).get(chunk_id)
        if chunk is None or (task.upload is not None and chunk.upload != task.upload.attempt):
            reason = "" if task.sealed else ": its data is not complete"
            raise NotFound(f"The task {task.id} has no chunk {chunk_id}{reason}.")
        facts = self._facts(task, chunk, self._stores.clock.now())
        return Answer(chunk=chunk, explanation=explain(facts), attempts=tuple(facts.attempts))

    def _task(self, account: Account, chunk_id: str) -> Task:
        task = self._stores.tasks.find(chunk_id.rpartition(".")[0])
        own = task is not None and (task.owner == account.id or account.role is Role.ADMIN)
        if task is None or not own or task.deleting is not None:
            raise NotFound(f"There is no chunk {chunk_id} of yours.")
        return task

    def _facts(self, task: Task, chunk: Chunk, now: datetime) -> Facts:
        attempts, pseudonyms = self._history(chunk)
        facts = Facts(
            chunk=chunk,
            task=task,
            now=now,
            attempts=attempts,
            pseudonyms=pseudonyms,
            waits_for=self._depend.standing(task).reasons if task.state is TaskState.WAITING else (),
        )
        waits = chunk.state in OPEN_STATES and task.state is TaskState.RUNNING and not task.cancelled
        return self._surroundings(facts) if waits else facts

    def _surroundings(self, facts: Facts) -> Facts:
        task, chunk = facts.task, facts.chunk
        validated = chunk.state is ChunkState.VALIDATING and task.validator is not None
        return replace(
            facts,
            project=self._stores.projects.find(task.project),
            # Read anew, not as of two seconds ago: people ask after they have changed something.
            prospects=for_chunk(self._stores, task, chunk, LiveContainers(self._stores).now()),
            queue=self._queue(task) if chunk.state is ChunkState.READY else None,
            asked=self._asked(task, chunk, facts.now) if validated else None,
        )

    def _asked(self, task: Task, chunk: Chunk, now: datetime) -> Facts | None:
        """About the validator's chunk that compares this one's answers, if there is one yet."""
        its_task = self._stores.tasks.find(companion_id(task.id))
        name = f"{companion_id(task.id)}.{chunk.n}"
        asked = self._stores.chunks.read([name]).get(name)
        return None if its_task is None or asked is None else self._facts(its_task, asked, now)

    def _queue(self, task: Task) -> Queue:
        offer = self._stores.tasks.on_offer(limit=MOST_TASKS)
        projects = Turns(self._stores).projects(sorted({one.project for one in offer} | {task.project}))
        own = next(project for project in projects if project.id == task.project)
        higher = {project.id for project in projects if project.priority > own.priority}
        rivals = [one for one in offer if one.project == task.project and one.priority > task.priority]
        counted = self._stores.chunks.ready
        return Queue(
            projects_ahead=counted([one.id for one in offer if one.project in higher], at_most=MANY),
            tasks_ahead=counted([one.id for one in rivals], at_most=MANY),
            beside=max(0, counted([task.id], at_most=MANY + 1) - 1),
            turn=1 + projects.index(own),
            turns=len(projects),
        )

    def _history(self, chunk: Chunk) -> tuple[list[Past], Mapping[str, str]]:
        """The newest attempts, and the pseudonyms of all accounts that come up. Tests of hosts are not shown."""
        found = [
            *self._stores.results.history(chunk.id, limit=HISTORY),
            *self._stores.errors.history(chunk.id, limit=HISTORY),
        ]
        newest = sorted(found, key=lambda one: one["stored"], reverse=True)
        shown = [one for one in newest if not one.get("canary")][:HISTORY]
        accounts = {one["account"] for one in shown if one["account"]} | {one.account for one in chunk.leases}
        pseudonyms = self._stores.accounts.pseudonyms(accounts)
        return [_past(one, pseudonyms) for one in shown], pseudonyms


def _past(document: Mapping[str, Any], pseudonyms: Mapping[str, str]) -> Past:
    return Past(
        id=document["_id"],
        run=document["run"],
        outcome=document.get("outcome", Outcome.OK.value),
        verdict=Verdict(document["verdict"]),
        stored=document["stored"],
        container=document["container"],
        host=document["host"],
        account=pseudonyms.get(document["account"]),
        exit_code=document["exit"],
        signature=document.get("signature"),
        suspect=document.get("suspect", False),
    )
