"""What a client understands beyond the first messages of protocol 1: it says so when it registers.

Volunteers run last year's client. It ignores fields that it does not know, and would compute without a job's files or
beyond its limits. So a chunk that needs such a field goes only to containers whose client said that it knows it.
"""

from __future__ import annotations

from enum import Enum

from source_server.domain.job import Job

GPU_LABEL = "gpu"  #: the label by which a job asks for graphics processors


class Feature(str, Enum):
    """The names are the protocol's; those of a newer client, unknown here, are kept and mean nothing."""

    FILES = "files"  #: the files of jobs and chunks, and inputs that are one
    OUTPUTS = "outputs"  #: the files that a job's `outputs` name
    LIMITS = "limits"  #: a job's `cpus`, `memory_mb` and `disk_mb`
    GPU = "gpu"  #: a job that asks for the label `gpu` gets the devices


IN_WORDS = {
    Feature.FILES: "a client that fetches files",
    Feature.OUTPUTS: "a client that brings files of answers",
    Feature.LIMITS: "a client that keeps to the limits of a job",
    Feature.GPU: "a client that hands graphics processors to jobs",
}


def asked(job: Job) -> tuple[Feature, ...]:
    """What a client has to know to run the job as it is meant."""
    needed = {
        Feature.FILES: bool(job.inputs),
        Feature.OUTPUTS: bool(job.outputs),
        Feature.LIMITS: any(one is not None for one in (job.cpus, job.memory_mb, job.disk_mb)),
        Feature.GPU: asks_for_gpu(job),
    }
    return tuple(one for one, is_needed in needed.items() if is_needed)


def asks_for_gpu(job: Job) -> bool:
    """Whether the job has to have graphics processors."""
    return any(one.name == GPU_LABEL for one in job.requires)
