"""The launcher's request parser: whatever comes, it is a request or a refusal, within bounds."""

import json
import re
import socket
import struct
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from client_container.launcher.line.names import BadName, checked_name, checked_names
from client_container.launcher.line.patterns import fits
from client_container.launcher.line.wire import (
    REQUEST_BYTES,
    ConnectionEnded,
    Files,
    Keep,
    Kill,
    Pull,
    Refusal,
    Run,
    Stats,
    encode_frame,
    parse_request,
    read_frame,
)

TOKEN = "3d5e7f90-1a2b-4c3d-8e4f-5a6b7c8d9e0f"


def run_message(**changes):
    manifest = {
        "image": "sha256:" + "4f" * 32,
        "action": ["/bin/x"],
        "env": {},
        "timeout_s": 60.0,
        "rows": None,
        "project": "sums",
        "task": "t",
    }
    message = {
        "v": 1,
        "verb": "run",
        "token": TOKEN,
        "manifest": {**manifest, **changes.pop("manifest", {})},
        "chunk": {"id": "c.1", "run": 0, "input": "1", **changes.pop("chunk", {})},
        "files": [],
    }
    return {**message, **changes}


def parsed(message):
    return parse_request(json.dumps(message).encode())


json_values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=12,
)


def anywhere(message, path=()):
    """All places of a message."""
    yield path
    entries = (
        message.items()
        if isinstance(message, dict)
        else enumerate(message)
        if isinstance(message, list)
        else ()
    )
    for key, value in entries:
        yield from anywhere(value, (*path, key))


def replaced(message, path, value):
    if not path:
        return value
    copy = list(message) if isinstance(message, list) else dict(message)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


SHA256 = "9c" * 32
WHOLE = run_message(
    files=[{"name": "a", "sha256": SHA256}],
    manifest={"env": {"A": "1"}, "cpus": 1.5, "outputs": ["*.csv"]},
    chunk={"input_file": SHA256},
)
FILES = {"v": 1, "verb": "files", "want": [{"sha256": SHA256, "bytes": 1}], "project": "sums"}
KEEP = {"v": 1, "verb": "keep", "sha256": SHA256, "project": "sums"}
PLACES = [(message, path) for message in (WHOLE, FILES, KEEP) for path in anywhere(message)]


@given(some.binary(max_size=200))
def test_bytes_at_random_are_refused_and_never_anything_worse(body):
    with pytest.raises(Refusal):
        parse_request(body)


@given(json_values)
def test_json_at_random_is_refused(value):
    with pytest.raises(Refusal):
        parse_request(json.dumps(value).encode())


@given(some.sampled_from(PLACES), json_values)
def test_a_request_with_anything_anywhere_is_a_request_or_a_refusal(place, value):
    message, path = place
    body = json.dumps(replaced(message, path, value)).encode()

    try:
        request = parse_request(body)
    except Refusal as refusal:
        assert refusal.code == "bad_request"
        assert "\n" not in refusal.sentence and len(refusal.sentence) < 400
    else:
        assert isinstance(request, Run | Kill | Stats | Pull | Files | Keep)


@given(some.sampled_from([WHOLE, FILES, KEEP]), some.integers(0, 700))
def test_a_request_cut_or_with_a_byte_flipped_is_a_request_or_a_refusal(message, place):
    body = bytearray(json.dumps(message).encode())
    body[place % len(body)] ^= 1 + place % 255

    for changed in (bytes(body), bytes(body[:place])):
        try:
            parse_request(changed)
        except Refusal as refusal:
            assert refusal.code == "bad_request"


@pytest.mark.parametrize(
    "message",
    [
        run_message(token="no uuid"),
        run_message(token=TOKEN.upper()),
        run_message(v=2),
        run_message(v=True),
        run_message(verb="exec"),
        run_message(verb=["run"]),
        run_message(chunk={"run": -1}),
        run_message(chunk={"run": 1.5}),
        run_message(chunk={"input": {"a": 1}}),
        run_message(chunk={"input": "\ud800"}),
        run_message(chunk={"id": "two\nlines"}),
        run_message(manifest={"timeout_s": 0}),
        run_message(manifest={"timeout_s": True}),
        run_message(manifest={"timeout_s": 1e300}),
        run_message(manifest={"action": "ls -l"}),
        run_message(manifest={"action": ["a", 1]}),
        run_message(manifest={"action": ["x"] * 5000}),
        run_message(manifest={"env": {"A": 1}}),
        run_message(manifest={"memory_mb": 0}),
        run_message(manifest={"memory_mb": "1g"}),
        run_message(manifest={"cpus": -1}),
        run_message(manifest={"project": ""}),
        run_message(manifest={"image": "x" * 600}),
        run_message(files={"a": "b"}),
        run_message(files=[{"name": "a", "sha256": "../../etc/passwd"}]),
        run_message(files=[{"name": "a", "sha256": "AB" * 32}]),
        run_message(files=[{"name": "/etc/passwd", "sha256": "9c" * 32}]),
        run_message(files=[{"name": "../x", "sha256": "9c" * 32}]),
        run_message(files=[{"name": "Chunk.JSON", "sha256": "9c" * 32}]),
        run_message(files=[{"name": f"f{n}", "sha256": "9c" * 32} for n in range(1001)]),
        run_message(chunk={"input_file": "../x"}),
        run_message(chunk={"input_file": True}),
        run_message(manifest={"outputs": "*"}),
        run_message(manifest={"outputs": ["*"] * 101}),
        run_message(manifest={"outputs": ["*" * 2000]}),
        {**FILES, "want": {}},
        {**FILES, "want": [{"sha256": SHA256, "bytes": -1}]},
        {**FILES, "want": [{"sha256": SHA256, "bytes": 1.5}]},
        {**FILES, "want": [{"sha256": "/etc/passwd", "bytes": 1}]},
        {**FILES, "want": [{"sha256": SHA256, "bytes": 1}] * 1002},
        {**FILES, "project": "two\nlines"},
        {**KEEP, "sha256": "../../cache/x"},
        {**KEEP, "project": None},
    ],
    ids=lambda message: json.dumps(message)[:60],
)
def test_a_request_that_is_not_right_is_refused_with_a_sentence(message):
    with pytest.raises(Refusal) as refused:
        parsed(message)

    assert refused.value.code == "bad_request" and refused.value.sentence.endswith(".")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"v": ' + b"9" * 1_000_000 + b"}",
        b'{"v": 1e' + b"9" * 1_000 + b"}",
        b'{"v": NaN}',
        b'{"v": Infinity}',
        b"\xff\xfe",
        b"",
    ],
    ids=["deep", "long number", "huge exponent", "NaN", "Infinity", "no UTF-8", "empty"],
)
def test_bodies_that_are_a_trap_are_refused_at_once(body):
    began = time.monotonic()

    with pytest.raises(Refusal):
        parse_request(body)

    assert time.monotonic() - began < 2


