"""Archives of jobs' images: the operator puts them here, volunteers' clients fetch them."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO

from source_server.domain.image import StoredImage
from source_server.domain.refusal import NotFound
from source_server.image_archive import read_archive, write_untagged
from source_server.services.files.places import Places
from source_server.stores.database import Stores
from source_server.stores.images import Incoming

FRESH_S = 2.0  #: how old what claims are told may be
ABANDONED = timedelta(days=1)  #: a file without a record is not being written any more after that
MOST_READERS = 8  #: at once in one process: the other threads are for heartbeats and claims
EACH = 3  #: of them of one account


class Images:
    """What is here, as of two seconds ago for claims; files are read and written in constant memory."""

    def __init__(self, stores: Stores, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stores, self._monotonic = stores, monotonic
        self._lock = threading.Lock()
        self._known: Mapping[str, StoredImage] = {}
        self._known_until = float("-inf")
        self._readers = Places(MOST_READERS, each=EACH)

    def add(self, path: Path) -> tuple[StoredImage, bool]:
        """Store the archive at `path`, its tags taken off; the image, and whether it was new. Raises BadArchive."""
        image = read_archive(path)
        there = self._stores.images.find(image.id)
        if there is not None:
            return there, False
        now = self._stores.clock.now()
        self._stores.images.remove_leftovers(now - ABANDONED)
        with self._stores.images.receiving(image.id) as (incoming, file):
            counted = _Counted(incoming)
            write_untagged(image, counted)
        stored = StoredImage(
            id=image.id,
            architecture=image.architecture,
            os=image.os,
            size=image.size,
            bytes=counted.bytes,
            sha256=counted.digest.hexdigest(),
            added=now,
        )
        new = self._stores.images.add(stored, file)
        # Tasks that named it before it was here learn what it runs on.
        self._stores.tasks.set_architecture(image.id, image.architecture)
        return stored, new

    def all(self) -> list[StoredImage]:
        """Every image that is here, the newest first."""
        return self._stores.images.all()

    def remove(self, image_id: str) -> None:
        """Forget an image; machines that have it keep it. Raises NotFound."""
        if not self._stores.images.remove(image_id):
            raise NotFound(f"There is no image {image_id} here.")

    def named(self, ids: Iterable[str | None]) -> dict[str, StoredImage]:
        """Those of these images that are here, by id; what is asked of each claim."""
        wanted = {one for one in ids if one is not None}
        if not wanted:
            return {}
        with self._lock:
            if self._monotonic() > self._known_until:
                self._known = {one.id: one for one in self._stores.images.all()}
                self._known_until = self._monotonic() + FRESH_S
            return {one: self._known[one] for one in wanted if one in self._known}

    @contextmanager
    def reading(self, image_id: str, account: str) -> Iterator[tuple[StoredImage, IO[bytes]]]:
        """An image and its archive; raises NotFound, and Unavailable while too many read, or this account does."""
        with self._readers.place(account):
            found = self._stores.images.open(image_id)
            if found is None:
                raise NotFound(f"There is no image {image_id} here.")
            with found[1]:
                yield found


class _Counted:
    """Passes on what is written, and keeps its length and hash."""

    def __init__(self, out: Incoming) -> None:
        self._out = out
        self.bytes = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._out.write(data)
        self.digest.update(data)
        self.bytes += len(data)
        return len(data)
