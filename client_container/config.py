"""The client's settings: read once from a mapping, strictly; a complaint says what to write instead."""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from client_container.allow_list import AllowList, BadAllowList, parse_allow_list

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Label = str | int | float


class BadSetting(ValueError):
    """A setting that cannot be used; the message is one sentence for the volunteer."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a client container needs to know."""

    server: str  #: base URL of the source server (DOCKERCOMP_SERVER)
    account_key: str = field(repr=False)  #: the volunteer's key (the text of DOCKERCOMP_KEY_FILE)
    home: Path  #: state: identity and spool (DOCKERCOMP_HOME)
    runtime: str = "process"  #: how jobs are executed (DOCKERCOMP_RUNTIME)
    allow: AllowList  #: programs that jobs may start, with runtime process (DOCKERCOMP_ALLOW)
    #: Of the launcher on this host, with runtime sandbox (DOCKERCOMP_LAUNCHER_SOCKET).
    launcher_socket: Path | None = None
    image: str | None = None  #: the image this client runs in (DOCKERCOMP_IMAGE)
    host_id: str | None = None  #: UUID of the machine (DOCKERCOMP_HOST_ID); None means one kept in the home
    host_name: str | None = None  #: name shown for the machine (DOCKERCOMP_HOST_NAME)
    labels: Mapping[str, Label] = field(default_factory=dict)  #: for the scheduler (DOCKERCOMP_LABELS)
    #: What the launcher has found out about the machine (DOCKERCOMP_HOST_LABELS).
    host_labels: Mapping[str, Label] = field(default_factory=dict)
    cpus: float = 1.0  #: processors a job may use (DOCKERCOMP_CPUS)
    memory_mb: int | None = None  #: MiB a job may use (DOCKERCOMP_MEMORY_MB); None: what this process may
    disk_mb: int | None = None  #: MiB of files of a job (DOCKERCOMP_DISK_MB); None: what is free in the home
    spool_bytes: int = 64 * 1024 * 1024  #: bound of the spool (DOCKERCOMP_SPOOL_MB)
    files: Path | None = None  #: folder of files that jobs read (DOCKERCOMP_FILES); None: one in the home
    files_bytes: int = 4 * 2**30  #: bound of what is kept there (DOCKERCOMP_FILES_MB)
    path: str = DEFAULT_PATH  #: PATH of this client, which jobs get, too


def from_env(env: Mapping[str, str]) -> Settings:
    """Read the settings from `env`; raises BadSetting with a sentence that names the variable."""
    runtime = _runtime(env.get("DOCKERCOMP_RUNTIME") or "process")
    return Settings(
        server=_server(env.get("DOCKERCOMP_SERVER") or "http://127.0.0.1:8765"),
        account_key=_key(env.get("DOCKERCOMP_KEY_FILE", "")),
        home=Path(env.get("DOCKERCOMP_HOME") or "var/client").absolute(),
        runtime=runtime,
        allow=_allow(env.get("DOCKERCOMP_ALLOW", "")),
        launcher_socket=_launcher_socket(env.get("DOCKERCOMP_LAUNCHER_SOCKET", ""), runtime),
        image=env.get("DOCKERCOMP_IMAGE") or None,
        host_id=_uuid(env.get("DOCKERCOMP_HOST_ID", "")),
        host_name=_host_name(env.get("DOCKERCOMP_HOST_NAME", "")),
        labels=_labels(env, "DOCKERCOMP_LABELS"),
        host_labels=_labels(env, "DOCKERCOMP_HOST_LABELS"),
        cpus=_number(env, "DOCKERCOMP_CPUS", default=1.0, low=0.01, high=1024),
        memory_mb=_mib(env, "DOCKERCOMP_MEMORY_MB"),
        disk_mb=_mib(env, "DOCKERCOMP_DISK_MB"),
        spool_bytes=int(
            _number(env, "DOCKERCOMP_SPOOL_MB", default=64, low=1, high=1024 * 1024) * 1024 * 1024
        ),
        files=Path(env["DOCKERCOMP_FILES"]).absolute() if env.get("DOCKERCOMP_FILES") else None,
        files_bytes=int(_number(env, "DOCKERCOMP_FILES_MB", default=4096, low=1, high=2**30) * 2**20),
        path=env.get("PATH") or DEFAULT_PATH,
    )


def _server(text: str) -> str:
    try:
        url = urlsplit(text)
        good = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        good = False
    if not good or url.query or url.fragment or url.username or re.search(r"\s", text):
        raise BadSetting(f"DOCKERCOMP_SERVER must be a URL like https://server.example:8765, not {text!r}.")
    return text.rstrip("/")


def _key(text: str) -> str:
    if not text:
        raise BadSetting(
            "DOCKERCOMP_KEY_FILE is not set; write the path of a file that holds your account's key."
        )
    try:
        with Path(text).open("rb") as file:
            key = file.read(4097).decode("ascii").strip()
    except OSError as error:
        raise BadSetting(f"DOCKERCOMP_KEY_FILE: {text} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        key = ""
    if not re.fullmatch(r"[!-~]{1,4096}", key):
        raise BadSetting(f"DOCKERCOMP_KEY_FILE: {text} must hold the account's key and nothing else.")
    return key


def _runtime(text: str) -> str:
    if text not in ("process", "sandbox"):
        raise BadSetting(f"DOCKERCOMP_RUNTIME must be process or sandbox, not {text!r}.")
    return text


def _launcher_socket(text: str, runtime: str) -> Path | None:
    if runtime != "sandbox":
        return None
    if not Path(text).is_absolute():
        raise BadSetting(
            "DOCKERCOMP_LAUNCHER_SOCKET must be the path of the launcher's socket when DOCKERCOMP_RUNTIME is "
            f"sandbox, like /var/lib/dockercomp/launcher.sock, not {text!r}."
        )
    return Path(text)


def _mib(env: Mapping[str, str], name: str) -> int | None:
    value = _number(env, name, default=0, low=1, high=2**31)
    return int(value) or None


def _allow(text: str) -> AllowList:
    try:
        return parse_allow_list(text)
    except BadAllowList as error:
        raise BadSetting(f"DOCKERCOMP_ALLOW {error}.") from None


def _uuid(text: str) -> str | None:
    if not text:
        return None
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise BadSetting(f"DOCKERCOMP_HOST_ID must be a UUID, not {text!r}.") from None


def _host_name(text: str) -> str | None:
    if len(text) > 200 or not text.isprintable():
        raise BadSetting("DOCKERCOMP_HOST_NAME must be at most 200 printable characters.")
    return text or None


def _labels(env: Mapping[str, str], name: str) -> Mapping[str, Label]:
    text = env.get(name, "")
    if not text:
        return {}
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, dict) or not all(map(_is_label, labels.values())):
        raise BadSetting(
            f'{name} must be a JSON object of strings and numbers like {{"room": "attic"}}, not {text!r}.'
        )
    return labels


def _is_label(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int) and not isinstance(value, bool)


def _number(env: Mapping[str, str], name: str, *, default: float, low: float, high: float) -> float:
    text = env.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise BadSetting(f"{name} must be a number from {low:g} to {high:g}, not {text!r}.")
    return value
