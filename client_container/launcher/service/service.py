"""The launcher as a service: one step that brings everything to what the volunteer and the machine allow.

Files are read, the governor judges, then the engine's side follows: the wall, the client containers, the jobs.
Whatever fails is a sentence in `problems`, which `dockercomp-volunteer status` shows, and is tried again at the next
step.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from client_container.launcher.clients.keeper import remove_all
from client_container.launcher.clients.reconcile import ALIVE
from client_container.launcher.clients.request import read_key
from client_container.launcher.errors import EngineAway, EngineError, EngineTooOld, LauncherError
from client_container.launcher.jobs.ran import Ran
from client_container.launcher.policy.governor import Governor, Pause, Standing, Word
from client_container.launcher.policy.pause_file import read_pause, write_pause
from client_container.launcher.policy.policy import Policy
from client_container.launcher.policy.sensors import Sensors
from client_container.launcher.self_test.schedule import PASSED, SelfTests
from client_container.launcher.service.crew import Crew, Hooks, assemble, bundle_of, make_plan
from client_container.launcher.service.history import History
from client_container.launcher.service.host_share import HostShare
from client_container.launcher.service.installation import Installation, PolicyFiles, read_installation
from client_container.launcher.service.problems import Problems, saying
from client_container.launcher.service.upkeep import Upkeep
from client_container.machine import nvidia_gpus
from client_container.protocol import FEATURES

log = logging.getLogger(__name__)

GOVERN_S = 2.0  #: between two looks at the machine
TEND_S = 3.0  #: at leftovers
COUNT_S = 30.0  #: at traffic
TRIM_S = 60.0  #: at images
UPKEEP_S = 10.0  #: longest that leaving waits for removals under way
WALL_PATIENCE_S = 30.0  #: without a wall for so long, client containers are stopped


class Service:
    """One instance. `step` is for one thread; everything else may be called from any."""

    def __init__(
        self,
        installation: Installation,
        *,
        host_id: str,
        history: History,
        sensors: Sensors,
        self_tests: SelfTests,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.installation, self.host_id, self.history = installation, host_id, history
        self.sensors, self.self_tests, self._clock = sensors, self_tests, clock
        self.files = PolicyFiles(installation.policy_file, installation.host_policy_file)
        self.share = HostShare(installation)
        self.governor = Governor()
        self.pause_file = installation.launcher_folder / "pause.json"
        self.pause: Pause | None = read_pause(self.pause_file)
        self.standing: Standing | None = None
        self.obeyed: Word | None = None  #: what jobs were last brought to
        self.leaving = False  #: nothing new is started any more
        self.emptied = False  #: and no client container either
        self.problems = Problems()
        self.upkeep = Upkeep()
        self.crew: Crew | None = None
        self.engine_problem: str | None = "The launcher has only just started."
        self.engine_too_old = False  #: the problem is its version, and no job is to be started with it
        self.begun = self.over = 0  #: number of the latest step that began, and that is over
        self.ended = 0  #: of the latest that was over without an error
        self.wake = threading.Event()  #: a step is due now
        self._key = b""
        self._transferred = sum(history.transfer(_today()))  #: bytes today, as last read
        self._last: dict[str, float] = {}
        self._open_slots: set[int] = set()
        self._no_wall_since: float | None = None

    @property
    def policy(self) -> Policy:
        """What holds."""
        return self.files.policy

    @property
    def wanted(self) -> int:
        """How many client containers there should be: none before the sandbox is known to hold."""
        return self.policy.containers if self.self_tests.latest.verdict == PASSED else 0

    @property
    def lends_gpus(self) -> bool:
        """Whether jobs get this machine's graphics processors: the volunteer says so, and it was seen to work."""
        return self.policy.gpu and self.self_tests.latest.gpus_work

    def gate(self) -> str | None:
        """Why no job may be started now; None when one may."""
        if self.leaving:
            return "This machine is being taken back by its owner."
        if self.standing is None:
            return "The launcher has only just started."
        if self.standing.word is not Word.RUN:
            return self.standing.why
        if self.engine_too_old:
            return self.engine_problem
        if self.self_tests.latest.sentence:
            return self.self_tests.latest.sentence
        running = len(self.crew.jobs.running()) if self.crew else 0
        if running + self.share.others() >= self.files.host.containers:
            return "Another instance on this machine uses what the machine lends."
        return None

    def stats(self, slot: int) -> dict[str, Any]:
        """What a slot's client is told."""
        why = (
            self.gate()
            if self.leaving or self.standing is None or self.standing.word is not Word.RUN
            else None
        )
        policy = self.policy
        return {
            "paused": why is not None,
            "why": why or "",
            "slot": slot,
            "policy": {
                "projects": None if policy.projects is None else list(policy.projects),
                "shares": dict(policy.shares),
                "containers": policy.containers,
                "cpus": policy.cpus,
                "memory": policy.memory,
            },
            "self_test": {"verdict": self.self_tests.latest.verdict, "at": self.self_tests.latest.at},
            "features": list(FEATURES),
        }

    # --- the step

    def step(self) -> bool:
        """Look once and do what is due; True if another look is due now. Raises EngineAway and EngineError."""
        self.begun += 1
        try:
            acted = self._step()
        except EngineError as error:
            self.engine_problem, self.engine_too_old = str(error), isinstance(error, EngineTooOld)
            self.over = self.begun
            raise
        self.engine_problem, self.engine_too_old, self.ended = None, False, self.begun
        self.over = self.begun
        return acted

    def _step(self) -> bool:
        self._read_files()
        if self._due("govern", GOVERN_S) or self.wake.is_set():
            self.govern()
        self.wake.clear()
        crew = self._assembled()
        self._obey(crew)
        if self.engine_problem:  # it is new to us; or was away, and may have come back as another one
            crew.engine.check()
        acted = self._converge(crew)
        self._tend(crew)
        return acted

    def govern(self) -> None:
        """Judge the machine anew."""
        readings = self.sensors.read(self.policy, transferred=self._transferred)
        if self.pause and self.pause.until and readings.local >= self.pause.until:
            with self.problems.noting("pause", OSError):
                self.set_pause(None)
        before, self.standing = (
            self.standing,
            self.governor.step(self._clock(), readings, self.policy, self.pause),
        )
        if before is None or (before.word, before.why) != (self.standing.word, self.standing.why):
            log.info("standing", extra={"word": self.standing.word.value, "why": self.standing.why or "-"})

    def set_pause(self, pause: Pause | None) -> None:
        """Pause or resume; outlives this process. Raises OSError."""
        write_pause(self.pause_file, pause)
        self.pause = pause

    def _read_files(self) -> None:
        if self.files.look():
            log.info("policy holds", extra={"containers": self.policy.containers, "cpus": self.policy.cpus})
            if self.crew:
                self._last.pop("govern", None)
        self.problems.note("policy", self.files.problem)
        with self.problems.noting("key", LauncherError):
            self._key = read_key(self.installation.key_file)
        with self.problems.noting("launcher.json", LauncherError):
            self._take_over(read_installation(self.installation.etc))

    def _take_over(self, new: Installation) -> None:
        """What can change while we run does; the rest is said."""
        same = replace(self.installation, image=new.image, host_name=new.host_name, version=new.version)
        self.installation = same
        if same != new:
            raise LauncherError("launcher.json has changed; restart the launcher for it to hold.")

    def _assembled(self) -> Crew:
        if self.crew is None:
            if not self._key:
                raise EngineError(self.problems.find("key") or "There is no account key.")
            hooks = Hooks(
                policy=lambda: self.policy,
                gate=self.gate,
                record=self._record,
                totals=lambda: (self.files.host.cpus, self.files.host.memory),
                stats=self.stats,
            )
            self.crew = assemble(self.installation, self.host_id, self._key, hooks)
            self._use_self_test(self.crew)
        return self.crew

    def _record(self, ran: Ran) -> None:
        """A job ended: it counts, and so does the use of its image."""
        self.history.record(ran)
        images = self.crew.images if self.crew else None
        for one in images.brought() if images else ():
            if images and one.id == ran.image and ran.ended.timestamp() - one.last_used > TRIM_S:
                images.used(one.reference)

    def _use_self_test(self, crew: Crew) -> None:
        of = f"{self.installation.version} on {crew.engine.version}"
        self.self_tests.use(crew.self_test, of=of)

    # --- the engine's side

    def _converge(self, crew: Crew) -> bool:
        """Client containers as the policy wants them; True if something was done."""
        keeper = crew.keeper
        network = self._walled(crew)
        wanted = 0 if self.emptied else self.wanted
        if network is None:
            since = self._no_wall_since or self._clock()
            if not self.emptied and self._clock() - since < WALL_PATIENCE_S:
                return False
            wanted = 0
        elif self._key and not self._plan(crew, network):
            return False
        keeper.count = wanted
        self._open(crew, wanted)
        acted = keeper.step()
        failing = [
            f"The client container in slot {slot} fails. {said}" for slot, said in keeper.failing().items()
        ]
        self.problems.note("clients", " ".join(failing[:3]) or None)
        self._close(crew, wanted)
        return acted

    def _walled(self, crew: Crew) -> str | None:
        """The name of the network, its wall standing; None when it does not."""
        with self.problems.noting("wall", LauncherError, apart_from=EngineAway):
            network = crew.wall.ensure()
            self._no_wall_since = None
            return network
        self._no_wall_since = self._no_wall_since or self._clock()
        return None

    def _plan(self, crew: Crew, network: str) -> bool:
        """Have the keeper's plan up to date; False when there can be none."""
        with self.problems.noting("image", LauncherError, apart_from=EngineAway):
            plan = make_plan(
                self.installation,
                self.host_id,
                image=crew.engine.image_id(self.installation.image),
                key=self._key,
                policy=self.policy,
                network=network,
                bundle=bundle_of(self.installation),
                gpus=nvidia_gpus() if self.lends_gpus else (),
            )
            crew.keeper.plan, crew.keeper.key = plan, self._key
            return True
        return False

    def _open(self, crew: Crew, wanted: int) -> None:
        """Listen in the slots that have, or get, a client container."""
        for slot in set(range(wanted)) - self._open_slots:
            with self.problems.noting("slots", OSError):
                crew.slots.prepare(slot, self._key)
                crew.door.open(slot)
                self._open_slots.add(slot)

    def _close(self, crew: Crew, wanted: int) -> None:
        """Listen no longer where the client container is gone."""
        alive = {one.slot for one in crew.keeper.found if one.state in ALIVE}
        for slot in self._open_slots - set(range(wanted)) - alive:
            crew.door.close(slot)
            self._open_slots.discard(slot)

    def _obey(self, crew: Crew) -> None:
        """Bring the jobs to what the standing says."""
        word = self.standing.word if self.standing else Word.RUN
        if word is Word.FREEZE or (word is Word.GIVE_BACK and self.obeyed is None):
            crew.jobs.freeze()  # again and again: one may have been started just before
        if word is Word.GIVE_BACK and self.obeyed is not Word.GIVE_BACK:
            crew.jobs.give_back()
        if word is Word.RUN and self.obeyed is not Word.RUN:
            crew.jobs.thaw()
        self.obeyed = word

    def _tend(self, crew: Crew) -> None:
        """What is due now and then; a disk that is full stops none of the rest."""
        self.share.publish(len(crew.jobs.running()))
        if not self._due("tend", TEND_S):
            return
        if self.policy.gpu and not self.self_tests.latest.tried_gpus:
            self.self_tests.repeat()  # the volunteer has only just said so
        self.self_tests.step()
        self.upkeep.start(lambda: self._clear_up(crew))
        self.problems.note("upkeep", self.upkeep.problem)
        self.problems.note("totals", crew.jobs.totals_problem or None)
        with self.problems.noting("history", sqlite3.Error):
            self.history.flush(_today())
            if self._due("count", COUNT_S):
                self.count_transfer(crew)
            self._transferred = sum(self.history.transfer(_today()))

    def _clear_up(self, crew: Crew) -> None:
        """What takes as long as the engine takes for it."""
        crew.jobs.sweep()
        if self._due("trim", TRIM_S):
            crew.images.trim({job.image for job in crew.jobs.running()})

    def count_transfer(self, crew: Crew) -> None:
        """Add what the client containers sent and received since the last call."""
        alive = [one for one in crew.keeper.found if one.state in ALIVE]
        counters = {one.id: crew.engine.transfer(one.id) for one in alive}
        known = {name: counter for name, counter in counters.items() if counter is not None}
        self.history.count_transfer(_today(), known)

    # --- the end

    def stop(self) -> bool:
        """Leave nothing of ours in the engine: clients say farewell first, then jobs end, then the wall goes.

        False: something may have been left, for the next launcher or for `dockercomp-launcher clear`.
        """
        self.leaving = True
        if self.crew is None:
            return False  # what an earlier one left is still there
        crew, ended = self.crew, []
        with saying("stop"):
            removed = remove_all(crew.engine, crew.engine.find(crew.keeper.plan.own_labels()))
            log.info("client containers removed", extra={"count": removed})
            ended.append("stop")
        self.upkeep.wait(UPKEEP_S)
        steps = (("jobs", crew.jobs.close), ("door", crew.door.stop), ("wall", crew.wall.remove))
        for name, end in steps:
            with saying(name):
                end()
                ended.append(name)
        with saying("history"):
            self.history.flush(_today())
        self.share.publish(0)
        return len(ended) == 1 + len(steps)

    # --- small things

    def _due(self, name: str, seconds: float) -> bool:
        now = self._clock()
        if now - self._last.get(name, float("-inf")) < seconds:
            return False
        self._last[name] = now
        return True


def _today() -> str:
    """The day by the machine's own clock and time zone, as hours are."""
    return datetime.now().strftime("%Y-%m-%d")
