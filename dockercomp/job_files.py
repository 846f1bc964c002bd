"""Job files (`dockercomp.yml`) where the scientist is: images are pinned in the text, files are found and packed.

What a job file means is the server's to say: it reads the text, here nothing of it is understood.
"""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dockercomp.failures import DockercompError
from dockercomp.line import Line, part

PROGRAM, ORDINARY = 0o755, 0o644


class JobFileUnfit(DockercompError):
    """A job file that cannot be run from here; the message is one sentence."""


@dataclass(frozen=True, kw_only=True)
class CheckedJobFile:
    """What the server says of a job file."""

    task: Mapping[str, Any]  #: the body of its task
    files: Sequence[str]  #: that it takes along, relative to the root of the repository
    data_file: str | None
    tree: bool  #: whether it takes all files of the repository along
    rows: int | None  #: None: as many as its data file has
    images: Sequence[Mapping[str, Any]]  #: {"image", "start", "end", "pinned"}, in the order of the text

    @property
    def tags(self) -> list[str]:
        """The images that are not pinned, each once."""
        return list(dict.fromkeys(one["image"] for one in self.images if not one["pinned"]))


class JobFileCalls(Line):
    """What can be asked about job files."""

    def check_job_file(self, text: str) -> CheckedJobFile:
        """What the job file with this text asks for; Refused with a sentence when it is not one."""
        return CheckedJobFile(**self._call("POST", "/job-files/check", json={"file": text}))

    def run_job_file(
        self,
        project: str,
        text: str,
        *,
        task: str | None = None,
        files: Mapping[str, str] | None = None,
        tree: str | None = None,
    ) -> dict[str, Any]:
        """Make and start its task; its record. `files` maps what it names to SHA-256 of blobs, `tree` is that of all.

        With an id of yours (`task`) the same again changes nothing.
        """
        body = {"file": text, "id": task, "files": dict(files or {}), "tree": tree}
        made: dict[str, Any] = self._call("POST", f"/projects/{part(project)}/runs", json=body)
        return made


def pin(text: str, checked: CheckedJobFile, resolve: Callable[[str], str]) -> str:
    """The text with each tag replaced by what it stands for now, and kept as a comment where the line has room."""
    for one in sorted(checked.images, key=lambda image: -int(image["start"])):
        if one["pinned"]:
            continue
        start, end = int(one["start"]), int(one["end"])
        rest = text[end:].partition("\n")[0]
        comment = f"  # {one['image']}" if not rest.strip() else ""
        text = f'{text[:start]}"{resolve(one["image"])}"{comment}{text[end:]}'
    return text


def root_of(job_file: Path) -> Path | None:
    """The root of the git repository that the file is in; None when it is in none."""
    done = _git(job_file.absolute().parent, "rev-parse", "--show-toplevel")
    return None if done is None else Path(done.decode().rstrip("\n"))


def pack(root: Path, out: IO[bytes]) -> int:
    """Write a tar of the files that git follows there, as they are now; how many. A committed tree gives the very tar
    that the server makes of the commit."""
    listed = _git(root, "ls-files", "-z", "--cached")
    if listed is None:
        raise JobFileUnfit(f"git cannot list the files in {root}.")
    names = sorted({name for name in listed.decode("utf-8", "surrogateescape").split("\0") if name})
    packed = 0
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
        for name in sorted(names, key=lambda one: one.encode("utf-8", "surrogateescape")):
            packed += _add(archive, root / name, name)
    return packed


def _add(archive: tarfile.TarFile, path: Path, name: str) -> bool:
    info = tarfile.TarInfo(name)
    if path.is_symlink():
        info.type, info.mode, info.linkname = tarfile.SYMTYPE, ORDINARY, str(path.readlink())
        archive.addfile(info)
    elif path.is_dir():
        info.type, info.mode = tarfile.DIRTYPE, PROGRAM  # a submodule: it stays empty
        archive.addfile(info)
    elif path.is_file():
        with path.open("rb") as content:
            status = path.stat()
            info.mode = PROGRAM if status.st_mode & 0o100 else ORDINARY
            info.size = status.st_size
            archive.addfile(info, content)
    else:
        return False  # removed, and not committed yet
    return True


def _git(folder: Path, *arguments: str) -> bytes | None:
    try:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
