"""Images of jobs that the server keeps as archives, so that a project needs no registry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One image's archive."""

    id: str  #: sha256:... of the image's config: what jobs name
    architecture: str  #: as the label `arch` of containers has it
    os: str
    size: int  #: bytes of its layers, unpacked
    bytes: int  #: of the archive
    sha256: str  #: of the archive, in hexadecimal
    added: datetime
