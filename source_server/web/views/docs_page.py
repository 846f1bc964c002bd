"""`GET /openapi.json`, and `GET /docs`: the same for people, by who calls, with an example of each call."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, render_template, request
from markupsafe import Markup, escape

from source_server.web.openapi import PATH, Caller, Entry, Key, Raw, described
from source_server.web.openapi_document import Route, document, routes

Json = dict[str, Any]
blueprint = Blueprint("docs", __name__, template_folder="templates")

DOCUMENT, PAGE = "openapi_document", "openapi_page"  #: made once in each process, at the first call

ABOUT = {
    Caller.SCIENTIST: "Show the key of a scientist's account; an admin's may do everything, and sees all.",
    Caller.VOLUNTEER: "Show the key of a volunteer's account.",
    Caller.CONTAINER: "Programs on volunteers' machines, with the key that registering gave them.",
    Caller.RECEIVER: "Other programs hand work in; each says itself what it shows in place of a key.",
    Caller.OPERATOR: "Show the key of an admin's account.",
    Caller.ANYONE: "No key is needed.",
    Caller.PAGE: "For people with a browser.",
}

KEYS = {
    Key.ACCOUNT: "account's key",
    Key.CONTAINER: "container's own key",
    Key.EITHER: "account's or container's key",
    Key.TICKET: "account's key, or a container's with a ticket",
    Key.SESSION: "account's key, or a page's session",
    Key.NONE: "no key",
}

# A page without a script needs nothing from anywhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, kw_only=True)
class Field:
    """A row of a table: one field of a message, or one parameter."""

    name: str
    kind: str
    needed: str
    says: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A status, and what comes with it."""

    status: str  #: or several, with commas
    says: str
    fields: list[Field]
    good: bool  #: no refusal


@dataclass(frozen=True, kw_only=True)
class Call:
    """One method at one address, as the page shows it."""

    id: str
    method: str
    path: str
    says: str
    key: str
    parameters: list[Field]
    body: list[Field]
    body_says: str
    answers: list[Answer]
    curl: str


@blueprint.app_template_filter("prose")
def prose(text: str) -> Markup:
    """A sentence with its `code`."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  # escaped before


@blueprint.app_template_filter("breakable")
def breakable(path: str) -> Markup:
    """An address that a narrow page may break before its slashes."""
    return Markup(str(escape(path)).replace("/", "<wbr>/"))  # noqa: S704  # escaped before


@blueprint.get("/openapi.json")
@described(
    Caller.ANYONE, answers={200: Raw(types=("application/json",), says="This document (OpenAPI 3.1).")}
)
def openapi() -> Response:
    """Everything that can be called, as an OpenAPI document."""
    made = current_app.extensions.setdefault(DOCUMENT, None) or document(current_app)
    current_app.extensions[DOCUMENT] = made
    return jsonify(made)


@blueprint.get("/docs")
@described(Caller.PAGE, answers={200: Raw(types=("text/html",), says="The page.")})
def docs() -> Response:
    """Everything that can be called, as a page for people."""
    page = current_app.extensions.get(PAGE) or _page()
    current_app.extensions[PAGE] = page
    text = render_template("docs.html", page=page, about=ABOUT, server=request.host_url.rstrip("/"))
    return Response(text, mimetype="text/html", headers={"Content-Security-Policy": POLICY})


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the page shows."""

    groups: dict[Caller, list[Call]]
    shapes: dict[str, tuple[str, list[Field]]]  #: name -> what it is, and its fields


def _page() -> Page:
    described = document(current_app)
    schemas = described["components"]["schemas"]
    shown = {
        name: (one.get("description", ""), _fields({"application/json": {"schema": one}}, described))
        for name, one in sorted(schemas.items())
        if one.get("properties")
    }
    return Page(groups=_groups(described), shapes=shown)


