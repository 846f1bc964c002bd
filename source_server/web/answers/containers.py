"""Client containers as JSON, with the names that docs/reference gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from source_server.domain.container import Container
from source_server.domain.timing import instant

Json = dict[str, Any]


def container(one: Container, pseudonyms: Mapping[str, str], *, own: bool) -> Json:
    """A container's record; the host's name is its owner's and the operator's to see."""
    return {
        "id": one.id,
        "host": {"id": one.host.id, "name": one.host.name} if own else {"id": one.host.id},
        "account": pseudonyms.get(one.account),
        "state": one.state.value,
        "life": one.life,
        "registered": instant(one.registered),
        "last_seen": instant(one.last_seen),
        "labels": dict(one.labels),
        "resources": dict(one.resources),
        "runtimes": list(one.runtimes),
        "image": one.image,
        "features": list(one.features),
        "policy": {
            "projects": None if one.projects is None else list(one.projects),
            "shares": dict(one.shares),
        },
        "self_test": one.self_test,
        "cannot": dict(one.cannot),
        "beat": one.beat,
        "held": sum(one.held.values()),
        "paused": one.paused,
        "trusted": one.trusted,
        "built_in": one.built_in,
    }
