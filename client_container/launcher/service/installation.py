"""What the installer decided: launcher.json and the other files of an instance's folder below /etc."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_container.durable import write_durably
from client_container.launcher.clients.request import checked_extra_host, checked_server
from client_container.launcher.errors import BadRequest, LauncherError
from client_container.launcher.policy.file import parse_policy
from client_container.launcher.policy.policy import BadPolicy, Policy

ETC = Path("/etc/dockercomp")
RUN = Path("/run")
INSTANCE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
SYSTEM_CAS = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, RHEL
    Path("/etc/ssl/ca-bundle.pem"),  # openSUSE
)


class BadInstallation(LauncherError):
    """The instance's folder does not hold what a launcher needs; one sentence."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """One instance on this machine."""

    etc: Path  #: its folder of settings
    instance: str
    server: str  #: URL of the source server
    image: str  #: id (sha256:...) or name of the client image
    home: Path  #: where its state and slots lie
    first_uid: int
    host_name: str | None = None
    ca_file: Path | None = None  #: an extra certificate authority
    proxy: str | None = None
    extra_hosts: tuple[str, ...] = ()
    version: str = "unknown"
    auto_update: bool = False
    makes_disk: bool = False  #: no installer has made a file system for the slots: the launcher tries to
    control: Path  #: socket of the volunteer's command

    @property
    def policy_file(self) -> Path:
        """The volunteer's limits for this instance."""
        return self.etc / "policy.toml"

    @property
    def host_policy_file(self) -> Path | None:
        """The limits of all instances together, if this is not the first one, whose own they are."""
        return self.etc.parent.parent / "policy.toml" if self.etc.parent.name == "instances" else None

    @property
    def key_file(self) -> Path:
        """The account's key."""
        return self.etc / "account.key"

    @property
    def launcher_folder(self) -> Path:
        """The launcher's own state."""
        return self.home / "launcher"

    @property
    def slots(self) -> Path:
        """The fixed-size file system of the slots."""
        return self.home / "slots"

    def siblings(self) -> list[str]:
        """Names of all instances of this machine, this one included."""
        top = self.etc.parent.parent if self.host_policy_file else self.etc
        others = [folder.name for folder in sorted((top / "instances").glob("*")) if folder.is_dir()]
        first = ["default"] if (top / "launcher.json").exists() else []
        return list(dict.fromkeys([*first, *others, self.instance]))


def etc_of(instance: str, top: Path = ETC) -> Path:
    """The folder of settings of an instance."""
    return top if instance == "default" else top / "instances" / instance


def read_installation(etc: Path) -> Installation:
    """What launcher.json in `etc` says; raises BadInstallation."""
    path = etc / "launcher.json"
    try:
        fields = json.loads(path.read_text())
        return _installation(etc, fields)
    except OSError as error:
        raise BadInstallation(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise BadInstallation(
            f"{path} is not what the installer writes ({said}): run the installer again."
        ) from error
    except BadRequest as error:
        raise BadInstallation(f"{path}: {error}") from error


def _installation(etc: Path, fields: dict[str, Any]) -> Installation:
    instance, first_uid = str(fields["instance"]), fields["first_uid"]
    if not INSTANCE.fullmatch(instance) or not isinstance(first_uid, int) or not 2000 <= first_uid < 2**31:
        raise ValueError("instance or first_uid")
    folder = "dockercomp" if instance == "default" else f"dockercomp-{instance}"
    return Installation(
        etc=etc,
        instance=instance,
        server=checked_server(str(fields["server"])),
        image=str(fields["image"]),
        home=Path(fields["home"]),
        first_uid=first_uid,
        host_name=fields.get("host_name") or None,
        ca_file=Path(fields["ca_file"]) if fields.get("ca_file") else None,
        proxy=fields.get("proxy") or None,
        extra_hosts=tuple(checked_extra_host(one) for one in fields.get("add_host") or ()),
        version=str(fields.get("version") or "unknown"),
        auto_update=fields.get("auto_update") is True,
        makes_disk=fields.get("makes_disk") is True,
        control=Path(fields["control"]) if fields.get("control") else RUN / folder / "control.sock",
    )


class PolicyFiles:
    """The policy as it holds: read again when a file changed; what cannot be used changes nothing."""

    def __init__(self, own: Path, host: Path | None) -> None:
        self._paths = [own, *([host] if host else [])]
        self._seen: list[Any] = []
        self._policy = Policy()
        self.host = Policy()  #: the limits of all instances together
        self.problem: str | None = None  #: why the files as they are do not hold

    @property
    def policy(self) -> Policy:
        """The last good policy."""
        return self._policy

    def look(self) -> bool:
        """Read the files if one changed; True if the policy is another one now."""
        seen = [_signature(path) for path in self._paths]
        if seen == self._seen:
            return False
        self._seen = seen
        before = self._policy
        try:
            own, host = self._read(self._paths[0]), self._read(self._paths[-1])
        except BadPolicy as error:
            self.problem = str(error)
            return False
        self.problem, self.host, self._policy = None, host, own.within(host)
        return self._policy != before

    def _read(self, path: Path) -> Policy:
        try:
            return parse_policy(path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise BadPolicy(
                f"{path} cannot be read ({why}); write one, or run the installer again."
            ) from error
        except BadPolicy as error:
            raise BadPolicy(f"{path}: {error}") from error


def write_bundle(ca_file: Path, target: Path, system: Iterable[Path] = SYSTEM_CAS) -> str:
    """Write the machine's own certificate authorities and the extra one to `target`; its hex sha256.

    A client that is given a bundle trusts nothing else, so that the extra one alone would shut out a server whose
    certificate later comes from a public authority. Raises BadInstallation.
    """
    try:
        public = next((path.read_bytes() for path in system if path.is_file()), b"")
        bundle = public.rstrip() + b"\n" + ca_file.read_bytes().strip() + b"\n"
        if not target.exists() or target.read_bytes() != bundle:
            write_durably(target, bundle)
        target.chmod(0o644)
    except OSError as error:
        raise BadInstallation(f"The CA file {error.filename} cannot be used: {error.strerror}.") from error
    return hashlib.sha256(bundle).hexdigest()


def _signature(path: Path) -> Any:
    """What changes when a file is written or replaced; None while there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino, facts.st_size
