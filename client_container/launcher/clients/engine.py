"""What client containers need of the Docker engine: found, made, removed."""

from __future__ import annotations

import contextlib
import io
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import docker.errors

from client_container.launcher.clients.plan import (
    HOME,
    KEY_FILE,
    LABEL_CONFIG,
    LABEL_SLOT,
    SPOOL,
    STOP_S,
    Plan,
    container_config,
)
from client_container.launcher.clients.reconcile import ALIVE, Found
from client_container.launcher.engine import Engine, translated


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a container ended."""

    exit_code: int
    out_of_memory: bool
    ran_s: float  #: seconds from its start to its end; 0 if it never started
    last_line: str  #: of its output, clipped


class ClientEngine(Engine):
    """The engine, for whoever keeps client containers."""

    def transfer(self, container_id: str) -> tuple[int, int] | None:
        """Bytes in and out of a running container since its start; None when it is gone or has no network."""
        with translated():
            try:
                stats = self._api.stats(container_id, stream=False, one_shot=True)
            except docker.errors.NotFound:
                return None
        networks = (stats.get("networks") or {}).values()
        if not networks:
            return None
        return sum(int(one["rx_bytes"]) for one in networks), sum(int(one["tx_bytes"]) for one in networks)

    def find(self, labels: dict[str, str]) -> list[Found]:
        """All containers that carry all these labels, living or not."""
        with translated():
            filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
            return [_found(entry) for entry in self._api.containers(all=True, filters=filters)]

    def create(self, plan: Plan, slot: int, key: bytes) -> str:
        """Make and start the container of `slot`, the account key in its volume if it has one; returns its id."""
        with translated():
            if plan.front is None:
                self._api.create_volume(plan.name(slot), labels=plan.own_labels())
            config = container_config(plan, slot)
            reply = self._api.create_container_from_config(config, plan.name(slot))  # type: ignore[no-untyped-call]
            made = str(reply["Id"])
            try:
                if plan.front is None:
                    self._api.put_archive(made, HOME, _volume_content(plan.uid(slot), key))
                self._api.start(made)
            except Exception:
                self._api.remove_container(made, force=True)
                raise
            return made

    def ending(self, container_id: str) -> Ending | None:
        """How a container ended, or None when it is gone already."""
        with translated():
            try:
                state = self._api.inspect_container(container_id)["State"]
                output = self._api.logs(container_id, tail=1)
            except docker.errors.NotFound:
                return None
        return Ending(
            exit_code=int(state["ExitCode"]),
            out_of_memory=bool(state["OOMKilled"]),
            ran_s=max(0.0, _instant(state["FinishedAt"]) - _instant(state["StartedAt"])),
            last_line=output.decode("utf-8", "replace").strip()[-300:],
        )

    def remove(self, container: Found) -> None:
        """Stop a container if it lives, giving it STOP_S seconds, and remove it; its volume stays."""
        with translated(), _already_gone():
            if container.state == "paused":
                self._api.unpause(container.id)  # a frozen process cannot hear SIGTERM
            if container.state in ALIVE:
                self._api.stop(container.id, timeout=STOP_S)
            self._api.remove_container(container.id, force=True)

    def remove_volumes(self, labels: dict[str, str]) -> int:
        """Remove all volumes that carry all these labels; returns how many."""
        with translated():
            filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
            volumes = self._api.volumes(filters=filters).get("Volumes") or []
            for volume in volumes:
                self._api.remove_volume(volume["Name"])
            return len(volumes)


@contextlib.contextmanager
def _already_gone() -> Iterator[None]:
    """Somebody else removed the container, or is about to: just as well."""
    try:
        yield
    except docker.errors.APIError as error:
        if error.status_code not in (404, 409):
            raise


def _found(entry: dict[str, Any]) -> Found:
    labels = entry.get("Labels") or {}
    slot = labels.get(LABEL_SLOT, "")
    return Found(
        id=entry["Id"],
        slot=int(slot) if slot.isascii() and slot.isdigit() else None,
        config=labels.get(LABEL_CONFIG, ""),
        state=entry["State"],
        image=entry["ImageID"],
        created=float(entry["Created"]),
    )


def _volume_content(uid: int, key: bytes) -> bytes:
    """A tar archive for HOME: the account key and the spool folder, for `uid` alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info in (
            _entry(SPOOL, tarfile.DIRTYPE, 0o700, uid),
            _entry(KEY_FILE, tarfile.REGTYPE, 0o400, uid),
        ):
            if info.isfile():
                info.size = len(key)
            archive.addfile(info, io.BytesIO(key) if info.isfile() else None)
    return buffer.getvalue()


def _entry(name: str, kind: bytes, mode: int, uid: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid, info.mtime = kind, mode, uid, uid, time.time()
    return info


def _instant(text: str) -> float:
    """Seconds since the epoch of the engine's timestamps, whose nanoseconds datetime cannot read."""
    whole = text.split(".")[0].rstrip("Z")
    return 0.0 if whole.startswith("0001-") else datetime.fromisoformat(f"{whole}+00:00").timestamp()
