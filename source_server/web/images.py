"""`GET /images/ID.tar`: the archive of a job's image, for any container or account."""

from __future__ import annotations

from contextlib import ExitStack

from flask import Blueprint, Response, request
from werkzeug.wsgi import FileWrapper

from source_server.web.access import any_key, services

blueprint = Blueprint("images", __name__)

PIECE = 256 * 1024


@blueprint.get("/images/<image_id>.tar")
def archive(image_id: str) -> Response:
    """The archive as a stream; ranges and conditions are honoured."""
    any_key()
    with ExitStack() as held:
        image, content = held.enter_context(services().images.reading(image_id))
        answer = Response(FileWrapper(content, PIECE), mimetype="application/x-tar")
        answer.headers["Dockercomp-Sha256"] = image.sha256
        answer.headers["Cache-Control"] = "private, max-age=86400"
        answer.content_length = image.bytes
        answer.set_etag(image.sha256)
        answer.make_conditional(request.environ, accept_ranges=True, complete_length=image.bytes)
        answer.call_on_close(held.pop_all().close)
        return answer
