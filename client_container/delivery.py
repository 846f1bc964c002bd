"""Delivering finished attempts: batches out of the spool, and what becomes of the answers."""

from __future__ import annotations

from collections.abc import Sequence

from client_container.connection import ServerConnection
from client_container.failures import LifeEnded, ProtocolTooOld, Refused, ServerUnavailable
from client_container.holdings import Holdings
from client_container.protocol import Delivery, Registration
from client_container.spool import Parcel, Spool

BATCH_RESULTS = 500
BATCH_BYTES = 8 * 1024 * 1024
LACKS_A_FILE = 409  #: the status of an attempt whose files have to be brought first
MOST_LOADS = 10  #: times that its files are brought again

Batch = Sequence[tuple[Parcel, bytes]]


class Deliverer:
    """Takes batches from the spool and settles them; used by the loop and by the courier."""

    def __init__(self, connection: ServerConnection, spool: Spool, holdings: Holdings) -> None:
        self._connection, self._spool, self._holdings = connection, spool, holdings
        self._most = BATCH_RESULTS

    def batch(self) -> Batch:
        """The oldest attempts that fit one request; bring them back through `settle` or `failed`."""
        return self._spool.take(most=self._most, most_bytes=BATCH_BYTES)

    def settle(self, batch: Batch, answers: Sequence[Delivery]) -> int:
        """Forget what was stored or finally refused, keep the rest; answers how many that are."""
        unsettled = []
        answered = {answer.chunk: answer for answer in answers}
        in_order = [answer.chunk for answer in answers] == [parcel.chunk for parcel, _ in batch]
        for place, (parcel, _) in enumerate(batch):
            answer = answers[place] if in_order else answered.get(parcel.chunk)
            if (
                answer is not None
                and answer.status == LACKS_A_FILE
                and parcel.files
                and parcel.tries < MOST_LOADS
            ):
                self._spool.load_again(parcel)
                continue
            if answer is None or not answer.final:
                unsettled.append(parcel)
                continue
            if answer.stored:
                self._spool.stored(parcel)
            else:
                self._spool.refuse(parcel, answer.error or "no reason given")
            self._holdings.settled(parcel.token, parcel.chunk)
        self._spool.give_back(unsettled)
        self._most = min(BATCH_RESULTS, self._most * 2)
        return len(unsettled)

    def failed(self, batch: Batch, error: Exception) -> None:
        """Nobody knows what became of the batch: keep it all.

        A server that breaks on one attempt (500), or a proxy that finds the body too large (413), gets ever smaller
        batches, until the one at fault stands alone.
        """
        self._spool.give_back(parcel for parcel, _ in batch)
        if isinstance(error, ServerUnavailable) and error.status in (413, 500):
            self._most = max(1, min(self._most, len(batch)) // 2)

    def deliver(self, member: Registration, *, timeout: tuple[float, float] | None = None) -> int:
        """Deliver one batch; answers its size. Raises what ServerConnection.add raises, but not Refused."""
        batch = self.batch()
        if batch:
            self._send(member, batch, timeout)
        return len(batch)

    def _send(self, member: Registration, batch: Batch, timeout: tuple[float, float] | None) -> None:
        try:
            answers = self._connection.add(member, [data for _, data in batch], timeout=timeout)
        except Refused as refusal:
            self._refused(member, batch, timeout, refusal)
        except (ServerUnavailable, LifeEnded, ProtocolTooOld) as error:
            self.failed(batch, error)
            raise
        else:
            left = self.settle(batch, answers)
            if left:
                raise ServerUnavailable(f"The server could not store {left} of {len(batch)} results.")

    def _refused(
        self, member: Registration, batch: Batch, timeout: tuple[float, float] | None, refusal: Refused
    ) -> None:
        """The request as a whole was refused: find the attempts at fault by halving."""
        if len(batch) == 1:
            answer = Delivery(
                chunk=batch[0][0].chunk, stored=False, error=refusal.sentence, status=refusal.status
            )
            self.settle(batch, [answer])
            return
        middle = len(batch) // 2
        try:
            self._send(member, batch[:middle], timeout)
        except Exception as error:
            self.failed(batch[middle:], error)
            raise
        self._send(member, batch[middle:], timeout)
