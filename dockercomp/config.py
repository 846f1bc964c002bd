"""Where the source server is and which key to show: read once from a mapping, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dockercomp.failures import BadSetting

DEFAULT_SERVER = "http://127.0.0.1:8765"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the library needs to call a source server."""

    server: str  #: its address (DOCKERCOMP_SERVER), without a slash at the end
    key: str  #: an account's key, read from DOCKERCOMP_KEY_FILE


def from_env(env: Mapping[str, str]) -> Settings:
    """Read the settings from `env`; raises BadSetting with a sentence that names the variable."""
    server = env.get("DOCKERCOMP_SERVER") or DEFAULT_SERVER
    if not _is_address(server):
        raise BadSetting(f"DOCKERCOMP_SERVER must be an address like {DEFAULT_SERVER}, not {server!r}.")
    key_file = env.get("DOCKERCOMP_KEY_FILE")
    if not key_file:
        raise BadSetting("DOCKERCOMP_KEY_FILE is not set: it names the file that holds your account's key.")
    return Settings(server=server.rstrip("/"), key=read_key(Path(key_file)))


def _is_address(text: str) -> bool:
    try:
        place = urlsplit(text)
    except ValueError:  # half of an IPv6 address
        return False
    return place.scheme in ("http", "https") and bool(place.netloc)


def read_key(path: Path) -> str:
    """The key in that file; raises BadSetting."""
    try:
        key = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise BadSetting(f"The key file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadSetting(f"The key file {path} must hold one key and nothing else.") from error
    if not key or any(character.isspace() for character in key):
        raise BadSetting(f"The key file {path} must hold one key and nothing else.")
    return key
