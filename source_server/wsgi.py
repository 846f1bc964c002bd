"""What gunicorn starts in each of its processes: `source_server.wsgi:application()`."""

from __future__ import annotations

import http.client
import logging
import os
import threading
import time
from contextlib import closing

from flask import Flask

from source_server import event_log
from source_server.app import create_app
from source_server.config import BadSetting, from_env
from source_server.domain.refusal import Unavailable
from source_server.gunicorn_settings import BOUND
from source_server.receivers.git_fetch import GitSettings
from source_server.release.shelf import require_no_private_key
from source_server.services.files.blobs import limits_of
from source_server.stores.database import Stores, open_stores

log = logging.getLogger(__name__)

PATIENCE_S = 5.0  #: for an answer at our own door
MARK_S = 2.0  #: how often a web process says that the service is at work, or twice a beat


def application() -> Flask:
    """The app over the database that the environment names; made after the fork, with a client of its own."""
    event_log.log_events()
    settings = from_env(os.environ)
    if settings.mongo_uri is None:
        raise BadSetting("DOCKERCOMP_MONGO_URI is not set: `dockercomp-server up` sets it, `serve` needs it.")
    require_no_private_key(settings.releases)
    stores = open_stores(settings.mongo_uri, settings.database, application="dockercomp-web")
    app = create_app(
        stores,
        beat_s=settings.beat_s,
        releases=settings.releases,
        public_url=settings.public_url,
        limits_of_blobs=limits_of(settings),
        git=GitSettings.of(settings),
    )
    every_s = min(MARK_S, settings.beat_s / 4)

    def bound(address: tuple[str, int]) -> None:
        marking = threading.Thread(
            target=_keep_marking, args=(stores, address, every_s), name="serving", daemon=True
        )
        marking.start()

    app.extensions[BOUND] = bound
    return app


def _keep_marking(stores: Stores, address: tuple[str, int], every_s: float) -> None:
    """Mark that the service works, as long as it answers at its own door.

    A thread that only said "I am alive" would go on saying so while every request hangs, and containers that could not
    get through would be purged for their silence.
    """
    while True:
        try:
            if _answers(address):
                stores.meta.mark_serving(stores.clock.now())
        except Unavailable as error:
            log.warning("cannot mark serving", extra={"reason": str(error)})
        time.sleep(every_s)


def _answers(address: tuple[str, int]) -> bool:
    try:
        with closing(http.client.HTTPConnection(*address, timeout=PATIENCE_S)) as link:
            link.request("GET", "/healthz")
            return link.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
