"""What a client container may do: its whole configuration, built here and nowhere else. Pure.

Nothing that a server or a job says ends up in a configuration. The keys of the dictionaries are those of the
Docker Engine API (POST /containers/create).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Label = str | float

HOME = "/var/lib/dockercomp"  #: the one writable place that survives: a named volume
KEY_FILE = "account.key"  #: in HOME; readable by its container's uid only
SPOOL = "spool"  #: in HOME; a folder of its container's uid only
STOP_S = 8  #: seconds between SIGTERM and SIGKILL; a client leaves within 5

LABEL_INSTANCE = "dockercomp.instance"
LABEL_HOST = "dockercomp.host"
LABEL_SLOT = "dockercomp.slot"
LABEL_CONFIG = "dockercomp.config"
#: Client, job or self-test; told apart only where jobs have containers of their own.
LABEL_KIND = "dockercomp.kind"
CLIENT = "client"

CA_FILE = "/etc/dockercomp-ca.pem"  #: certificates that a client in front of a sandbox trusts
SOCKET = "launcher.sock"  #: in HOME; the launcher listens on it

PIDS = 256
FRONT_PIDS = 64  #: it runs no job
FRONT_CPUS = 0.5
FRONT_MEMORY = 96 * 2**20  #: bytes; an idle one takes less than a third
SHM_BYTES = 64 * 2**20
FILE_BYTES = 2**30
OPEN_FILES = 1024


@dataclass(frozen=True, kw_only=True)
class Front:
    """What changes where jobs run in containers of their own, and the client container only stands in front of them."""

    slots: str  #: folder on the host; slot n has its subfolder n as HOME, made and owned by the launcher
    network: str  #: name of the Docker network behind the wall
    ca_file: str | None = None  #: file on the host with the certificates to trust; None: the image's own
    #: Hex sha256 of what is in it: the container has to be made anew for another.
    ca_digest: str | None = None
    proxy: str | None = None  #: URL
    job_cpus: float = 1.0  #: what one job gets at least
    job_memory: int = 512 * 2**20  #: bytes, the same
    job_disk: int = 2**30  #: bytes, the same
    image_size: int = 2**30  #: bytes of the largest file it has to be able to write: an image's archive


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all client containers of one launcher instance have in common."""

    instance: str
    host_id: str  #: UUID of this machine, or rather of its state folder
    host_name: str | None = None
    server: str  #: URL of the source server, as seen from inside a container
    key_digest: str  #: hex sha256 of the account key: a new key needs new containers
    image: str  #: id of the image, sha256:...
    cpus: float = 1.0
    memory: int = 512 * 2**20  #: bytes, swap included
    extra_hosts: tuple[str, ...] = ()  #: NAME:ADDRESS, for the containers' /etc/hosts
    first_uid: int = 730_000  #: slot n runs as first_uid + n
    facts: Mapping[str, Label] = field(default_factory=dict)  #: labels of this machine, by its own word
    labels: Mapping[str, Label] = field(default_factory=dict)  #: and the volunteer's
    #: None: jobs run inside the client container, which keeps its state in a volume.
    front: Front | None = None

    def uid(self, slot: int) -> int:
        """The user and group of a slot: never root or a user of the machine, shared with no other slot."""
        return self.first_uid + slot

    def name(self, slot: int) -> str:
        """Name of the slot's container and of its volume; state folders on one engine do not meet."""
        return f"dockercomp-{self.instance}-{self.host_id[:8]}-{slot}"

    def own_labels(self) -> dict[str, str]:
        """The labels of this instance's client containers."""
        kind = {LABEL_KIND: CLIENT} if self.front else {}
        return {**own_labels(self.instance, self.host_id), **kind}


def own_labels(instance: str, host_id: str) -> dict[str, str]:
    """The labels that all containers and volumes of an instance carry, and nothing else does."""
    return {LABEL_INSTANCE: instance, LABEL_HOST: host_id}


def container_config(plan: Plan, slot: int) -> dict[str, Any]:
    """The configuration of the client container in `slot`."""
    labels = {**plan.own_labels(), LABEL_SLOT: str(slot), LABEL_CONFIG: config_digest(plan)}
    return {**_bare_config(plan, slot), "Labels": labels}


