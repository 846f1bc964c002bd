"""The self-test: every wall is tried out, from inside containers that have exactly the flags of jobs and of clients.

A denial only counts where the same thing works without the wall: what is not to be reached is first seen to answer,
by a control. Nothing is left behind, and it takes seconds; the tries are in inside.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from client_container.launcher.clients.plan import HOME, LABEL_KIND, LABEL_SLOT, Plan
from client_container.launcher.clients.plan import container_config as client_config
from client_container.launcher.errors import EngineAway, EngineError
from client_container.launcher.files import folders
from client_container.launcher.files.slots import Slots
from client_container.launcher.jobs.cgroups import PARENT, group_of, parent_name
from client_container.launcher.jobs.demux import BadStream, Demultiplexer
from client_container.launcher.jobs.engine import JobEngine
from client_container.launcher.jobs.manifest import Allowance
from client_container.launcher.jobs.pause_elf import NoSuchMachine, write_pause_program
from client_container.launcher.jobs.sandbox import IN, JOBS, OPEN_FILES, OUT, PIDS, Sandbox
from client_container.launcher.jobs.sandbox import container_config as job_config
from client_container.launcher.line.refusal import Refusal
from client_container.launcher.self_test.schedule import FAILED, GPUS, PASSED, NotTested, Verdict
from client_container.launcher.self_test.targets import Goal, Listener, goal, outside_goals, outward_address
from client_container.launcher.wall.network import Wall

KIND = "self-test"
SLOT = 1999  #: of the client's kind; its uid is used by nobody else
LIMIT_S = 60.0  #: longest that the whole of it may take
MEMORY = 96 * 2**20
DISK = 4 * 2**20
PORT = 9009  #: on which a container listens to be found by another
HIDDEN = (
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/dockercomp",
    f"{HOME}/launcher.sock",
    f"{HOME}/account.key",
)
IN_A_JOB = ("network", "sockets", "user", "capabilities", "privileges", "seccomp", "root", "programs")
BY_FORCE = ("fork_bomb", "open_files", "file_size")
IN_A_CLIENT = ("user", "capabilities", "privileges", "seccomp", "root", "programs")
PROGRAM = (Path(__file__).parent / "inside.py").read_text()
SLEEPER = "import time\ntime.sleep(600)"
HEARER = f"""
import socket
listening = socket.create_server(("0.0.0.0", {PORT}))
while True:
    listening.accept()[0].close()
"""
DEVICES = "import glob; print(*glob.glob('/dev/nvidia[0-9]*'))"
OWN_ADDRESS = "import socket; print(socket.gethostbyname(socket.gethostname()))"


@dataclass(frozen=True)
class Check:
    """One wall that was tried out."""

    name: str
    ok: bool
    said: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process in a container that ended."""

    exit_code: int | None
    output: str  #: its stdout


