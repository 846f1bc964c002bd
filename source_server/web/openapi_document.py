"""The OpenAPI document of an app: its routes, with what their views say of themselves."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema
from werkzeug.routing import Rule

from source_server.web.openapi import PATH, UNDESCRIBED, Body, Caller, Entry, Key, Raw, entry_of
from source_server.web.shapes import base as shapes
from source_server.web.wire import Matching

Json = dict[str, Any]
OPENAPI = "3.1.0"
SKIPPED = ("static",)  #: routes of the framework itself
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MODE: JsonSchemaMode = "validation"

ABOUT = (
    "What a source server takes and answers. Bodies are JSON in UTF-8; instants are UTC; durations are seconds. "
    'Every refusal is `{"error": "one sentence"}`.'
)

SCHEMES: Json = {
    Key.ACCOUNT.value: {"type": "http", "scheme": "bearer", "description": "An account's key."},
    Key.CONTAINER.value: {
        "type": "http",
        "scheme": "bearer",
        "description": "A client container's own key, which registering answers with.",
    },
    Key.TICKET.value: {
        "type": "apiKey",
        "in": "header",
        "name": "Dockercomp-Ticket",
        "description": "`CHUNK RUN TOKEN TICKET` of a chunk that the calling container was given.",
    },
    Key.SESSION.value: {
        "type": "apiKey",
        "in": "cookie",
        "name": "dockercomp_session",
        "description": "Of a page that somebody signed in to; what changes something needs its CSRF token besides.",
    },
}

SECURITY: dict[Key, list[Json]] = {
    Key.ACCOUNT: [{Key.ACCOUNT.value: []}],
    Key.CONTAINER: [{Key.CONTAINER.value: []}],
    Key.EITHER: [{Key.ACCOUNT.value: []}, {Key.CONTAINER.value: []}],
    Key.TICKET: [{Key.ACCOUNT.value: []}, {Key.CONTAINER.value: [], Key.TICKET.value: []}],
    Key.SESSION: [{Key.ACCOUNT.value: []}, {Key.SESSION.value: []}],
    Key.NONE: [],
}

REFUSALS = {
    400: "The message is wrong; the sentence names the field or the line.",
    401: "No key, or one that is not known (any more).",
    403: "Not for this account, or not with this ticket.",
    404: "There is no such thing (of yours).",
    408: "The request broke off before its end; send it again.",
    409: "Not in this state.",
    410: "The container's life has ended: register again.",
    413: "The body is too large.",
    415: "Not of a type that is understood.",
    416: "There is no such part of it.",
    422: "It cannot be done as asked.",
    426: "Another protocol than this server's.",
    429: "Too many of them: wait for `Retry-After` seconds.",
    503: "The database does not answer: send the same again after `Retry-After` seconds.",
}

_PARAMETER = re.compile(r"<(?:(?P<kind>\w+)(?:\((?P<choice>[^)]*)\))?:)?(?P<name>\w+)>")


@dataclass(frozen=True, kw_only=True)
class Route:
    """One method at one address."""

    method: str
    path: str  #: with {parameters}
    parameters: tuple[str, ...]
    id: str  #: unique
    says: str  #: the view's docstring
    entry: Entry


def routes(app: Flask) -> list[Route]:
    """Every route, by group and address."""
    found = [
        one
        for rule in app.url_map.iter_rules()
        if rule.endpoint.rpartition(".")[2] not in SKIPPED
        for one in _of_rule(app, rule)
    ]
    order = list(Caller)
    return sorted(found, key=lambda one: (order.index(one.entry.caller), one.path, METHODS.index(one.method)))


def document(app: Flask) -> Json:
    """The OpenAPI document as plain values."""
    known = routes(app)
    references, schemas = _schemas(known)
    paths: dict[str, Json] = {}
    for one in sorted(known, key=lambda one: one.path):
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, references)
    return {
        "openapi": OPENAPI,
        "info": {"title": "dockercomp source server", "version": version("dockercomp"), "description": ABOUT},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": SCHEMES},
        "tags": [{"name": name} for name in dict.fromkeys(one.entry.caller.value for one in known)],
    }


def _of_rule(app: Flask, rule: Rule) -> Iterator[Route]:
    view = app.view_functions[rule.endpoint]
    said = entry_of(view) or UNDESCRIBED
    for method in METHODS:
        if method not in (rule.methods or ()):
            continue
        for path in _paths(rule.rule):
            yield Route(
                method=method,
                path=path,
                parameters=tuple(re.findall(r"{(\w+)}", path)),
                id="-".join([method.lower(), *re.findall(r"[A-Za-z0-9._]+", path)]),
                says=" ".join((view.__doc__ or "").split()),
                entry=said,
            )


def _paths(rule: str) -> Iterator[str]:
    """The addresses of a rule, one for each word of its choices: a choice is no parameter to those who call."""
    found = list(_PARAMETER.finditer(rule))
    choices = [
        [word.strip(" '\"") for word in one["choice"].split(",")]
        if one["kind"] == "any"
        else [f"{{{one['name']}}}"]
        for one in found
    ]
    for words in itertools.product(*choices):
        left = iter(words)
        yield _PARAMETER.sub(lambda _: next(left), rule)  # noqa: B023  # used up within this round


# --- schemas


class _Schemas(GenerateJsonSchema):
    """Says the patterns of our own validators too."""

    def function_after_schema(self, schema: core_schema.AfterValidatorFunctionSchema) -> JsonSchemaValue:
        said = super().function_after_schema(schema)
        check = schema["function"]["function"]
        return {**said, "pattern": f"^(?:{check.pattern})$"} if isinstance(check, Matching) else said


def _schemas(known: Iterable[Route]) -> tuple[Mapping[type[BaseModel], Json], Json]:
    """A reference to each message's shape, and the shapes by name."""
    models: dict[type[BaseModel], None] = {shapes.Error: None}
    for one in known:
        for body in (one.entry.body, *one.entry.answers.values()):
            if isinstance(body, type):
                models[body] = None
    references, definitions = models_json_schema(
        [(model, MODE) for model in models],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schemas,
    )
    return {model: references[model, MODE] for model in models}, definitions.get("$defs", {})


