"""Whatever comes over HTTP: an answer that the document knows, never a mistake of the server, and nothing stored over
which housekeeping or a reader stumbles later.

The ordinary run makes the same few messages each time. A longer one makes others: FUZZ_EXAMPLES=2000 pytest THIS_FILE.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from calculating import enable
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from odd_messages import TEXTS, bodies
from people import Person

pytestmark = pytest.mark.mongo

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
SHAPE = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
SHA256 = "5f" * 32

JSON = "application/json"
KINDS = ("text/csv", "application/jsonl", JSON, "application/zip", "application/x-tar", "text/html", "x")
PIECES = (b"a,b", b"1,2", b'"', b'{"a": 1}', b'{"a": [', b"\0", b"\xff", b"", b"\x1f\x8b", b"PK\x03\x04")
CONTENTS = st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(PIECES), max_size=6).map(b"\n".join))
LATIN = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)
SHORT = st.one_of(st.sampled_from([one for one in TEXTS if len(one) < 4000]), st.text(max_size=30))

#: Bodies with more in them than the documents' examples.
RICH: dict[str, Any] = {
    "post /projects/{project}/tasks": {
        "id": "t-1",
        "name": "n",
        "action": ["/bin/echo", "{a}"],
        "env": {"A": "x"},
        "timeout_s": 30,
        "cpus": 0.5,
        "memory_mb": 64,
        "disk_mb": 10,
        "requires": {"os": ["linux"], "memory_mb": {"at_least": 1}},
        "outputs": ["*.txt", "**/b?"],
        "result": {"type": "json", "schema": SHAPE},
        "rows_per_chunk": 1,
        "after": {"action": ["/bin/echo", "{outcome}"]},
        "after_tasks": ["t-0"],
        "max_failed": 1,
        "priority": 1,
        "validation": {"quorum": 2, "replicas": 3, "comparator": {"kind": "json", "relative": 1e-9}},
        "limits": {"cpu_hours": 2, "stop_when": {"answers": 2, "match": {"field": "a", "at_least": 1}}},
        "notify": [{"webhook": "https://example.org/x?y=1"}, {"email": "ada@example.org"}],
    },
    "patch /tasks/{task_id}": {"limits": {"until": "2026-11-22T06:00:00Z"}, "notify": [{"email": "a@b.org"}]},
    "post /projects/{project}/receivers": {
        "kind": "schedule",
        "cron": "0 5 * * mon-fri",
        "timezone": "Europe/Berlin",
        "template": {"action": ["/bin/echo", "{a}"]},
        "rows": [{"a": 1}],
    },
    "post /projects/{project}/runs": {
        "file": "dockercomp: 1\nmain:\n  action: [/bin/echo, '{a}']\ndata:\n  rows:\n    - {a: 1}\n",
        "id": "r-1",
        "files": {"a/b.csv": SHA256},
        "tree": SHA256,
    },
    "post /containers": {
        "protocol": 1,
        "id": "0786b00e-7843-49fd-8aa9-25242fdfbfe5",
        "labels": {"arch": "x86_64", "n": 5},
        "host": {"id": "0786b00e-7843-49fd-8aa9-25242fdfbfe6", "name": "attic"},
        "resources": {"cpus": 4},
        "runtimes": ["process"],
        "policy": {"projects": ["sums"], "shares": {"sums": 2}},
    },
}


@dataclass(frozen=True)
class Call:
    """One method at one address, and what the document says of it."""

    stage: Stage
    method: str
    path: str
    operation: dict[str, Any]

    @property
    def shape(self) -> str | None:
        """A reference to the shape of its body, if that is JSON."""
        content = self.operation.get("requestBody", {}).get("content", {})
        found = content.get("application/json", {}).get("schema", {}).get("$ref")
        return None if found is None else str(found)

    def asked(self, where: str) -> list[str]:
        """Its parameters in the query, or in headers."""
        return [one["name"] for one in self.operation["parameters"] if one["in"] == where]

    def where(self, value: Callable[[str], str] | None = None) -> str:
        """The address, with parameters that are there."""
        first, *rest = self.path.split("{")
        filled = value or (lambda name: self.stage.real(name, self.method))
        return first + "".join(quote(filled(one.split("}")[0]), safe="") + one.split("}")[1] for one in rest)

    def open(self, where: str, *, headers: dict[str, str] | None = None, **rest: Any) -> None:
        """Do it; whatever comes of it must be sound."""
        shown = {"Authorization": f"Bearer {self.stage.caller(self.operation, self.path)}", **(headers or {})}
        answer = self.stage.client.open(where, method=self.method.upper(), headers=shown, **rest)
        require_sound(answer, f"{self.method.upper()} {where} {headers or ''} {rest!r}"[:3000])


class Stage:
    """A server with a bit of everything, and who may call it how."""

    def __init__(
        self, app: Any, stores: Any, scientist: Any, admin: Person, volunteer: Callable[..., Any]
    ) -> None:
        self.app, self.stores, self.scientist, self.admin = app, stores, scientist, admin
        self.client = app.test_client()
        self.volunteer = volunteer()
        enable(stores)
        self.task = scientist.running(200, id="real")
        self.open_task = scientist.ok(
            "POST", "/projects/sums/tasks", {"action": ["/bin/cat"], "open_ended": True}
        )["id"]
        scientist.ok("POST", f"/tasks/{self.open_task}/start")
        ways = [scientist.ok("POST", "/projects/sums/receivers", one) for one in self._receivers()]
        self.ways = {one["kind"]: one for one in ways}
        (chunk,) = self.volunteer.claim(1)
        self.add = {"results": [self.volunteer.attempt(chunk), self.volunteer.failure(chunk)]}
        self.document = self.client.get("/openapi.json").get_json()

    def _receivers(self) -> Iterator[dict[str, Any]]:
        template = {"action": ["/bin/echo", "{a}"]}
        yield {"kind": "http", "template": template}
        yield {"kind": "upload", "template": template, "chunking": {"rows": 1}}

    def caller(self, operation: dict[str, Any], path: str) -> str:
        """The key that such a call shows."""
        if path.startswith("/in/"):
            return str(self.ways["upload" if "put" in operation["operationId"] else "http"]["secret"])
        if path == "/containers" and "post" in operation["operationId"]:
            return str(self.volunteer.account_key)
        tag = operation["tags"][0]
        keys = {
            "Client containers": self.volunteer.key,
            "Operators": self.admin.key,
            "Volunteers": self.admin.key,
        }
        return str(keys.get(tag, self.scientist.key))

    def real(self, name: str, method: str) -> str:
        """A parameter of a path that is there."""
        return {
            "project": "sums",
            "task_id": self.task,
            "chunk_id": f"{self.task}.0",
            "sha256": SHA256,
            "receiver_id": self.ways["upload" if method == "put" else "http"]["id"],
            "container_id": self.volunteer.id,
        }.get(name, "x")

    def example(self, method: str, path: str, shown: Any) -> Any:
        """A good body for such a call."""
        live = {
            "post /add": self.add,
            "post /next": {"token": "0786b00e-7843-49fd-8aa9-25242fdfbfe5", "want": 1, **self.add},
            "post /heartbeat": {
                "life": self.volunteer.life,
                "beat": 5,
                "held": {},
                "cannot": {"disk": "full"},
            },
        }
        where = f"{method} {path}"
        return live.get(where) or RICH.get(where) or shown

    def calls(self) -> Iterator[Call]:
        """All that the document has."""
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                yield Call(self, method, path, operation)


@pytest.fixture
def stage(app: Any, stores: Any, scientist: Any, admin: Person, volunteer: Callable[..., Any]) -> Stage:
    return Stage(app, stores, scientist, admin, volunteer)


def each(examples: int, made: st.SearchStrategy[Any], once: Callable[[Any], None]) -> None:
    """Do it with so many of what is made."""

    @settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
        suppress_health_check=list(HealthCheck),
    )
    @given(made)
    def doing(value: Any) -> None:
        once(value)

    doing()


def require_sound(answer: Any, what: str) -> None:
    """No mistake of the server, and a refusal is one sentence."""
    assert answer.status_code < 500, f"{what}: {answer.status_code} {answer.text[:300]}"
    if answer.status_code < 400 or answer.mimetype == "text/html":
        return
    said = answer.get_json(silent=True)
    assert isinstance(said, dict) and isinstance(said.get("error"), str), f"{what}: {answer.text[:300]}"
    sentence = said["error"]
    assert sentence.strip() and len(sentence) < 3_000, f"{what}: {sentence[:300]} of {len(sentence)}"
    assert "Traceback" not in sentence and "\n" not in sentence, f"{what}: {sentence}"


STEPS = (
    *("leases", "unlisted", "verdicts", "tasks", "dependencies", "deals", "rounds", "schedules", "events"),
    *("slow_events", "reactions", "limits", "notices", "removals", "calculations", "blobs"),
)


def test_no_body_makes_the_server_stumble(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    from source_server.housekeeping import Housekeeper
    from source_server.web.openapi_document import routes

    shown = {(one.method.lower(), one.path): one.entry.example for one in routes(stage.app)}
    for call in stage.calls():
        if call.shape is not None:
            example = stage.example(call.method, call.path, shown[call.method, call.path])
            made = bodies(stage.document, call.shape, example)
            each(16, made, lambda body, call=call: call.open(call.where(), data=body, content_type=JSON))  # type: ignore[misc]

    keeper = Housekeeper(stage.stores, beat_s=20.0)
    for step in STEPS:
        getattr(keeper, step)()
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []


def test_no_address_and_no_question_makes_the_server_stumble(stage: Stage) -> None:
    def ask(call: Call, data: Any) -> None:
        def part(name: str) -> str:
            odd = data.draw(SHORT).encode("utf-8", "replace").decode()
            return stage.real(name, "get") if asked and data.draw(st.booleans()) else str(odd)

        asked = call.asked("query")
        query = {name: data.draw(SHORT) for name in asked if data.draw(st.booleans())}
        text = "&".join(
            f"{name}={quote(value.encode('utf-8', 'surrogatepass'))}" for name, value in query.items()
        )
        call.open(f"{call.where(part)}?{text}")

    for call in stage.calls():
        if call.method == "get" and ("{" in call.path or call.asked("query")):
            each(8, st.data(), lambda data, call=call: ask(call, data))  # type: ignore[misc]


def test_no_content_and_no_header_makes_the_server_stumble(stage: Stage) -> None:
    def send(call: Call, data: Any) -> None:
        names = ("Origin", "Cookie", "Content-Encoding", *call.asked("header"))
        odd = {name: data.draw(LATIN) for name in names if data.draw(st.booleans())}
        body, kind = data.draw(CONTENTS), data.draw(st.sampled_from(KINDS))
        call.open(call.where(), headers=odd, data=body, content_type=kind)

    for call in stage.calls():
        if "requestBody" in call.operation and call.shape is None:
            each(10, st.data(), lambda data, call=call: send(call, data))  # type: ignore[misc]
