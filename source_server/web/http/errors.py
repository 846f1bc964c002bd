"""One table turns what happened into a status; every error leaves as `{"error": "one sentence"}`."""

from __future__ import annotations

import logging

from flask import Flask, Response, jsonify
from werkzeug.exceptions import ClientDisconnected, HTTPException

from source_server.domain import refusal
from source_server.domain.one_line import one_line
from source_server.domain.refusal import Refusal

log = logging.getLogger(__name__)

STATUS_OF: dict[type[Refusal], int] = {
    refusal.BadInput: 400,
    refusal.UnknownKey: 401,
    refusal.NotAllowed: 403,
    refusal.NotFound: 404,
    refusal.Conflict: 409,
    refusal.LifeEnded: 410,
    refusal.TooLarge: 413,
    refusal.ProtocolUnknown: 426,
    refusal.TooMany: 429,
    refusal.Unavailable: 503,
}

#: What a caller is told to wait: until the database answers, until others may.
RETRY_AFTER_S = {refusal.Unavailable: 5, refusal.TooMany: 600}

LONGEST = 2000  #: letters of a sentence

SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
    413: "The body is larger than this address takes.",
    415: "The body must be JSON.",
}


def status_of(error: Refusal) -> int:
    """The HTTP status of a refusal; of the nearest class that the table names."""
    for ancestor in type(error).__mro__:
        if ancestor in STATUS_OF:
            return STATUS_OF[ancestor]
    raise LookupError(f"{type(error).__name__} has no status")


def sentence_of(error: Refusal) -> str:
    """What a refusal says, in one line of bounded length, whatever it quotes of what the caller wrote."""
    text = str(error)
    if not text.isprintable():
        text = one_line(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def install(app: Flask) -> None:
    """Answer every failure of the app with a sentence."""

    @app.errorhandler(Refusal)
    def refused(error: Refusal) -> tuple[Response, int]:
        response = jsonify(error=sentence_of(error))
        for kind, pause_s in RETRY_AFTER_S.items():
            if isinstance(error, kind):
                response.headers["Retry-After"] = str(pause_s)
        return response, status_of(error)

    @app.errorhandler(ClientDisconnected)
    def broken_off(error: ClientDisconnected) -> tuple[Response, int]:
        # Not 400: that would tell a client to throw away what it could not get across.
        return jsonify(error="The request broke off before its end; send it again."), 408

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response, int]:
        status = error.code or 500
        return jsonify(error=SENTENCES.get(status) or str(error.description)), status

    @app.errorhandler(Exception)
    def broken(error: Exception) -> tuple[Response, int]:
        log.exception("request failed")
        return jsonify(error="The server made a mistake; it is in its log."), 500
