"""The scientist's library: one method for each thing the source server does for a scientist.

server = Server("http://127.0.0.1:8765", key)
server.add_project("sums")
task = server.add_task("sums", ["awk", "{print $1}"], rows_per_chunk=100)
server.upload(task, Path("pairs.csv"))
server.assign("sums")
server.download_results(Path("results.csv"), task=task)
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import requests

from dockercomp.blobs import BlobCalls, Slice, Told
from dockercomp.failures import Refused, ServerUnavailable
from dockercomp.job_files import JobFileCalls
from dockercomp.line import part
from dockercomp.partial import cut_partial_line, last_cursor, layout
from dockercomp.receivers import ReceiverCalls
from dockercomp.tasks import TaskCalls
from dockercomp.wishes import Job, NewTask

KINDS = {
    ".csv": "text/csv",
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a task is: numbers of chunks."""

    state: str
    outcome: str | None
    total: int
    done: int
    failed: int  #: quarantined or cancelled
    resting: int  #: wait for another try after a failed one
    paused: bool = False
    paused_why: str | None = None  #: set when the task paused itself

    @property
    def ended(self) -> bool:
        """Whether the task is complete."""
        return self.state == "complete"


def progress_of(task: Mapping[str, Any]) -> Progress:
    """How far the task of this record is."""
    chunks = task["chunks"]
    return Progress(
        state=task["state"],
        outcome=task["outcome"],
        total=chunks["total"],
        done=chunks.get("done", 0),
        failed=chunks.get("quarantined", 0) + chunks.get("cancelled", 0),
        resting=chunks.get("delayed", 0),
        paused=task["paused"],
        paused_why=task["paused_why"],
    )


class _BeginAnew(Exception):
    """What there is of a download cannot be continued."""


