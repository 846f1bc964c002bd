"""What a job container costs for each chunk: the sandbox beside a bare process and beside `docker run`.

    python -m bench.sandbox --runs 20

One chunk of one small static program (it copies its input), run by four ways in turns, so that whatever else the
machine does meets all of them: the process runtime; `docker run --rm` without any of our limits; the sandbox with a
new container; the sandbox with the container of the chunk before. The two last go the client's whole way, through the
launcher's socket. Prints a Markdown table of medians, or one JSON object. Wants root, gcc and a Docker engine.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from client_container.allow_list import AllowList
from client_container.blobs import Blobs
from client_container.connection import ServerConnection
from client_container.holdings import Holdings
from client_container.launcher.files.slots import Slots
from client_container.launcher.jobs.door import Door
from client_container.launcher.jobs.engine import JobEngine
from client_container.launcher.jobs.jobs import Jobs
from client_container.launcher.policy.policy import Policy
from client_container.membership import Membership
from client_container.protocol import Chunk, Introduction, Job
from client_container.runtime import Halt, Runtime
from client_container.runtime.launcher_line import LauncherLine
from client_container.runtime.process import ProcessRuntime, prepare_parent
from client_container.runtime.sandbox import SandboxRuntime

PROGRAM = """
#include <unistd.h>
int main(void) {
    char data[65536];
    ssize_t count;
    while ((count = read(0, data, sizeof data)) > 0) write(1, data, count);
    return 0;
}
"""
INPUT = json.dumps({"a": 1, "b": 2})
FIRST_UID = 770_000

Way = Callable[[], None]


def main() -> None:
    """Run and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.runs)
    print(json.dumps(figures, indent=1) if options.json else table(figures))


def measure(runs: int) -> dict[str, Any]:
    """Median and 90th percentile in milliseconds by way, each of so many runs after two that do not count."""
    with _ways() as ways:
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(runs + 2):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                if number >= 2:
                    seconds[name].append(time.perf_counter() - began)
    return {
        "runs": runs,
        "load": round(os.getloadavg()[0], 2),
        "ms": {
            name: {
                "median": round(1000 * statistics.median(those), 1),
                "p90": round(1000 * statistics.quantiles(those, n=10)[-1], 1),
            }
            for name, those in seconds.items()
        },
    }


def table(figures: dict[str, Any]) -> str:
    """The figures for people, with how many times the first and the second way each is."""
    bare, plain, *_ = (one["median"] for one in figures["ms"].values())
    lines = [
        f"{figures['runs']} chunks each way, in turns; load average at the end {figures['load']}.",
        "",
        "| way | median, ms | p90, ms | to a bare process | to `docker run` |",
        "|---|---|---|---|---|",
    ]
    for name, one in figures["ms"].items():
        ratios = f"{one['median'] / bare:.1f} x | {one['median'] / plain:.2f} x"
        lines.append(f"| {name} | {one['median']} | {one['p90']} | {ratios} |")
    return "\n".join(lines)


@contextmanager
def _ways() -> Iterator[dict[str, Way]]:
    """The four ways, and an end to all they need."""
    home = Path(tempfile.mkdtemp(prefix="dockercomp-bench-"))
    home.chmod(0o711)
    engine = docker.DockerClient.from_env()
    program = _compiled(home)
    image = _imported(engine, program)
    site = _Site(home)
    process = ProcessRuntime(
        parent=prepare_parent(home, uid=None), allow=AllowList(((str(program),),)), path=os.environ["PATH"]
    )

    def plain() -> None:
        command = ["docker", "run", "--rm", "-i", "--network", "none", image, "/program"]
        done = subprocess.run(command, input=INPUT, capture_output=True, text=True, check=True)
        assert done.stdout == INPUT

    try:
        yield {
            "bare process (process runtime)": lambda: _execute(process, str(program), None, "t"),
            "`docker run --rm`": plain,
            "sandbox, new container": lambda: _execute(site.runtime, "/program", image, uuid.uuid4().hex),
            "sandbox, warm container": lambda: _execute(site.warm_runtime, "/program", image, "warm"),
        }
    finally:
        site.close()
        engine.images.remove(image, force=True)
        shutil.rmtree(home)


def _execute(runtime: Runtime, program: str, image: str | None, task: str) -> None:
    job = Job(
        id=f"{task}/main",
        image=image,
        action=(program,),
        env={},
        timeout_s=60.0,
        rows=None,
        project="bench",
        task=task,
    )
    chunk = Chunk(id=f"{task}.1", run=0, input=INPUT, job=job, ticket="", token="")
    execution = runtime.execute(chunk, Halt())
    assert (execution.outcome, execution.stdout) == ("ok", INPUT), execution


@dataclass(frozen=True)
class _Here:
    id: str


class _Images:
    """The one image is here."""

    def find(self, reference: str) -> _Here:
        return _Here(reference)

    def pull(self, reference: str, progress: object) -> _Here:
        return _Here(reference)

    def load(self, descriptor: int, image_id: str, progress: object) -> _Here:
        return _Here(image_id)

    def used(self, reference: str) -> None:
        pass


class _OwnSlots(Slots):
    """Both clients are this process, and doors open to their client alone."""

    def uid(self, slot: int) -> int:
        return os.geteuid()


class _Site:
    """A launcher's job half with two slots, one for each way: new containers would end the warm one."""

    def __init__(self, home: Path) -> None:
        slots = _OwnSlots(home / "slots", first_uid=os.geteuid())
        images = _Images()
        instance = f"bench-{uuid.uuid4().hex[:8]}"
        policy = Policy(containers=2, cpus=2.0, memory=2**30, disk=2**30)
        self._jobs = Jobs(
            engine=JobEngine(),
            home=home,
            instance=instance,
            labels={"dockercomp.instance": instance, "dockercomp.host": "bench"},
            first_uid=FIRST_UID,
            policy=lambda: policy,
            gate=lambda: None,
            images=images,
            slots=slots,
            totals=lambda: (4096.0, 2**50),  # they are the machine's: nothing else that runs shall meet ours
        )
        self._door = Door(slots, self._jobs, images, lambda slot: {"paused": False})
        for slot in (0, 1):
            slots.prepare(slot, b"key\n")
            self._door.open(slot)
        self.runtime, self.warm_runtime = (self._runtime(slots, slot) for slot in (0, 1))

    def close(self) -> None:
        """Leave nothing behind."""
        self._jobs.close()
        self._door.stop()

    @staticmethod
    def _runtime(slots: Slots, slot: int) -> SandboxRuntime:
        folder = slots.folder(slot)
        nobody = ServerConnection("http://127.0.0.1:1", "none")  # the chunks here have no files
        blobs = Blobs(nobody, Membership(nobody, Introduction(container="", host=""), Holdings()))
        return SandboxRuntime(
            LauncherLine(folder / "launcher.sock"),
            files=folder / "files",
            fetch=lambda job: "",
            blobs=blobs,
        )


def _compiled(home: Path) -> Path:
    source = home / "program.c"
    source.write_text(PROGRAM)
    program = home / "program"
    subprocess.run(["gcc", "-static", "-O1", "-w", "-o", program, source], check=True)
    return program


def _imported(engine: docker.DockerClient, program: Path) -> str:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.add(program, "program")
    tag = uuid.uuid4().hex[:12]
    engine.api.import_image_from_data(layer.getvalue(), repository="dockercomp-bench", tag=tag)
    return str(engine.images.get(f"dockercomp-bench:{tag}").id)


if __name__ == "__main__":
    main()
