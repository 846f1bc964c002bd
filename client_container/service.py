"""The running client: threads for the loop, the courier and the porter; the main thread only waits for the end."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from client_container.backoff import Backoff
from client_container.blobs import Blobs
from client_container.connection import ServerConnection
from client_container.courier import Courier
from client_container.delivery import Deliverer
from client_container.failures import LifeEnded, ProtocolTooOld, ServerUnavailable
from client_container.holdings import Holdings
from client_container.loop import ClientLoop
from client_container.membership import Membership, Unwelcome
from client_container.porter import Porter
from client_container.runtime import Runtime
from client_container.spool import Spool

log = logging.getLogger(__name__)

DONE, BROKEN, UNWELCOME, TOO_OLD = 0, 1, 2, 3

#: The courier never stays away longer than a usual beat: a server that is back must hear of us before it purges.
BEAT_PAUSE_S = 20.0

#: The client leaves within 5 s of a signal, whatever the server does: these add up to 4.2 s.
LAST_STEP_S, LAST_DELIVERY_S, LEAVE_S = 0.7, 2.0, 1.5


class Service:
    """Runs until a signal comes or the server will not have us."""

    def __init__(
        self,
        *,
        connection: ServerConnection,
        membership: Membership,
        holdings: Holdings,
        spool: Spool,
        runtime: Runtime,
        blobs: Blobs,
    ) -> None:
        self._connection, self._membership, self._holdings = connection, membership, holdings
        self._stopping, self._news, self._load = threading.Event(), threading.Event(), threading.Event()
        self._runtime = runtime
        self._deliverer = Deliverer(connection, spool, holdings)
        self._courier = Courier(
            connection=connection,
            membership=membership,
            holdings=holdings,
            spool=spool,
            deliverer=self._deliverer,
            backoff=Backoff(cap_s=BEAT_PAUSE_S),
            standing=runtime.standing,
        )
        self._loop = ClientLoop(
            connection=connection,
            membership=membership,
            holdings=holdings,
            spool=spool,
            deliverer=self._deliverer,
            runtime=runtime,
            wait=self._stopping.wait,
            finished=self._finished,
        )
        self._porter = Porter(
            blobs=blobs,
            spool=spool,
            backoff=Backoff(),
            stopping=self._stopping.is_set,
            unloaded=self._news.set,
        )
        # A pipe, because setting an Event in a signal handler can deadlock with a thread waiting for it.
        self._end_reader, self._end_writer = os.pipe()
        self._exit: tuple[int, str] | None = None

    def run(self) -> tuple[int, str]:
        """Run to the end; answers the exit code and a sentence (empty after a signal)."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        loop = self._thread("loop", self._loop.step)
        self._thread("courier", self._courier_step)
        self._thread("porter", self._porter_step)
        os.read(self._end_reader, 1)
        began = time.monotonic()
        self._stopping.set()
        self._holdings.close()
        self._finished()
        loop.join(LAST_STEP_S)
        self._say_farewell()
        self._runtime.close()
        log.info("stopped", extra={"seconds": round(time.monotonic() - began, 2)})
        return self._exit or (DONE, "")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        os.write(self._end_writer, b"!")

    def _thread(self, name: str, step: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=self._forever, args=(step,), name=name, daemon=True)
        thread.start()
        return thread

    def _forever(self, step: Callable[[], object]) -> None:
        try:
            while not self._stopping.is_set():
                step()
        except ProtocolTooOld as error:
            self._end(TOO_OLD, f"{error} Update this client.")
        except Unwelcome as error:
            self._end(UNWELCOME, str(error))
        except Exception as error:
            if not self._stopping.is_set():
                log.exception("client broken")
                self._end(BROKEN, f"The client met an error it cannot answer: {error!r}.")

    def _courier_step(self) -> None:
        self._news.clear()
        self._news.wait(self._courier.step())

    def _porter_step(self) -> None:
        self._load.clear()
        self._load.wait(self._porter.step())

    def _finished(self) -> None:
        self._news.set()
        self._load.set()

    def _end(self, code: int, sentence: str) -> None:
        self._exit = self._exit or (code, sentence)
        os.write(self._end_writer, b"!")

    def _say_farewell(self) -> None:
        """Deliver what is finished in one try, then leave: each in bounded time, even from a server that hangs."""
        member = self._membership.find()
        if member is None:
            return
        in_time(LAST_DELIVERY_S, lambda: self._deliverer.deliver(member, timeout=(1.0, LAST_DELIVERY_S)))
        in_time(LEAVE_S, lambda: self._connection.leave(member, timeout=(1.0, LEAVE_S)))


def in_time(seconds: float, call: Callable[[], object]) -> None:
    """Do the call, or abandon it after that long (a server that drips bytes defeats socket timeouts)."""

    def attempt() -> None:
        try:
            call()
        except (ServerUnavailable, LifeEnded, ProtocolTooOld) as error:
            log.warning("farewell unheard", extra={"reason": str(error)})
        except Exception:
            log.exception("farewell failed")

    thread = threading.Thread(target=attempt, name="farewell", daemon=True)
    thread.start()
    thread.join(seconds)
