"""The programs of a run: replica set, servers, housekeepers and clients, each started as its users start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from faults import job
from faults.clocks import shifted
from faults.ledger import Ledger
from faults.programs import CannotGoOn, Program
from faults.proxy import Proxy
from faults.replica_set import ReplicaSet, free_ports
from faults.roster import BEAT_S, FORGER, HONEST_IMAGE, HOUSEKEEPERS, LATE, SERVERS, Member
from source_server.assembly import answers

TOP = Path(__file__).parents[2]
READY_S = 120.0
SERVER_CLI = (sys.executable, "-m", "source_server.cli")
CLIENT = (sys.executable, "-m", "client_container")


class Crew:
    """Everything that runs, by name; made in the run's own folder."""

    def __init__(
        self, folder: Path, mongod: Path, roster: Sequence[Member], ledger: Ledger, *, seed: int, clock_s: int
    ) -> None:
        self.folder, self.roster, self.ledger = folder, roster, ledger
        self._rules: dict[int, str] = {}
        self.program = job.lay_program(folder)
        self.set = ReplicaSet(folder, mongod)
        self.ports = free_ports(SERVERS)
        clocks = (0, clock_s)
        self.servers = [self._server(n, clocks[n]) for n in range(SERVERS)]
        self.housekeepers = [self._housekeeper(n, -clocks[n]) for n in range(HOUSEKEEPERS)]
        self.proxies = [Proxy(one.number, self.ports, ledger, seed=seed, active=True) for one in roster]
        for member in roster:
            self.rule(member.host, "lying" if member.liar else "honest")
        self.clients = [self._client(one) for one in roster]

    @property
    def programs(self) -> list[Program]:
        """All of them, in the order of starting."""
        return [*self.set.members, *self.servers, *self.housekeepers, *self.clients]

    def start(self) -> None:
        """Start all, one after the other; raises CannotGoOn when that does not work."""
        self.set.start()
        self.operate("migrate")
        for account in sorted({LATE, FORGER, *(one.account for one in self.roster)}):
            self.make_account(account, "volunteer")
        self.make_account("scientist", "scientist")
        for program in (*self.servers, *self.housekeepers):
            program.start()
        deadline = time.monotonic() + READY_S
        while not all(answers(f"http://127.0.0.1:{port}") for port in self.ports):
            if time.monotonic() > deadline:
                raise CannotGoOn(f"the servers do not answer: {self.servers[0].written()[-2000:]}")
            time.sleep(0.1)
        for client in self.clients:
            client.start()

    def stop(self) -> None:
        """Kill whatever still runs, the last one first."""
        for program in reversed(self.programs):
            program.kill()
        for proxy in self.proxies:
            proxy.stop()

    def members(self) -> dict[str, Member]:
        """container id -> the client that it is."""
        found = {}
        for member in self.roster:
            identity = json.loads((self._home(member) / "identity.json").read_text())
            found[identity["container"]] = member
        return found

    def undelivered(self) -> int:
        """How many attempts lie in the clients' spools."""
        return sum(len(list((self._home(one) / "spool").glob("*.json"))) for one in self.roster)

    def rule(self, host: int, rule: str) -> None:
        """What the jobs of a host do from now on."""
        self._rules[host] = rule
        job.set_rule(self._bin(host), rule)

    def rule_of(self, host: int) -> str:
        """What they do now."""
        return self._rules[host]

    def key(self, account: str) -> Path:
        """The file with an account's key."""
        return self.folder / f"{account}.key"

    def make_account(self, name: str, role: str) -> None:
        """As an operator does it."""
        self.operate("account", "add", name, "--role", role, "--key-file", str(self.key(name)))

    def operate(self, *argv: str) -> None:
        """Run a command of `dockercomp-server`; raises CannotGoOn with what it said when it fails."""
        done = subprocess.run(
            [*SERVER_CLI, *argv], env=self._server_env(), capture_output=True, text=True, timeout=READY_S
        )
        if done.returncode != 0:
            raise CannotGoOn(f"dockercomp-server {argv[0]}: {done.stderr.strip()}")

    def _home(self, member: Member) -> Path:
        return self.folder / member.name

    def _bin(self, host: int) -> Path:
        return self.folder / f"host-{host}"

    def _server(self, n: int, clock_s: int) -> Program:
        argv = [*SERVER_CLI, "serve", "--bind", f"127.0.0.1:{self.ports[n]}"]
        return self._part(f"server-{n}", argv, self._server_env(clock_s))

    def _housekeeper(self, n: int, clock_s: int) -> Program:
        return self._part(f"housekeeper-{n}", [*SERVER_CLI, "housekeep"], self._server_env(clock_s))

    def _client(self, member: Member) -> Program:
        env = self._env(
            {
                "PATH": f"{self._bin(member.host)}:/usr/bin:/bin",
                "TMPDIR": str(self._temporary()),
                "DOCKERCOMP_HOME": str(self._home(member)),
                "DOCKERCOMP_SERVER": self.proxies[member.number].url,
                "DOCKERCOMP_KEY_FILE": str(self.key(member.account)),
                "DOCKERCOMP_HOST_ID": member.host_id,
                "DOCKERCOMP_ALLOW": json.dumps([[str(self.program)]]),
                **({} if member.liar else {"DOCKERCOMP_IMAGE": HONEST_IMAGE}),
            },
            member.clock_s,
        )
        return self._part(member.name, [*CLIENT, "--verbose"], env)

    def _temporary(self) -> Path:
        """Where clients of root put the folders of their jobs, which run as another user."""
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        return temporary

    def _part(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Program:
        return Program(name, argv, env=env, log=self.folder / f"{name}.log")

    def _server_env(self, clock_s: int = 0) -> dict[str, str]:
        own = {
            "DOCKERCOMP_HOME": str(self.folder),
            "DOCKERCOMP_MONGO_URI": self.set.uri,
            "DOCKERCOMP_BEAT_S": f"{BEAT_S:g}",
            "DOCKERCOMP_WEB_PROCESSES": "1",
        }
        return self._env({"PATH": os.environ["PATH"], **own}, clock_s)

    def _env(self, own: Mapping[str, str], clock_s: int) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("LANG", "LC_ALL", "HOME")}
        # The product under test is the one these files lie beside, whatever is installed.
        return {**kept, **own, **shifted(clock_s, TOP)}
