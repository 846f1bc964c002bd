"""Images of jobs: how they come to this host, within the volunteer's limits, and how they leave it again.

Those that we brought are remembered with their last use, and only they are ever removed. An image that was here
before, that somebody has given a name since, or that a container has, is left alone.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from client_container.launcher.errors import EngineError
from client_container.launcher.images.archive import CheckedArchive, Progress, check_archive, engine_archive
from client_container.launcher.images.engine import EngineImage, Event, ImageEngine
from client_container.launcher.images.layer import BadArchive, TooLarge
from client_container.launcher.images.memory import Brought, Memory
from client_container.launcher.images.registry import Reference, Registries, Resolve, parse_reference, resolve
from client_container.launcher.line.wire import Refusal
from client_container.launcher.policy.policy import Policy

log = logging.getLogger(__name__)

MARGIN = 512 * 2**20  #: bytes that have to stay free on the engine's disk
MARGIN_INODES = 20_000  #: files that the engine's disk has to have room for after all
_BY_ID = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_ARCHITECTURES = {"amd64": "x86_64", "aarch64": "arm64"}


@dataclass(frozen=True, kw_only=True)
class LocalImage:
    """An image that is on this machine and can be run."""

    id: str  #: as the engine names it; on some engines not the one that jobs name
    size: int  #: bytes, unpacked
    architecture: str  #: as the label `arch`: x86_64, arm64, ...


@dataclass
class _Turn:
    """Of those that want the same image to arrive."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    takers: int = 0


