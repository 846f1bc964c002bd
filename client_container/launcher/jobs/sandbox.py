"""What a job container may do: its whole configuration, built here and nowhere else. Pure.

The container's main process is the pause program, as a uid of its own; each chunk is a process that the engine
starts beside it (exec) as the job's uid, with the same limits, capabilities, seccomp filter and cgroups. Because the
two uids differ and neither has a capability, no chunk can stop, trace or imitate the processes that keep the
container open: once the chunk's own processes are gone, nothing of it runs.

The keys of the dictionaries are those of the Docker Engine API (POST /containers/create).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_container.launcher.clients.plan import LABEL_CONFIG, LABEL_KIND, LABEL_SLOT
from client_container.launcher.jobs.manifest import Allowance
from client_container.launcher.line.wire import Manifest

KIND_JOB = "job"

#: Uids of an instance's range, counted from its first: job of slot n = JOBS + n, every pause program = PAUSE.
JOBS, PAUSE = 1000, 1998
MOST_SLOTS = 900

PIDS = 256  #: processes and threads of a job
OWN_TASKS = 2  #: the init and the pause program
OPEN_FILES = 1024
TMP_INODES = 16_384
#: What the engine is asked for: all that NVIDIA's container toolkit finds, for computing and nothing else.
ALL_GPUS = {"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu", "compute", "utility"]]}
OOM_SCORE = 500  #: when the machine runs out of memory, jobs go before the volunteer's own programs

IN, OUT, CHECKPOINT = "/in", "/out", "/checkpoint"
PAUSE_PATH = "/.dockercomp/pause"
TMP = "/tmp"  # noqa: S108  # the container's own tmpfs
SHM = "/dev/shm"  # noqa: S108

#: System V objects and POSIX queues outlive the processes that made them: in a warm container the next chunk would
#: find them. Shared memory, semaphores and queues within /dev/shm and between a program's own processes remain.
_NOTHING_THAT_OUTLIVES = {
    "kernel.shmmni": "0",
    "kernel.msgmni": "0",
    "kernel.sem": "0 0 0 0",
    "fs.mqueue.queues_max": "0",
}


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """Everything that the configuration of one job container depends on."""

    slot: int
    image: str  #: id, sha256:...
    allowance: Allowance
    first_uid: int
    labels: Mapping[str, str]  #: of the instance
    folder: Path  #: holds in/, out/ and checkpoint/, to be seen by the engine under the same path
    pause: Path  #: the pause program's file
    cgroup_parent: str = ""  #: of all jobs of this host; empty: the engine's own
    runtime: str | None = None  #: OCI runtime; None: the engine's default
    #: The job gets this host's graphics processors, which the volunteer has to have allowed.
    gpu: bool = False

    @property
    def uid(self) -> int:
        """User and group of the job: never root or a user of the machine, shared with no other slot."""
        return self.first_uid + JOBS + self.slot

    @property
    def pause_uid(self) -> int:
        """User and group of the pause program, which no job shares."""
        return self.first_uid + PAUSE


def container_config(sandbox: Sandbox) -> dict[str, Any]:
    """The configuration of a job container."""
    return {
        "Image": sandbox.image,
        "User": f"{sandbox.pause_uid}:{sandbox.pause_uid}",
        "Entrypoint": [PAUSE_PATH],
        "Cmd": [],
        "Hostname": "job",  # the same everywhere: nothing tells attempts apart
        "Healthcheck": {"Test": ["NONE"]},  # an image's own would be run beside the chunk
        "StopSignal": "SIGKILL",
        "Labels": _labels(sandbox),
        "HostConfig": _host_config(sandbox),
    }


def same_use(sandbox: Sandbox, manifest: Manifest) -> str:
    """Hex digest, equal for two chunks when the second may be run in the container of the first.

    That is: the same project, task and job, limits, slot and image. Only timeout, folder and chunk may differ.
    """
    config = container_config(sandbox)
    del config["HostConfig"]["Mounts"]
    job = {**vars(manifest), "timeout_s": None}
    return hashlib.sha256(json.dumps([config, job], sort_keys=True, default=dict).encode()).hexdigest()


def _labels(sandbox: Sandbox) -> dict[str, str]:
    # All of our names are set, so that none can come from a label of the image.
    return {
        **sandbox.labels,
        LABEL_KIND: KIND_JOB,
        LABEL_SLOT: str(sandbox.slot),
        LABEL_CONFIG: "",
    }


def _host_config(sandbox: Sandbox) -> dict[str, Any]:
    memory = sandbox.allowance.memory
    config = {
        "Init": True,
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        # Seccomp and AppArmor stay at the engine's defaults: naming them here could only weaken them.
        "SecurityOpt": ["no-new-privileges:true"],
        "PidsLimit": PIDS + OWN_TASKS,
        "Memory": memory,
        "MemorySwap": memory,
        "NanoCpus": round(sandbox.allowance.cpus * 1e9),
        "OomScoreAdj": OOM_SCORE,
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "CgroupParent": sandbox.cgroup_parent,
        "ShmSize": memory // 2,
        "Tmpfs": {TMP: f"rw,noexec,nosuid,nodev,size={memory // 2},nr_inodes={TMP_INODES},mode=1777"},
        "Sysctls": dict(_NOTHING_THAT_OUTLIVES),
        "Ulimits": [
            _ulimit("core", 0),
            _ulimit("nofile", OPEN_FILES),
            _ulimit("fsize", sandbox.allowance.disk),
        ],
        "LogConfig": {"Type": "none"},
        "RestartPolicy": {"Name": "no"},
        "Mounts": [
            _bind(sandbox.pause, PAUSE_PATH, read_only=True),
            _bind(sandbox.folder / "in", IN, read_only=True),
            _bind(sandbox.folder / "out", OUT, read_only=False),
            _bind(sandbox.folder / "checkpoint", CHECKPOINT, read_only=False),
        ],
    }
    if sandbox.gpu:
        config["DeviceRequests"] = [dict(ALL_GPUS)]
    return {**config, "Runtime": sandbox.runtime} if sandbox.runtime else config


def _bind(source: Path, target: str, *, read_only: bool) -> dict[str, Any]:
    # Propagation stays the engine's default, private: one that is named is refused below /var/lib/docker*, of which
    # engines take /var/lib/dockercomp to be a part.
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}


def _ulimit(name: str, value: int) -> dict[str, str | int]:
    return {"Name": name, "Soft": value, "Hard": value}
