"""What jobs and doors ask of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

#: Told of an image on its way: bytes that have come, and of how many.
Progress = Callable[[int, int], None]


class LocalImage(Protocol):
    """An image that is on this machine."""

    @property
    def id(self) -> str:
        """sha256:..."""


class Images(Protocol):
    """The images on this machine, and how others come."""

    def find(self, reference: str) -> LocalImage | None:
        """The image that a reference means, if it is here."""

    def pull(self, reference: str, progress: Progress) -> LocalImage:
        """Have it from its registry; raises Refusal, EngineError."""

    def load(self, descriptor: int, image_id: str, progress: Progress) -> LocalImage:
        """Have it from an open archive, which holds this very image or is refused; raises Refusal, EngineError."""

    def used(self, reference: str) -> None:
        """A job runs in it."""