class Images:
    """The images that jobs may run in. May be used from any thread; one image arrives once at a time."""

    def __init__(
        self,
        *,
        engine: ImageEngine,
        state_file: Path,
        policy: Callable[[], Policy],
        find_addresses: Resolve = resolve,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._policy, self._clock = engine, policy, clock
        self._find_addresses = find_addresses
        self._memory = Memory(state_file)
        self._arriving: dict[str, _Turn] = {}
        self._lock = threading.Lock()
        self._recover()

    def find(self, reference: str) -> LocalImage | None:
        """The image that a job names, if it is here; else None. Asking for it counts as a use."""
        brought = self._memory.find(reference)
        if brought is not None and brought.id is not None:
            found = self._engine.find(brought.id)
            if found is not None:
                self._memory.use(reference, self._clock())
                return _local(found)
            self._memory.forget(reference)  # somebody removed it
        found = self._engine.find(reference)
        if found is None or (_BY_ID.fullmatch(reference) and found.id != reference):
            return None
        return _local(found)

    def pull(self, reference: str, progress: Progress = lambda done, total: None) -> LocalImage:
        """Bring an image from its registry; raises Refusal, EngineError. An image that is here is not fetched again."""
        with self._alone(reference):
            return self.find(reference) or self._pull(parse_reference(reference), reference, progress)

    def load(self, archive: int, image_id: str, progress: Progress = lambda done, total: None) -> LocalImage:
        """Bring an image from an archive (a descriptor) that is open for reading; raises Refusal, EngineError.

        The file may belong to somebody who changes it meanwhile: that makes it a bad archive, and nothing worse.
        """
        with self._alone(image_id):
            return self.find(image_id) or self._load(archive, image_id, progress)

    def used(self, reference: str, when: float | None = None) -> None:
        """A job runs in this image; `when` in seconds since the epoch."""
        self._memory.use(reference, self._clock() if when is None else when)

    def trim(self, in_use: Collection[str] = ()) -> list[str]:
        """Remove what was used least recently of ours, as long as ours take more than they may.

        `in_use`: references or ids that jobs have. Answers the references that are gone.
        """
        return self._make_room(0, in_use)

    def brought(self) -> list[Brought]:
        """The images that are here because of us, those used least recently first."""
        return self._memory.all()

    def remove_all(self) -> list[str]:
        """Remove all of ours that no container has and nobody named; the references that are gone."""
        return [one.reference for one in self._memory.all() if self._remove(one)]

    def _recover(self) -> None:
        """Of what was on its way when we ended: what has come is ours."""
        for one in self._memory.all():
            if one.id is None:
                found = self._engine.find(one.reference)
                if found is None:
                    self._memory.forget(one.reference)
                else:
                    self._memory.put(replace(one, id=found.id, size=found.size))

    # --- arrival

    def _pull(self, reference: Reference, name: str, progress: Progress) -> LocalImage:
        policy = self._policy()
        registries = Registries(policy, find_addresses=self._find_addresses)
        registries.require_allowed(reference)
        packed = registries.compressed_size(reference, self._engine.platform)
        self._require_room(packed, policy, unpacked=False)
        before = self._engine.ids()
        with self._noted(name):
            self._follow(self._engine.pull(reference.repository, reference.digest), packed, progress)
            found = self._engine.find(str(reference))
            if found is None or not any(one.endswith(f"@{reference.digest}") for one in found.digests):
                raise EngineError(f"The Docker engine has pulled {reference} and does not have it.")
            return self._keep(name, found, foreign=found.id in before, policy=policy)

    def _load(self, descriptor: int, image_id: str, progress: Progress) -> LocalImage:
        policy = self._policy()
        try:
            archive = check_archive(descriptor, image_id, most=policy.image_size, progress=progress)
        except BadArchive as error:
            raise Refusal("bad_request", str(error)) from error
        except TooLarge as error:
            raise Refusal(
                "image_too_large",
                f"image too large here: more than {_bytes(policy.image_size)} unpacked, which is the most",
            ) from error
        if _label(archive.architecture) != _label(self._engine.platform[1]):
            raise Refusal("not_allowed", f"The image is for {archive.architecture}, which this host is not.")
        self._require_room(archive.room, policy, unpacked=True)
        self._require_inodes(archive.entries)
        before = self._engine.ids()
        with self._noted(image_id):
            found = self._hand_over(descriptor, archive, progress)
            return self._keep(image_id, found, foreign=found.id in before, policy=policy, room=archive.room)

    def _hand_over(self, descriptor: int, archive: CheckedArchive, progress: Progress) -> EngineImage:
        said = ""
        try:
            for event in self._engine.load(engine_archive(descriptor, archive, progress)):
                said += str(event.get("stream") or "")[:1000]
        except BadArchive as error:
            raise Refusal("bad_request", str(error)) from error
        # Engines that keep images in containerd have another id for it, and say which.
        ids = [archive.image_id, *re.findall(r"sha256:[0-9a-f]{64}", said)]
        for one in ids:
            found = self._engine.find(one)
            if found is not None and found.diff_ids == archive.diff_ids:
                return found
        raise EngineError("The Docker engine has loaded the image and does not have it.")

    def _keep(
        self, reference: str, found: EngineImage, *, foreign: bool, policy: Policy, room: int = 0
    ) -> LocalImage:
        """It has come: remember it as ours, unless it was here before. `room`: bytes that it takes, if known."""
        if foreign:
            self._memory.forget(reference)
            return _local(found)
        size = max(found.size, room)
        one = Brought(reference=reference, id=found.id, size=size, last_used=self._clock())
        if found.size > policy.image_size:
            self._remove(one)
            raise Refusal(
                "image_too_large",
                f"image too large here: {_bytes(found.size)} unpacked, at most {_bytes(policy.image_size)}",
            )
        self._memory.put(one)
        return _local(found)

    def _follow(self, events: Iterator[Event], total: int, progress: Progress) -> None:
        """Go along with a pull; it is broken off when the disk is about to be full."""
        done: dict[str, int] = {}
        with contextlib.closing(events):  # type: ignore[type-var]  # a generator: closing it breaks the pull off
            for event in events:
                detail = event.get("progressDetail") or {}
                if event.get("status") == "Downloading" and isinstance(detail.get("current"), int):
                    done[str(event.get("id"))] = detail["current"]
                    progress(min(sum(done.values()), total), total)
                free = self._engine.free_disk()
                if free is not None and free < MARGIN:
                    raise Refusal("image_too_large", "image too large here: unpacked, it fills the disk")
                self._require_inodes(0)

    def _require_room(self, size: int, policy: Policy, *, unpacked: bool) -> None:
        """Raises Refusal unless an image of so many bytes may come, and makes room for it among ours."""
        what = f"{_bytes(size)} {'unpacked' if unpacked else 'packed'}"
        most = min(policy.image_size, policy.images)
        if size > most:
            raise Refusal("image_too_large", f"image too large here: {what}, at most {_bytes(most)}")
        self._make_room(size, ())
        free = self._engine.free_disk()
        # While it is unpacked, the engine has it twice.
        if free is not None and 2 * size + MARGIN > free:
            raise Refusal(
                "image_too_large",
                f"image too large here: {what}, and the disk has {_bytes(free)} free, of which it needs "
                f"{_bytes(2 * size + MARGIN)}",
            )

    def _require_inodes(self, entries: int) -> None:
        """Raises Refusal unless the disk has room for so many files, and some more."""
        free = self._engine.free_inodes()
        if free is not None and entries + MARGIN_INODES > free:
            raise Refusal(
                "image_too_large",
                f"image too large here: {entries} files, and the disk has room for {free}",
            )

    @contextlib.contextmanager
    def _noted(self, reference: str) -> Iterator[None]:
        """It is written down before it comes: if we end in between, it is ours all the same."""
        self._memory.put(Brought(reference=reference, last_used=self._clock()))
        try:
            yield
        except BaseException:
            if self._engine_lacks(reference):
                self._memory.forget(reference)
            raise

    def _engine_lacks(self, reference: str) -> bool:
        with contextlib.suppress(EngineError):
            return self._engine.find(reference) is None
        return False

    @contextlib.contextmanager
    def _alone(self, reference: str) -> Iterator[None]:
        with self._lock:
            turn = self._arriving.setdefault(reference, _Turn())
            turn.takers += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.takers -= 1
                if not turn.takers:
                    del self._arriving[reference]

    # --- departure

    def _make_room(self, size: int, in_use: Collection[str]) -> list[str]:
        """Remove the least recently used of ours until `size` more bytes fit; the references that are gone."""
        most, gone = self._policy().images, []
        ours = [one for one in self._memory.all() if one.id is not None]
        taken = sum(one.size for one in ours)
        for one in ours:
            if taken + size <= most:
                break
            if one.reference in in_use or one.id in in_use:
                continue
            try:
                if self._remove(one):
                    gone.append(one.reference)
                    log.info("image removed", extra={"image": one.reference})
            except EngineError as error:  # one that hangs must not keep the others
                log.warning("image stays", extra={"image": one.reference, "reason": str(error)})
            if self._memory.find(one.reference) is None:  # gone, or somebody else's by now
                taken -= one.size
        return gone

    def _remove(self, one: Brought) -> bool:
        """Remove one of ours; False when it stays: a container has it, or somebody gave it a name."""
        found = self._engine.find(one.id or one.reference)
        if found is None:
            self._memory.forget(one.reference)
            return True
        others = [
            name for name in found.digests if name.rpartition("@")[2] != one.reference.rpartition("@")[2]
        ]
        if found.tags or others:
            self._memory.forget(one.reference)  # it is somebody's now
            return False
        if not self._engine.remove(found.digests[0] if found.digests else found.id):
            return False
        self._memory.forget(one.reference)
        return True


def _local(found: EngineImage) -> LocalImage:
    return LocalImage(id=found.id, size=found.size, architecture=_label(found.architecture))


def _label(architecture: str) -> str:
    return _ARCHITECTURES.get(architecture, architecture)


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
