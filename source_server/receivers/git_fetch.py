"""The files of one commit, fetched with git from an allowed address: nothing is checked out, nothing of it is run."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, cast

from source_server.config import Settings
from source_server.domain.refusal import BadInput, NotAllowed, Refusal, TooLarge, Unavailable
from source_server.receivers.git_address import Address, Resolve, allowed
from source_server.receivers.git_process import Git, GitFailed, TookTooLong
from source_server.receivers.git_tree import Bounds, Entry, empty, read_entries, records, write_tar

COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
SPARE = 16 * 1024 * 1024  #: bytes that git may write beyond the size of the tree
PIECE = 64 * 1024
PINNING = (2, 37)  #: the release of git that can be told the one address of a host

_NOT_THERE = ("not our ref", "remote ref", "unadvertised object", "upload-pack: not our")
_AWAY = (
    "Could not resolve",
    "Connection refused",
    "timed out",
    "unreachable",
    "Failed to connect",
    "error: 5",
)


class NotFetched(BadInput):
    """The commit's files cannot be had; the text says why."""


@dataclass(frozen=True, kw_only=True)
class GitSettings:
    """What the operator says about fetching."""

    listed: Sequence[str] = ()  #: beginnings of addresses that may be fetched from
    credentials: Path | None = None  #: a file in the form of git's credential store
    most_bytes: int = 200_000_000  #: of a tree's files together
    most_files: int = 20_000  #: and folders
    seconds: float = 120.0  #: for one fetch

    @classmethod
    def of(cls, settings: Settings) -> GitSettings:
        """As the server's settings say."""
        return cls(
            listed=settings.git_from,
            credentials=settings.git_credentials,
            most_bytes=round(settings.git_tree_mb * 1_000_000),
            most_files=settings.git_files,
            seconds=settings.git_s,
        )


class Fetched:
    """The files of a commit. Valid inside the block of `fetched`."""

    def __init__(self, git: Git, commit: str, bounds: Bounds) -> None:
        self._git, self._commit, self._bounds = git, commit, bounds

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        """What is in the tree, by path; raises BadInput for a tree that may not be."""
        listing = ("ls-tree", "-r", "-t", "-z", "--long", "--full-tree", self._commit)
        with _in_words(self._git), self._git.started(*listing) as process:
            assert process.stdout is not None
            return {one.path: one for one in read_entries(records(process.stdout), self._bounds)}

    def copy(self, path: str, out: IO[bytes]) -> None:
        """Write one file's content; raises BadInput unless it is an ordinary file of the tree."""
        entry = self.entries.get(path)
        if entry is None or not entry.is_file:
            kind = "there is no such file" if entry is None else "it is a link or a submodule"
            raise BadInput(f"{path!r} of the commit cannot be read: {kind}.")
        with _in_words(self._git):
            for _, content in self._contents([entry]):
                shutil.copyfileobj(content, out, PIECE)

    def read(self, path: str, most: int) -> bytes | None:
        """A small file's content, None when there is none; raises BadInput."""
        entry = self.entries.get(path)
        if entry is None:
            return None
        if entry.size > most:
            raise BadInput(f"{path} has {entry.size} bytes, more than {most}.")
        with tempfile.SpooledTemporaryFile(most) as out:
            self.copy(path, out)
            out.seek(0)
            return out.read()

    def copy_tar(self, out: IO[bytes]) -> None:
        """Write the tar of the whole tree, the same for the same commit; raises BadInput for a link that leads out."""
        with _in_words(self._git):
            write_tar(out, self._contents(list(self.entries.values())))

    def _contents(self, wanted: Sequence[Entry]) -> Iterator[tuple[Entry, IO[bytes]]]:
        with self._git.started("cat-file", "--batch") as process:
            for entry in wanted:
                if not (entry.is_file or entry.is_link):
                    yield entry, empty()
                    continue
                content = _ask(process, entry)
                yield entry, cast(IO[bytes], content)
                content.finish()


