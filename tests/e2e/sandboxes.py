"""A host that lends itself to jobs: the launcher's job half with a real engine, and a hostile image."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from parts import require

from client_container.launcher.files.slots import Slots
from client_container.launcher.jobs.door import Door
from client_container.launcher.jobs.engine import JobEngine
from client_container.launcher.jobs.jobs import Jobs
from client_container.launcher.jobs.ran import Ran
from client_container.launcher.line.wire import GivenChunk, GivenFile, Manifest, Refusal, Run
from client_container.launcher.policy.policy import Policy

HERE = Path(__file__).parent
MARK = {"dockercomp.test": "sandbox"}
MiB = 2**20
POLICY = Policy(containers=4, cpus=2.0, memory=4 * 96 * MiB, disk=8 * 32 * MiB)


def make_hostile_image(engine: docker.DockerClient, scratch: Path) -> str:
    """Id of an image with nothing but one static program, whose own command is `hostile cat`."""
    compiler = shutil.which("gcc")
    if compiler is None:
        require("no C compiler (gcc) for the hostile image")
    program = scratch / "hostile"
    subprocess.run([compiler, "-static", "-O1", "-w", "-o", program, HERE / "hostile.c"], check=True)
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        info = archive.gettarinfo(str(program), "hostile")
        info.uid = info.gid = info.mtime = 0
        with program.open("rb") as file:
            archive.addfile(info, file)
        shared = tarfile.TarInfo("shared")
        shared.type, shared.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(shared)
    tag = f"dockercomp-test/hostile:{uuid.uuid4().hex[:12]}"
    repository, _, name = tag.partition(":")
    changes = ['ENTRYPOINT ["/hostile"]', 'CMD ["cat"]', "ENV GREETING=hello", "LABEL dockercomp.slot=7"]
    engine.api.import_image_from_data(layer.getvalue(), repository=repository, tag=name, changes=changes)
    return str(engine.images.get(tag).id)


def make_odd_image(engine: docker.DockerClient, entries: dict[str, Any], *changes: str) -> str:
    """Id of an image with these only: bytes for a file, text for a link, None for a folder, or a type of tarfile's."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, what in {"odd": uuid.uuid4().hex.encode() + b".", **entries}.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if what is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what
            elif len(what) == 1:
                info.type = what
            else:
                info.size = len(what)
            archive.addfile(info, io.BytesIO(what) if info.isreg() else None)
    tag = uuid.uuid4().hex[:12]
    repository = "dockercomp-test/odd"
    engine.api.import_image_from_data(out.getvalue(), repository=repository, tag=tag, changes=list(changes))
    return str(engine.images.get(f"{repository}:{tag}").id)


@dataclass(frozen=True)
class LocalImage:
    id: str


class LocalImages:
    """All images are here."""

    def __init__(self) -> None:
        self.missing: set[str] = set()
        self.pulled: list[tuple[str, str | None]] = []

    def find(self, reference: str) -> LocalImage | None:
        return None if reference in self.missing else LocalImage(reference)

    def pull(self, reference: str, progress: Any) -> LocalImage:
        progress(1, 2)
        self.missing.discard(reference)
        return LocalImage(reference)

    def load(self, descriptor: int, image_id: str, progress: Any) -> LocalImage:
        if os.read(descriptor, 100) != b"archive":
            raise Refusal("bad_request", "This is no archive.")
        self.missing.discard(image_id)
        return LocalImage(image_id)

    def used(self, reference: str) -> None:
        pass


@dataclass
class Told:
    """What a run told."""

    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def end(self) -> dict[str, Any]:
        assert self.events and self.events[-1]["event"] == "end", self.events
        return self.events[-1]

    @property
    def stdout(self) -> str:
        return self._output("stdout").decode()

    @property
    def stderr(self) -> str:
        return self._output("stderr").decode("utf-8", "replace")

    @property
    def started(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == "started"]

    def _output(self, stream: str) -> bytes:
        return b"".join(base64.b64decode(one["data"]) for one in self.events if one["event"] == stream)


