"""Clients of the run's own, which speak the protocol as no good client would: one too late, one with others' work."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import requests

from faults.job import answer
from faults.ledger import Ledger
from faults.programs import CannotGoOn
from faults.proxy import Proxy
from faults.roster import BEAT_S, HONEST_IMAGE, Member

LATE_S = 3.0  #: how long after the end of its leases the late one delivers


class Stranger:
    """A container that registers, and calls through a proxy of its own; `run` is its life, in a thread."""

    def __init__(self, member: Member, key: str, proxy: Proxy) -> None:
        self.member, self.proxy = member, proxy
        self.container = str(uuid.uuid4())
        self.failure: Exception | None = None
        self._account_key, self._key = key, key
        self._life, self._beats = "", 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name=member.name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Come to an end: what is still to be said is said."""
        self._stopping.set()
        self._thread.join(60)

    def run(self) -> None:
        """What it does until `stop`."""
        raise NotImplementedError

    def register(self) -> None:
        """Get a new life."""
        host = {"id": self.member.host_id}
        body = {"protocol": 1, "id": self.container, "host": host, "image": HONEST_IMAGE}
        made = self._until_answered("/containers", body, self._account_key).json()
        self._key, self._life, self._beats = made["key"], made["life"], 0

    def beat(self, held: dict[str, int]) -> None:
        """List what is held; nothing of it is ever begun."""
        self._beats += 1
        body = {"life": self._life, "beat": self._beats, "held": held, "started": []}
        if self.call("/heartbeat", body).status_code in (401, 410):
            self.register()

    def call(self, path: str, body: dict[str, Any]) -> requests.Response:
        """A server's answer, whatever it is."""
        return self._until_answered(path, body, self._key)

    def _until_answered(self, path: str, body: dict[str, Any], key: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {key}"}
        for _ in range(120):
            try:
                found = requests.post(self.proxy.url + path, json=body, headers=headers, timeout=20)
                if found.status_code not in (408, 429, 503):
                    return found
            except requests.RequestException:
                pass
            time.sleep(0.5)
        raise CannotGoOn(f"{self.member.name}: no server answers {path}")

    def _guarded(self) -> None:
        try:
            self.register()
            self.run()
        except Exception as error:
            self.failure = error


class LateOne(Stranger):
    """Claims, lists it in every beat, begins nothing, and delivers the right answers when the leases have ended."""

    delivered = 0

    def run(self) -> None:
        """Claim, wait, deliver; again and again."""
        while not self._stopping.is_set():
            token = str(uuid.uuid4())
            found = self.call("/next", {"token": token, "want": 3})
            if found.status_code in (401, 410):
                self.register()
            chunks = found.json()["chunks"] if found.status_code == 200 else []
            self._keep(token, chunks)
            if chunks:
                self._deliver([_attempt(chunk, token) for chunk in chunks])
            self._stopping.wait(1.0)

    def _keep(self, token: str, chunks: Sequence[dict[str, Any]]) -> None:
        lasts_s = max((chunk["ends_in_s"] + LATE_S for chunk in chunks), default=0.0)
        until = time.monotonic() + lasts_s
        while time.monotonic() < until and not self._stopping.is_set():
            self.beat({token: len(chunks)})
            self._stopping.wait(BEAT_S)

    def _deliver(self, attempts: Sequence[dict[str, Any]]) -> None:
        found = self.call("/add", {"results": list(attempts)})
        if found.status_code == 401:
            self.register()
            found = self.call("/add", {"results": list(attempts)})
        if found.status_code != 200 or not all(one.get("stored") for one in found.json()["results"]):
            raise CannotGoOn(f"late answers are refused: {found.status_code} {found.text[:500]}")
        self.delivered += len(attempts)


class Forger(Stranger):
    """Passes off as its own what others have delivered, with their tickets, changed or not, or with made-up ones."""

    tried = 0

    def __init__(self, member: Member, key: str, proxy: Proxy, ledger: Ledger, *, seed: int) -> None:
        super().__init__(member, key, proxy)
        self._ledger, self._dice = ledger, random.Random(f"{seed}/forger")

    def run(self) -> None:
        """A forgery now and then. It beats, and claims nothing."""
        while not self._stopping.wait(BEAT_S):
            self.beat({})
            stolen = self._ledger.borrow_attempt()
            if stolen is None:
                continue
            self.tried += 1
            if self._dice.random() < 0.5:
                stolen["stdout"] = "1\n"
            if self._dice.random() < 0.3:
                stolen["ticket"] = "x" * 43
            found = self.call("/add", {"results": [stolen]})
            if found.status_code == 401:
                self.register()
            elif found.status_code != 403:
                raise CannotGoOn(f"a forged result is answered {found.status_code}: {found.text[:300]}")


def _attempt(chunk: dict[str, Any], token: str) -> dict[str, Any]:
    row = json.loads(chunk["input"])
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "chunk": chunk["id"],
        "run": chunk["run"],
        "token": token,
        "ticket": chunk["ticket"],
        "outcome": "ok",
        "exit_code": 0,
        "signal": None,
        "stdout": answer(int(row["a"]), int(row["b"])) + "\n",
        "stderr_tail": "",
        "started": now,
        "ended": now,
        "cpu_s": 0.0,
        "runtime": "process",
        "image": HONEST_IMAGE,
    }