def _groups(described: Json) -> dict[Caller, list[Call]]:
    groups: dict[Caller, list[Call]] = {}
    for one in routes(current_app):
        operation = described["paths"][one.path][one.method.lower()]
        groups.setdefault(one.entry.caller, []).append(_call(one, operation, described))
    return groups


def _call(route: Route, operation: Json, described: Json) -> Call:
    body = operation.get("requestBody", {}).get("content", {})
    return Call(
        id=route.id,
        method=route.method,
        path=route.path,
        says=route.says,
        key=KEYS[route.entry.key],
        parameters=[
            Field(name=one["name"], kind=one["in"], needed="", says=one["description"])
            for one in operation["parameters"]
        ],
        body=_fields(body, described),
        body_says=route.entry.body.says if isinstance(route.entry.body, Raw) else "",
        answers=_answers(operation["responses"], described),
        curl=curl(route),
    )


def _answers(responses: Json, described: Json) -> list[Answer]:
    """One for each shape: 200 and 202 mostly say the same."""
    together: dict[str, list[str]] = {}
    for status, one in sorted(responses.items()):
        alike = json.dumps(one.get("content")) if status < "300" and "content" in one else status
        together.setdefault(alike, []).append(status)
    found = []
    for statuses in together.values():
        one, good = responses[statuses[0]], statuses[0] < "300"
        fields = _fields(one.get("content", {}), described) if good else []
        says = dict.fromkeys(responses[status]["description"] for status in statuses)
        found.append(Answer(status=", ".join(statuses), says=", ".join(says), fields=fields, good=good))
    return found


def _fields(content: Json, described: Json) -> list[Field]:
    schema = content.get("application/json", {}).get("schema", {})
    schema = _looked_up(schema, described)
    needed = schema.get("required", ())
    return [
        Field(
            name=name,
            kind=kind_in_words(one),
            needed="" if name in needed else _default(one),
            says=_looked_up(one, described).get("description", ""),
        )
        for name, one in schema.get("properties", {}).items()
    ]


def _looked_up(schema: Json, described: Json) -> Json:
    if "$ref" not in schema:
        return schema
    found: Json = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _default(schema: Json) -> str:
    told = schema.get("default")
    return (
        "optional"
        if told in (None, "", [], {}) or isinstance(told, dict)
        else f"{json.dumps(told)} unless said"
    )


def kind_in_words(schema: Json) -> str:
    """A JSON Schema as a few words."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(kind_in_words(one) for one in schema[choice]))
    if "enum" in schema:
        return " | ".join(json.dumps(one) for one in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if schema.get("type") == "array":
        return f"list of {kind_in_words(schema.get('items', {}))}"
    if schema.get("type") == "object" and "additionalProperties" in schema:
        inner = schema["additionalProperties"]
        return f"object of {kind_in_words(inner)}" if isinstance(inner, dict) else "object"
    return str(schema.get("format") or schema.get("type") or "anything")


def curl(route: Route) -> str:
    """A command line that makes such a call; $SERVER and $KEY are the reader's."""
    body = _body(route.entry)
    method = [] if route.method == ("POST" if body else "GET") else ["-X", route.method]
    words = ["curl", *method, *_shown(route.entry), *body]
    path = re.sub(r"{(\w+)}", lambda found: _sample(found[1]), route.path)
    return " ".join([*words, f'"$SERVER{path}"'])


def _shown(said: Entry) -> list[str]:
    if said.key is Key.NONE:
        return []
    return ["-H", '"Authorization: Bearer $KEY"']


def _body(said: Entry) -> list[str]:
    if isinstance(said.body, Raw):
        return ["-H", f'"Content-Type: {said.body.types[0]}"', "--data-binary", f"@{said.example or 'FILE'}"]
    if said.body is None or said.example is None:
        return []
    text = json.dumps(said.example, ensure_ascii=False).replace("'", r"'\''")
    return ["--json", f"'{text}'"]


def _sample(name: str) -> str:
    return PATH[name][1] if name in PATH else name.upper()
