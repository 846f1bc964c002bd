"""Puts the source server together: only this module knows who needs whom."""

from __future__ import annotations

from flask import Flask, Response, jsonify

from source_server.services.accept import Accept
from source_server.services.assign import Assign
from source_server.services.beat import Beat
from source_server.services.claim import Claim, Emptiness
from source_server.services.complete import Complete
from source_server.services.export import Export
from source_server.services.give_back import GiveBack
from source_server.services.look import Look
from source_server.services.people import People
from source_server.services.register import Register
from source_server.services.tasks import Tasks
from source_server.services.upload import ReceiveUpload
from source_server.stores.database import Stores
from source_server.web import errors, results, scientist, volunteer, wire
from source_server.web.access import EXTENSION, Services, services


def create_app(stores: Stores, *, beat_s: float) -> Flask:
    """The WSGI app over these stores; raises SchemaUnknown for a database it must not touch."""
    stores.meta.require_schema()
    app = Flask("source_server")
    app.config["MAX_CONTENT_LENGTH"] = wire.MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions[EXTENSION] = build_services(stores, beat_s=beat_s)
    errors.install(app)
    for part in (volunteer, scientist, results):
        app.register_blueprint(part.blueprint)

    @app.get("/healthz")
    def healthz() -> Response:
        """Whether the server can work: its database answers."""
        return jsonify(ok=services().look.health())

    return app


def build_services(stores: Stores, *, beat_s: float) -> Services:
    """What views and housekeeping work with."""
    secret = stores.meta.secret()
    give_back = GiveBack(stores)
    return Services(
        people=People(stores),
        register=Register(stores, give_back),
        beat=Beat(stores, give_back, beat_s=beat_s),
        claim=Claim(stores, beat_s=beat_s, secret=secret, emptiness=Emptiness()),
        accept=Accept(stores, secret=secret, complete=Complete(stores)),
        give_back=give_back,
        tasks=Tasks(stores),
        upload=ReceiveUpload(stores),
        assign=Assign(stores),
        export=Export(stores),
        look=Look(stores),
        beat_s=beat_s,
    )