def config_digest(plan: Plan) -> str:
    """Hex digest that changes whenever a running container no longer is what the plan asks for."""
    facts: dict[str, Any] = {"config": _bare_config(plan, 0), "key": plan.key_digest}
    if plan.front:
        facts["ca"] = plan.front.ca_digest
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _bare_config(plan: Plan, slot: int) -> dict[str, Any]:
    uid = plan.uid(slot)
    return {
        "Image": plan.image,
        "User": f"{uid}:{uid}",
        "Env": [f"{name}={value}" for name, value in _environment(plan, slot).items()],
        "StopTimeout": STOP_S,
        "HostConfig": _host_config(plan, slot),
    }


def _environment(plan: Plan, slot: int) -> dict[str, str]:
    """Nothing secret: whoever may ask the engine can read it. The key is a file."""
    env = {
        "DOCKERCOMP_SERVER": plan.server,
        "DOCKERCOMP_HOME": HOME,
        "DOCKERCOMP_KEY_FILE": f"{HOME}/{KEY_FILE}",
        "DOCKERCOMP_IMAGE": plan.image,
        "DOCKERCOMP_HOST_ID": plan.host_id,
        "DOCKERCOMP_LABELS": json.dumps({**plan.labels, "slot": slot}),
        "DOCKERCOMP_CPUS": f"{plan.front.job_cpus if plan.front else plan.cpus:g}",
        "DOCKERCOMP_ALLOW": "" if plan.front else "*",
        "HOME": "/tmp",  # noqa: S108  # its own tmpfs
    }
    named = {"DOCKERCOMP_HOST_NAME": plan.host_name} if plan.host_name else {}
    if plan.facts:
        named["DOCKERCOMP_HOST_LABELS"] = json.dumps(dict(plan.facts))
    return {**env, **named, **(_front_environment(plan.front) if plan.front else {})}


def _front_environment(front: Front) -> dict[str, str]:
    env = {
        "DOCKERCOMP_RUNTIME": "sandbox",
        "DOCKERCOMP_LAUNCHER_SOCKET": f"{HOME}/{SOCKET}",
        "DOCKERCOMP_MEMORY_MB": str(front.job_memory // 2**20),
        "DOCKERCOMP_DISK_MB": str(front.job_disk // 2**20),
    }
    if front.ca_file:
        env |= {"REQUESTS_CA_BUNDLE": CA_FILE, "SSL_CERT_FILE": CA_FILE}
    if front.proxy:
        env |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), front.proxy)
    return env


def _host_config(plan: Plan, slot: int) -> dict[str, Any]:
    return {
        "Init": True,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        # Seccomp and AppArmor stay at the engine's defaults: naming them here could only weaken them.
        "SecurityOpt": ["no-new-privileges:true"],
        "PidsLimit": FRONT_PIDS if plan.front else PIDS,
        "Memory": plan.memory,
        "MemorySwap": plan.memory,
        "NanoCpus": round(plan.cpus * 1e9),
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "ShmSize": SHM_BYTES,
        "Tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={'8m' if plan.front else '256m'},mode=1777"},  # noqa: S108
        "Ulimits": [
            _ulimit("core", 0),
            _ulimit("nofile", OPEN_FILES),
            _ulimit("fsize", max(FILE_BYTES, plan.front.image_size if plan.front else 0)),
        ],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}},
        "RestartPolicy": {"Name": "no"},
        "ExtraHosts": list(plan.extra_hosts),
        "Mounts": _mounts(plan, slot),
        **({"NetworkMode": plan.front.network} if plan.front else {}),
    }


def _mounts(plan: Plan, slot: int) -> list[dict[str, Any]]:
    """Never a folder of the host that is not the slot's own; and never the engine's socket."""
    if plan.front is None:
        return [{"Type": "volume", "Source": plan.name(slot), "Target": HOME}]
    mounts: list[dict[str, Any]] = [_bound(f"{plan.front.slots}/{slot}", HOME, writable=True)]
    if plan.front.ca_file:
        mounts.append(_bound(plan.front.ca_file, CA_FILE, writable=False))
    return mounts


def _bound(source: str, target: str, *, writable: bool) -> dict[str, Any]:
    """A folder or file of the host. Its propagation is the engine's default, private: one that is named is refused
    below /var/lib/docker*, of which engines take /var/lib/dockercomp to be a part.
    """
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": not writable}


def _ulimit(name: str, value: int) -> dict[str, str | int]:
    return {"Name": name, "Soft": value, "Hard": value}
