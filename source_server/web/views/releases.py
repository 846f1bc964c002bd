"""What volunteers install from: `/install.sh` and `/releases/...`. Public: what counts is the signature."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from datetime import datetime, timezone

from flask import Blueprint, Response, request

from source_server.domain.refusal import BadInput
from source_server.release.shelf import INSTALLER, SUMS
from source_server.services.files.releases import CURRENT
from source_server.web.http.access import services
from source_server.web.http.streams import streamed
from source_server.web.openapi import Caller, Raw, described

blueprint = Blueprint("releases", __name__)

LOOPBACK = ("127.0.0.1", "::1")
_HOST = re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")


@blueprint.get("/install.sh")
@described(
    Caller.ANYONE,
    answers={200: Raw(types=("text/x-shellscript",), says="The installer.")},
    refuses=(400, 404),
)
def install_script() -> Response:
    """The installer of the current release, which knows this server and the release key."""
    return _installer(CURRENT)


@blueprint.get("/releases/<version>/<name>")
@described(
    Caller.ANYONE,
    answers={
        200: Raw(types=("application/octet-stream", "text/plain", "text/x-shellscript"), says="The file."),
        206: Raw(types=("application/octet-stream", "text/plain"), says="The part that `Range` asks for."),
        304: None,
    },
    refuses=(400, 416),
    headers={"Range": "`bytes=N-` goes on behind N bytes.", "If-None-Match": "The `ETag` of what is there."},
)
def release_file(version: str, name: str) -> Response:
    """One file of a release; ranges and conditions are honoured."""
    if name == INSTALLER:
        return _installer(version)
    # The type is said, so that nobody guesses that a tar.gz is a tar in another encoding and unpacks it on the way.
    kind = "text/plain" if name == SUMS else "application/octet-stream"
    with ExitStack() as held:
        content = held.enter_context(services().releases.reading(version, name))
        found = os.fstat(content.fileno())
        answer = streamed(
            content,
            held,
            kind=kind,
            length=found.st_size,
            etag=f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}",
            modified=datetime.fromtimestamp(int(found.st_mtime), timezone.utc),
        )
        answer.headers["Cache-Control"] = "no-cache" if version == CURRENT else "public, max-age=3600"
        return answer


def _installer(version: str) -> Response:
    script = services().releases.get(version).installer(_public_url())
    # It names this very address: nobody in between may keep it for those who came by another.
    return Response(script, mimetype="text/x-shellscript", headers={"Cache-Control": "no-store"})


def _public_url() -> str:
    """Under which address the caller reaches this server. It goes into a shell script: nothing odd passes here."""
    told = services().public_url
    if told is not None:
        return told
    host = request.headers.get("Host", "")
    if not _HOST.fullmatch(host):
        raise BadInput("The request's Host is no host name or address, with or without a port.")
    return f"{_scheme()}://{host}"


def _scheme() -> str:
    """http or https; a front door on this machine may say which of them its caller used."""
    said = request.headers.get("X-Forwarded-Proto", "")
    if request.remote_addr in LOOPBACK and said in ("http", "https"):
        return said
    return "https" if request.scheme == "https" else "http"
