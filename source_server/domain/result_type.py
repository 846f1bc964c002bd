"""Result types: whether an answer is what its job says that answers are, and whether a schema may say so.

A stranger's schema meets a stranger's answer here, within a request of the server. Therefore a schema names nothing
outside itself, does not go in circles, its patterns are matched in time that grows with the text and no faster, and
the product of its weight and an answer's size is bounded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

import jsonschema_rs

from source_server.domain.job import ResultKind, ResultType
from source_server.domain.patterns import fits

MOST_SCHEMA = 16 * 1024  #: letters of a schema, as JSON
MOST_WEIGHT = 2000  #: values in a schema, those that a $ref names counted once more wherever it stands
PATTERN_WEIGHT = 256  #: of a pattern: matching it may take so much longer than looking at a value
COMPOUND_WEIGHT = 4  #: of a list or object that answers are compared with
MOST_WORK = 2**26  #: a schema's weight times the letters of an answer: half a second at worst
DEEPEST = 64  #: lists and objects within each other, in an answer or a schema
LONGEST_NUMBER = 400  #: letters of a number
MOST_COMPILED = 64  #: schemas that a process keeps ready
MOST_SAID = 300  #: letters of what is wrong
DIALECT = "https://json-schema.org/draft/2020-12/schema"

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
#: Keywords that give a part another name, or that look again at all that others have looked at.
_REFUSED = frozenset(
    {
        "$id",
        "$anchor",
        "$dynamicAnchor",
        "$dynamicRef",
        "$recursiveRef",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_PLAIN = frozenset({"const", "enum", "default", "examples"})  #: what they hold are values, and no schemas
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


class BadSchema(ValueError):
    """A schema that cannot be used; the message is one sentence."""


class _Unfit(Exception):
    """What is wrong with an answer; the message continues "The answer ..."."""


def require_schema(schema: str) -> None:
    """Raises BadSchema unless answers can be held to this JSON Schema (draft 2020-12, as JSON text)."""
    if len(schema) > MOST_SCHEMA:
        raise BadSchema(f"the schema has {len(schema)} letters, more than {MOST_SCHEMA}")
    _compiled(schema)


def misfit(
    wanted: ResultType,
    answer: str,
    *,
    rows: int | None = None,
    outputs: Sequence[str] = (),
    files: Iterable[str] = (),
) -> str | None:
    """What is wrong with an answer, as one sentence that names the place; None when it is what was wanted.

    With `rows`, each line of it is the answer to a row (how many they are is not looked at). `files` are the names of
    those that came with it.
    """
    try:
        if wanted.kind is ResultKind.FILES:
            _require_files(outputs, list(files))
        elif wanted.kind is not ResultKind.TEXT:
            _require_each(wanted, answer, rows)
    except _Unfit as unfit:
        said = str(unfit)
        return said if len(said) <= MOST_SAID else f"{said[: MOST_SAID - 4]} ..."
    return None


def effort(wanted: ResultType, answer: str) -> int:
    """What `misfit` has to do for an answer, in the measure of MOST_WORK; 0 where it is little."""
    if wanted.schema is None:
        return 0
    try:
        work = _compiled(wanted.schema).weight * len(answer)
    except BadSchema:
        return 0
    return work if work <= MOST_WORK else 0  # more is not even begun


def _require_files(outputs: Sequence[str], files: Sequence[str]) -> None:
    for pattern in outputs:
        if not any(fits(name, [pattern]) for name in files):
            came = f"only {files[0]!r} and {len(files) - 1} more came" if files else "none came"
            raise _Unfit(f"The answer has no file {pattern!r}: {came}.")


def _require_each(wanted: ResultType, answer: str, rows: int | None) -> None:
    schema = None if wanted.schema is None else _usable(wanted.schema, answer)
    lines = [answer] if rows is None else answer.removesuffix("\n").split("\n")
    for number, text in enumerate(lines, 1):
        what = "The answer" if rows is None else f"Line {number} of the answer"
        if wanted.kind is ResultKind.NUMBER:
            _require_number(what, text)
        else:
            _require_json(what, text, schema)


def _require_number(what: str, text: str) -> None:
    told = text.strip()
    if len(told) > LONGEST_NUMBER or _NUMBER.fullmatch(told) is None:
        raise _Unfit(f"{what} is not one number: it is {_quoted(told)}.")
    if not math.isfinite(float(told)):
        raise _Unfit(f"{what} is not finite: it is {_quoted(told)}.")


def _require_json(what: str, text: str, schema: _Compiled | None) -> None:
    try:
        value = _parsed(text)
    except RecursionError:
        raise _Unfit(f"{what} is nested too deeply.") from None
    except ValueError as error:
        raise _Unfit(f"{what} is not JSON: {error}.") from None
    if _depth(value) > DEEPEST:
        raise _Unfit(f"{what} is nested more than {DEEPEST} deep.")
    if schema is not None and (wrong := schema.misfit(value)) is not None:
        raise _Unfit(f"{what} does not fit its schema{wrong}.")


def _parsed(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant, parse_int=_whole, parse_float=_finite)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _whole(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number has {len(digits)} letters, more than {LONGEST_NUMBER}")
    return int(digits)


def _finite(text: str) -> float:
    if len(text) > LONGEST_NUMBER or not math.isfinite(float(text)):
        raise ValueError(f"{_quoted(text)} is no finite number")
    return float(text)


def _depth(value: Any) -> int:
    """How many lists and objects lie within each other; not much more than DEEPEST is looked at."""
    level, depth = [value], 0
    while depth <= DEEPEST:
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        if not any(isinstance(one, dict | list) for one in level):
            return depth
        level, depth = inner, depth + 1
    return depth


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


# --- schemas


class _Compiled:
    """A schema that is ready for use, and its weight."""

    def __init__(self, validator: jsonschema_rs.Draft202012Validator, weight: int) -> None:
        self._validator = validator
        self.weight = weight

    def misfit(self, value: Any) -> str | None:
        """Where a value does not fit, and why; None when it does."""
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            place = "".join(f"/{part}" for part in error.instance_path)
            return f"{f' at {place}' if place else ''}: {_first_line(error.message)}"
        except ValueError as error:
            return f": it cannot be compared ({error})"
        return None


def _usable(schema: str, answer: str) -> _Compiled:
    try:
        compiled = _compiled(schema)
    except BadSchema as error:
        raise _Unfit(f"The answer cannot be held to the job's schema: {error}.") from error
    most = MOST_WORK // compiled.weight
    if len(answer) > most:
        raise _Unfit(
            f"The answer has {len(answer)} letters; one that is held to a schema of this size may have {most}."
        )
    return compiled


@lru_cache(maxsize=MOST_COMPILED)
def _compiled(schema: str) -> _Compiled:
    whole = _schema(schema)
    try:
        weight = _Weight(whole).of("#")
    except RecursionError:
        raise BadSchema("the schema is nested too deeply") from None
    try:
        validator = jsonschema_rs.Draft202012Validator(
            whole,
            offline=True,
            validate_formats=False,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=2**16, dfa_size_limit=2**18),
            mask="it",
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        place = "".join(f"/{part}" for part in getattr(error, "instance_path", ()))
        said = _first_line(str(getattr(error, "message", error)))[:MOST_SAID]
        raise BadSchema(
            f"the schema is no JSON Schema (draft 2020-12){place and f' at {place}'}: {said}"
        ) from error
    return _Compiled(validator, weight)


def _schema(text: str) -> dict[str, Any] | bool:
    try:
        whole = _parsed(text)
    except (ValueError, RecursionError) as error:
        raise BadSchema(f"the schema is not JSON: {error}") from error
    if not isinstance(whole, dict | bool):
        raise BadSchema("the schema must be an object, true or false")
    if _depth(whole) > DEEPEST:
        raise BadSchema(f"the schema is nested more than {DEEPEST} deep")
    if isinstance(whole, dict) and whole.get("$schema", DIALECT) != DIALECT:
        raise BadSchema(f"the schema's $schema must be {DIALECT!r}, or be left out")
    return whole


class _Weight:
    """Counts what a value of an answer may be held to; raises BadSchema for what has no bound."""

    def __init__(self, whole: dict[str, Any] | bool) -> None:
        self._whole = whole
        self._known: dict[str, int] = {}
        self._under_way: list[str] = []

    def of(self, reference: str) -> int:
        """The weight of the part that a reference names."""
        if reference in self._under_way:
            raise BadSchema(f"the schema goes in a circle at {reference!r}: describe a depth that ends")
        if reference not in self._known:
            self._under_way.append(reference)
            self._known[reference] = self._schema(_at(self._whole, reference))
            self._under_way.pop()
        return self._known[reference]

    def _schema(self, schema: Any) -> int:
        if not isinstance(schema, dict):
            return self._values(schema)
        for name in sorted(_REFUSED & schema.keys()):
            raise BadSchema(f"the schema has {name!r}, which is not taken here")
        weight = 1 + sum(self._keyword(name, value) for name, value in schema.items())
        if weight > MOST_WEIGHT:
            raise BadSchema(
                f"the schema has more than {MOST_WEIGHT} values (those that a $ref names count wherever it stands; "
                f"a pattern counts as {PATTERN_WEIGHT})"
            )
        return weight

    def _keyword(self, name: str, value: Any) -> int:
        if name == "$ref":
            return 1 + self.of(str(value))
        if name in ("$defs", "definitions"):
            return 1  # they weigh where they are named
        if name == "pattern":
            return PATTERN_WEIGHT
        if name in _PLAIN:
            return _count(value, COMPOUND_WEIGHT if name in ("const", "enum") else 1)
        if name in _NAMED and isinstance(value, dict):
            each = PATTERN_WEIGHT if name == "patternProperties" else 1
            return sum(each + self._schema(inner) for inner in value.values())
        return self._values(value)

    def _values(self, value: Any) -> int:
        if isinstance(value, dict):
            return self._schema(value)
        return 1 + sum(map(self._values, value)) if isinstance(value, list) else 1


def _count(value: Any, compound: int) -> int:
    if isinstance(value, dict):
        return compound + sum(_count(inner, compound) for inner in value.values())
    return compound + sum(_count(inner, compound) for inner in value) if isinstance(value, list) else 1


def _at(whole: Any, reference: str) -> Any:
    if reference != "#" and not reference.startswith("#/"):
        raise BadSchema(
            f"the schema's $ref {_quoted(reference)} must name a part of itself, like '#/$defs/point'"
        )
    if "%" in reference:
        # To those who hold answers to it, `%61` is `a`: it would be another part than the one that is weighed here.
        raise BadSchema(f"the schema's $ref {_quoted(reference)} has a '%': give the part a plain name")
    found = whole
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and isinstance(found.get("$id"), str):
            # What is below it would be named from there on.
            raise BadSchema("the schema has '$id', which is not taken here")
        if isinstance(found, Mapping) and name in found:
            found = found[name]
        elif isinstance(found, list) and re.fullmatch("[0-9]{1,9}", name) and int(name) < len(found):
            found = found[int(name)]
        else:
            raise BadSchema(f"the schema's $ref {_quoted(reference)} names nothing in it")
    return found
