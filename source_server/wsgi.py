"""What gunicorn starts in each of its processes: `source_server.wsgi:application()`."""

from __future__ import annotations

import logging
import os
import threading
import time

from flask import Flask

from source_server import event_log
from source_server.app import create_app
from source_server.config import BadSetting, from_env
from source_server.domain.refusal import Unavailable
from source_server.stores.database import Stores, open_stores

log = logging.getLogger(__name__)

MARK_S = 2.0  #: how often a web process says that it is at work


def application() -> Flask:
    """The app over the database that the environment names; made after the fork, with a client of its own."""
    event_log.log_events()
    settings = from_env(os.environ)
    if settings.mongo_uri is None:
        raise BadSetting("DOCKERCOMP_MONGO_URI is not set: `dockercomp-server up` sets it, `serve` needs it.")
    stores = open_stores(settings.mongo_uri, settings.database, application="dockercomp-web")
    app = create_app(stores, beat_s=settings.beat_s)
    threading.Thread(target=_keep_marking, args=(stores,), name="serving", daemon=True).start()
    return app


def _keep_marking(stores: Stores) -> None:
    while True:
        try:
            stores.meta.mark_serving(stores.clock.now())
        except Unavailable as error:
            log.warning("cannot mark serving", extra={"reason": str(error)})
        time.sleep(MARK_S)
