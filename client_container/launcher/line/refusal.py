"""Why the launcher does not do what it was asked."""

from __future__ import annotations

from client_container.launcher.errors import LauncherError

#: Why a request can be refused.
CODES = (
    "bad_request",
    "not_allowed",
    "image_missing",
    "image_too_large",
    "archive_needed",
    "paused",
    "busy",
    "engine",
    "file_missing",
)


class Refusal(LauncherError):
    """The launcher will not do what was asked; `code` is for programs, the message for people."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence
