"""`/openapi.json` and `/docs`: every route is in them. What the server takes and answers is held to the document by
every test that uses the app (documented.py)."""

from __future__ import annotations

import json
import shlex
from html.parser import HTMLParser
from typing import Any

import pytest
from documented import Documented
from openapi_spec_validator import OpenAPIV31SpecValidator

from source_server.app import create_app
from source_server.web.openapi import UNDESCRIBED
from source_server.web.openapi_document import routes
from source_server.web.views.docs_page import curl

pytestmark = pytest.mark.mongo


@pytest.fixture
def document(app: Any) -> Any:
    answer = app.test_client().get("/openapi.json")
    assert answer.status_code == 200
    return answer.get_json()


def test_the_document_is_valid_openapi(document: Any) -> None:
    assert document["openapi"].startswith("3.1")

    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_route_is_in_the_document_and_describes_itself(app: Any, document: Any) -> None:
    known = routes(app)
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}

    silent = [f"{one.method} {one.path}" for one in known if one.entry is UNDESCRIBED or not one.says]
    assert described == {(one.method, one.path) for one in known}
    assert len(described) > 30
    assert silent == [], "give these views a docstring and @described: see source_server/web/openapi.py"


def test_a_route_that_says_nothing_of_itself_is_found(stores: Any) -> None:
    app = create_app(stores, beat_s=20.0)
    app.add_url_rule("/new/<thing>", view_func=lambda thing: thing)

    silent = [one.path for one in routes(app) if one.entry is UNDESCRIBED]

    assert "/new/{thing}" in silent


def test_every_example_is_a_body_that_is_understood(app: Any) -> None:
    bodies = [one for one in routes(app) if isinstance(one.entry.body, type)]

    for one in bodies:
        if one.entry.optional_body:
            continue
        assert one.entry.example is not None, f"{one.method} {one.path} has no example"
        one.entry.body.model_validate_json(json.dumps(one.entry.example))
    assert len(bodies) > 10


def test_every_curl_line_is_one_command_for_its_address(app: Any) -> None:
    for one in routes(app):
        words = shlex.split(curl(one))

        assert words[0] == "curl" and words[-1].startswith("$SERVER/") and "{" not in words[-1], words


class Seen(HTMLParser):
    """What a page asks its reader's browser for, and the names it has."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.add(tag)
        self.ids += [named["id"] or ""] if "id" in named else []
        self.links += [named["href"] or ""] if "href" in named else []


def test_the_page_shows_every_call_and_needs_nothing_from_anywhere(app: Any) -> None:
    answer = app.test_client().get("/docs", headers={"Host": "server.example:8765"})
    page = Seen()
    page.feed(answer.text)

    assert answer.status_code == 200 and answer.mimetype == "text/html"
    assert {one.id for one in routes(app)} <= set(page.ids) and len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert {link for link in page.links if not link.startswith("#")} == {"/openapi.json"}
    assert not page.tags & {"script", "link", "img", "iframe", "object", "form"}
    assert "SERVER=http://server.example:8765" in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_host_that_is_none_does_not_get_into_the_page(app: Any) -> None:
    answer = app.test_client().get("/docs", headers={"Host": "<script>alert(1)</script>"})

    assert "<script" not in answer.text


def test_an_answer_that_the_document_does_not_know_is_noticed(stores: Any, scientist: Any) -> None:
    from source_server.web.answers import projects as answers

    app = create_app(stores, beat_s=20.0)
    listening = Documented(app)
    key = {"Authorization": f"Bearer {scientist.key}"}
    client = app.test_client()
    assert client.post("/projects", json={"name": "sums"}, headers=key).status_code == 201
    assert listening.complaints == []

    shown = answers.project
    answers.project = lambda one: {**shown(one), "share": "much", "secret": 1}  # type: ignore[assignment]
    try:
        client.get("/projects/sums", headers=key)
    finally:
        answers.project = shown
    client.put("/projects", headers=key)

    wrong = " ".join(listening.complaints)
    assert "'secret' was unexpected" in wrong and 'at /share: it is not of type "number"' in wrong
