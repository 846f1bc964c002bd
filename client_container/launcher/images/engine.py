"""What the arrival of images needs of the Docker engine: ask, pull, load, remove."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import docker
import docker.errors

from client_container.launcher.engine import translated
from client_container.launcher.errors import EngineError

REMOVE_S = 10  #: a removal that hangs must not keep others waiting; the engine goes on with it by itself
CALL_S = 600  #: an engine says nothing while it unpacks a large layer

Event = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EngineImage:
    """An image that is on this machine."""

    id: str  #: as the engine names it
    size: int  #: bytes, unpacked
    architecture: str  #: amd64, arm64, ...
    diff_ids: tuple[str, ...]
    tags: tuple[str, ...]  #: names that people gave it
    digests: tuple[str, ...]  #: name@sha256:... by which it was pulled


class ImageEngine:
    """The engine that the environment points to. Everything raises EngineAway and EngineError."""

    def __init__(self) -> None:
        with translated():
            self._api = docker.DockerClient.from_env(timeout=CALL_S, max_pool_size=16).api
            self._brisk = docker.DockerClient.from_env(timeout=REMOVE_S).api
            info = self._api.info()
        self._root = str(info.get("DockerRootDir") or "")
        self.platform = (str(info.get("OSType") or "linux"), str(self._api.version()["Arch"]))

    def find(self, name: str) -> EngineImage | None:
        """The image of this id or name@digest, or None."""
        with translated():
            try:
                found = self._api.inspect_image(name)  # type: ignore[no-untyped-call]
            except (docker.errors.ImageNotFound, docker.errors.NullResource):
                return None
        return EngineImage(
            id=str(found["Id"]),
            size=int(found.get("Size") or 0),
            architecture=str(found.get("Architecture") or ""),
            diff_ids=tuple((found.get("RootFS") or {}).get("Layers") or ()),
            tags=tuple(one for one in found.get("RepoTags") or () if not one.startswith("<none>")),
            digests=tuple(found.get("RepoDigests") or ()),
        )

    def ids(self) -> set[str]:
        """The ids of all images, those without a name among them."""
        with translated():
            return {str(one["Id"]) for one in self._api.images(all=True)}

    def pull(self, repository: str, digest: str) -> Iterator[Event]:
        """Pull an image; what the engine says meanwhile. Leaving the loop breaks the pull off."""
        with translated():
            # Without the passwords that somebody's ~/.docker/config.json may have.
            stream = self._api.pull(repository, tag=digest, stream=True, decode=True, auth_config={})
            with contextlib.closing(stream):
                yield from _without_error(stream)

    def load(self, pieces: Iterable[bytes]) -> Iterator[Event]:
        """Load an archive; what the engine says meanwhile. What `pieces` raise breaks it off and comes out here."""
        with translated():
            yield from _without_error(self._api.load_image(pieces, quiet=False))  # type: ignore[no-untyped-call]

    def remove(self, name: str) -> bool:
        """Remove an image, or one of its names; False when a container has it, or it is gone."""
        with translated():
            try:
                self._brisk.remove_image(name, force=False, noprune=True)
            except docker.errors.APIError as error:
                if error.status_code not in (404, 409):
                    raise
                return False
        return True

    def free_disk(self) -> int | None:
        """Bytes that are free where the engine keeps images; None when this machine cannot tell."""
        try:
            return shutil.disk_usage(self._root).free
        except OSError:
            # Its folder may be closed to us; the file system below which it lies is not.
            with contextlib.suppress(OSError):
                return shutil.disk_usage(os.path.dirname(self._root)).free  # noqa: PTH120
        return None

    def free_inodes(self) -> int | None:
        """How many files and folders the engine's disk has room for; None when it has no such bound."""
        for path in (self._root, os.path.dirname(self._root)):  # noqa: PTH120
            with contextlib.suppress(OSError):
                found = os.statvfs(path)
                return found.f_favail if found.f_files else None
        return None


def _without_error(events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        if "error" in event:
            raise EngineError(f"The Docker engine says: {event['error']}")
        yield event
