"""Messages as nobody should send them: after the shapes of `/openapi.json`, with odd values among the good ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]
Draw = Callable[..., Any]

ONE_IN = 10  #: values that are odd
DEEPEST = 6  #: levels that are filled with more than what must be there
LARGE = "@1e999@"  #: becomes a number in JSON that no float holds

NUMBERS = (-1, 0, 1, 2, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 10**400, -0.0, 1e-320, 1.5, 1e18, 1e308, LARGE)
NOT_JSON = (float("nan"), float("inf"), float("-inf"))
TEXTS = (
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "\ud800",
        "\ud83d\ude00",
        "é",
        "e\u0301",
        "\u202e",
        "\x1b[2J",
        "\n",
        "\r\n",
        "²",
        "١",
    ),
    *(
        "$where",
        "$set",
        "a.b",
        "__proto__",
        "{",
        "}",
        "{a}",
        "{{",
        "{a",
        "%s",
        "../..",
        "/etc/passwd",
        "C:\\x",
        ".",
    ),
    *(
        "=1+1",
        "-1",
        "NaN",
        "1e999",
        "0x10",
        "1_000",
        "null",
        "true",
        "<script>",
        "'\"`;$(id)",
        "-",
        "--",
        "a--b",
    ),
    *(
        "x" * 200,
        "x" * 201,
        "x" * 70_000,
        "é" * 2_000,
        "a-v",
        "2026-11-22T06:00:00Z",
        "9999-12-31T23:59:59-14:00",
    ),
    *("0001-01-01T00:00:00+14:00", "http://127.0.0.1/", "https://[::1]:99999/", "a@b", "sha256:" + "0" * 64),
)
ODD = st.one_of(
    st.sampled_from((None, True, False, [], {}, [[]], {"": None}, {"$gt": ""}, {"\0": 1}, {"\ud800": 1})),
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.sampled_from(NOT_JSON),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
    st.lists(st.sampled_from(TEXTS), max_size=4),
    st.dictionaries(st.sampled_from(TEXTS), st.sampled_from((1, "x", None)), max_size=3),
)
SPOILED: tuple[Callable[[bytes], bytes], ...] = (
    lambda body: b"",
    lambda body: body[: len(body) // 2],
    lambda body: body + body,
    lambda body: b"\xff" + body,
    lambda body: b"\xef\xbb\xbf" + body,
    lambda body: body.decode().encode("utf-16"),
    lambda body: b"[" * 50_000 + body,
    lambda body: b'{"a":' * 50_000 + body + b"}" * 50_000,
    lambda body: body.replace(b'"', b"'"),
    lambda body: body[:1] + body[1:-1] + b"," + body[1:],  # every name twice
)


def bodies(document: Json, reference: str, example: Any) -> st.SearchStrategy[bytes]:
    """Bodies of that shape, or nearly so: as its schema says, or the example with something changed in it."""
    shapes = _Shapes(document)

    @st.composite
    def made(draw: Draw) -> bytes:
        after = example is None or draw(st.booleans())
        value = shapes.value({"$ref": reference}, draw) if after else _changed(copy.deepcopy(example), draw)
        body = json.dumps(value).replace(f'"{LARGE}"', "1e999").encode()
        return draw(st.sampled_from(SPOILED))(body) if _seldom(draw, 20) else body

    return made()


def _seldom(draw: Draw, one_in: int) -> bool:
    return bool(draw(st.integers(1, one_in)) == one_in)


def _changed(value: Any, draw: Draw) -> Any:
    """The value, one place of which holds something odd, is gone, or has a neighbour that should not be there."""
    places = list(_places(value))
    holder, name = draw(st.sampled_from(places)) if places else (None, None)
    if holder is None:
        return draw(ODD)
    if isinstance(holder, dict) and _seldom(draw, 4):
        del holder[name]
    elif isinstance(holder, dict) and _seldom(draw, 4):
        holder[draw(st.sampled_from(TEXTS))] = holder[name]
    else:
        holder[name] = draw(ODD)
    return value


def _places(value: Any) -> Any:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in below:
        yield value, name
        yield from _places(one)


class _Shapes:
    """Makes values after JSON Schemas, as far as this server's document uses them."""

    def __init__(self, document: Json) -> None:
        self._parts: Mapping[str, Json] = document["components"]["schemas"]

    def value(self, schema: Json, draw: Draw, depth: int = 0) -> Any:
        """One value; some that it is made of are odd."""
        if depth and _seldom(draw, ONE_IN):
            return draw(ODD)
        if "$ref" in schema:
            return self.value(self._parts[schema["$ref"].rpartition("/")[2]], draw, depth + 1)
        for several in ("anyOf", "oneOf", "allOf"):
            if several in schema:
                return self.value(draw(st.sampled_from(schema[several])), draw, depth)
        if "const" in schema or "enum" in schema:
            return draw(st.sampled_from(schema.get("enum", [schema.get("const")])))
        return self._plain(schema, draw, depth)

    def _plain(self, schema: Json, draw: Draw, depth: int) -> Any:
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema, draw, depth)
        if kind == "array":
            least, most = schema.get("minItems", 0), min(schema.get("maxItems", 3), 3)
            count = draw(st.integers(least, max(least, most if depth < DEEPEST else 0)))
            return [self.value(schema.get("items", {}), draw, depth + 1) for _ in range(count)]
        if kind in ("integer", "number"):
            low, high = schema.get("minimum", -5), schema.get("maximum", 5)
            whole = st.integers(round(low), round(max(low, min(high, low + 20))))
            return draw(whole if kind == "integer" else st.one_of(whole, st.floats(low, high)))
        if kind == "string":
            return self._text(schema, draw)
        return {"boolean": draw(st.booleans()), "null": None}.get(str(kind)) if kind else draw(ODD)

    def _object(self, schema: Json, draw: Draw, depth: int) -> Json:
        known, needed = schema.get("properties", {}), schema.get("required", ())
        more = (
            draw(st.sets(st.sampled_from(sorted(known)), max_size=4)) if known and depth < DEEPEST else set()
        )
        made = {name: self.value(known[name], draw, depth + 1) for name in (*needed, *sorted(more))}
        if isinstance(others := schema.get("additionalProperties"), dict):
            for name in draw(st.sets(st.sampled_from(("a", "b", *TEXTS)), max_size=2)):
                made[name] = self.value(others, draw, depth + 1)
        return made

    def _text(self, schema: Json, draw: Draw) -> str:
        if schema.get("format") == "date-time":
            return str(draw(st.datetimes()).isoformat()) + "Z"
        if "pattern" in schema and len(schema["pattern"]) < 100:
            return str(draw(st.from_regex(schema["pattern"], fullmatch=True)))
        return str(
            draw(st.one_of(st.text(max_size=10), st.sampled_from(("a", "sums", "x=1", "a{b}", *TEXTS))))
        )
