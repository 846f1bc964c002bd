"""`GET /images/ID.tar`: the archive of a job's image, for any container or account."""

from __future__ import annotations

from contextlib import ExitStack

from flask import Blueprint, Response

from source_server.web.http.access import any_key, services
from source_server.web.http.streams import streamed
from source_server.web.openapi import Caller, Key, Raw, described

blueprint = Blueprint("images", __name__)


@blueprint.get("/images/<image_id>.tar")
@described(
    Caller.CONTAINER,
    key=Key.EITHER,
    answers={
        200: Raw(types=("application/x-tar",), says="The archive, as `docker load` takes it."),
        206: Raw(types=("application/x-tar",), says="The part that `Range` asks for."),
        304: None,
    },
    refuses=(416,),
    headers={"Range": "`bytes=N-` goes on behind N bytes.", "If-None-Match": "The `ETag` of what is there."},
    answer_headers={"Dockercomp-Sha256": "The SHA-256 of the whole archive."},
)
def archive(image_id: str) -> Response:
    """The archive as a stream; ranges and conditions are honoured."""
    account = any_key()
    with ExitStack() as held:
        image, content = held.enter_context(services().images.reading(image_id, account))
        answer = streamed(content, held, kind="application/x-tar", length=image.bytes, etag=image.sha256)
        answer.headers["Dockercomp-Sha256"] = image.sha256
        answer.headers["Cache-Control"] = "private, max-age=86400"
        return answer
