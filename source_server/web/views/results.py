"""`GET /results.csv`: the table of results as a stream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from flask import Blueprint, Response, request

from source_server.domain.account import Role
from source_server.domain.refusal import Conflict
from source_server.services.results.csv_table import columns, pieces
from source_server.services.results.export import cursor
from source_server.web.http.access import account_as, services
from source_server.web.openapi import Caller, Raw, described

blueprint = Blueprint("results", __name__)


@blueprint.get("/results.csv")
@described(
    Caller.SCIENTIST,
    answers={200: Raw(types=("text/csv",), says="The table, as a stream: one line an input row.")},
    query={
        "task": "Only this task's.",
        "project": "Only this project's tasks.",
        "after": "Goes on behind the line TASK.N.ROW, without the header.",
        "columns": "With `after`: the `Dockercomp-Columns` of the first answer.",
    },
    refuses=(404, 409),
    answer_headers={"Dockercomp-Columns": "A short name of the table's columns."},
)
def results() -> Response:
    """One line an input row; `?task=` or `?project=` choose, `?after=TASK.N.ROW` goes on behind that line."""
    account = account_as(Role.SCIENTIST)
    tasks = services().tasks.chosen(account, request.args.get("task"), request.args.get("project"))
    after = cursor(request.args["after"]) if "after" in request.args else None
    fields = services().export.fields(tasks)
    layout = _layout(columns(fields))
    if request.args.get("columns", layout) != layout:
        raise Conflict(
            "The columns have changed since that export began (another task has data now): begin anew."
        )
    chunks = services().export.chunks(tasks, after)
    return Response(
        pieces(fields, chunks, after), mimetype="text/csv", headers={"Dockercomp-Columns": layout}
    )


def _layout(names: Sequence[str]) -> str:
    """A short name of these columns: `?columns=` of a call that goes on with `?after=` asks for the same ones."""
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
