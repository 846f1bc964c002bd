"""The shapes of answers about blobs."""

from __future__ import annotations

from pydantic import Field

from source_server.web.shapes.base import Error, Instant, Said


class Blob(Said):
    """A blob that is here whole."""

    sha256: str
    bytes: int


class PartOfBlob(Blob):
    """A blob of which a part is here."""

    received: int


class OtherPart(Error):
    """A part that does not go on where the upload stands."""

    received: int


class OwnBlob(Blob):
    """A blob of the caller's."""

    since: Instant


class BlobUsage(Said):
    """What an account's blobs come to, and what they may, in bytes."""

    bytes: int
    quota: int
    largest: int = Field(description="Of a single blob.")


class Blobs(Said):
    """The caller's blobs, by hash."""

    blobs: list[OwnBlob]
    usage: BlobUsage


class ResultFile(Blob):
    """A file of an accepted answer."""

    n: int = Field(description="The number of its chunk.")
    name: str


class ResultFiles(Said):
    """Files of a task's accepted answers."""

    files: list[ResultFile]
    next: int | None = Field(
        description="`?from=` to go on with, even where `files` is empty; null: these were all."
    )
