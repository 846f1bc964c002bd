"""Silent containers are marked dead and what they held is offered again; their records stay."""

from __future__ import annotations

import logging
import uuid

from source_server.domain.container import ContainerState
from source_server.domain.timing import silent_since
from source_server.services.containers.give_back import GiveBack
from source_server.stores.database import Stores

log = logging.getLogger(__name__)


class Purge:
    """Judges silence; the caller has made sure that the service itself was there to be heard by."""

    def __init__(self, stores: Stores, give_back: GiveBack, *, beat_s: float) -> None:
        self._stores = stores
        self._give_back = give_back
        self._beat_s = beat_s

    def silent(self) -> list[str]:
        """Purge every container that has missed its beats; their ids."""
        purged = []
        for container in self._stores.containers.silent(
            silent_since(self._stores.clock.now(), beat_s=self._beat_s)
        ):
            ended = self._stores.containers.end_life(
                container, ContainerState.PURGED, next_life=str(uuid.uuid4()), forget_key=False
            )
            if ended:
                returned = self._give_back.life(container.id, container.life, host=container.host.id)
                log.info("container purged", extra={"container": container.id, "given_back": returned})
                purged.append(container.id)
        return purged