class Host:
    """One launcher instance's jobs."""

    def __init__(
        self,
        home: Path,
        image: str,
        *,
        instance: str = "",
        client_uid: int | None = None,
        engine_at: str | None = None,
        **settings: Any,
    ) -> None:
        self.home, self.image, self.engine_at = home, image, engine_at
        self.instance = instance or f"test-{uuid.uuid4().hex[:8]}"
        self.labels = {"dockercomp.instance": self.instance, "dockercomp.host": "0" * 36, **MARK}
        self.first_uid = 760_000
        self.slots = Slots(home / "slots", first_uid=self.first_uid if client_uid is None else client_uid)
        self.images = LocalImages()
        self.policy, self.why, self.ran = POLICY, None, []
        # The group of all jobs belongs to the machine: tests that run beside these must not meet our totals.
        self.settings = {"grace_s": 1.0, "totals": lambda: (4096.0, 2**50), **settings}
        self.jobs = self.launch()
        for slot in range(POLICY.containers):
            self.slots.prepare(slot, b"key\n")

    def launch(self) -> Jobs:
        """A launcher's jobs, as after its start."""
        return Jobs(
            engine=JobEngine(self.engine_at),
            home=self.home,
            instance=self.instance,
            labels=self.labels,
            first_uid=self.first_uid,
            policy=lambda: self.policy,
            gate=lambda: self.why,
            images=self.images,
            slots=self.slots,
            record=self._record,
            **self.settings,
        )

    def _record(self, ran: Ran) -> None:
        self.ran.append(ran)

    def request(
        self,
        *action: str,
        data: str = '{"a": 1}',
        chunk: str = "",
        token: str = "",
        files: Sequence[GivenFile] = (),
        **manifest: Any,
    ) -> Run:
        whole = {"image": self.image, "timeout_s": 30.0, "project": "sums", "task": "t", **manifest}
        return Run(
            token=token or str(uuid.uuid4()),
            manifest=Manifest(action=("/hostile", *action) if action else (), **whole),
            chunk=GivenChunk(id=chunk or f"c.{uuid.uuid4().hex[:6]}", run=0, input=data),
            files=tuple(files),
        )

    def run(self, *action: str, slot: int = 0, **rest: Any) -> Told:
        """Run a chunk to its end."""
        told = Told()
        self.jobs.run(slot, self.request(*action, **rest), told.events.append)
        return told

    def start(self, request: Run, *, slot: int = 0) -> tuple[Told, threading.Thread]:
        """Run a chunk in a thread."""
        told = Told()
        thread = threading.Thread(target=self.jobs.run, args=(slot, request, told.events.append), daemon=True)
        thread.start()
        return told, thread

    def start_elsewhere(
        self, *actions: tuple[str, ...], chunk: str, by: Sequence[str] = (), **manifest: Any
    ) -> subprocess.Popen[bytes]:
        """A launcher in a process of its own (started `by` a command), which runs these and prints what was told."""
        program = (
            "import sys, json, pathlib, sandboxes\n"
            "home, image, instance, chunk, limits, actions = sys.argv[1:]\n"
            "host = sandboxes.Host(pathlib.Path(home), image, instance=instance)\n"
            "told = [host.run(*action, chunk=chunk, **json.loads(limits)).events for action in json.loads(actions)]\n"
            "host.jobs.close()\n"
            "print(json.dumps(told))\n"
        )
        arguments = [
            str(self.home),
            self.image,
            self.instance,
            chunk,
            json.dumps(manifest),
            json.dumps(actions),
        ]
        paths = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parents[1])])
        return subprocess.Popen(
            [*by, sys.executable, "-c", program, *arguments],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
        )

    def give(self, slot: int, data: bytes) -> str:
        """Put a file into a slot as its client would; its hash."""
        import hashlib

        name = hashlib.sha256(data).hexdigest()
        (self.slots.folder(slot) / "files" / name).write_bytes(data)
        return name

    def taken(self, slot: int, sha256: str) -> bytes:
        return (self.slots.folder(slot) / "files" / sha256).read_bytes()

    def containers(self, engine: docker.DockerClient) -> list[Any]:
        mine = {"label": f"dockercomp.instance={self.instance}"}
        return engine.containers.list(all=True, filters=mine, ignore_removed=True)

    def open_door(self, stats: dict[str, Any] | None = None) -> Door:
        door = Door(self.slots, self.jobs, self.images, lambda slot: stats or {"paused": False, "slot": slot})
        door.open(0)
        return door


@contextlib.contextmanager
def lent_host(engine: docker.DockerClient, image: str, **settings: Any) -> Iterator[Host]:
    """A host, and an end to all of it; it must leave no container behind."""
    home = Path(tempfile.mkdtemp(prefix="dockercomp-test-"))
    home.chmod(0o711)
    host = Host(home, image, **settings)
    try:
        yield host
        host.jobs.close()
        assert not host.containers(engine)
    finally:
        for container in host.containers(engine):
            container.remove(force=True)
        shutil.rmtree(home)
