"""The porter: brings the files of finished attempts to the server, so that the attempts can be delivered."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from client_container.backoff import Backoff
from client_container.blobs import Blobs, FileLost
from client_container.failures import Refused, ServerUnavailable
from client_container.spool import Parcel, Spool

log = logging.getLogger(__name__)

LOOK_S = 2.0  #: between two looks at the spool, unless there is news
TOO_LARGE = 413


class Stopping(Exception):
    """The client ends; what was brought so far is gone on with by the next one."""


class Porter:
    """A step brings the files of one attempt and says how long it may sleep. `unloaded` is called after each."""

    def __init__(
        self,
        *,
        blobs: Blobs,
        spool: Spool,
        backoff: Backoff,
        stopping: Callable[[], bool] = lambda: False,
        unloaded: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._blobs, self._spool, self._backoff, self._clock = blobs, spool, backoff, clock
        self._stopping, self._unloaded = stopping, unloaded
        self._not_before = 0.0  #: after a failure

    def step(self) -> float:
        """Bring what is to be brought; answers the seconds until the next look.

        Raises ProtocolTooOld and Unwelcome, which end the client.
        """
        wait_s = self._not_before - self._clock()
        if wait_s > 0:
            return wait_s
        parcel = self._spool.take_loaded()
        if parcel is None:
            return LOOK_S
        try:
            self._bring(parcel)
        except ServerUnavailable as error:
            self._spool.still_loaded(parcel)
            pause = self._backoff.pause(error.retry_after)
            self._not_before = self._clock() + pause
            log.warning("upload waits", extra={"chunk": parcel.chunk, "reason": str(error)})
            return pause
        except Stopping:
            self._spool.still_loaded(parcel)
            return LOOK_S
        self._backoff.reset()
        self._unloaded()
        return 0.0

    def _bring(self, parcel: Parcel) -> None:
        assert parcel.proof is not None
        try:
            for file in {file.sha256: file.blob for file in parcel.files}.values():
                path, anew = self._spool.file(file.sha256), parcel.tries > 0
                self._blobs.upload(path, file, parcel.proof, self._look, anew=anew)
        except (Refused, FileLost) as error:
            sentence = error.sentence if isinstance(error, Refused) else str(error)
            too_large = isinstance(error, Refused) and error.status == TOO_LARGE
            log.warning("files refused", extra={"chunk": parcel.chunk, "reason": sentence})
            self._spool.instead(
                parcel,
                outcome="output_limit" if too_large else "engine",
                stdout="",
                stderr_tail=f"dockercomp: The files of the answer were not taken: {sentence}\n",
            )
            return
        self._spool.unloaded(parcel)

    def _look(self) -> None:
        if self._stopping():
            raise Stopping
