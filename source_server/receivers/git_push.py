"""Pushes: a webhook of GitHub's form, or a bare repository's hook, names a commit; its job file becomes a task.

The push is believed for its signature and taken only for the news that there is a commit: what is computed is fetched
from the address that the receiver was given, and everything about the task follows from the commit alone.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import IO, Annotated, Any
from urllib.parse import parse_qs

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from source_server.domain.receiver import Arrival, Event, Offer, Receiver
from source_server.domain.refusal import BadInput, Conflict
from source_server.receivers.fill import Data, Fill
from source_server.receivers.git_address import allowed
from source_server.receivers.git_fetch import COMMIT, Fetched, GitSettings, fetched
from source_server.receivers.plug import Plug, require_signature
from source_server.services.accounts.people import People
from source_server.services.files.blobs import Blobs
from source_server.web import wire
from source_server.web.job_files.job_file import NAME, JobFile, read_job_file, task_body
from source_server.web.job_files.rows import kind_of, lines_of
from source_server.web.job_files.yaml_text import MOST_BYTES
from source_server.web.wire import matching

COMMIT_VARIABLE = "GIT_COMMIT"  #: in the environment of a pushed task's jobs
LONGEST_ID = 48
MOST_PUSH = 26 * 1024 * 1024  #: GitHub sends up to 25 MB
IN_MEMORY = 4 * 1024 * 1024
_BRANCH = "refs/heads/"
_REF = re.compile(r"refs/[^\x00-\x20\x7f~^:?*\[\\]{1,250}")
_NOTHING = re.compile(r"0{40}|0{64}")

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=250)]
Path = Annotated[
    str,
    AfterValidator(
        matching(
            r"(?!.*(^|/)\.\.?(/|$))[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,9}",
            "must be a path in the repository, like dockercomp.yml",
        )
    ),
]
Prefix = Annotated[
    str,
    AfterValidator(
        matching(r"([A-Za-z0-9_]([A-Za-z0-9_]|-(?!-)){0,6})?", "must have at most 7 letters and digits")
    ),
]


class GitPushSettings(wire.Strict):
    """Of a receiver of the kind `git`."""

    repository: Annotated[str, StringConstraints(max_length=500)]  #: the address to fetch from
    branches: Annotated[list[Pattern], Field(min_length=1, max_length=50, default_factory=lambda: ["*"])]
    job_file: Path = NAME
    prefix: Prefix = ""  #: before the commit in a task's id, for a second receiver of the same repository


class _Push(wire.Lenient):
    """What is read of a push; GitHub sends much more."""

    model_config = ConfigDict(extra="ignore", strict=True)

    ref: str
    after: str
    deleted: bool = False


class GitPush(Plug[GitPushSettings]):
    """`POST /in/RECEIVER` with X-GitHub-Event and X-Hub-Signature-256."""

    name = "git"
    slow = True
    most_bytes = MOST_PUSH
    settings_model = GitPushSettings

    def __init__(self, fill: Fill, people: People, blobs: Blobs, git: GitSettings) -> None:
        self._fill, self._people, self._blobs, self._git = fill, people, blobs, git

    def read(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings; the operator must allow the address."""
        said = super().read(settings)
        allowed(said["repository"], self._git.listed)
        return said

    def keeps_secret(self, settings: Mapping[str, Any]) -> bool:
        """Signatures are computed with it."""
        return True

    def admit(self, receiver: Receiver, arrival: Arrival) -> Offer:
        """The commit of a push; what makes no task is stored too, with a note that says why."""
        require_signature(receiver, arrival)
        kind = arrival.headers.get("x-github-event", "")
        if kind == "ping":
            return _noted(arrival, "The ping has arrived: pushes will, too.")
        if kind != "push":
            raise BadInput(
                f"This receiver takes the events push and ping, not {kind[:50]!r}: send just the push event."
            )
        push = wire.parse(_Push, _payload(arrival))
        if not _REF.fullmatch(push.ref):
            raise BadInput("The field 'ref' is not the name of a branch or a tag.")
        if push.deleted or _NOTHING.fullmatch(push.after):
            return _noted(arrival, f"{push.ref} was deleted: there is nothing to compute.")
        if not COMMIT.fullmatch(push.after):
            raise BadInput(
                "The field 'after' is not the whole hash of a commit, 40 or 64 hexadecimal digits."
            )
        branch = push.ref.removeprefix(_BRANCH)
        if branch == push.ref:
            return _noted(arrival, f"{push.ref} is not a branch: pushes of branches become tasks.")
        branches = self.settings_of(receiver).branches
        if not any(fnmatchcase(branch, pattern) for pattern in branches):
            return _noted(arrival, f"The branch {branch} is not one of {', '.join(branches)}.")
        # By its commit alone: the same commit is the same task, whoever sends word of it, and however often.
        return Offer(key=push.after, about={"commit": push.after, "branch": branch}, digest=push.after)

    def handle(self, receiver: Receiver, event: Event) -> str | None:
        """The task of that commit; None where there is no commit."""
        commit = event.about.get("commit")
        if commit is None:
            return None
        settings, owner = self.settings_of(receiver), self._people.owner_of(receiver.project).id
        with fetched(settings.repository, commit, self._git) as tree, ExitStack() as opened:
            file = _job_file(tree, settings.job_file)
            files = {path: self._stored(tree, path, owner) for path in file.paths if path != file.data_file}
            whole = self._stored_tree(tree, owner) if file.tree else None
            body = task_body(file, files=files, tree=whole, env={COMMIT_VARIABLE: commit})
            repository = settings.repository.rstrip("/").rpartition("/")[2].removesuffix(".git")
            body.setdefault("name", f"{repository} {commit[:12]}"[:200])
            data = None if file.data_file is None else opened.enter_context(_copied(tree, file.data_file))
            task_id = (settings.prefix + commit)[:LONGEST_ID]
            apart = f"{commit[: LONGEST_ID - 8]}-{receiver.id[:7]}"
            lines = Data(kind=kind_of(file), lines=lambda: _lines(file, data))
            return self._filled(receiver, body, (task_id, apart), lines)

    def _filled(self, receiver: Receiver, body: Mapping[str, Any], ids: tuple[str, str], data: Data) -> str:
        """The task under the first id; under the second where somebody else, who saw the commit too, has the first."""
        task_id, apart = ids
        owner = self._people.owner_of(receiver.project).id
        if self._fill.owner_of(task_id) not in (None, owner) or self._fill.owner_of(apart) == owner:
            return self._fill(receiver, body, apart, data)
        try:
            return self._fill(receiver, body, task_id, data)
        except Conflict as error:
            if self._fill.owner_of(task_id) not in (None, owner):  # just now
                return self._fill(receiver, body, apart, data)
            raise Conflict(
                f"{error} (A second receiver of a repository needs a 'prefix' of its own.)"
            ) from error

    def _stored(self, tree: Fetched, path: str, owner: str) -> str:
        with _copied(tree, path) as content:
            return self._blobs.put_stream(owner, content)[0]

    def _stored_tree(self, tree: Fetched, owner: str) -> str:
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as out:
            tree.copy_tar(out)
            out.seek(0)
            return self._blobs.put_stream(owner, out)[0]


