"""What the machine says of itself: labels that every container carries without being told."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

#: Names that the machine alone gives values to: a volunteer's own labels go by others.
FACTS = frozenset(
    {"arch", "cores", "cpu_family", "gpu", "gpu_name", "os", "os_release", "total_memory_mb"}
    | {"cpus", "disk_mb", "memory_mb"}
)

GPU_FACTS = ("gpu", "gpu_name")

Label = str | float

#: One name for what kernels call differently.
_SAME_ARCH = {"amd64": "x86_64", "aarch64": "arm64"}

#: Lines of /proc/cpuinfo that together name a family of processors: x86's, and ARM's.
_FAMILY = (("vendor_id", "cpu family"), ("CPU implementer", "CPU part"))

_AMD = "0x1002"  #: PCI vendor


def machine_labels(root: Path = Path("/")) -> dict[str, Label]:
    """`os`, `arch`, `cores`, and where the system says it `cpu_family`, `os_release`, `total_memory_mb`, `gpu` (their
    number) and `gpu_name`. `root` is where the system's files are read.

    Inside a container the system's name is the image's, and devices are hidden: there the launcher's word counts.
    """
    arch = platform.machine().lower()
    said: dict[str, Label | None] = {
        "os": platform.system().lower(),
        "arch": _SAME_ARCH.get(arch, arch),
        "cores": os.cpu_count(),
        "cpu_family": cpu_family(_text(root / "proc/cpuinfo")),
        "os_release": os_release(_text(root / "etc/os-release")),
        "total_memory_mb": total_memory_mb(_text(root / "proc/meminfo")),
    }
    said |= gpu_labels([*nvidia_gpus(root), *_amd(root)])
    return {name: value for name, value in said.items() if value is not None}


def gpu_labels(names: Sequence[str]) -> dict[str, Label]:
    """What is said of these graphics processors; nothing where there are none."""
    if not names:
        return {}
    return {"gpu": len(names), "gpu_name": ", ".join(dict.fromkeys(names))[:200]}


def without_gpus(labels: Mapping[str, Label]) -> dict[str, Label]:
    """The labels of a place that has the machine's other facts, and not its devices."""
    return {name: value for name, value in labels.items() if name not in GPU_FACTS}


def has_devices(root: Path = Path("/")) -> bool:
    """Whether a program here can open a graphics processor: inside a container drivers are seen and devices hidden."""
    return any((root / device).exists() for device in ("dev/nvidiactl", "dev/kfd"))


def nvidia_gpus(root: Path = Path("/")) -> list[str]:
    """Names of NVIDIA's graphics processors here, as far as the driver has taken them on."""
    return list(_nvidia(root))


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


def os_release(text: str) -> str | None:
    """Name and version in the text of /etc/os-release, like debian-12; None: it does not say."""
    found = dict(re.findall(r"(?m)^(ID|VERSION_ID)=[\"']?([A-Za-z0-9._-]{1,60})[\"']?\s*$", text))
    if "ID" not in found:
        return None
    return "-".join(found[name] for name in ("ID", "VERSION_ID") if name in found)


def total_memory_mb(text: str) -> int | None:
    """MiB of memory in the text of /proc/meminfo; None: it does not say."""
    found = re.search(r"(?m)^MemTotal:\s+([0-9]{1,15}) kB$", text)
    return int(found[1]) // 1024 if found else None


def _nvidia(root: Path) -> Iterator[str]:
    """Names of the graphics processors that NVIDIA's driver has taken on; without it nothing can compute there."""
    for folder in _listed(root / "proc/driver/nvidia/gpus"):
        model = re.search(r"(?m)^Model:\s+(.{1,100}?)\s*$", _text(folder / "information"))
        yield model[1] if model else "NVIDIA"


def _amd(root: Path) -> Iterator[str]:
    """The same of AMD's, where the driver for computing (/dev/kfd) is there."""
    if not (root / "dev/kfd").exists():
        return
    for card in _listed(root / "sys/class/drm"):
        if re.fullmatch(r"card[0-9]+", card.name) and _text(card / "device/vendor").strip() == _AMD:
            yield _text(card / "device/product_name").strip()[:100] or "AMD"


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
