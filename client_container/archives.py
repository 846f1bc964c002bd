"""Brings the archives of job images from the server."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

from client_container.blob import Blob, is_sha256
from client_container.connection import ServerConnection
from client_container.download import Download
from client_container.failures import BadAnswer, Refused
from client_container.protocol import Job

log = logging.getLogger(__name__)


class Archives:
    """Downloads into one folder. An archive lies there under its sha256 once it is whole, and under no other name."""

    def __init__(
        self,
        connection: ServerConnection,
        folder: Path,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection, self._download = connection, Download(folder, sleep=sleep, clock=clock)

    def __call__(self, job: Job) -> str:
        """Fetch the archive of the job's image; answers its hex sha256, which is its name in the folder.

        Goes on where an earlier call broke off. Raises ServerUnavailable, LifeEnded, Refused (also when the server has
        no archive of it, or there is no room for it), OSError.
        """
        archive, image = job.archive, job.image or ""
        if archive is None:
            raise Refused(404, "The server has no archive of this image.")
        if not is_sha256(archive.sha256) or not re.fullmatch(r"sha256:[0-9a-f]{64}", image):
            raise BadAnswer("The server names an image's archive in a way that cannot be.")
        wanted = Blob(sha256=archive.sha256, bytes=archive.bytes)
        self._download(wanted, lambda start: self._connection.image(image, start=start), what="image")
        log.info("archive here", extra={"image": image, "bytes": archive.bytes})
        return archive.sha256