def _copied(tree: Fetched, path: str) -> tempfile.SpooledTemporaryFile[bytes]:
    out = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  # who called closes it
    tree.copy(path, out)
    out.seek(0)
    return out


def _lines(file: JobFile, data: tempfile.SpooledTemporaryFile[bytes] | None) -> Iterator[bytes]:
    if data is not None:
        data.seek(0)
    content: IO[bytes] | None = data
    return lines_of(file, content)


def _job_file(tree: Fetched, path: str) -> JobFile:
    text = tree.read(path, MOST_BYTES)
    if text is None:
        raise BadInput(f"The commit has no {path}, which says what is to be computed.")
    return read_job_file(text)


def _payload(arrival: Arrival) -> bytes:
    """The JSON of a webhook, which GitHub sends as such or as a form."""
    if not arrival.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return arrival.body
    try:
        return parse_qs(arrival.body.decode("ascii"), strict_parsing=True, max_num_fields=10)["payload"][
            0
        ].encode()
    except (ValueError, KeyError) as error:
        raise BadInput(
            "The form has no field 'payload'; choose application/json as the webhook's type."
        ) from error


def _noted(arrival: Arrival, note: str) -> Offer:
    # By what was signed, and not by a header that was not: sent again it is nothing new.
    said = hashlib.sha256(arrival.body).hexdigest()
    return Offer(key=f"note {said[:32]}", about={"note": note}, digest=said)
