"""What one of many stumbles over must hold up none of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from source_server.domain.refusal import Unavailable

log = logging.getLogger(__name__)

One = TypeVar("One")


@contextmanager
def alone(event: str, **about: str) -> Iterator[None]:
    """What goes wrong in the block is logged as this event, and the block left; only Unavailable goes on, for it is
    the same with all the others."""
    try:
        yield
    except Unavailable:
        raise
    except Exception:
        log.exception(event, extra=about)


def together(event: str, step: Callable[[Sequence[One]], int], items: Sequence[One]) -> int:
    """Take the step for all at once; where that fails, for each alone. The sum of what it answers."""
    try:
        return step(items)
    except Unavailable:
        raise
    except Exception:
        if len(items) <= 1:
            log.exception(event, extra={"item": str(*items)})
            return 0
    return sum(together(event, step, [one]) for one in items)
