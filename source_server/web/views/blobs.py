"""`/blobs`: files of any size, by the hash of what is in them; for their owners and for holders of tickets."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import ClientDisconnected

from source_server.domain.account import Role
from source_server.domain.blob import (
    BlobNotFound,
    OtherPart,
    Part,
    Received,
    Uploader,
    checked_sha256,
    part_of,
)
from source_server.domain.refusal import BadInput
from source_server.domain.timing import instant
from source_server.services.files.blob_tickets import Shown
from source_server.services.files.blobs import Read
from source_server.web.http.access import account_as, any_account, calling_container, services
from source_server.web.http.paced_body import body_in_time
from source_server.web.http.paging import limit_query
from source_server.web.http.streams import streamed
from source_server.web.openapi import Caller, Key, Raw, described
from source_server.web.shapes import blobs as shapes

blueprint = Blueprint("blobs", __name__)

TICKET = "Dockercomp-Ticket"
RECEIVED = "Dockercomp-Received"
MOST_LISTED = 1000


@blueprint.errorhandler(OtherPart)
def other_part(error: OtherPart) -> tuple[Response, int]:
    """409: where the upload really stands."""
    return jsonify(error=str(error), received=error.received), 409


@blueprint.errorhandler(BlobNotFound)
def not_found(error: BlobNotFound) -> tuple[Response, int]:
    """404; with how much there is of an upload of the caller's own."""
    answer = jsonify(error=str(error))
    if error.received is not None:
        answer.headers[RECEIVED] = str(error.received)
    return answer, 404


@blueprint.get("/blobs")
@described(
    Caller.SCIENTIST,
    answers={200: shapes.Blobs},
    query={
        "after": "Goes on behind the blob with this hash.",
        "limit": limit_query(MOST_LISTED, MOST_LISTED),
    },
)
def list_blobs() -> Response:
    """The caller's own, by hash, and what they come to; `?after=SHA256` goes on behind that one."""
    account = account_as(Role.SCIENTIST)
    found = services().blobs.of(account.id, after=request.args.get("after", ""), limit=_limit())
    shown = [{"sha256": one.sha256, "bytes": one.bytes, "since": instant(one.since)} for one in found]
    used, limits = services().blobs.usage(account.id), services().blobs.limits
    return jsonify(blobs=shown, usage={"bytes": used, "quota": limits.quota, "largest": limits.largest})


@blueprint.get("/tasks/<task_id>/files")
@described(
    Caller.SCIENTIST,
    answers={200: shapes.ResultFiles},
    query={
        "from": ("The number of the chunk to begin with.", {"type": "integer", "minimum": 0, "default": 0}),
        "limit": limit_query(MOST_LISTED, MOST_LISTED),
    },
)
def list_files(task_id: str) -> Response:
    """Files of the task's accepted answers; `?from=N` from chunk N on, `next` says from where to go on."""
    task = services().tasks.get(account_as(Role.SCIENTIST), task_id)
    found, further = services().result_files(task, start=_number("from", 0), limit=_limit())
    shown = [{"n": one.n, "name": one.name, "sha256": one.sha256, "bytes": one.bytes} for one in found]
    return jsonify(files=shown, next=further)


@blueprint.get("/blobs/<sha256>")
@described(
    Caller.SCIENTIST,
    key=Key.TICKET,
    answers={
        200: Raw(types=("application/octet-stream",), says="The content."),
        206: Raw(types=("application/octet-stream",), says="The part that `Range` asks for."),
        304: None,
    },
    refuses=(400, 416),
    headers={"Range": "`bytes=N-` goes on behind N bytes.", "If-None-Match": "The `ETag` of what is there."},
    answer_headers={RECEIVED: "With 404: so many bytes of an upload of yours are here."},
)
def get_blob(sha256: str) -> Response:
    """The content as a stream; ranges and conditions are honoured."""
    shown = _shown()
    if shown is not None:
        reader, owner = (
            shown.container.account,
            services().blob_tickets.owner_of(shown, checked_sha256(sha256)),
        )
        return _content(sha256, owner, reader)
    account = any_account()
    try:
        return _content(sha256, None if account.role is Role.ADMIN else account.id, account.id)
    except BlobNotFound:
        raise BlobNotFound(sha256, services().blobs.received(_own(account.id), sha256)) from None


@blueprint.put("/blobs/<sha256>")
@described(
    Caller.SCIENTIST,
    key=Key.TICKET,
    body=Raw(types=("application/octet-stream",), says="The content, or the part that Content-Range names."),
    answers={201: shapes.Blob, 202: shapes.PartOfBlob, 409: shapes.OtherPart},
    headers={"Content-Range": "`bytes START-END/TOTAL`: a part, which goes on where the last one ended."},
    example="data.bin",
)
def put_blob(sha256: str) -> tuple[Response, int]:
    """Take in a blob, whole or a part of it."""
    # A stream in constant memory, with limits of its own. None would mean the app's limit to Flask.
    request.max_content_length = sys.maxsize
    shown = _shown()
    account = None if shown else account_as(Role.SCIENTIST).id
    with body_in_time() as read:
        part = part_of(request.headers.get("Content-Range"), _length())
        if shown is not None:
            received = services().blob_tickets.receive(shown, checked_sha256(sha256), part, read)
        else:
            received = _own_received(account or "", checked_sha256(sha256), part, read)
        return _received(received, part)


def _own_received(account: str, sha256: str, part: Part, read: Read) -> Received:
    here = services().blobs.touch(account, [sha256])
    if here:
        return Received(sha256=sha256, received=here[sha256], total=here[sha256], whole=True)
    return services().blobs.receive(_own(account), sha256, part, read)


def _own(account: str) -> Uploader:
    return Uploader(id=account, account=account)


def _shown() -> Shown | None:
    words = request.headers.get(TICKET)
    return None if words is None else services().blob_tickets.shown(calling_container(), words)


def _content(sha256: str, owner: str | None, reader: str) -> Response:
    with ExitStack() as held:
        size, content = held.enter_context(services().blobs.reading(sha256, owner, reader=reader))
        answer = streamed(content, held, kind="application/octet-stream", length=size, etag=sha256)
        answer.headers["Cache-Control"] = "private, max-age=86400"
        return answer


def _received(received: Received, part: Part) -> tuple[Response, int]:
    if received.whole:
        return jsonify(sha256=received.sha256, bytes=received.total), 201
    if received.received < part.start + part.bytes:
        raise ClientDisconnected()
    return jsonify(sha256=received.sha256, received=received.received, bytes=received.total), 202


def _length() -> int | None:
    """Bytes of the body; None where only its end will tell."""
    return None if "Transfer-Encoding" in request.headers else request.content_length or 0


def _limit() -> int:
    limit = _number("limit", MOST_LISTED)
    if not 0 < limit <= MOST_LISTED:
        raise BadInput(f"limit is a number from 1 to {MOST_LISTED}.")
    return limit


def _number(name: str, default: int) -> int:
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadInput(f"{name} is a whole number.")
    return int(text)
