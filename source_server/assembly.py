"""What `dockercomp-server up` runs: mongod, gunicorn and housekeeping, put together from the settings."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from source_server.built_in import BuiltIn, built_in_parts
from source_server.config import Settings
from source_server.server_home import (
    Address,
    ServerHome,
    orphan_patience_s,
    require_disk,
    require_free,
)
from source_server.stores.embedded import EmbeddedMongod
from source_server.stores.mongod_binary import find_mongod
from source_server.supervisor import Command, Errand, Part, RestartPolicy, Supervisor

WEB_APPLICATION = "source_server.wsgi:application()"
MIGRATE = (sys.executable, "-m", "source_server.cli", "migrate")
MAIL = (sys.executable, "-m", "source_server.cli", "mail")
HOUSEKEEPING = (sys.executable, "-m", "source_server.cli", "housekeep")


@dataclass(frozen=True, kw_only=True)
class Programs:
    """What is run beside mongod; tests put smaller programs in their place."""

    web: str = WEB_APPLICATION  #: gunicorn's MODULE:APPLICATION
    migrate: Sequence[str] = MIGRATE  #: lays the database out, before the web part starts
    housekeeping: Sequence[str] = HOUSEKEEPING


class StopFlag:
    """Raised by SIGTERM or SIGINT. A plain flag: a handler must not take a lock that it interrupted."""

    def __init__(self) -> None:
        self._raised = False

    def __call__(self) -> bool:
        return self._raised

    def on_signals(self) -> StopFlag:
        """Let SIGTERM and SIGINT raise it from now on (main thread only)."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._raise)
        return self

    def _raise(self, *_: object) -> None:
        self._raised = True


def run_server(
    settings: Settings,
    addresses: Sequence[Address],
    *,
    built_in: BuiltIn | None = None,
    mail: Address | None = None,
    programs: Programs | None = None,
    policy: RestartPolicy | None = None,
    when_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Run the whole server in this process and its children until SIGTERM or SIGINT; with `mail` it takes mail there.

    `when_ready` is told the URL once the server answers. Raises CannotStart before anything is started,
    MongodUnavailable or StartFailed when a part cannot be; then everything is stopped again.
    """
    stopping = StopFlag().on_signals()
    home = ServerHome(settings.server_home)
    require_disk(home.path, settings.min_free_mb)
    patience_s = orphan_patience_s(home)
    with home.held():
        require_free([*addresses, *([mail] if mail else [])], patience_s=patience_s)
        parts = _parts(settings, addresses, built_in or BuiltIn(), programs or Programs(), mail)

        def announce() -> None:
            home.record_address(addresses[0])
            when_ready(addresses[0].url)

        Supervisor(parts, stopping=stopping, policy=policy).run(announce)


def child_environment(settings: Settings, mongo_uri: str, base: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a child reads the same settings, with the database to use."""
    said = {
        "DOCKERCOMP_HOME": str(settings.home),
        "DOCKERCOMP_MONGO_URI": mongo_uri,
        "DOCKERCOMP_DATABASE": settings.database,
        "DOCKERCOMP_BEAT_S": f"{settings.beat_s:g}",
        "DOCKERCOMP_RELEASES": str(settings.releases),
    }
    return {**base, **said}


def gunicorn_argv(settings: Settings, addresses: Sequence[Address], application: str) -> list[str]:
    """The command that serves the web application; no secret is on it."""
    # fmt: off
    argv = [
        sys.executable, "-m", "gunicorn", application,
        "--worker-class", "gthread",
        "--workers", str(settings.web_processes), "--threads", str(settings.web_threads),
        "--timeout", "120", "--graceful-timeout", "10",
        "--config", "python:source_server.gunicorn_settings",
        "--no-control-socket",  # else gunicorn makes one in the user's home
    ]
    # fmt: on
    shared_memory = Path("/dev/shm")  # noqa: S108  # gunicorn's own advice: its heartbeat must not wait for a disk
    if os.access(shared_memory, os.W_OK):
        argv += ["--worker-tmp-dir", str(shared_memory)]
    for address in addresses:
        argv += ["--bind", str(address)]
    return argv


def answers(url: str, timeout_s: float = 2.0) -> bool:
    """Whether GET `url`/healthz is answered with 200; no proxy is asked."""
    place = urlsplit(url)
    try:
        with closing(http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout_s)) as link:
            link.request("GET", "/healthz")
            return link.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def takes_mail(address: Address, timeout_s: float = 2.0) -> bool:
    """Whether somebody greets there as mail servers do."""
    place = urlsplit(address.url)
    try:
        with socket.create_connection((place.hostname or "", address.port), timeout=timeout_s) as link:
            return link.recv(4) == b"220 "
    except OSError:
        return False


def _parts(
    settings: Settings,
    addresses: Sequence[Address],
    built_in: BuiltIn,
    programs: Programs,
    mail: Address | None,
) -> list[Part]:
    mongod = None if settings.mongo_uri else make_mongod(settings)

    def env() -> dict[str, str]:
        uri = mongod.uri if mongod else settings.mongo_uri or ""
        return child_environment(settings, uri, os.environ)

    migrate = Errand("migrate", programs.migrate, env=env)
    web = Command(
        "web",
        gunicorn_argv(settings, addresses, programs.web),
        env=env,
        ready=lambda: answers(addresses[0].url),
    )
    housekeeping = Command("housekeeping", programs.housekeeping, env=env, grace_s=10.0)
    clients = built_in_parts(built_in, home=settings.home, server=addresses[0].url, server_env=env)
    mails = [_door(mail, env)] if mail else []
    return [*([mongod] if mongod else []), migrate, web, housekeeping, *mails, *clients]


def _door(mail: Address, env: Callable[[], Mapping[str, str]]) -> Command:
    argv = [*MAIL, "--listen", str(mail)]
    return Command("mail", argv, env=env, ready=lambda: takes_mail(mail), grace_s=10.0)


def make_mongod(settings: Settings) -> EmbeddedMongod:
    """The embedded MongoDB of this home, not started; raises MongodNotFound."""
    home = ServerHome(settings.server_home)
    binary = find_mongod(settings.mongod, search_path=os.environ.get("PATH"), copy_to=home.path / "bin")
    return EmbeddedMongod(home.mongodb, binary, cache_gb=settings.mongod_cache_gb)
