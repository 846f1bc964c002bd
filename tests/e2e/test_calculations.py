"""Calculations on sandboxed client containers, in every environment: images arrive by archive, answers are Python's.

CALCULATIONS says how many (100); `scripts/try-calculators 1000` runs more and shows how long what took.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from calculating import arithmetic
from calculator_parts import Entry, calculators, forgotten, made_of
from product import Product, until
from serving import Serving, server_for_containers

pytestmark = [pytest.mark.docker, pytest.mark.mongo]
__all__ = ["calculators"]

COUNT = int(os.environ.get("CALCULATIONS", "100"))
RELATIVE = 1e-9
PATIENCE_S = 600 + 5 * COUNT  #: on a machine that does other things as well


class Clock:
    """What took how long, shown at the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._began = time.monotonic()

    def lap(self, what: str, count: int = 0) -> None:
        took = time.monotonic() - self._began
        rate = f", {count / took:.1f}/s" if count else ""
        self.lines.append(f"{what}: {took:.1f} s{rate}")
        print(self.lines[-1], flush=True)
        self._began = time.monotonic()


class Caller:
    """Somebody with a key, and the API."""

    def __init__(self, product: Product) -> None:
        self.address = product.address
        self.key = (product.home / "scientist.key").read_text().strip()

    def call(self, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {self.key}"})
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def ask(self, text: str, **where: Any) -> str:
        return str(self.call("/calculations", {"calculation": text, **where})["id"])

    def rows(self, ids: list[str]) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), 40):
            part = ids[start : start + 40]
            rows = self.call(f"/calculations?after=ffffffffffff&open={','.join(part)}")["calculations"]
            found |= {row["id"]: row for row in rows}
        return [found[one] for one in ids]

    def settled(self, ids: list[str], *, seconds: float) -> list[dict[str, Any]]:
        """These, once each is answered or an error."""
        left = set(ids)

        def done() -> bool:
            rows = self.rows(sorted(left)[:200])
            left.difference_update(row["id"] for row in rows if row["state"] in ("answered", "error"))
            return not left

        until(done, seconds=seconds, what=f"{len(ids)} calculations")
        return self.rows(ids)


