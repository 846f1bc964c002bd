"""Programs for others' machines: the hook of a bare git repository."""

from __future__ import annotations

import re
from pathlib import Path

from dockercomp.failures import DockercompError


class AddressUnfit(DockercompError):
    """An address or an id that cannot be written into a shell script."""


def post_receive(server: str, receiver: str) -> str:
    """The text of hooks/post-receive of a bare repository, for this server and receiver; no secret is in it."""
    if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._/-]*)?", server):
        raise AddressUnfit(f"The server's address must be like https://server.example, not {server!r}.")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", receiver):
        raise AddressUnfit(f"{receiver!r} is no receiver's id; list them with: dockercomp receiver list")
    script = (Path(__file__).parent / "post-receive.sh").read_text()
    return script.replace("@SERVER@", server.rstrip("/")).replace("@RECEIVER@", receiver)
