"""Every calculator's image keeps one contract: a table of cases through each of them, beside Python's arithmetic."""

from __future__ import annotations

import json
import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calculator_parts import calculators
from parts import require

pytestmark = pytest.mark.docker
__all__ = ["calculators"]

ROOT = Path(__file__).parents[2]
FEWEST = 18
SHUT_IN = (
    *("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *(
        "--user",
        "730000:730000",
        "--pids-limit",
        "64",
        "--memory",
        "256m",
        "--label",
        "dockercomp.test=calculators",
    ),
)
US, RS = "\x1f", "\x1e"

USAGE = "Say it in three arguments: NUM OP NUM, where OP is + - * or /."
NUMBER = "NUM is a decimal number like -1.5e3, of at most 60 characters."
RANGE = "A number lies outside the range of a double."
ZERO = "Division by zero."
OVERFLOW = "The answer lies outside the range of a double."

ANSWERED = [
    ("1.21", "/", "-32.33"),
    ("7", "/", "2"),
    ("-7", "/", "2"),
    ("1", "+", "2"),
    ("0.1", "+", "0.2"),
    ("1", "-", "1"),
    ("-0", "*", "5"),
    ("-0", "+", "-0"),
    ("0", "/", "-3"),
    ("+5", "+", "+.5"),
    ("5.", "*", ".5"),
    ("010", "+", "0"),
    ("00.5", "-", "1e0"),
    ("1E5", "*", "1e-5"),
    ("1e+05", "/", "3"),
    ("1e0005", "-", "1"),
    ("9007199254740993", "+", "0"),
    ("9223372036854775807", "+", "1"),
    ("9223372036854775807", "*", "9223372036854775807"),
    ("18446744073709551615", "+", "1"),
    ("4611686018427387904", "+", "4611686018427387905"),
    ("3037000500", "*", "3037000500"),
    ("-9223372036854775808", "-", "1"),
    ("123456789012345678901234567890", "*", "1"),
    ("1e16", "+", "0"),
    ("1e17", "+", "0"),
    ("99999999999999999", "+", "0"),
    ("0.0001", "*", "1"),
    ("0.00001", "*", "1"),
    ("2.98023223876953125e-08", "+", "0"),  # 2 ** -25 has 18 digits: the 17th is a tie
    ("8.94069671630859375e-08", "+", "0"),  # and so has 3 * 2 ** -25, which is rounded the other way
    ("1.7976931348623157e308", "*", "1"),
    ("1e308", "+", "7e307"),
    ("5e-324", "*", "1"),
    ("4.9e-324", "+", "0"),
    ("2.5e-324", "+", "0"),  # more than half of the least
    ("2.2250738585072011e-308", "+", "0"),  # once hung interpreters
    ("2.2250738585072014e-308", "/", "3"),
    ("1e-320", "/", "1e10"),  # becomes zero
    ("-5e-324", "/", "2"),  # becomes minus zero, said as 0
    ("1e-200", "*", "1e-200"),
    ("1e307", "/", "1e-1"),
    ("1.7976931348623158e308", "-", "1"),  # less than half a step above the largest
    ("0.1e1", "+", "000000000000000000000000000000000000000000000000000000000001"),
    ("1e23", "+", "0"),
    ("8.5", "-", "8.4"),
    ("1e22", "*", "1e22"),
    ("123456.789e3", "/", "-0.001"),
    ("0e999", "+", "0e-999"),  # zero, however large its exponent
]

REFUSED = [
    ((), 64, USAGE),
    (("1",), 64, USAGE),
    (("1", "+"), 64, USAGE),
    (("1", "+", "2", "3"), 64, USAGE),
    (("1", "**", "2"), 64, USAGE),
    (("1", "%", "2"), 64, USAGE),
    (("1", "", "2"), 64, USAGE),
    (("1", "x", "2"), 64, USAGE),
    (("1", "+-", "2"), 64, USAGE),
    *(
        ((text, "+", "1"), 64, NUMBER)
        for text in (
            *(
                "",
                " ",
                ".",
                "+",
                "-",
                "e5",
                "1e",
                "1e+",
                "1e5.5",
                "1.2.3",
                "--1",
                "+-1",
                "1 ",
                " 1",
                "1\n",
                "0x10",
            ),
            *(
                "1_000",
                "1,5",
                "1/2",
                "1+1",
                "inf",
                "-inf",
                "Infinity",
                "nan",
                "NaN",
                "0b1",
                "0o7",
                "1f",
                "1d0",
                "1L",
            ),
            *(
                "٣",
                "１",
                "−1",
                "1e５",
                "$x",
                "a",
                "-a",
                "1e1e1",
                "..5",
                "1" * 61,
                "1;2",
                "[pid]",
                "0x1p4",
                "1i",
            ),
        )
    ),
    (("1", "+", "x"), 64, NUMBER),
    (("1", "+", "-help"), 64, NUMBER),
    (("--version", "+", "1"), 64, NUMBER),
    (("1e999", "+", "1"), 65, RANGE),
    (("1", "-", "-1e309"), 65, RANGE),
    (("1e99999999999999999999", "*", "0"), 65, RANGE),
    (("1e-999", "+", "1"), 65, RANGE),
    (("2e-324", "+", "1"), 65, RANGE),
    (("0", "*", "-1e-99999999999999999999"), 65, RANGE),
    (("1.7976931348623159e308", "*", "1"), 65, RANGE),
    (("1", "/", "0"), 65, ZERO),
    (("0", "/", "0"), 65, ZERO),
    (("1", "/", "-0.0"), 65, ZERO),
    (("1", "/", "0e5"), 65, ZERO),
    (("1e308", "*", "10"), 65, OVERFLOW),
    (("1.7976931348623157e308", "+", "1e292"), 65, OVERFLOW),
    (("-1e308", "-", "1e308"), 65, OVERFLOW),
    (("1", "/", "5e-324"), 65, OVERFLOW),
]


