"""The server's settings: read once from a mapping, strictly; a complaint says what to write instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class BadSetting(ValueError):
    """A setting that cannot be used; the message is one sentence for the operator."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every process of the source server needs to know."""

    home: Path  #: state folder (DOCKERCOMP_HOME, default ./var)
    mongo_uri: str | None = None  #: an external MongoDB (DOCKERCOMP_MONGO_URI); None means the embedded one
    mongod: Path | None = None  #: the mongod to run (DOCKERCOMP_MONGOD); None means search for one
    database: str = "dockercomp"  #: name of the database (DOCKERCOMP_DATABASE)
    beat_s: float = 20.0  #: seconds between two heartbeats of a container (DOCKERCOMP_BEAT_S)
    mongod_cache_gb: float = 1.0  #: bound of the embedded mongod's cache (DOCKERCOMP_MONGOD_CACHE_GB)
    min_free_mb: float = 500.0  #: disk space that a start wants, in 10^6 bytes (DOCKERCOMP_MIN_FREE_MB)
    web_processes: int = 2  #: gunicorn processes (DOCKERCOMP_WEB_PROCESSES)
    web_threads: int = 16  #: threads in each (DOCKERCOMP_WEB_THREADS)
    releases_folder: Path | None = None  #: what volunteers install from (DOCKERCOMP_RELEASES)
    public_url: str | None = (
        None  #: the address that volunteers use (DOCKERCOMP_PUBLIC_URL); None: the request's
    )

    @property
    def server_home(self) -> Path:
        """The part of the state folder that only the source server uses."""
        return self.home / "server"

    @property
    def releases(self) -> Path:
        """The folder of releases: as set, else one in the state folder."""
        return self.releases_folder or self.home / "releases"


def from_env(env: Mapping[str, str]) -> Settings:
    """Read the settings from `env`; raises BadSetting with a sentence that names the variable."""
    mongod = env.get("DOCKERCOMP_MONGOD")
    releases = env.get("DOCKERCOMP_RELEASES")
    return Settings(
        home=Path(env.get("DOCKERCOMP_HOME") or "var").absolute(),
        mongo_uri=env.get("DOCKERCOMP_MONGO_URI") or None,
        mongod=Path(mongod) if mongod else None,
        database=env.get("DOCKERCOMP_DATABASE") or "dockercomp",
        beat_s=_number(env, "DOCKERCOMP_BEAT_S", default=20.0, low=0.2, high=600),
        mongod_cache_gb=_number(env, "DOCKERCOMP_MONGOD_CACHE_GB", default=1.0, low=0.25, high=1024),
        min_free_mb=_number(env, "DOCKERCOMP_MIN_FREE_MB", default=500.0, low=0, high=1e9),
        web_processes=int(_number(env, "DOCKERCOMP_WEB_PROCESSES", default=2, low=1, high=64)),
        web_threads=int(_number(env, "DOCKERCOMP_WEB_THREADS", default=16, low=1, high=256)),
        releases_folder=Path(releases).absolute() if releases else None,
        public_url=_public_url(env.get("DOCKERCOMP_PUBLIC_URL", "")),
    )


def _public_url(text: str) -> str | None:
    if not text:
        return None
    # It is written into a shell script: nothing but what addresses need.
    if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._/-]*)?", text):
        raise BadSetting(
            f"DOCKERCOMP_PUBLIC_URL must be an address like https://server.example, not {text!r}."
        )
    return text.rstrip("/")


def _number(env: Mapping[str, str], name: str, *, default: float, low: float, high: float) -> float:
    text = env.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise BadSetting(f"{name} must be a number from {low:g} to {high:g}, not {text!r}.") from None
    if not low <= value <= high:
        raise BadSetting(f"{name} must lie between {low:g} and {high:g}, not {text!r}.")
    return value
