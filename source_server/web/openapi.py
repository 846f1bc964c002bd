"""What every route takes and answers, said at the route itself; `/openapi.json` and `/docs` are made of it.

Each view is described, below its route:

    @blueprint.post("/projects/<project>/tasks")
    @described(Caller.SCIENTIST, body=wishes.TaskBody, answers={201: shapes.MadeTask}, refuses=(409,),
           example={"action": ["/bin/echo", "{a}"]})
    def add_task(project: str) -> tuple[Response, int]:
        "Make a waiting task."

All else is derived: path and methods from the route, its parameters from their names (PATH says what they are), the
summary from the docstring's first sentence, the request from the pydantic model that also checks it, and the refusals
that every such call can meet. `answers` are pydantic models of web/shapes, `Raw` for what is no JSON, or None for
no body. A route that is not described fails tests/integration/test_openapi.py, as does an answer of another shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from pydantic import BaseModel

View = TypeVar("View", bound=Callable[..., Any])


class Caller(Enum):
    """Who calls a route; the groups of `/docs`, with the key that is shown."""

    SCIENTIST = "Scientists"
    VOLUNTEER = "Volunteers"
    CONTAINER = "Client containers"
    RECEIVER = "Receivers"
    OPERATOR = "Operators"
    ANYONE = "Anyone"
    PAGE = "Pages"


class Key(Enum):
    """What a caller shows; also the name of a security scheme."""

    ACCOUNT = "accountKey"
    CONTAINER = "containerKey"
    EITHER = "either"
    TICKET = "ticket"  #: an account's key, or a container's with a ticket
    SESSION = "session"  #: an account's key, or a page's session
    NONE = "none"


KEY_OF = {
    Caller.SCIENTIST: Key.ACCOUNT,
    Caller.VOLUNTEER: Key.ACCOUNT,
    Caller.OPERATOR: Key.ACCOUNT,
    Caller.CONTAINER: Key.CONTAINER,
    Caller.RECEIVER: Key.NONE,
    Caller.ANYONE: Key.NONE,
    Caller.PAGE: Key.NONE,
}


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A body that is no JSON: its media types, and what is in it."""

    types: tuple[str, ...]
    says: str


Body = type[BaseModel] | Raw


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a route's view says about itself."""

    caller: Caller
    key: Key
    body: Body | None
    optional_body: bool  #: an empty body is as good
    answers: Mapping[int, Body | None]
    refuses: tuple[int, ...]  #: besides those that follow from key, body and path
    query: Mapping[str, str | tuple[str, dict[str, Any]]]  #: name -> sentence, or (sentence, JSON Schema)
    headers: Mapping[str, str]  #: of the request: name -> sentence
    answer_headers: Mapping[str, str]
    example: Any  #: a body for the curl line; of a Raw one the name of a file


def described(
    caller: Caller,
    *,
    answers: Mapping[int, Body | None],
    key: Key | None = None,
    body: Body | None = None,
    optional_body: bool = False,
    refuses: tuple[int, ...] = (),
    query: Mapping[str, str | tuple[str, dict[str, Any]]] | None = None,
    headers: Mapping[str, str] | None = None,
    answer_headers: Mapping[str, str] | None = None,
    example: Any = None,
) -> Callable[[View], View]:
    """Say what a view takes and answers; the view itself stays as it is."""
    said = Entry(
        caller=caller,
        key=KEY_OF[caller] if key is None else key,
        body=body,
        optional_body=optional_body,
        answers=answers,
        refuses=refuses,
        query=query or {},
        headers=headers or {},
        answer_headers=answer_headers or {},
        example=example,
    )

    def note(view: View) -> View:
        view.__dict__[ATTRIBUTE] = said
        return view

    return note


ATTRIBUTE = "openapi_entry"

#: A route whose view says nothing is in the document all the same, and fails the tests.
UNDESCRIBED = Entry(
    caller=Caller.ANYONE,
    key=Key.NONE,
    body=None,
    optional_body=True,
    answers={200: Raw(types=("*/*",), says="Not described.")},
    refuses=(),
    query={},
    headers={},
    answer_headers={},
    example=None,
)


def entry_of(view: Callable[..., Any]) -> Entry | None:
    """What the view says about itself, or None."""
    found: Entry | None = getattr(view, ATTRIBUTE, None)
    return found


#: What the parameters of paths are, and one of each for the examples. A converter's choice (any(...)) needs no line.
PATH: dict[str, tuple[str, str]] = {
    "project": ("A project's name.", "sums"),
    "task_id": ("A task's id.", "5f2a9c1d7e3b4a60"),
    "calculation_id": ("A calculation's id.", "01936f0c2ab55d0e8f9a1b2c"),
    "chunk_id": ("A chunk's id, TASK.N.", "5f2a9c1d7e3b4a60.17"),
    "upload_id": ("An id of your choice for this upload; the same one again is the same upload.", "first"),
    "deal_id": ("A deal's id.", "66f8a2982666428f"),
    "error_id": ("An error's id.", "0d5e2fb2a9e84c0c8a6a4c4f8e9c1b7a2d3e4f50"),
    "container_id": ("The calling container's own id.", "0786b00e-7843-49fd-8aa9-25242fdfbfe5"),
    "receiver_id": ("A receiver's id.", "r4c1f0a9b2d3e5f60"),
    "event_id": ("An event's id.", "9b1d0c7e5a3f48e2b6a1c0d9e8f70615"),
    "file_name": ("A name for what is sent.", "pairs.csv"),
    "image_id": ("An image's id.", "sha256:" + "5f" * 32),
    "version": ("A release, or `current`.", "current"),
    "name": ("A file of that release.", "SHA256SUMS"),
    "sha256": ("The SHA-256 of the content, 64 hexadecimal digits.", "5f" * 32),
}
