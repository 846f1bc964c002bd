"""The one place where it is decided whether a job may run on this host, and with how much. Pure.

The launcher trusts neither the client container nor the source server. Nothing of a request has any influence on a
job container but through `check_manifest`: the form of its image's name, its limits against the volunteer's policy,
its project, how many run already. The manifest's signature will be checked here too, once manifests are signed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from client_container.launcher.line.wire import GivenChunk, Manifest, Pull, Refusal
from client_container.launcher.policy.policy import Policy

#: sha256:<image id>: it came, or will come, as an archive from the source server.
_BY_ID = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
#: [host[:port]/]path[:tag]@sha256:<digest>: from a registry. A tag is only words, the digest decides.
_BY_DIGEST = re.compile(
    r"(?:(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?)/)?"
    r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?@sha256:[0-9a-f]{64}",
    re.ASCII,
)

LEAST_MEMORY = 16 * 2**20  #: bytes; the engine refuses containers with less than 6 MiB
LEAST_DISK = 2**20


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What one job may take."""

    memory: int  #: bytes, with everything it keeps in /tmp and /dev/shm; no swap
    cpus: float
    disk: int  #: bytes of /in, /out and /checkpoint together
    timeout_s: float


def check_manifest(manifest: Manifest, chunk: GivenChunk, *, policy: Policy, running: int) -> Allowance:
    """What this job gets here, while `running` others run on this host; raises Refusal."""
    check_image_name(manifest.image)
    check_project(manifest.project, policy)
    if manifest.gpu and not policy.gpu:
        raise Refusal("not_allowed", "This host's owner does not lend its graphics processors.")
    if running >= policy.containers:
        raise Refusal("busy", f"This host runs {policy.containers} jobs at once and no more.")
    allowance = Allowance(
        memory=int(_share("memory", manifest.memory_mb, policy.memory_a_job / 2**20, unit="MiB") * 2**20),
        cpus=_share("processor time", manifest.cpus, policy.cpus_a_job, unit="processors"),
        disk=int(_share("disk", manifest.disk_mb, policy.disk_a_job / 2**20, unit="MiB") * 2**20),
        timeout_s=manifest.timeout_s,
    )
    if allowance.memory < LEAST_MEMORY or allowance.disk < LEAST_DISK:
        raise Refusal(
            "not_allowed", "This host's share of memory or disk for one job is too small to run any."
        )
    return allowance


def check_pull(request: Pull, *, policy: Policy) -> None:
    """Whether this image may be brought here; raises Refusal. Where from and how big is for whoever brings it."""
    check_image_name(request.image)
    check_project(request.project, policy)
    if request.file is not None and not is_archive(request.image):
        raise Refusal("bad_request", "Only an image named by its id (sha256:...) comes as a file.")


def check_image_name(image: str) -> None:
    """Whether this names exactly one image: a tag may mean another one tomorrow. Raises Refusal."""
    if not is_archive(image) and (len(image) > 512 or _BY_DIGEST.fullmatch(image) is None):
        raise Refusal(
            "not_allowed",
            "A job names its image as name@sha256:... or as sha256:..., so that it can be no other.",
        )


def is_archive(image: str) -> bool:
    """Whether the image is one that comes as an archive, not from a registry."""
    return _BY_ID.fullmatch(image) is not None


def check_project(project: str, policy: Policy) -> None:
    """Whether the volunteer lends the host to this project; raises Refusal."""
    if policy.projects is not None and project not in policy.projects:
        raise Refusal("not_allowed", f"This host's owner does not run the project {project!r}.")


def _share(what: str, asked: float | None, share: float, *, unit: str) -> float:
    """What was asked for, or else the whole share of one job; raises Refusal for more than that."""
    if asked is not None and asked > share:
        raise Refusal(
            "not_allowed", f"The job wants {asked:g} {unit} of {what}, and this host gives one job {share:g}."
        )
    return share if asked is None else asked
