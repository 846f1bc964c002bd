"""Signing in to pages, and who calls where a page may call as well as a program with a key."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, Response, redirect, render_template, request

from source_server.domain.account import Account
from source_server.domain.refusal import NotAllowed, UnknownKey
from source_server.domain.session import LIFE
from source_server.web.http.access import any_account, bearer, services
from source_server.web.openapi import Caller, Raw, described

blueprint = Blueprint("sessions", __name__, template_folder="templates")

COOKIE = "dockercomp_session"
CSRF_HEADER, CSRF_FIELD = "Dockercomp-Csrf", "csrf"
START = "/calculator"  #: where who has signed in goes
LONGEST_KEY = 200
FORM = "application/x-www-form-urlencoded"

#: Own files only, nothing inline, in nobody's frame.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

PAGE = Raw(types=("text/html",), says="The page.")


@blueprint.get("/sign-in")
@described(Caller.PAGE, answers={200: PAGE})
def sign_in_page() -> Response:
    """A form for an account's key."""
    return page("sign_in.html", error=None)


@blueprint.post("/sign-in")
@described(
    Caller.PAGE,
    body=Raw(types=(FORM,), says="The field `key`: an account's key."),
    answers={
        303: Raw(types=("text/html",), says="On to the calculator, with the session as a cookie."),
        401: Raw(types=("text/html",), says="The form again."),
    },
    refuses=(403,),
)
def sign_in() -> Response:
    """Exchange an account's key for a session cookie of twelve hours."""
    require_own_page()
    key = request.form.get("key", "").strip()
    try:
        session = services().sessions.open(key[:LONGEST_KEY])
    except UnknownKey:
        return page("sign_in.html", status=401, error="This account's key is not known here.")
    answer = redirect(START, 303)
    answer.set_cookie(
        COOKIE,
        session,
        max_age=int(LIFE.total_seconds()),
        httponly=True,
        samesite="Strict",
        secure=_is_secure(),
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer  # type: ignore[return-value]


@blueprint.post("/sign-out")
@described(
    Caller.PAGE,
    body=Raw(types=(FORM,), says="The field `csrf`: what the session's pages show."),
    answers={303: Raw(types=("text/html",), says="On to the form for signing in, without a session.")},
    refuses=(401, 403),
)
def sign_out() -> Response:
    """End the session in this browser."""
    session = request.cookies.get(COOKIE)
    services().sessions.account(session)
    require_own_page()
    services().sessions.require_csrf_token(session or "", request.form.get(CSRF_FIELD))
    answer = redirect("/sign-in", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="Strict", secure=_is_secure())
    return answer  # type: ignore[return-value]


def page(template: str, *, status: int = 200, **values: object) -> Response:
    """A page of the server's own."""
    return Response(render_template(template, **values), status, HEADERS, mimetype="text/html")


def caller() -> Account:
    """Who calls, by a key or by a page's session; what changes something needs the session's token as well."""
    if bearer() is not None:
        return any_account()
    session = request.cookies.get(COOKIE)
    account = services().sessions.account(session)
    if request.method not in ("GET", "HEAD"):
        require_own_page()
        services().sessions.require_csrf_token(session or "", request.headers.get(CSRF_HEADER))
    return account


def require_own_page() -> None:
    """Raises NotAllowed for what a browser says another site's page has sent."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    # A proxy in front may pass on another host than the one that people see: then the operator says which.
    own = (request.host, _host_of(services().public_url or "") or request.host)
    foreign = origin is not None and _host_of(origin) not in own
    if foreign or site not in (None, "same-origin", "none"):
        raise NotAllowed("This did not come from a page of this server; load the page again.")


def _host_of(address: str) -> str | None:
    """The host and port that an address names; None where it names none, as the origin `null` of a page in a frame."""
    try:
        return urlsplit(address).netloc or None
    except ValueError:
        return None


def _is_secure() -> bool:
    public = services().public_url
    return request.is_secure or (public is not None and public.startswith("https://"))
