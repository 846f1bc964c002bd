"""What is not as it should be: a sentence by subject, there as long as the problem lasts, logged when it begins."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator

from client_container.launcher.errors import LauncherError

log = logging.getLogger(__name__)


class Problems:
    """The problems of one service. Written by one thread, read by any."""

    def __init__(self) -> None:
        self._sentences: dict[str, str] = {}

    def now(self) -> dict[str, str]:
        """All of them, by subject."""
        return dict(self._sentences)

    def find(self, subject: str) -> str | None:
        """The sentence about a subject, if there is a problem with it."""
        return self._sentences.get(subject)

    def note(self, subject: str, sentence: str | None) -> None:
        """There is a problem with the subject; or, with None, there is none any more."""
        if sentence is None:
            self._sentences.pop(subject, None)
        elif self._sentences.get(subject) != sentence:
            self._sentences[subject] = sentence
            log.warning("problem", extra={"subject": subject, "why": sentence})

    @contextlib.contextmanager
    def noting(
        self, subject: str, kind: type[Exception], *, apart_from: type[Exception] | None = None
    ) -> Iterator[None]:
        """Turn an error into a problem; without one the problem is over."""
        try:
            yield
        except kind as error:
            if apart_from is not None and isinstance(error, apart_from):
                raise
            self.note(subject, str(error))
        else:
            self.note(subject, None)


@contextlib.contextmanager
def saying(what: str) -> Iterator[None]:
    """At the end everything is tried, whatever fails."""
    try:
        yield
    except (LauncherError, OSError, sqlite3.Error) as error:
        log.error("not ended well", extra={"what": what, "why": str(error)})
