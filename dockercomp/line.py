"""The line to a source server: one call, its answer as JSON or as a stream, and what can go wrong in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import requests

from dockercomp.failures import Refused, ServerUnavailable

CONNECT_S = 5.0
READ_S = 120.0
SEND_S = 120.0  #: longest stall while a body is sent: the server may be busy with what came before


class Line:
    """Calls a source server with an account's key. Raises ServerUnavailable or Refused."""

    def __init__(
        self, address: str, key: str, *, warned: Callable[[str], None] = lambda sentence: None
    ) -> None:
        self.address = address.rstrip("/")
        self._warned = warned
        self._http = requests.Session()
        self._http.headers["Authorization"] = f"Bearer {key}"

    def _call(self, method: str, path: str, **rest: Any) -> Any:
        with self._request(method, path, **rest) as answer:
            try:
                said = answer.json()
            except ValueError as error:
                raise ServerUnavailable(f"{self.address} does not answer like a source server.") from error
        for sentence in said.get("warnings", ()) if isinstance(said, dict) else ():
            self._warned(str(sentence))
        return said

    def _request(self, method: str, path: str, **rest: Any) -> requests.Response:
        # The first of the two also bounds each wait while a body is sent.
        timeout = (SEND_S if rest.get("data") else CONNECT_S, READ_S)
        try:
            answer = self._http.request(method, self.address + path, timeout=timeout, **rest)
        except requests.RequestException as error:
            raise ServerUnavailable(silence(self.address, error)) from error
        if answer.status_code in (408, 429, 502, 503, 504):
            raise ServerUnavailable(f"{_sentence(answer)} (The source server says: not now.)")
        if answer.status_code >= 400:
            raise Refused(answer.status_code, _sentence(answer))
        return answer


def silence(address: str, error: requests.RequestException) -> str:
    """Why there was no answer, in a sentence."""
    if isinstance(error, requests.exceptions.SSLError):
        return (
            f"The source server at {address} cannot be trusted, or does not speak TLS: {_innermost(error)}."
        )
    return f"The source server at {address} does not answer."


def part(name: str) -> str:
    """A name as one part of an address."""
    return quote(name, safe="")


def _innermost(error: BaseException) -> str:
    """What the library that met the error said, without those through whose hands it went."""
    reason = getattr(error.args[0] if error.args else None, "reason", error)
    return str(reason.args[-1] if getattr(reason, "args", ()) else reason)


def _sentence(answer: requests.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"The source server answered {answer.status_code}."