@pytest.fixture(scope="module")
def product(engine: docker.DockerClient, mongod_binary: Path) -> Iterator[Product]:
    home = Path(tempfile.mkdtemp(prefix="dockercomp-calculate-"))
    with server_for_containers(home, "--beat-seconds", "2") as product:
        yield product
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def host(
    engine: docker.DockerClient, client_image: str, product: Product, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """A volunteer's machine with two sandboxed client containers."""
    key = (product.home / "volunteer.key").read_text()
    made = Serving(
        engine, tmp_path_factory.mktemp("host"), server=product.address, image=client_image, key=key
    )
    made.self_test_passed()
    try:
        made.start()
        made.registered(2)
        yield made
    finally:
        made.clean_up()


def enable(product: Product, entries: list[Entry], *options: str) -> str:
    manifest = product.home / "calculators.json"
    manifest.write_text(json.dumps({"calculators": entries}))
    return product.run("dockercomp-server", "calculator", "enable", str(manifest), *options)


def calculations(count: int) -> Iterator[str]:
    """Any calculations that have an answer."""
    dice = random.Random(count)
    for _ in range(count):
        left, right = (
            f"{dice.uniform(-1, 1) * 10 ** dice.randrange(-9, 9):.{dice.randrange(3, 17)}g}" for _ in "ab"
        )
        yield f"{left} {dice.choice('+-*/')} {right}"


@pytest.mark.timeout(2 * PATIENCE_S)
def test_calculations_agree_with_pythons_and_every_environment_is_used(
    product: Product, host: Serving, calculators: list[Entry], capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    entries = [made_of(one) for one in calculators]
    clock.lap(
        f"{len(entries)} twins of the images, {sum(one['bytes'] for one in entries) / 1e6:.0f} MB in all"
    )
    said = enable(product, entries)
    clock.lap("images stored on the server, calculators enabled")
    assert said == f"{len(entries)} calculators are enabled, {len(entries)} of their images are new here.\n"

    with forgotten(entries):
        me = Caller(product)
        texts = list(calculations(COUNT))
        named = entries[: len(texts)]
        first = [
            me.ask(text, os=one["os"], language=one["language"])
            for text, one in zip(texts, named, strict=False)
        ]
        me.settled(first, seconds=PATIENCE_S)
        clock.lap(
            f"the first {len(first)}, one in each environment: each image arrives by archive", len(first)
        )
        others = [me.ask(text) for text in texts[len(named) :]]
        clock.lap(f"{len(others)} more taken in", len(others))
        rows = me.settled([*first, *others], seconds=PATIENCE_S)
        clock.lap(f"{len(others)} more answered", len(others))

    check(rows, texts)
    used = Counter(row["where"][0]["name"] for row in rows)
    assert set(used) == {one["name"] for one in entries}
    with capsys.disabled():
        print("", *clock.lines, f"used: {dict(sorted(used.items()))}", sep="\n  ", flush=True)


def check(rows: list[dict[str, Any]], texts: list[str]) -> None:
    assert {row["state"] for row in rows} == {"answered"}, [
        row for row in rows if row["state"] != "answered"
    ][:3]
    for row, text in zip(rows, texts, strict=True):
        assert row["calculation"] == text
        assert float(row["answer"]) == pytest.approx(arithmetic(*text.split()), rel=RELATIVE, abs=0)


@pytest.mark.timeout(900)
def test_a_wrong_calculator_is_named_by_the_others(
    product: Product, host: Serving, calculators: list[Entry], tmp_path: Path
) -> None:
    by_name = {one["name"]: one for one in calculators}
    right = [by_name[name] for name in ("c-scratch", "lua-trixie", "awk-trixie")]
    wrong = wrong_one(by_name["perl-trixie"], tmp_path)
    enable(product, [*right, wrong], "--cross-check", "2")
    me = Caller(product)
    shown: dict[str, Any] = {}
    ids: list[str] = []

    def is_found() -> bool:
        ids.extend(me.ask(f"{len(ids) + number} / 7", check=True) for number in range(1, 5))
        me.settled(ids[-4:], seconds=200)
        shown.update({one["name"]: one for one in me.call("/calculators")["calculators"]})
        return bool(shown["perl-trixie"]["disagreed"])

    with forgotten([wrong]):
        until(is_found, seconds=400, what="the wrong calculator is asked, and found")
        zero = me.settled([me.ask("1 / 0", check=True)], seconds=200)[0]

    rows = me.rows(ids)
    assert {name for row in rows for name in row["disagreed"]} == {"perl-trixie"}
    assert all(shown[one["name"]]["disagreed"] == 0 for one in right)
    for number, row in enumerate(rows, 1):
        assert float(row["answer"]) == pytest.approx(
            float(row["calculation"].split()[0]) / 7, rel=RELATIVE
        ), number
    assert (zero["state"], zero["error"]) == ("error", "Division by zero.")
    assert "perl-trixie\tperl" in product.run("dockercomp-server", "calculator", "list")


def wrong_one(entry: Entry, folder: Path) -> Entry:
    """The same calculator with a mistake in it."""
    import subprocess

    program = Path(__file__).parents[2] / "images" / "calculators" / "perl" / "calculate.pl"
    mistaken = program.read_text().replace("$left / $right", "$left / $right * 1.0001")
    assert mistaken != program.read_text()
    (folder / "calculate.pl").write_text(mistaken)
    (folder / "Dockerfile").write_text(
        f"FROM {entry['tag']}\nLABEL dockercomp.test=calculations\nCOPY calculate.pl /calculate.pl\n"
    )
    tag = f"dockercomp-test/calculator:wrong-{os.urandom(4).hex()}"
    subprocess.run(["docker", "build", "--quiet", "--tag", tag, folder], check=True, capture_output=True)
    image = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Id}}", tag], check=True, capture_output=True, text=True
    ).stdout.strip()
    return {**entry, "tag": tag, "image": image}
