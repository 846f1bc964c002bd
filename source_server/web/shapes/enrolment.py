"""The shape of the answer to a newcomer."""

from __future__ import annotations

from source_server.web.shapes.base import Said


class Enrolled(Said):
    """A newcomer's account; its key is shown this once."""

    account: str
    key: str