def test_fields_that_nobody_knows_are_ignored():
    assert parsed({**run_message(), "news": {"mount": "/"}}) == parsed(run_message())


def test_a_frame_longer_than_allowed_is_not_read():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(struct.pack(">I", REQUEST_BYTES + 1) + b"x")

        with pytest.raises(ConnectionEnded, match="longer"):
            read_frame(theirs, most=REQUEST_BYTES, seconds=5)


def test_a_frame_that_comes_drop_by_drop_runs_out_of_time():
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip():
        for byte in encode_frame({"v": 1, "verb": "stats"}):
            if stop.wait(0.05):
                return
            ours.send(bytes([byte]))

    dripping = threading.Thread(target=drip, daemon=True)
    dripping.start()
    try:
        with pytest.raises(ConnectionEnded, match="slow"):
            read_frame(theirs, most=REQUEST_BYTES, seconds=0.3)
    finally:
        stop.set()
        dripping.join()
        ours.close()
        theirs.close()


def test_a_frame_that_ends_early_is_told():
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(encode_frame({"v": 1})[:-2])
        ours.close()

        with pytest.raises(ConnectionEnded, match="hung up"):
            read_frame(theirs, most=REQUEST_BYTES, seconds=5)


@given(some.text(max_size=40))
def test_a_good_name_stays_below_the_folder(name):
    try:
        checked_name(name)
    except BadName:
        return
    parts = name.split("/")
    assert not name.startswith("/") and ".." not in parts and "." not in parts and "" not in parts
    assert "\0" not in name and "\n" not in name


@pytest.mark.parametrize(
    "names",
    [
        ["a", "A"],
        ["a", "a"],
        ["a", "a/b"],
        ["a/b", "a"],
        ["a/x", "A/y"],
        ["e\u0301"],
        ["a\\b"],
        ["a/" * 20 + "b"],
        ["x" * 300],
    ],
)
def test_names_that_would_meet_on_some_machine_are_refused(names):
    with pytest.raises(BadName):
        checked_names(names)


def test_plain_names_go_together():
    names = ["a", "b/c", "b/d", "über/straße.csv", ".hidden"]

    assert checked_names(names) == names


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("*.csv", ["a.csv", ".csv"], ["a/b.csv", "a.csv.gz", "acsv"]),
        ("**/*.csv", ["a.csv", "a/b/c.csv"], ["a.txt"]),
        ("model/**", ["model/a", "model/a/b"], ["model2/a", "amodel/x"]),
        ("**", ["a", "a/b"], []),
        ("a?c/[x]", ["abc/[x]"], ["ac/[x]", "abc/x"]),
        ("part-*-of-*", ["part-1-of-2", "part--of-"], ["part-1"]),
    ],
)
def test_patterns_fit_what_they_say(pattern, fitting, others):
    assert all(fits(name, [pattern]) for name in fitting)
    assert not any(fits(name, [pattern]) for name in others)


@given(some.text("ab*?/", max_size=12), some.text("ab/", max_size=12))
def test_a_pattern_means_what_the_same_regular_expression_means(pattern, name):
    by_hand = {"**": "(.+/)?", "*": "[^/]*", "?": "[^/]"}
    parts = pattern.split("/")
    if "**" in pattern:
        return  # told by examples
    expression = "/".join("".join(by_hand.get(mark, re.escape(mark)) for mark in part) for part in parts)

    assert fits(name, [pattern]) == (re.fullmatch(expression, name) is not None)


@pytest.mark.parametrize("pattern", ["*a" * 500 + "b", "**/" * 340 + "b", "/".join(["*a*"] * 250)])
def test_a_pattern_that_is_a_trap_takes_no_time(pattern):
    began = time.monotonic()

    assert not fits("a" * 1024, [pattern]) and not fits("a/" * 15 + "a" * 900, [pattern])

    assert time.monotonic() - began < 2
