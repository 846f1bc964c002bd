"""Blobs: files of any size, named by the SHA-256 of what is in them. Pure: what is asked, what is allowed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from source_server.domain.refusal import BadInput, Conflict, NotFound, TooLarge

MB = 1_000_000
MOST_OWNERS = 1000  #: accounts that own the same blob
MOST_FILES = 1000  #: of a job's inputs, of a chunk's, of an attempt's
LEAST = 4096  #: bytes that each blob counts for its owner's quota, however small: its documents take room too
ROUNDED = 1024 * 1024  #: what came of a container's upload counts in steps of so many bytes
#: Of a quota: what one volunteer has under way for a task of the owner's takes at most one of them.
SHARES = 10
DEFAULT_OUTPUT_MB = 1024  #: MiB of files of an attempt whose job does not say `disk_mb`

_SHA256 = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")


@dataclass(frozen=True, kw_only=True)
class BlobLimits:
    """What the operator allows."""

    largest: int = 2_000 * MB  #: bytes of one blob
    quota: int = 20_000 * MB  #: bytes of all blobs of one account
    grace: timedelta = timedelta(days=1)  #: how long a blob stays that nothing names

    @classmethod
    def of(cls, *, largest_mb: float, quota_mb: float, grace_h: float) -> BlobLimits:
        """As operators say them; a megabyte is 10^6 bytes."""
        largest, quota = int(largest_mb * MB), int(quota_mb * MB)
        return cls(largest=largest, quota=quota, grace=timedelta(hours=grace_h))


@dataclass(frozen=True, kw_only=True)
class Owned:
    """A blob, as one of its owners sees it."""

    sha256: str
    bytes: int
    since: datetime


@dataclass(frozen=True, kw_only=True)
class Uploader:
    """Who uploads (an account, or a container for a task's owner), and the account that the blob will belong to."""

    id: str
    account: str
    by: str = ""  #: for whom the owner answers not: `VOLUNTEER/TASK`; nothing: the owner uploads
    share: int = 0  #: bytes that those uploads may come to which are by the same, and in no answer yet
    chunk: str = ""  #: what they are for


@dataclass(frozen=True, kw_only=True)
class Uploading:
    """An upload that is not whole yet."""

    id: str
    uploader: Uploader
    sha256: str
    total: int
    file: object  #: the store's name of it
    received: int = 0
    tail: bytes = b""  #: the last of what was received, less than a piece: not in the file yet
    finishing: bool = False  #: whether somebody looks at the hash, or did and died: its file is left alone

    @property
    def charged(self) -> int:
        """Bytes that count for the quota: what the owner says it will come to; of others only what has come."""
        if not self.uploader.by:
            return charge(self.total)
        return charge(min(self.total, -(-self.received // ROUNDED) * ROUNDED))


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a blob, as a request brings it. `whole`: the request said nothing of parts."""

    start: int
    bytes: int
    total: int
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Received:
    """How far an upload is. Once it is whole and its hash was right, `whole`."""

    sha256: str
    received: int
    total: int
    whole: bool = False


class OtherPart(Conflict):
    """The part does not begin where the upload stands."""

    def __init__(self, received: int) -> None:
        super().__init__(f"The part does not continue at byte {received}; send what comes from there on.")
        self.received = received


class HashDiffers(BadInput):
    """What was received has another hash than the address says; none of it is kept."""


class BlobNotFound(NotFound):
    """There is no such blob, or the caller may not read it."""

    def __init__(self, sha256: str, received: int | None = None) -> None:
        super().__init__(f"There is no blob {sha256} of yours here.")
        self.received = received  #: of an upload of the caller's that is not whole yet


class OverQuota(TooLarge):
    """The account may not have that much here."""


def checked_sha256(text: str) -> str:
    """The text, if it is a hash in the form in which blobs are named; raises BadInput."""
    if _SHA256.fullmatch(text) is None:
        raise BadInput("A blob is named by its SHA-256: 64 hexadecimal digits, in small letters.")
    return text


def part_of(content_range: str | None, length: int | None) -> Part:
    """What a request brings, by its headers; raises BadInput."""
    if length is None:
        raise BadInput("Say how long the body is (Content-Length); a blob is not sent in chunked encoding.")
    if content_range is None:
        return Part(start=0, bytes=length, total=length, whole=True)
    match = _RANGE.fullmatch(content_range.strip())
    if match is None:
        raise BadInput("A part of a blob says `Content-Range: bytes START-END/TOTAL`, its last byte as END.")
    total = int(match[3])
    part = Part(start=int(match[1]), bytes=int(match[2]) + 1 - int(match[1]), total=total)
    if part.bytes < 0 or part.start + part.bytes > total or part.bytes != length:
        raise BadInput(f"The body has {length} bytes, which does not fit its Content-Range.")
    return part


def require_size(size: int, limits: BlobLimits) -> None:
    """Raises TooLarge for what no blob may have."""
    if size > limits.largest:
        raise TooLarge(f"A blob has at most {limits.largest} bytes here, not {size}.")


def require_quota(used: int, more: int, limits: BlobLimits) -> None:
    """Raises OverQuota when an account that uses so much may not have that much more."""
    if used + more > limits.quota:
        raise OverQuota(
            f"{more} bytes more would bring the account's blobs to {used + more} bytes, of {limits.quota} allowed; "
            "delete tasks whose files are of no more use, or ask the operator for a larger quota."
        )


def charge(size: int) -> int:
    """Bytes of the quota that a blob of this size takes."""
    return max(size, LEAST)


def share_of(disk_mb: int | None, limits: BlobLimits) -> int:
    """Bytes that a volunteer's containers may have brought for a task without having answered with them."""
    return max(output_bytes(disk_mb), limits.quota // SHARES)


def output_bytes(disk_mb: int | None) -> int:
    """What a container may upload for one chunk: two different answers may count, each within the job's disk."""
    return 2 * (disk_mb or DEFAULT_OUTPUT_MB) * 1024 * 1024