class SelfTest:
    """Tries out the walls of one instance. `plan` is that of its client containers, `home` holds its slots.

    `needs_disk`: no job may start where slots have no file system of their own. `gpus`: names of the graphics
    processors that jobs are to get; None: the volunteer does not lend any.
    """

    def __init__(
        self,
        *,
        engine: JobEngine,
        wall: Wall,
        plan: Plan,
        home: Path,
        needs_disk: bool = True,
        gpus: Sequence[str] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._wall, self._plan, self._home = engine, wall, plan, home
        self._needs_disk, self._gpus = needs_disk, gpus
        self._now, self._clock = now, clock
        self._labels = {**plan.own_labels(), LABEL_KIND: KIND, LABEL_SLOT: ""}
        self._ends = 0.0

    def run(self) -> Verdict:
        """Try everything out; raises NotTested, EngineError and FirewallError when that could not be done."""
        self._ends = self._clock() + LIMIT_S
        try:
            with ExitStack() as stack:
                stack.enter_context(self._nothing_left())
                goals = self._goals(stack)
                checks = [self._own_disk(), *self._job(stack, goals), *self._client(stack, goals)]
        except (OSError, NoSuchMachine) as error:
            raise NotTested(f"The self-test could not be finished: {error}.") from error
        return Verdict(
            # Graphics processors are no wall: where jobs cannot have them, the host only does not offer them.
            verdict=PASSED if all(check.ok for check in checks if check.name != GPUS) else FAILED,
            at=self._now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            checks=tuple(vars(check) for check in checks),
        )

    # --- the surroundings

    @contextlib.contextmanager
    def _nothing_left(self) -> Iterator[None]:
        """Remove what a self-test made: an earlier one that was killed, and, at the end, this one."""
        self._clear()
        try:
            yield
        finally:
            self._clear()

    def _clear(self) -> None:
        for container in self._engine.find(self._labels):
            self._engine.remove(container)
        for folder in self._folders():
            if folder.is_dir():
                folders.remove(folder)

    def _folders(self) -> tuple[Path, Path]:
        """Of the job and of the client; both on the file system of the slots."""
        return self._home / "slots" / KIND, self._home / "slots" / str(SLOT)

    def _goals(self, stack: ExitStack) -> list[Goal]:
        """What neither jobs nor clients may reach: listeners of our own, and what else is around."""
        self._wall.ensure()
        allowed = [(target.address, target.port) for target in self._wall.allowed()]
        addresses = {"this machine's address on the bridge": self._wall.gateway()}
        outward = outward_address([*(address for address, _ in allowed), "192.0.2.1"])
        if outward is not None:
            addresses["this machine's address in the network"] = outward
        goals = []
        for name, address in addresses.items():
            listener = stack.enter_context(Listener(address))
            goals.append(goal(name, address, listener.port))
        other = self._listening(self._client_config("bridge"))
        return [*goals, goal("a container elsewhere", other, PORT), *outside_goals(allowed)]

    def _listening(self, config: dict[str, Any]) -> str:
        """Start a container that listens on PORT; its address."""
        made = self._start({**config, "Cmd": ["-c", HEARER]})
        ours = self._execute(made, ["python3", "-c", OWN_ADDRESS], uid=self._uid).output.strip()
        alone = {"tries": [], "targets": {"itself": [ours, PORT]}, "reach": True}
        while not self._tried(made, alone)["reach"]["itself"]:
            self._in_time("A container does not listen.")
        return ours

    # --- what is tried out

    def _own_disk(self) -> Check:
        slots = self._home / "slots"
        held = slots.stat().st_dev != self._home.stat().st_dev
        facts = os.statvfs(slots)
        size = f"{facts.f_blocks * facts.f_frsize >> 20} MiB"
        said = (
            f"jobs write to a file system of their own, of {size}"
            if held
            else "jobs share the machine's disk"
        )
        if not held and not self._needs_disk:
            # What a job writes is still looked at twice a second, and the job ended.
            return Check("disk of their own", True, f"NOT ENFORCED: {said}; what they write is only watched")
        return Check("disk of their own", held, said)

    def _job(self, stack: ExitStack, goals: list[Goal]) -> Iterator[Check]:
        sandbox = self._sandbox()
        made = self._start(job_config(sandbox))
        stack.callback(self._engine.remove, made)
        state = self._engine.state(made)
        parent = group_of(state.pid).folders["memory"].parent.name
        given = {
            "targets": {one.name: [one.address, one.port] for one in goals},
            "hidden": HIDDEN,
            "uid": sandbox.uid,
            "closed": ["/", "/etc", "/usr", IN],
            "writable": OUT,
            "pids": PIDS,
            "open_files": OPEN_FILES,
            "disk": DISK,
            "memory": MEMORY,
        }
        yield Check(
            "job: limits of all together", parent in (PARENT, f"{PARENT}.slice"), f"its group is in {parent}"
        )
        for names in (IN_A_JOB, BY_FORCE):
            yield from self._checks("job", made, {**given, "tries": names})
        yield self._memory(made, given)
        if self._gpus is not None:
            yield self._handed_gpus(replace(sandbox, gpu=True), self._gpus)

    def _handed_gpus(self, sandbox: Sandbox, gpus: Sequence[str]) -> Check:
        """Whether a job that asks for them sees the machine's graphics processors."""
        if not gpus:
            return Check(GPUS, False, "no graphics processor of NVIDIA's has a driver on this machine")
        try:
            made = self._start(job_config(sandbox))
        except EngineAway:
            raise
        except (EngineError, Refusal) as error:
            return Check(GPUS, False, f"jobs cannot have them; is NVIDIA's container toolkit here? {error}")
        try:
            seen = self._execute(made, ["python3", "-c", DEVICES], uid=self._uid).output.split()
        finally:
            self._engine.remove(made)
        said = f"a job sees {', '.join(seen)}" if seen else "a job that asks for them sees no device"
        return Check(GPUS, bool(seen), said)

    def _memory(self, made: str, given: Mapping[str, Any]) -> Check:
        """More memory than allowed: the kernel ends the process, and the container lives on."""
        killed = 137
        text = json.dumps({**given, "tries": ["memory"]})
        ended = self._execute(made, ["python3", "-c", PROGRAM, text], uid=self._uid)
        if ended.exit_code == killed:
            return Check("job: memory", True, f"stopped at {MEMORY >> 20} MiB")
        return Check("job: memory", False, f"not stopped at {MEMORY >> 20} MiB (exit code {ended.exit_code})")

    def _client(self, stack: ExitStack, goals: list[Goal]) -> Iterator[Check]:
        network = self._wall.network
        neighbour = self._listening(self._client_config(network))
        made = self._start({**self._client_config(network), "Cmd": ["-c", SLEEPER]})
        stack.callback(self._engine.remove, made)
        given = {"uid": self._uid, "closed": ["/", "/etc", "/usr"], "tries": IN_A_CLIENT}
        yield from self._checks("client", made, given)
        tried = [*goals, Goal("another client container", neighbour, PORT)]
        servers = [one for one in self._wall.allowed() if one.port == self._wall.place.port]
        targets = {one.name: [one.address, one.port] for one in tried}
        named = {f"server {one.address}": [one.address, one.port] for one in servers}
        reached = self._tried(made, {"tries": [], "targets": {**targets, **named}, "reach": True})["reach"]
        for one in tried:
            yield _unreached(one, reached[one.name])
        there = any(reached[name] for name in named)
        said = "reached" if there else "not reached just now; this is no wall, but look at the network"
        yield Check("client: the source server", True, said)

    def _checks(self, where: str, made: str, given: Mapping[str, Any]) -> Iterator[Check]:
        found = self._tried(made, given)
        for name in given["tries"]:
            ok, said = found.get(name, (False, "it was not tried"))
            yield Check(f"{where}: {name.replace('_', ' ')}", bool(ok), str(said))

    # --- containers

    @property
    def _uid(self) -> int:
        return self._plan.uid(SLOT)

    def _sandbox(self) -> Sandbox:
        folder = self._folders()[0]
        folder.mkdir(mode=0o711, parents=True)
        for name in ("in", "out", "checkpoint"):
            (folder / name).mkdir(mode=0o755)
            if name != "in":
                os.chown(folder / name, self._uid, self._uid)
        return Sandbox(
            slot=SLOT - JOBS,
            image=self._plan.image,
            allowance=Allowance(memory=MEMORY, cpus=1.0, disk=DISK, timeout_s=LIMIT_S),
            first_uid=self._plan.first_uid,
            labels=self._labels,
            folder=folder,
            pause=write_pause_program(self._home / "pause"),
            cgroup_parent=parent_name(self._engine.cgroups()),
        )

    def _client_config(self, network: str) -> dict[str, Any]:
        """A client container's configuration, with a program of ours in it, on that network."""
        assert self._plan.front is not None
        Slots(self._home / "slots", first_uid=self._plan.first_uid).prepare(SLOT, b"none\n")
        front = replace(self._plan.front, network=network, slots=str(self._home / "slots"))
        config = client_config(replace(self._plan, front=front), SLOT)
        return {**config, "Entrypoint": ["python3"]}

    def _start(self, config: dict[str, Any]) -> str:
        name = f"dockercomp-{self._plan.instance}-{KIND}-{secrets.token_hex(4)}"
        return self._engine.create({**config, "Labels": self._labels}, name)

    def _tried(self, made: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the program inside found; empty when it did not get to say it."""
        ended = self._execute(made, ["python3", "-c", PROGRAM, json.dumps(given)], uid=self._uid)
        with contextlib.suppress(ValueError):
            return dict(json.loads(ended.output))
        return {"reach": dict.fromkeys(given.get("targets", {}), False)} if given.get("reach") else {}

    def _execute(self, made: str, argv: list[str], *, uid: int) -> Ended:
        """Run a program in a container to its end; raises NotTested when that takes too long."""
        exec_id = self._engine.prepare_exec(made, argv, env={}, uid=uid)
        connection, first = self._engine.start_exec(exec_id)
        with connection:
            output = self._read(connection, first)
        while (state := self._engine.exec_state(exec_id)).running:
            self._in_time("A program in a container does not end.")
        return Ended(exit_code=state.exit_code, output=output)

    def _read(self, connection: socket.socket, first: bytes) -> str:
        pieces, stream, data = [], Demultiplexer(), first
        connection.settimeout(max(1.0, self._ends - self._clock()))
        try:
            while True:
                pieces += [piece for name, piece in stream.feed(data) if name == "stdout"]
                data = connection.recv(65536)
                if not data:
                    return b"".join(pieces).decode("utf-8", "replace")
        except (TimeoutError, BadStream) as error:
            raise NotTested(f"A program in a container does not end: {error}.") from error

    def _in_time(self, complaint: str) -> None:
        """Wait a moment; raises NotTested when the time is up."""
        if self._clock() > self._ends:
            raise NotTested(complaint)
        time.sleep(0.05)


def _unreached(one: Goal, reached: bool) -> Check:
    """Judge one address: it must not be reached; and it only counts where something answers without the wall."""
    said = f"{one.address}:{one.port} was {'REACHED' if reached else 'not reached'}"
    control = "it answers without the wall" if one.answers else "nothing answers there on this machine either"
    return Check(f"client: {one.name}", not reached and (one.answers or not one.needed), f"{said}; {control}")