class _Content:
    """So many bytes of a stream, as far as a file is read."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left = stream, size

    def read(self, size: int = -1) -> bytes:
        """The next bytes; raises GitFailed when the stream ends too early."""
        piece = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(piece)
        if not piece and self._left and size:
            raise GitFailed("an object broke off")
        return piece

    def finish(self) -> None:
        """Read on to the end of the object."""
        while self._left:
            self.read(PIECE)
        self._stream.read(1)


def _ask(process: subprocess.Popen[bytes], entry: Entry) -> _Content:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(entry.object.encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError as error:
        raise GitFailed("cat-file ended") from error
    told = process.stdout.readline(200).split()
    if told != [entry.object.encode(), b"blob", str(entry.size).encode()]:
        raise GitFailed(f"an object is missing: {entry.path}")
    return _Content(process.stdout, entry.size)


@contextlib.contextmanager
def fetched(
    url: str,
    commit: str,
    settings: GitSettings,
    *,
    scratch: Path | None = None,
    resolve: Resolve | None = None,
) -> Iterator[Fetched]:
    """The files of that commit of the repository at that address, in a folder that is gone afterwards.

    Raises BadInput, NotAllowed, NotFetched or TooLarge for good, Unavailable when it may go better later.
    """
    if not COMMIT.fullmatch(commit):
        raise BadInput("A commit is named by its whole hash, 40 or 64 hexadecimal digits.")
    address = allowed(url, settings.listed, resolve=resolve)
    with tempfile.TemporaryDirectory(
        prefix="dockercomp-git-", dir=scratch, ignore_cleanup_errors=True
    ) as folder:
        git = Git(
            folder=Path(folder),
            address=address,
            deadline=time.monotonic() + settings.seconds,
            most_bytes=settings.most_bytes + SPARE,
            credentials=settings.credentials,
        )
        git.prepare()
        _fetch(git, address, commit)
        yield Fetched(git, commit, Bounds(files=settings.most_files, bytes=settings.most_bytes))


def _fetch(git: Git, address: Address, commit: str) -> None:
    with _in_words(git):
        if address.pinned is not None:
            _require_pinning(git)
        kind = "sha1" if len(commit) == 40 else "sha256"
        git.run("init", "--bare", "--quiet", "--template=", f"--object-format={kind}", str(git.repository))
        options = ("--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
        git.run("fetch", *options, "--", address.text, commit)
        if git.run("cat-file", "-t", commit).strip() != b"commit":
            raise NotFetched(f"{commit} is not a commit.")


def _require_pinning(git: Git) -> None:
    release = re.search(rb"(\d+)\.(\d+)", git.run("--version"))
    if release is None or (int(release[1]), int(release[2])) < PINNING:
        raise NotAllowed(
            f"The git of this server is older than {'.'.join(map(str, PINNING))} and fetches only from hosts that its "
            "operator lists by name."
        )


@contextlib.contextmanager
def _in_words(git: Git) -> Iterator[None]:
    """Failures of git as refusals."""
    try:
        yield
    except TookTooLong as error:
        if time.monotonic() >= git.deadline:
            raise _too_long(git) from error
        raise TooLarge(
            f"The commit is too large: git was to write more than {git.most_bytes} bytes, or to use too much memory."
        ) from error
    except GitFailed as error:
        if time.monotonic() >= git.deadline:  # it was killed: what it said last is not why
            raise _too_long(git) from error
        raise _failure(str(error), git.address) from error


def _too_long(git: Git) -> TooLarge:
    return TooLarge(f"{git.address.text} took too long to fetch and was given up.")


def _failure(said: str, address: Address) -> Refusal:
    if any(words in said for words in _NOT_THERE):
        return NotFetched(
            f"The commit is not in {address.text} (any more), or that server does not give it by its name."
        )
    last = next(
        (line for line in reversed(said.splitlines()) if line.startswith(("fatal:", "error:", "ssh:"))), ""
    )
    shown = "".join(letter for letter in (last or said.strip()[-200:]) if letter.isprintable())[:300].strip()
    if any(words in said for words in _AWAY):
        return Unavailable(f"{address.text} does not answer now ({shown}).")
    return NotFetched(f"{address.text} cannot be fetched from ({shown or 'git says nothing'}).")