class Server(TaskCalls, JobFileCalls, ReceiverCalls, BlobCalls):
    """A source server, called with an account's key. Raises ServerUnavailable or Refused.

    `warned` is told each warning of the server: a task was handed in that no live container can compute, and the like.
    """

    def add_project(self, name: str) -> None:
        """Make a project; one that you have already stays as it is."""
        self._call("POST", "/projects", json={"name": name})

    def change_project(self, name: str, **policy: Any) -> dict[str, Any]:
        """Change what is named of a project's `share`, `assigned_only`, `priority` and `validation`; all of it then."""
        changed: dict[str, Any] = self._call("PATCH", f"/projects/{part(name)}", json=policy)
        return changed

    def projects(self) -> list[dict[str, Any]]:
        """Your projects, by name."""
        return list(self._call("GET", "/projects")["projects"])

    def add_task(
        self,
        project: str,
        action: Sequence[str],
        *,
        name: str | None = None,
        image: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        rows_per_chunk: int = 1,
        requires: Mapping[str, Any] | None = None,
        priority: int = 0,
        validation: Mapping[str, Any] | None = None,
    ) -> str:
        """Make a waiting task that runs `action` once for each chunk; its id.

        `image` is an image's id (sha256:...); None lets any container compute. `requires` asks for labels and resources
        ({"arch": "x86_64", "os": ["linux", "freebsd"], "memory_mb": {"at_least": 4096}}). `priority` is among the tasks
        of the project, higher first. `validation` is how answers are checked ({"quorum": 2, ...}, see the HTTP
        reference); None takes the project's rule. `make_task` takes everything else that a task may have.
        """
        main = Job(
            action=action,
            image=image,
            env=dict(env or {}),
            timeout_s=timeout_s,
            requires=dict(requires or {}),
        )
        wanted = NewTask(
            main=main,
            name=name,
            rows_per_chunk=rows_per_chunk,
            priority=priority,
            validation=validation,
        )
        return str(self.make_task(project, wanted)["id"])

    def upload(
        self, task: str, data: Path, *, upload_id: str | None = None, told: Told = lambda done, whole: None
    ) -> int:
        """Stream a .csv, .jsonl or .parquet file to the task, all of it or nothing; the number of rows.

        The same `upload_id` and file again is the same upload, so a broken one can simply be repeated. `told` hears of
        bytes that went, and of bytes there are.
        """
        kind = KINDS.get(data.suffix.lower())
        if kind is None:
            raise Refused(400, f"{data} must end in {' or '.join(KINDS)}.")
        path = f"/tasks/{part(task)}/chunks/{part(upload_id or str(uuid.uuid4()))}"
        size = data.stat().st_size
        with data.open("rb") as file:
            body = Slice(file, 0, size, told=lambda done: told(done, size)) if size else b""
            return int(self._call("PUT", path, data=body, headers={"Content-Type": kind})["rows"])

    def start(self, task: str) -> None:
        """Start a task whose data is complete, its chunks dealt to nobody in particular."""
        self._call("POST", f"/tasks/{part(task)}/start")

    def cancel(self, task: str) -> None:
        """End a task; nothing more of it is handed out."""
        self._call("POST", f"/tasks/{part(task)}/cancel")

    def pause(self, task: str) -> None:
        """Hand nothing of the task out until it is resumed; what runs goes on."""
        self._call("POST", f"/tasks/{part(task)}/pause")

    def resume(self, task: str) -> None:
        """Go on with a paused task."""
        self._call("POST", f"/tasks/{part(task)}/resume")

    def assign(self, project: str | None = None, *, by: str = "count") -> dict[str, Any]:
        """Start and deal all ready chunks of the project (None: of all yours) to live containers; the deal.

        `by`: make level what each container holds (count), or how long it will take it (speed).
        """
        path = f"/assign/{part(project or 'all')}"
        deal: dict[str, Any] = self._call("POST", path, params={"by": by})
        return deal

    def deal(self, deal: str) -> dict[str, Any]:
        """What a deal did so far."""
        found: dict[str, Any] = self._call("GET", f"/deals/{part(deal)}")
        return found

    def task(self, task: str) -> dict[str, Any]:
        """The task's record, with its chunks counted by state."""
        found: dict[str, Any] = self._call("GET", f"/tasks/{part(task)}")
        return found

    def progress(self, task: str) -> Progress:
        """How far the task is."""
        return progress_of(self.task(task))

    def containers(self) -> list[dict[str, Any]]:
        """The client containers, live ones first."""
        return list(self._call("GET", "/containers")["containers"])

    def errors(self, task: str | None = None) -> Iterator[dict[str, Any]]:
        """Every failed attempt of the task (None: of all yours)."""
        after: str | None = None
        while True:
            asked = {"task": task, "after": after, "limit": "1000"}
            params = {name: value for name, value in asked.items() if value is not None}
            page = self._call("GET", "/errors", params=params)["errors"]
            yield from page
            if not page:
                return
            after = page[-1]["id"]

    def error_groups(self, task: str) -> list[dict[str, Any]]:
        """The task's failures by signature, the most frequent first, each group with one of them as a sample."""
        params = {"task": task, "limit": "1000"}
        return list(self._call("GET", "/errors/groups", params=params)["groups"])

    def requeue(
        self, task: str | None = None, *, signature: str | None = None, chunks: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Give quarantined chunks another round: of a task, of one signature in it, or those named (1,000 at most).

        Answers {"sent": how many so far, "done": whether that was all}; the server goes on by itself.
        """
        wished: dict[str, Any] = {"task": task, "signature": signature, "chunks": list(chunks) or None}
        body = {name: value for name, value in wished.items() if value is not None}
        sent: dict[str, Any] = self._call("POST", "/errors/requeue", json=body)
        return sent

    def rerun(self, task: str, *, which: str | None = None, chunks: Sequence[str] = ()) -> dict[str, Any]:
        """Have `all`, `failed` (quarantined) or `suspect` chunks of a task, or those named, computed anew.

        Answers as `requeue` does.
        """
        body = {"chunks": list(chunks)} if which is None else {"which": which}
        sent: dict[str, Any] = self._call("POST", f"/tasks/{part(task)}/rerun", json=body)
        return sent

    def why(self, chunk: str) -> dict[str, Any]:
        """Why this chunk (TASK.N) is not running, or what became of it: summary, reasons, next, attempts."""
        found: dict[str, Any] = self._call("GET", f"/chunks/{part(chunk)}/why")
        return found

    def download_results(self, target: Path, *, task: str | None = None, project: str | None = None) -> int:
        """Write the table of results as it is now; the number of bytes received.

        A download that breaks off leaves a `.part` file beside `target`; the same call again goes on from it.
        """
        if target.exists() and not target.is_file():
            raise Refused(400, f"{target} is not an ordinary file; name one to write the table into.")
        part = target.with_name(f".{target.name}.{task or project or 'all'}.part")
        chosen = {
            name: value for name, value in {"task": task, "project": project}.items() if value is not None
        }
        after = last_cursor(part)
        try:
            if after is None:
                raise _BeginAnew
            cut_partial_line(part)
            copied = self._append_results(part, {**chosen, "after": after, "columns": layout(part) or ""})
        except _BeginAnew:
            with part.open("wb") as out:
                copied = self.copy_results(out, task=task, project=project)
        part.replace(target)
        return copied

    def _append_results(self, part: Path, params: dict[str, str]) -> int:
        try:
            answer = self._request("GET", "/results.csv", params=params, stream=True)
        except Refused as refusal:
            raise _BeginAnew from refusal  # other columns by now, or another selection
        with answer, part.open("ab") as out:
            return _copy(answer, out)

    def copy_results(self, out: IO[bytes], *, task: str | None = None, project: str | None = None) -> int:
        """Write the table of results as it is now to an open file; the number of bytes."""
        params = {
            name: value for name, value in {"task": task, "project": project}.items() if value is not None
        }
        with self._request("GET", "/results.csv", params=params, stream=True) as answer:
            return _copy(answer, out)


def _copy(answer: requests.Response, out: IO[bytes]) -> int:
    copied = 0
    try:
        for piece in answer.iter_content(64 * 1024):
            copied += out.write(piece)
    except requests.RequestException as error:
        raise ServerUnavailable(
            "The download broke off; the same command again goes on where it stopped."
        ) from error
    return copied
