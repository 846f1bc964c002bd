"""A job's `inputs`: files of the whole task, and files that each row names for itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from source_server.domain.blob import MOST_FILES, checked_sha256
from source_server.domain.file_names import TAKEN, BadName, require_together
from source_server.domain.job import BRACES, placeholders
from source_server.domain.refusal import BadInput

Pairs = Sequence[tuple[str, str]]  #: (name below /in, hash), both perhaps with {field} placeholders


def literals(inputs: Pairs) -> list[tuple[str, str]]:
    """(hash, name) of the files of the whole task."""
    return [(_filled(sha256, {}), _filled(name, {})) for name, sha256 in inputs if not _asks((name, sha256))]


def of_rows(inputs: Pairs) -> list[tuple[str, str]]:
    """Those of the pairs that a row has to complete."""
    return [pair for pair in inputs if _asks(pair)]


def require_inputs(inputs: Pairs) -> None:
    """Raises BadInput for names or hashes that could never be; those with placeholders are looked at row by row."""
    if len(inputs) > MOST_FILES:
        raise BadInput(f"A job has at most {MOST_FILES} inputs.")
    known = literals(inputs)
    try:
        require_together([name for _, name in known], taken=(TAKEN,))
        for sha256, _ in known:
            checked_sha256(sha256)
    except BadName as error:
        raise BadInput(f"inputs: {error}.") from error


def resolved(inputs: Pairs, row: Mapping[str, Any], *, line: int) -> list[tuple[str, str]]:
    """(name, hash) of the files that this row names; raises BadInput naming its line."""
    own = [(_filled(name, row), _filled(sha256, row)) for name, sha256 in of_rows(inputs)]
    try:
        require_together([name for _, name in literals(inputs)] + [name for name, _ in own], taken=(TAKEN,))
        for _, sha256 in own:
            checked_sha256(sha256)
    except (BadName, BadInput) as error:
        raise BadInput(f"Line {line}: {str(error).rstrip('.')}.") from error
    return own


def _asks(pair: tuple[str, str]) -> bool:
    return bool(placeholders(pair))


def _filled(text: str, row: Mapping[str, Any]) -> str:
    """The text with the row's fields in it, as the client fills an action: text as it is, other values as JSON."""

    def value(match: Any) -> str:
        if match[1] is None:
            return str(match[0][0])
        found = row[match[1]]
        return found if isinstance(found, str) else json.dumps(found)

    return BRACES.sub(value, text)
