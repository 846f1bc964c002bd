"""Why the launcher does not do what it was asked."""

from __future__ import annotations

from client_container.launcher.errors import LauncherError


class Refusal(LauncherError):
    """The launcher will not do what was asked; `code` is for programs, the message for people.

    Codes are bad_request, not_allowed, image_missing, image_too_large, archive_needed, paused, busy, engine and
    file_missing. A launcher of another release may have more: whoever reads one does not take this list for complete.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence
