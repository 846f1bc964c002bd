"""The tutorial's parameter sweep: one chunk a setting on four client containers, checked against one process."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
from product import Product, running, until

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "images" / "examples" / "digits"
FIT = ("python3", "/opt/job/fit.py")
ANSWER = ("accuracy_mean", "accuracy_std")

Rows = list[dict[str, str]]


@pytest.mark.docker
@pytest.mark.mongo
@pytest.mark.timeout(900)  # an image to build, and 210 imports of scikit-learn on what may be a busy machine
def test_a_sweep_over_four_containers_gives_the_very_table_that_one_process_gives(
    engine: docker.DockerClient, built_image: Callable[[str], str], mongod_binary: Path
) -> None:
    image = built_image("digits")
    with running("--beat-seconds", "5", "--containers", "4", "--image", image) as product:
        grid = write_grid(product.home / "grid.csv")
        until(
            lambda: "4 live containers" in product.run("dockercomp", "status"),
            seconds=180,
            what="4 containers",
        )

        task = submit(product, grid, image)
        dealt = product.run("dockercomp", "assign", "--project", "digits")
        watch(product, task)
        table = product.rows(task)
        expected = in_one_process(grid, image)
        host = json.loads((product.home / "built-in" / "launcher" / "host.json").read_text())["id"]

    settings = list(expected[0])[: -len(ANSWER)]
    # A container may have asked in the moment between the task's start and its turn: it holds what it took by then.
    assert len(expected) >= 200 and dealt.endswith("chunks dealt to 4 containers.\n")
    assert [{**{name: row[name] for name in settings}, **figures(row)} for row in table] == expected
    assert {(row["verdict"], row["exit_code"], row["image"]) for row in table} == {("accepted", "0", image)}
    assert len({row["container"] for row in table}) == 4
    assert engine.containers.list(all=True, filters={"label": f"dockercomp.host={host}"}) == []


def write_grid(path: Path) -> Path:
    made = subprocess.run(
        [sys.executable, DIGITS / "make_grid.py"], capture_output=True, text=True, check=True
    )
    path.write_text(made.stdout)
    return path


def submit(product: Product, grid: Path, image: str) -> str:
    """The id of the task that tries every row of `grid`."""
    options = ("--project", "digits", "--image", image, "--timeout", "60")
    return product.run("dockercomp", "submit", str(grid), *options, "--", *FIT).strip()


def watch(product: Product, task: str) -> None:
    """Wait for the end of the task: two minutes, or several times as many while the machine does other things."""
    command = ["dockercomp", "watch", task]
    done = subprocess.run(command, env=product.env, capture_output=True, text=True, timeout=700)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{product.log()}"


def in_one_process(grid: Path, image: str) -> Rows:
    """What the program answers for the whole grid without any of us, in a single process of the same image."""
    program, *arguments = FIT
    command = ["docker", "run", "--rm", "--interactive", "--network", "none", "--entrypoint", program, image]
    with grid.open() as lines:
        done = subprocess.run(
            [*command, *arguments, "--grid", "-"], stdin=lines, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("best: model=svc")
    return list(csv.DictReader(done.stdout.splitlines()))


def figures(row: dict[str, str]) -> dict[str, str]:
    """The answer's figures as the reference writes them: both write the shortest text that is that very float."""
    answer = json.loads(row["answer"])
    assert set(answer) == set(ANSWER)
    return {name: repr(answer[name]) for name in ANSWER}
