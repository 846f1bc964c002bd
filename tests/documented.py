"""Every request and answer of an app is held to its own `/openapi.json`, whatever test makes them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import jsonschema_rs
from flask import Flask, Response, request

from source_server.web.openapi_document import document

CHOICE = re.compile(r"<any\([^)]*\):(\w+)>")
PARAMETER = re.compile(r"<(?:[^<>]*:)?(\w+)>")


class Documented:
    """Listens to an app; `complaints` are what it does and its document does not say, each once."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self.complaints: list[str] = []
        self.seen: set[tuple[str, str, int]] = set()
        app.after_request(self._look)

    def _look(self, answer: Response) -> Response:
        if request.url_rule is None or request.method in ("HEAD", "OPTIONS") or answer.status_code == 500:
            return answer
        rule = CHOICE.sub(lambda found: (request.view_args or {})[found[1]], request.url_rule.rule)
        path = PARAMETER.sub(r"{\1}", rule)
        if request.url_rule.endpoint == "static":
            return answer
        self.seen.add((request.method, path, answer.status_code))
        for said in self._wrong(request.method, path, answer):
            sentence = f"{request.method} {path}, {answer.status_code}: {said}"
            if sentence not in self.complaints:
                self.complaints.append(sentence)
        return answer

    def _wrong(self, method: str, path: str, answer: Response) -> list[str]:
        described = _described(self._app)
        operation = described["paths"].get(path, {}).get(method.lower())
        if operation is None:
            return ["not in the document"]
        told = operation["responses"].get(str(answer.status_code))
        if told is None:
            return ["this status is not in the document"]
        wrong = _misfit(self._app, told.get("content", {}), answer.mimetype, _json_of(answer), "answer")
        if answer.status_code < 300 and request.is_json and request.get_data():
            asked = operation.get("requestBody", {}).get("content", {})
            wrong += _misfit(self._app, asked, "application/json", request.get_json(), "request")
        return wrong


def _json_of(answer: Response) -> Any:
    return answer.get_json() if answer.mimetype == "application/json" and not answer.is_streamed else None


def _misfit(app: Flask, content: Any, kind: str, value: Any, what: str) -> list[str]:
    if not content and value is None:
        return []
    schema = content.get(kind, {}).get("schema")
    if schema is None:
        return [] if kind in content or "*/*" in content else [f"an {what} of type {kind}"]
    if "$ref" not in schema:
        return []
    validator = _validator(id(_described(app)), schema["$ref"])
    return [
        f"the {what} at /{'/'.join(map(str, error.instance_path))}: {error.message[:300]}"
        for error in validator.iter_errors(value)
    ]


_documents: dict[frozenset[str], Any] = {}
_of_rules: dict[tuple[int, int], tuple[Any, Any]] = {}  #: a map of routes, and the document of an app with it
_by_id: dict[int, Any] = {}


def _described(app: Flask) -> Any:
    place = id(app.url_map), len(app.url_map._rules)
    if place not in _of_rules or _of_rules[place][0] is not app.url_map:
        rules = frozenset(f"{rule.rule} {rule.endpoint}" for rule in app.url_map.iter_rules())
        if rules not in _documents:
            made = _documents[rules] = document(app)
            _by_id[id(made)] = made
        _of_rules[place] = app.url_map, _documents[rules]
    return _of_rules[place][1]


@lru_cache(maxsize=1000)
def _validator(described: int, reference: str) -> Any:
    whole = {"$ref": reference, "components": _by_id[described]["components"]}
    return jsonschema_rs.Draft202012Validator(whole, mask="it")
