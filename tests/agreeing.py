"""Whether two texts are the same answer to a chunk."""

from __future__ import annotations

from source_server.domain.comparing import Tolerance


def same_json(one: str, other: str, *, relative: float, absolute: float) -> bool:
    """Whether two answers agree within this tolerance."""
    texts = {"one": one, "other": other}
    return bool(Tolerance(texts, relative=relative, absolute=absolute).same("one", "other"))