# --- operations


def _operation(route: Route, references: Mapping[type[BaseModel], Json]) -> Json:
    said = route.entry
    operation: Json = {
        "operationId": route.id,
        "tags": [said.caller.value],
        "summary": route.says,
        "security": SECURITY[said.key],
        "parameters": list(_parameters(route)),
        "responses": _responses(route, references),
    }
    if said.body is not None:
        operation["requestBody"] = {
            "required": not said.optional_body,
            "content": _content(said.body, references),
        }
    return operation


def _parameters(route: Route) -> Iterator[Json]:
    for name in route.parameters:
        says = PATH[name][0] if name in PATH else ""
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "description": says,
        }
    for name, told in route.entry.query.items():
        says, schema = (told, {"type": "string"}) if isinstance(told, str) else told
        yield {"name": name, "in": "query", "schema": schema, "description": says}
    for name, says in route.entry.headers.items():
        yield {"name": name, "in": "header", "schema": {"type": "string"}, "description": says}


def _responses(route: Route, references: Mapping[type[BaseModel], Json]) -> Json:
    responses: Json = {}
    for status, body in route.entry.answers.items():
        answer: Json = {"description": body.says if isinstance(body, Raw) else HTTPStatus(status).phrase}
        if body is not None:
            answer["content"] = _content(body, references)
        if route.entry.answer_headers:
            answer["headers"] = {
                name: {"schema": {"type": "string"}, "description": says}
                for name, says in route.entry.answer_headers.items()
            }
        responses[str(status)] = answer
    for status in refusals(route):
        # A status that is among the answers too says more than a sentence; refused, it has the sentence at least.
        if str(status) not in responses:
            content = {"application/json": {"schema": references[shapes.Error]}}
            responses[str(status)] = {"description": REFUSALS[status], "content": content}
    return responses


def refusals(route: Route) -> list[int]:
    """The statuses with which such a call can be refused."""
    said = route.entry
    found = {503, *said.refuses}
    if said.key is not Key.NONE:
        found |= {401, 403}
    if route.parameters:
        found |= {404}
    if said.body is not None or said.query:
        found |= {400}
    if said.body is not None:
        found |= {408, 413}
    return sorted(found)


def _content(body: Body, references: Mapping[type[BaseModel], Json]) -> Json:
    if isinstance(body, Raw):
        return {kind: {"schema": {"type": "string"}} for kind in body.types}
    return {"application/json": {"schema": references[body]}}
