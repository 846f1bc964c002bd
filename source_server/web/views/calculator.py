"""The calculator: calculations come in, are listed with what became of them, and its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, jsonify, redirect, request, send_from_directory

from source_server.domain.calculation import Environment, Progress, Reading
from source_server.domain.refusal import BadInput, NotFound, UnknownKey
from source_server.domain.timing import instant
from source_server.services.calculators.calculate import PAGE as MOST
from source_server.services.calculators.calculate import Wished
from source_server.web import wire
from source_server.web.bodies.calculations import CalculationBody
from source_server.web.http.access import services
from source_server.web.openapi import Caller, Key, Raw, described
from source_server.web.shapes import calculations as shapes
from source_server.web.views.sessions import COOKIE, PAGE, caller, page

blueprint = Blueprint("calculator", __name__, template_folder="templates")

Json = dict[str, Any]
RIGHT = ("accepted", "agreed")


@blueprint.after_request
def keep_private(answer: Response) -> Response:
    """A page's session is a cookie: unlike those to a key, answers to it might be kept by proxies on the way."""
    if answer.mimetype == "application/json":
        answer.headers["Cache-Control"] = "no-store"
    return answer


@blueprint.post("/calculations")
@described(
    Caller.SCIENTIST,
    key=Key.SESSION,
    body=CalculationBody,
    answers={201: shapes.Calculation, 200: shapes.Calculation},
    refuses=(404, 409, 429),
    example={"calculation": "1.21 / -32.33", "language": "perl"},
)
def add_calculation() -> tuple[Response, int]:
    """Have a calculation computed somewhere; the same id and calculation again is the same one."""
    account = caller()
    body = wire.parse(CalculationBody, request.get_data())
    wish = Wished(text=body.calculation, key=body.id, os=body.os, language=body.language, check=body.check)
    reading, new = services().calculate.ask(account, wish)
    return jsonify(calculation(reading, _places())), 201 if new else 200


@blueprint.get("/calculations")
@described(
    Caller.SCIENTIST,
    key=Key.SESSION,
    answers={200: shapes.Calculations},
    query={
        "after": "Only those that came after this one (and a few seconds before it), by id.",
        "open": f"And these, up to {MOST} ids with commas between them.",
    },
)
def list_calculations() -> Response:
    """The caller's newest calculations, newest first."""
    account = caller()
    after, wanted = request.args.get("after", ""), request.args.get("open", "")
    if len(after) > 100 or len(wanted) > 100 * MOST:
        raise BadInput(f"Name at most {MOST} calculations, by their ids.")
    ids = [one for one in wanted.split(",") if one]
    found = services().calculate.page(account, after=after, open_ids=ids)
    places = _places()
    return jsonify(calculations=[calculation(one, places) for one in found])


@blueprint.get("/calculations/<calculation_id>")
@described(Caller.SCIENTIST, key=Key.SESSION, answers={200: shapes.Calculation})
def get_calculation(calculation_id: str) -> Response:
    """One calculation."""
    return jsonify(calculation(services().calculate.get(caller(), calculation_id), _places()))


@blueprint.get("/calculators")
@described(Caller.SCIENTIST, key=Key.SESSION, answers={200: shapes.Calculators}, refuses=(404,))
def list_calculators() -> Response:
    """What calculates here, and which calculators others disagreed with of late."""
    caller()
    setting, counts = services().calculate.enabled(), services().calculate.standing()
    shown = [
        {
            **{
                name: getattr(one, name) for name in ("name", "os", "release", "language", "version", "image")
            },
            "agreed": sum(counts.get(one.name, {}).get(verdict, 0) for verdict in RIGHT),
            "disagreed": counts.get(one.name, {}).get("disagreed", 0),
        }
        for one in setting.environments
    ]
    return jsonify(calculators=shown, cross_check=setting.quorum)


@blueprint.get("/calculator")
@described(
    Caller.PAGE,
    answers={200: PAGE, 303: Raw(types=("text/html",), says="To the form for signing in.")},
)
def calculator_page() -> Response:
    """Type a calculation, and watch it being computed somewhere."""
    session = request.cookies.get(COOKIE)
    try:
        account = services().sessions.account(session)
    except UnknownKey:
        return redirect("/sign-in", 303)  # type: ignore[return-value]
    try:
        setting = services().calculate.enabled()
    except NotFound as missing:
        return page(
            "calculator.html", setting=None, missing=str(missing), account=account, csrf=_csrf(session)
        )
    return page(
        "calculator.html",
        setting=setting,
        systems={one.os: system(one.os) for one in setting.environments},
        languages={one.language: language(one.language) for one in setting.environments},
        account=account,
        csrf=_csrf(session),
    )


@blueprint.get("/pages/page.css")
@blueprint.get("/pages/calculator.js")
@described(
    Caller.PAGE,
    key=Key.NONE,
    answers={
        200: Raw(types=("text/css", "text/javascript"), says="A file that pages use."),
        304: None,
    },
)
def page_file() -> Response:
    """A file that the pages use."""
    return send_from_directory(blueprint.root_path + "/static", request.path.rpartition("/")[2])


def calculation(reading: Reading, places: Mapping[str, Environment]) -> Json:
    """A calculation, as the wire has it."""
    asked = reading.asked
    return {
        "id": asked.id,
        "calculation": asked.text,
        "left": asked.calculation.left,
        "operator": asked.calculation.operator,
        "right": asked.calculation.right,
        "asked": instant(asked.at),
        "wanted": {"os": asked.os, "language": asked.language, "environment": asked.environment},
        "state": Progress(reading.state).value,
        "where": [_place(name, places) for name in reading.environments if name],
        "account": reading.account,
        "answer": reading.answer,
        "error": reading.error,
        "opinions": [
            {"environment": one.environment, "answer": one.answer, "verdict": one.verdict}
            for one in reading.opinions
        ],
        "disagreed": list(reading.disagreed),
        "chunk": None if asked.n is None else f"{asked.task}.{asked.n}",
    }


def _place(name: str, places: Mapping[str, Environment]) -> Json:
    one = places.get(name)
    return {
        "name": name,
        "os": None if one is None else system(one.os),
        "language": None if one is None else language(one.language),
        "version": None if one is None else one.version,
    }


def _places() -> Mapping[str, Environment]:
    try:
        return {one.name: one for one in services().calculate.enabled().environments}
    except NotFound:
        return {}


def _csrf(session: str | None) -> str:
    return services().sessions.csrf_token(session or "")


_LANGUAGES = {"awk": "AWK", "node": "JavaScript", "python": "Python", "tcl": "Tcl"}


def language(name: str) -> str:
    """A language as people write it."""
    return _LANGUAGES.get(name, name.capitalize())


def system(name: str) -> str:
    """A system as people write it."""
    if name == "scratch":
        return "an empty image"
    return name.replace("-", " ").capitalize()
