"""What the volunteer can ask of a running launcher, and what is confirmed when the answer comes."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from client_container.launcher.clients.condition import Client, read_client
from client_container.launcher.clients.reconcile import Found
from client_container.launcher.errors import EngineError
from client_container.launcher.policy.file import told
from client_container.launcher.policy.governor import Pause, Word
from client_container.launcher.service.control import ControlError, Handler
from client_container.launcher.service.service import Service

SETTLE_S = 30.0  #: longest wait for what was asked to be so
LEAVE_S = 15.0  #: a client container says farewell and goes within it
LOOK_S = 0.1
LONGEST_PAUSE_S = 366 * 86400.0
MOST_ROWS = 1000


class Verbs:
    """The verbs of the control socket, for one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def table(self) -> dict[str, Handler]:
        """By name."""
        return {
            "status": self.status,
            "pause": self.pause,
            "resume": self.resume,
            "limits": self.limits,
            "reload": self.reload,
            "history": self.history,
            "self_test": self.self_test,
            "drain": self.drain,
        }

    def status(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that is known, as it was seen at the last look."""
        service = self._service
        clients = self._clients()
        return {
            "instance": service.installation.instance,
            "server": service.installation.server,
            "version": service.installation.version,
            "engine": {
                "version": service.crew.engine.version if service.crew else None,
                "problem": service.engine_problem,
            },
            "problems": service.problems.now(),
            "standing": self._standing(),
            "wanted": 0 if service.emptied else service.wanted,
            "running": sum(one["state"] == "running" for one in clients),
            "registered": sum(bool(one["registered"]) for one in clients),
            "clients": clients,
            "jobs": self._jobs(),
            "self_test": vars(service.self_tests.latest),
            "transfer_today": self._transfer(),
            "contribution": service.history.contribution(),
            "policy": told(service.policy),
        }

    def pause(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Freeze all jobs now; `minutes` may be null: until resumed. The answer says what really holds."""
        minutes = request.get("minutes")
        if minutes is not None and not _is_number(minutes, most=LONGEST_PAUSE_S / 60):
            raise ControlError("A pause is a number of minutes of at most a year, or null: until resumed.")
        until = None if minutes is None else datetime.now() + timedelta(minutes=float(minutes))
        self._service.set_pause(Pause(until=until))
        return self._confirmed(self._at_rest)

    def resume(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        """End a pause. Other conditions of the policy may still stop jobs: the answer says so."""
        self._service.set_pause(None)
        return self._confirmed(lambda: True)

    def limits(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        """The policy that holds, and what is wrong with the file as it is."""
        service = self._service
        return {
            "policy": told(service.policy),
            "file": str(service.installation.policy_file),
            "problem": service.files.problem,
        }

    def reload(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Read the policy now, and wait until as many client containers run as it says."""
        self._step_passed()
        service = self._service
        if service.files.problem is None:
            self._wait(self._converged, seconds=SETTLE_S)
        return {**self.limits(request), "wanted": service.wanted, "clients": self._clients()}

    def history(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The latest `count` jobs and days, newest first, and the whole contribution."""
        count = request.get("count", 20)
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST_ROWS:
            raise ControlError(f"The number of rows is 0 to {MOST_ROWS}.")
        history = self._service.history
        return {
            "jobs": history.jobs(count),
            "days": history.days(count),
            "contribution": history.contribution(),
        }

    def self_test(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        """Try every wall out, which takes up to a minute."""
        return vars(self._service.self_tests.run_now())

    def drain(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Leave the server: no new jobs; running ones finish `within` seconds or are given back; then the clients go.

        The launcher stays, without containers, until its process is ended.
        """
        seconds = request.get("within", 60)
        if not _is_number(seconds, most=3600):
            raise ControlError("Draining takes 0 to 3600 seconds.")
        service, ends = self._service, time.monotonic() + float(seconds)
        service.leaving = True
        before = len(self._jobs())
        self._wait(lambda: not self._jobs(), until=ends)
        left_over = len(self._jobs())
        if left_over and service.crew:
            service.crew.jobs.give_back()
        self._wait(self._delivered, until=max(ends, time.monotonic() + 1))
        clients = {one["slot"]: one for one in self._clients() if one["slot"] is not None}
        service.emptied = True
        service.wake.set()
        gone = self._wait(lambda: not self._clients(), seconds=LEAVE_S)
        images = self._remove_images()
        after = {slot: read_client(service.installation.slots, slot) for slot in clients}
        return {
            "finished": before - left_over,
            "given_back": left_over,
            "undelivered": sum(one.undelivered for one in after.values()),
            "clients": len(clients),
            "deregistered": sum(one.left for one in after.values()),
            "gone": gone,
            "images_removed": images,
            "problems": sorted({one.problem for one in after.values() if one.problem}),
        }

    def _remove_images(self) -> list[str]:
        """Remove the images that jobs brought here, as far as the engine lets them go."""
        with contextlib.suppress(EngineError):
            if self._service.crew:
                return self._service.crew.images.remove_all()
        return []

    # --- what is so

    def _standing(self) -> dict[str, Any]:
        service = self._service
        if service.leaving:
            return {"word": Word.FREEZE.value, "why": service.gate(), "confirmed": True}
        if service.standing is None:
            return {"word": None, "why": "The launcher has only just started.", "confirmed": False}
        confirmed = service.obeyed is service.standing.word
        pause = service.pause
        until = pause.until.isoformat(timespec="minutes") if pause and pause.until else None
        return {
            "word": service.standing.word.value,
            "why": service.standing.why,
            "confirmed": confirmed,
            "paused": pause is not None,
            "until": until,
        }

    def _clients(self) -> list[dict[str, Any]]:
        crew = self._service.crew
        found = sorted(crew.keeper.found, key=lambda one: (one.slot is None, one.slot or 0)) if crew else []
        return [self._client(one) for one in found]

    def _client(self, one: Found) -> dict[str, Any]:
        slots = self._service.installation.slots
        said = read_client(slots, one.slot) if one.slot is not None else Client()
        started = datetime.fromtimestamp(one.created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "slot": one.slot,
            "id": one.id,
            "state": one.state,
            "image": one.image,
            "since": started,
            **vars(said),
            "registered": said.registered and one.state == "running",
        }

    def _jobs(self) -> list[dict[str, Any]]:
        crew = self._service.crew
        return [job_facts(one) for one in crew.jobs.running()] if crew else []

    def _transfer(self) -> dict[str, int]:
        got, sent = self._service.history.transfer(datetime.now().strftime("%Y-%m-%d"))
        return {"bytes_in": got, "bytes_out": sent}

    def _delivered(self) -> bool:
        """Whether nothing is left that waiting could deliver."""
        return all(not one["undelivered"] or one["reachable"] is False for one in self._clients())

    def _at_rest(self) -> bool:
        """Whether no job runs any more. One that is only being started is frozen as soon as it runs."""
        obeyed = self._service.obeyed in (Word.FREEZE, Word.GIVE_BACK)
        return obeyed and all(job["frozen"] for job in self._jobs())

    def _converged(self) -> bool:
        crew, wanted = self._service.crew, self._service.wanted
        if crew is None:
            return True  # without an engine there is nothing to wait for; the problem is told
        running = [one.slot for one in crew.keeper.found if one.state == "running"]
        return sorted(slot for slot in running if slot is not None) == list(range(wanted))

    # --- waiting

    def _confirmed(self, so: Callable[[], bool]) -> dict[str, Any]:
        """What holds once the launcher has acted on what was asked, or could not within SETTLE_S."""
        acted = self._step_passed() and self._wait(so, seconds=SETTLE_S)
        jobs = self._jobs()
        return {
            "standing": self._standing(),
            "jobs": jobs,
            "acted": acted,
            "problem": self._service.engine_problem,
        }

    def _step_passed(self) -> bool:
        """Wait until a step that began after now is over; False if it failed, or was not in time."""
        service = self._service
        began = service.begun
        service.wake.set()
        self._wait(lambda: service.over > began, seconds=SETTLE_S)
        return service.ended > began

    def _wait(self, so: Callable[[], bool], *, seconds: float = 0.0, until: float | None = None) -> bool:
        ends = time.monotonic() + seconds if until is None else until
        while not so():
            if time.monotonic() >= ends:
                return False
            time.sleep(LOOK_S)
        return True


def job_facts(job: Any) -> dict[str, Any]:
    """A running job, for programs."""
    facts = {name: value for name, value in vars(job).items() if not name.startswith("_")}
    return {
        name: value.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        if isinstance(value, datetime)
        else value
        for name, value in facts.items()
    }


def _is_number(value: Any, *, most: float) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) and 0 <= value <= most
