"""The process behind `dockercomp-launcher serve`: signals, the control socket, word to systemd, and the loop."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from client_container.launcher.clients.keeper import keep
from client_container.launcher.policy.sensors import Sensors, jobs_cpu_s
from client_container.launcher.self_test.schedule import SelfTests
from client_container.launcher.service.clear import clear_machine
from client_container.launcher.service.control import ControlServer
from client_container.launcher.service.history import History
from client_container.launcher.service.installation import Installation, PolicyFiles, read_installation
from client_container.launcher.service.notify import Notifier
from client_container.launcher.service.own_disk import own_disk
from client_container.launcher.service.service import Service
from client_container.launcher.service.verbs import Verbs
from client_container.launcher.state import StateFolder

log = logging.getLogger(__name__)


def serve(etc: Path, *, root: Path = Path("/")) -> None:
    """Be the launcher of the instance in `etc` until SIGTERM or SIGINT, then leave nothing in the engine.

    `root` is where the machine's sensors are read. After kill -9 or a crash client containers live on, and the next
    launcher finds them again. Raises LauncherError for what waiting does not mend.
    """
    notify = Notifier(os.environ)
    installation = read_installation(etc)
    state = StateFolder(installation.launcher_folder, installation.instance)
    with state.running(), _disk(installation):
        state.unfinished.touch()
        service = make_service(installation, state, root)
        control = ControlServer(installation.control, Verbs(service).table())
        stop = _stop_on_signal(service.wake)
        control.start()
        log.info("launcher serves", extra={"instance": installation.instance, "pid": os.getpid()})
        notify("READY=1")
        try:
            keep(service.step, lambda seconds: _wait(service, notify, stop, seconds))
            notify("STOPPING=1")
            if service.stop():
                state.unfinished.unlink(missing_ok=True)
        finally:
            control.stop()
            service.history.close()
    clear_machine(installation)


def _disk(installation: Installation) -> AbstractContextManager[object]:
    """The slots' file system, where the launcher has to make it itself."""
    if not installation.makes_disk:
        return nullcontext()
    files = PolicyFiles(installation.policy_file, installation.host_policy_file)
    files.look()
    return own_disk(installation.home, files.policy.disk)


def make_service(installation: Installation, state: StateFolder, root: Path) -> Service:
    """The service with all that does not need an engine."""
    folder = installation.launcher_folder
    return Service(
        installation,
        host_id=state.host().id,
        history=History(folder / "history.db"),
        sensors=Sensors(
            root=root,
            clock=time.monotonic,
            wall=time.time,
            own_cpu_s=lambda: jobs_cpu_s(root),
            ticks=os.sysconf("SC_CLK_TCK"),
        ),
        self_tests=SelfTests(folder / "self-test.json"),
    )


def _stop_on_signal(wake: threading.Event) -> threading.Event:
    stop = threading.Event()

    def end() -> None:
        stop.set()
        wake.set()

    def on_signal(_number: int, _frame: object) -> None:
        # Not from the handler itself: an Event set there can deadlock with the thread that waits for it.
        threading.Thread(target=end, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


def _wait(service: Service, notify: Notifier, stop: threading.Event, seconds: float) -> bool:
    """Wait until the next step is due; True when there is to be none."""
    notify("WATCHDOG=1", f"STATUS={_status(service)}")
    if not stop.is_set():
        service.wake.wait(seconds)
    return stop.is_set()


def _status(service: Service) -> str:
    """One line for `systemctl status`."""
    if service.engine_problem:
        return service.engine_problem
    running = sum(one.state == "running" for one in service.crew.keeper.found) if service.crew else 0
    why = service.standing.why if service.standing else ""
    return f"{running} of {service.policy.containers} client containers run. {why}".strip()
