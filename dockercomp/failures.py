"""What can go wrong between a scientist and the source server; each message is one sentence for people."""

from __future__ import annotations


class DockercompError(Exception):
    """Base of everything this library raises on purpose."""


class BadSetting(DockercompError):
    """A setting that is missing or cannot be used."""


class ServerUnavailable(DockercompError):
    """The source server did not answer, or said "not now": the same call may be made again."""


class Refused(DockercompError):
    """The source server refused the call; `status` is its HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
