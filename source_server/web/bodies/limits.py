"""How far a task may go and who is told, as it is wished for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from source_server.domain.limits import Limits, StopWhen, Then
from source_server.domain.matching import DEEPEST, Match
from source_server.domain.notice import MOST_TARGETS, Channel, Target
from source_server.web.wire import Instant, Strict, Text, no_nul

Bound = Annotated[float, Field(allow_inf_nan=False)]


class MatchBody(Strict):
    """Which accepted answers count: all that is said has to hold."""

    field: Annotated[Text, StringConstraints(min_length=1, max_length=500)] | None = None
    equals: Annotated[Text, StringConstraints(max_length=10_000)] | bool | Bound | None = None
    at_least: Bound | None = None
    at_most: Bound | None = None

    @model_validator(mode="after")
    def _something(self) -> MatchBody:
        if not self.model_fields_set & {"equals", "at_least", "at_most"}:
            raise ValueError("say 'equals', 'at_least' or 'at_most'")
        if self.field is not None:
            parts = self.field.split(".")
            if len(parts) > DEEPEST or not all(parts):
                raise ValueError(f"'field' is up to {DEEPEST} names with dots between them")
        return self


class StopWhenBody(Strict):
    """So many accepted answers are enough."""

    answers: Annotated[int, Field(ge=1, le=10**7)]
    match: MatchBody | None = None


class LimitsBody(Strict):
    """How far a task may go."""

    cpu_hours: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None = None
    until: Instant | None = None
    stop_when: StopWhenBody | None = None
    then: Literal["pause", "end"] = "pause"

    @model_validator(mode="after")
    def _something(self) -> LimitsBody:
        if self.cpu_hours is None and self.until is None and self.stop_when is None:
            raise ValueError("say 'cpu_hours', 'until' or 'stop_when'")
        return self


def _url(text: str) -> str:
    sentence = "must be an address like https://host.example/path, without a user's name"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(sentence) from None
    sound = re.fullmatch(r"[\x21-\x7e]{1,2000}", text) and re.fullmatch(
        r"[A-Za-z0-9.-]{1,255}|[0-9A-Fa-f:.]{2,60}", parts.hostname or ""
    )
    if not sound or parts.scheme not in ("https", "http") or "@" in parts.netloc or port == 0:
        raise ValueError(sentence)
    return parts._replace(fragment="").geturl()


def _mail(text: str) -> str:
    name = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    place = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
    if len(text) > 254 or re.fullmatch(rf"{name}@{place}", text) is None or len(text.split("@")[0]) > 64:
        raise ValueError("must be one e-mail address")
    return text


class TargetBody(Strict):
    """Who is told: one webhook, or one e-mail address."""

    webhook: Annotated[str, StringConstraints(max_length=2000), AfterValidator(_url)] | None = None
    email: Annotated[str, StringConstraints(max_length=254), AfterValidator(_mail)] | None = None

    @model_validator(mode="after")
    def _one(self) -> TargetBody:
        if (self.webhook is None) == (self.email is None):
            raise ValueError("say either 'webhook' or 'email'")
        return self


NotifyBody = Annotated[list[TargetBody], Field(max_length=MOST_TARGETS)]


class TaskPatch(Strict):
    """`PATCH /tasks/TASK`: what is named is changed; limits of null are none."""

    limits: LimitsBody | None = None
    notify: NotifyBody | None = None


class WebhookSecret(Strict):
    """`POST /projects/PROJECT/webhook-secret`."""

    secret: Annotated[str, AfterValidator(no_nul), Field(description="whsec_ and base64; shown this once.")]


def limits(body: LimitsBody | None) -> Limits | None:
    """The limits that these wishes make."""
    if body is None:
        return None
    wanted = body.stop_when
    stop = None if wanted is None else StopWhen(answers=wanted.answers, match=_match(wanted.match))
    return Limits(cpu_hours=body.cpu_hours, until=body.until, stop_when=stop, then=Then(body.then))


def targets(body: Sequence[TargetBody]) -> tuple[Target, ...]:
    """Who is told, each once."""
    named = [
        Target(channel=Channel.EMAIL, address=one.email)
        if one.email is not None
        else Target(channel=Channel.WEBHOOK, address=one.webhook or "")
        for one in body
    ]
    return tuple(dict.fromkeys(named))


def _match(body: MatchBody | None) -> Match | None:
    if body is None:
        return None
    return Match(
        field=tuple(body.field.split(".")) if body.field else (),
        has_equals="equals" in body.model_fields_set,
        equals=body.equals,
        at_least=body.at_least,
        at_most=body.at_most,
    )
