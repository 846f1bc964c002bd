"""SHA256SUMS: the one file of a release that is signed. Comments say what it is, other lines are `sha256sum -c`'s."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

MOST = 64 * 1024  #: bytes of such a file

#: Plain numbers only: `sort -V` on a volunteer's machine must see the same order as we do.
VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){1,3}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


class BadSums(ValueError):
    """The text is no SHA256SUMS of a release; the message is one sentence."""


@dataclass(frozen=True, kw_only=True)
class ClientImage:
    """The client's image for one architecture."""

    architecture: str
    id: str  #: sha256:...
    file: str


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What a release says of itself."""

    version: str
    made: datetime
    expires: datetime
    images: tuple[ClientImage, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)  #: SHA-256, in hexadecimal, by file name

    def __str__(self) -> str:
        lines = [
            "# dockercomp release 1",
            f"# version {self.version}",
            f"# made {_instant(self.made)}",
            f"# expires {_instant(self.expires)}",
            *(f"# client-image {one.architecture} {one.id} {one.file}" for one in self.images),
            *(f"{digest}  {name}" for name, digest in sorted(self.files.items())),
        ]
        return "\n".join(lines) + "\n"


def listed(text: str) -> tuple[str, dict[str, str]]:
    """Version, and SHA-256 by file name, of a SHA256SUMS; raises BadSums."""
    lines = text.splitlines()
    if not lines or lines[0] != "# dockercomp release 1":
        raise BadSums("SHA256SUMS does not begin with `# dockercomp release 1`.")
    version = next((line.removeprefix("# version ") for line in lines if line.startswith("# version ")), "")
    if not VERSION.fullmatch(version):
        raise BadSums("SHA256SUMS does not name a version.")
    files = {}
    for line in lines:
        if not line.startswith("#"):
            found = _LINE.fullmatch(line)
            if found is None or not _NAME.fullmatch(found[2]):
                raise BadSums("SHA256SUMS has a line that is none of `sha256sum`.")
            files[found[2]] = found[1]
    return version, files


def order(version: str) -> tuple[int, ...]:
    """What versions are sorted by."""
    return tuple(int(part) for part in version.split("."))


def _instant(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
