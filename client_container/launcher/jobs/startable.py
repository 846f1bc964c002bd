"""Whether a container of an image can be started at all, looked at before the engine tries.

The engine itself, outside of any container, opens an image's /etc/passwd and /etc/group to start one. A named pipe
there makes it wait for ever, and with it whoever removes the container later. So a container without mounts is made
first, never started, and the engine only asked what lies at these places.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Mapping

from client_container.launcher.clients.plan import LABEL_CONFIG, LABEL_KIND, LABEL_SLOT
from client_container.launcher.errors import EngineError
from client_container.launcher.jobs.engine import JobEngine
from client_container.launcher.jobs.sandbox import CHECKPOINT, IN, KIND_JOB, OUT, PAUSE_PATH, SHM, TMP
from client_container.launcher.line.wire import Refusal

OPENED = ("passwd", "group")  #: of /etc
MOST_LINKS = 8

#: Where a job's own files are, which the engine must never open.
_OF_JOBS = (OUT, IN, CHECKPOINT, TMP, SHM)
#: Where a working directory would be no place in the image.
_KERNELS = ("/proc", "/sys")


def require_startable(engine: JobEngine, image: str, name: str, labels: Mapping[str, str]) -> None:
    """Raises Refusal when the engine had better not start a container of this image; EngineError.

    A container of this name exists meanwhile.
    """
    made = engine.make(_never_started(image, labels), name)
    try:
        folder = _end_of_links(engine, made, "/etc")
        if folder is not None:
            for one in OPENED:
                _require_plain(engine, made, posixpath.join(folder, one))
    except BaseException:
        with contextlib.suppress(EngineError):
            engine.remove(made)
        raise
    engine.remove(made)


def require_workdir(path: str) -> None:
    """Raises Refusal for a WORKDIR among the kernel's own files, through which a process may leave its container."""
    plain = posixpath.normpath("/" + path.lstrip("/"))
    if "/proc/self/fd" in plain or any(_within(plain, one) for one in _KERNELS):
        raise Refusal("not_allowed", "The image's WORKDIR lies in /proc or /sys, where no job may start.")


def _never_started(image: str, labels: Mapping[str, str]) -> dict[str, object]:
    return {
        "Image": image,
        "Entrypoint": [PAUSE_PATH],
        "Cmd": [],
        "Labels": {**labels, LABEL_KIND: KIND_JOB, LABEL_SLOT: "", LABEL_CONFIG: ""},
        "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}},
    }


def _require_plain(engine: JobEngine, container: str, path: str) -> None:
    end = _end_of_links(engine, container, path)
    found = None if end is None else engine.look(container, end)
    if found is not None and not found.plain:
        raise Refusal("not_allowed", f"The image's {path} is no plain file.")


def _end_of_links(engine: JobEngine, container: str, path: str) -> str | None:
    """Where a path leads to, or None when nothing is there; raises Refusal when it leads to a job's own files."""
    for _ in range(MOST_LINKS):
        if any(_within(path, one) for one in _OF_JOBS):
            break
        found = engine.look(container, path)
        if found is None or not found.link_target:
            return path if found else None
        path = posixpath.normpath(found.link_target)
    raise Refusal("not_allowed", "The image's /etc/passwd or /etc/group is a link that leads elsewhere.")


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")
