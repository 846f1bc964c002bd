"""The server's settings: read once from a mapping, strictly; a complaint says what to write instead."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

SMTP_PARTS = ("FROM", "SECURITY", "PORT", "USER", "PASSWORD_FILE")  #: what describes DOCKERCOMP_SMTP_HOST


class BadSetting(ValueError):
    """A setting that cannot be used; the message is one sentence for the operator."""


class MailSecurity(str, Enum):
    """How the way to the mail server is secured."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"  #: for one on this machine


@dataclass(frozen=True, kw_only=True)
class MailServer:
    """The operator's mail server, for messages that go out."""

    host: str
    port: int
    sender: str  #: the address that messages come from
    security: MailSecurity = MailSecurity.STARTTLS
    user: str | None = None
    password_file: Path | None = None  #: read at each use: a new password needs no restart


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
    blob_mb: float = 2_000.0  #: largest blob, in 10^6 bytes (DOCKERCOMP_BLOB_MB)
    blob_quota_mb: float = 20_000.0  #: all blobs of an account, in 10^6 bytes (DOCKERCOMP_BLOB_QUOTA_MB)
    blob_grace_h: float = 24.0  #: hours that a blob stays which nothing names (DOCKERCOMP_BLOB_GRACE_H)
    releases_folder: Path | None = None  #: what volunteers install from (DOCKERCOMP_RELEASES)
    #: The address that volunteers use (DOCKERCOMP_PUBLIC_URL); None: the request's.
    public_url: str | None = None

    git_from: tuple[str, ...] = ()  #: beginnings of addresses that git may fetch from (DOCKERCOMP_GIT_FROM)
    git_credentials: Path | None = None  #: what git shows there (DOCKERCOMP_GIT_CREDENTIALS)
    git_tree_mb: float = 200.0  #: the files of a commit, in 10^6 bytes (DOCKERCOMP_GIT_TREE_MB)
    git_files: int = 20_000  #: files and folders of a commit (DOCKERCOMP_GIT_FILES)
    git_s: float = 120.0  #: seconds for a fetch (DOCKERCOMP_GIT_S)

    mail: MailServer | None = None  #: for messages about tasks (DOCKERCOMP_SMTP_...); None: there is none
    #: For mail that comes in encrypted (DOCKERCOMP_MAIL_CERT, PEM); None: it is not.
    mail_cert: Path | None = None
    mail_cert_key: Path | None = None  #: its key (DOCKERCOMP_MAIL_CERT_KEY, PEM)
    webhook_networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    """Networks that webhooks may go to, private as they are (DOCKERCOMP_WEBHOOK_NETWORKS)."""

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
    _require_together(env)
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
        blob_mb=_number(env, "DOCKERCOMP_BLOB_MB", default=2_000.0, low=1, high=1e6),
        blob_quota_mb=_number(env, "DOCKERCOMP_BLOB_QUOTA_MB", default=20_000.0, low=1, high=1e9),
        blob_grace_h=_number(env, "DOCKERCOMP_BLOB_GRACE_H", default=24.0, low=0.1, high=8760),
        releases_folder=Path(releases).absolute() if releases else None,
        public_url=_public_url(env.get("DOCKERCOMP_PUBLIC_URL", "")),
        git_from=_git_from(env.get("DOCKERCOMP_GIT_FROM", "")),
        git_credentials=_file(env.get("DOCKERCOMP_GIT_CREDENTIALS", "")),
        git_tree_mb=_number(env, "DOCKERCOMP_GIT_TREE_MB", default=200.0, low=1, high=10_000),
        git_files=int(_number(env, "DOCKERCOMP_GIT_FILES", default=20_000, low=1, high=1e6)),
        git_s=_number(env, "DOCKERCOMP_GIT_S", default=120.0, low=1, high=3600),
        mail=_mail(env),
        mail_cert=_file(env.get("DOCKERCOMP_MAIL_CERT", "")),
        mail_cert_key=_file(env.get("DOCKERCOMP_MAIL_CERT_KEY", "")),
        webhook_networks=_networks(env.get("DOCKERCOMP_WEBHOOK_NETWORKS", "")),
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


def _require_together(env: Mapping[str, str]) -> None:
    """Raises BadSetting for a setting that would do nothing: what it belongs to is missing."""
    for whole, *parts in (
        ("DOCKERCOMP_MAIL_CERT", "DOCKERCOMP_MAIL_CERT_KEY"),
        ("DOCKERCOMP_SMTP_HOST", *(f"DOCKERCOMP_SMTP_{part}" for part in SMTP_PARTS)),
    ):
        for part in parts:
            if env.get(part) and not env.get(whole):
                raise BadSetting(f"{part} is set without {whole}, and does nothing: set both, or neither.")


def _mail(env: Mapping[str, str]) -> MailServer | None:
    host, sender = env.get("DOCKERCOMP_SMTP_HOST", ""), env.get("DOCKERCOMP_SMTP_FROM", "")
    if not host:
        return None
    if re.fullmatch(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,255}", sender) is None:
        raise BadSetting(f"DOCKERCOMP_SMTP_FROM must be the address that messages come from, not {sender!r}.")
    try:
        security = MailSecurity(env.get("DOCKERCOMP_SMTP_SECURITY") or "starttls")
    except ValueError:
        raise BadSetting("DOCKERCOMP_SMTP_SECURITY must be starttls, tls or none.") from None
    port = {MailSecurity.STARTTLS: 587, MailSecurity.TLS: 465, MailSecurity.NONE: 25}[security]
    user, password = env.get("DOCKERCOMP_SMTP_USER"), env.get("DOCKERCOMP_SMTP_PASSWORD_FILE")
    if bool(user) != bool(password):
        raise BadSetting("DOCKERCOMP_SMTP_USER and DOCKERCOMP_SMTP_PASSWORD_FILE go together.")
    return MailServer(
        host=host,
        port=int(_number(env, "DOCKERCOMP_SMTP_PORT", default=port, low=1, high=65535)),
        sender=sender,
        security=security,
        user=user or None,
        password_file=Path(password).absolute() if password else None,
    )


def _networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    try:
        return tuple(ipaddress.ip_network(one.strip()) for one in text.split(",") if one.strip())
    except ValueError as error:
        raise BadSetting(
            f"DOCKERCOMP_WEBHOOK_NETWORKS must be networks like 10.1.0.0/16, with commas between them: {error}."
        ) from None


def _git_from(text: str) -> tuple[str, ...]:
    """Entries like https://github.com/ or file:///srv/git/; https://*/ is every public host."""
    entries = tuple(text.replace(",", " ").split())
    for one in entries:
        if one != "https://*/" and not re.fullmatch(
            r"(?:https?://|ssh://(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?)[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]*/[A-Za-z0-9._~+@/-]*"
            r"|file:///[A-Za-z0-9._~+@/-]+",
            one,
        ):
            raise BadSetting(
                "DOCKERCOMP_GIT_FROM lists beginnings of addresses, like https://github.com/lab/, file:///srv/git/ or "
                f"https://*/ for every public host, not {one!r}."
            )
    return entries


def _file(text: str) -> Path | None:
    return Path(text).absolute() if text else None


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
