"""Somebody with an account, calling the app: a scientist, a volunteer's client container step by step."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any


class Person:
    """Somebody with an account, calling the app."""

    def __init__(self, app: Any, key: str) -> None:
        self.key = key
        self._http = app.test_client()

    def call(self, method: str, path: str, json: Any = None, **rest: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.key}", **rest.pop("headers", {})}
        if json is not None:
            rest["json"] = json
        return self._http.open(path, method=method, headers=headers, **rest)

    def ok(self, method: str, path: str, json: Any = None, **rest: Any) -> Any:
        """The JSON of a call that must succeed."""
        answer = self.call(method, path, json, **rest)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.get_json() if answer.status_code != 204 else None


class Scientist(Person):
    """Makes projects and tasks."""

    def task(self, rows: int = 10, *, project: str = "sums", body: bytes | None = None, **job: Any) -> str:
        """A waiting task with data: rows of a and b."""
        self.ok("POST", "/projects", {"name": project})
        job = {"action": ["/bin/cat"], **job}
        task = self.ok("POST", f"/projects/{project}/tasks", job)["id"]
        if body is None:
            body = ("a,b\n" + "".join(f"{n},{n + 1}\n" for n in range(rows))).encode()
        self.ok("PUT", f"/tasks/{task}/chunks/one", data=body, content_type="text/csv")
        return str(task)

    def blob(self, data: bytes) -> str:
        """Uploads a blob; its hash."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.ok("PUT", f"/blobs/{sha256}", data=data)
        return sha256

    def running(self, rows: int = 10, **rest: Any) -> str:
        """A task that runs, its chunks dealt to nobody."""
        task = self.task(rows, **rest)
        self.ok("POST", f"/tasks/{task}/start")
        return task


FEATURES = ["files", "outputs", "limits", "gpu"]  #: what today's client knows of jobs beyond the first one's


class Volunteer(Person):
    """One client container that speaks the protocol, step by step."""

    def __init__(self, app: Any, account_key: str, *, host: str | None = None, **extra: Any) -> None:
        super().__init__(app, account_key)
        self.account_key = account_key
        self.id = str(uuid.uuid4())
        self.host = host or str(uuid.uuid4())
        self.extra = extra
        self.beats = 0
        self.held: dict[str, int] = {}
        self.register()

    def register(self) -> None:
        self.key = self.account_key
        said = {"features": FEATURES, **self.extra}
        body = {"protocol": 1, "id": self.id, "host": {"id": self.host}, **said}
        made = self.ok("POST", "/containers", body)
        self.key, self.life, self.beats = made["key"], made["life"], 0

    def claim(self, want: int = 1, token: str | None = None) -> list[dict[str, Any]]:
        token = token or str(uuid.uuid4())
        answer = self.call("POST", "/next", {"token": token, "want": want})
        chunks = answer.get_json()["chunks"] if answer.status_code == 200 else []
        self.held[token] = len(chunks)
        return [{**chunk, "token": token} for chunk in chunks]

    def attempt(self, chunk: dict[str, Any], stdout: str = "42\n", **other: Any) -> dict[str, Any]:
        moment = "2026-11-22T06:00:00.000Z"
        return {
            "chunk": chunk["id"],
            "run": chunk["run"],
            "token": chunk["token"],
            "ticket": chunk["ticket"],
            "outcome": "ok",
            "exit_code": 0,
            "signal": None,
            "stdout": stdout,
            "stderr_tail": "",
            "started": moment,
            "ended": moment,
            "cpu_s": 0.1,
            "runtime": "process",
            "image": None,
            **other,
        }

    def failure(self, chunk: dict[str, Any], **other: Any) -> dict[str, Any]:
        failed = {"outcome": "failed", "exit_code": 1, "stderr_tail": "boom 17\n"}
        return self.attempt(chunk, "", **{**failed, **other})

    def add(self, *attempts: dict[str, Any]) -> Any:
        return self.call("POST", "/add", {"results": list(attempts)})

    def beat(self, started: list[str] | None = None, held: dict[str, int] | None = None) -> Any:
        self.beats += 1
        body = {"life": self.life, "beat": self.beats, "held": self.held if held is None else held}
        return self.call("POST", "/heartbeat", {**body, "started": started or []})
