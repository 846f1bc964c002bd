"""What the machine says of itself: labels that every container carries without being told."""

from __future__ import annotations

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")

#: One name for what kernels call differently.
_SAME_ARCH = {"amd64": "x86_64", "aarch64": "arm64"}

#: Lines of /proc/cpuinfo that together name a family of processors: x86's, and ARM's.
_FAMILY = (("vendor_id", "cpu family"), ("CPU implementer", "CPU part"))


def machine_labels() -> dict[str, str]:
    """`os`, `arch` and, where the system says it, `cpu_family`."""
    arch = platform.machine().lower()
    labels = {"os": platform.system().lower(), "arch": _SAME_ARCH.get(arch, arch)}
    try:
        family = cpu_family(CPU_INFO.read_text(errors="replace"))
    except OSError:
        family = None
    return labels if family is None else {**labels, "cpu_family": family}


def cpu_family(info: str) -> str | None:
    """The family of the first processor in the text of /proc/cpuinfo, like GenuineIntel-6; None: it does not say."""
    said: dict[str, str] = {}
    for line in info.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            said.setdefault(name.strip(), value.strip())
    for parts in _FAMILY:
        if all(said.get(part) for part in parts):
            return "-".join(said[part] for part in parts)
    return None