def random_cases(count: int) -> Iterator[tuple[str, str, str]]:
    """Any doubles, in any of their spellings, whose answer is finite."""
    dice = random.Random(7)
    while count:
        left, right = (spelled(dice) for _ in range(2))
        operator = dice.choice("+-*/")
        try:
            if abs(python(left, operator, right)) < 1.7e308:
                yield left, operator, right
                count -= 1
        except ZeroDivisionError:
            pass


def spelled(dice: random.Random) -> str:
    value = struct.unpack("<d", dice.randbytes(8))[0]
    if value != value or abs(value) in (float("inf"), 0.0):
        return "1"
    kind = dice.choice(["repr", "long", "short", "plain"])
    if kind == "plain":
        return f"{dice.uniform(-1e6, 1e6):.{dice.randrange(12)}f}"
    return repr(value) if kind == "repr" else f"{value:.{40 if kind == 'long' else 3}e}"


def python(left: str, operator: str, right: str) -> float:
    a, b = float(left), float(right)
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[operator]()


def written(value: float) -> str:
    """The one form of an answer."""
    return f"{0.0 if value == 0 else value:.17g}\n"


@pytest.fixture(scope="session")
def many_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static program that calls another many times."""
    target = tmp_path_factory.mktemp("many-calls")
    target.chmod(0o755)
    command = ["gcc", "-static", "-O1", "-o", target / "many", Path(__file__).parent / "many_calls.c"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        require("there is no gcc, which compiles what calls a calculator many times")
        raise
    assert done.returncode == 0, done.stderr
    return target / "many"


def call(entry: dict[str, Any], program: Path, table: list[tuple[str, ...]]) -> list[tuple[int, str, str]]:
    """Exit status, stdout and stderr of each of these calls, made in one container."""
    command = [
        *("docker", "run", "--rm", "--interactive", *SHUT_IN, "--volume", f"{program}:/many:ro"),
        *("--entrypoint", "/many", entry["image"], *entry["action"]),
    ]
    text = "".join(US.join(words) + RS for words in table)
    done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    records = done.stdout.decode().split(RS)[:-1]
    said = [record.split(US) for record in records]
    return [(int(status), out, err) for status, out, err in said]


def test_there_are_enough_environments_and_each_says_what_it_is(calculators: list[dict[str, Any]]) -> None:
    assert len(calculators) >= FEWEST
    assert len({one["image"] for one in calculators}) == len(calculators)
    assert len({one["os"] for one in calculators}) == 4  # three releases, and none
    assert {one["language"] for one in calculators} == {*LANGUAGES, "c"}
    for one in calculators:
        labels = labels_of(one["tag"])
        assert {
            f"dockercomp.{name}": one[name] for name in ("os", "release", "language", "version")
        }.items() <= (labels.items())


LANGUAGES = ("python", "perl", "ruby", "node", "lua", "awk", "tcl")


def labels_of(tag: str) -> dict[str, str]:
    said = subprocess.run(
        ["docker", "image", "inspect", tag], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, str] = json.loads(said)[0]["Config"]["Labels"]
    return found


@pytest.mark.timeout(900)
def test_every_image_answers_as_python_does(calculators: list[dict[str, Any]], many_calls: Path) -> None:
    table = [*ANSWERED, *random_cases(60)]
    expected = [(0, written(python(*words)), "") for words in table]

    for entry in calculators:
        said = call(entry, many_calls, list(table))

        wrong = [
            (words, got, right)
            for words, got, right in zip(table, said, expected, strict=True)
            if got != right
        ]
        assert wrong == [], entry["name"]


@pytest.mark.timeout(900)
def test_every_image_refuses_the_same_with_one_sentence(
    calculators: list[dict[str, Any]], many_calls: Path
) -> None:
    table = [words for words, _, _ in REFUSED]
    expected = [(status, "", sentence + "\n") for _, status, sentence in REFUSED]

    for entry in calculators:
        said = call(entry, many_calls, table)

        wrong = [
            (words, got, right)
            for words, got, right in zip(table, said, expected, strict=True)
            if got != right
        ]
        assert wrong == [], entry["name"]


def test_an_image_by_itself_is_a_command(calculators: list[dict[str, Any]]) -> None:
    entry = random.Random().choice(calculators)

    done = subprocess.run(
        ["docker", "run", "--rm", *SHUT_IN, entry["image"], "1.21", "/", "-32.33"],
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, written(1.21 / -32.33), "")
