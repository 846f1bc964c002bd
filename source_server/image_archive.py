"""Archives of images as `docker save` writes them, in both layouts: read, checked, and written anew without tags.

What is written is the least that every engine loads: the config, the layers, and a manifest that names them. The same
image gives the same bytes, whichever engine saved it with its layers packed alike.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol

MOST_JSON = 4 * 2**20  #: bytes of a manifest or a config
PIECE = 2**20
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

#: The engine's names of architectures, as containers' label `arch` has them.
ARCHITECTURES = {"amd64": "x86_64", "aarch64": "arm64"}


class BadArchive(Exception):
    """The file is not the archive of one image; the message is one sentence."""


class Sink(Protocol):
    """Where an archive is written to."""

    def write(self, data: bytes, /) -> Any:
        """Take these bytes."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer: the member of the archive that holds it, and the hash of its content, unpacked."""

    member: str
    diff_id: str  #: sha256:... of the layer's tar, uncompressed


@dataclass(frozen=True, kw_only=True)
class ImageArchive:
    """An archive that was read through and found whole."""

    path: Path
    id: str  #: sha256:... of the image's config
    architecture: str  #: as the label `arch` of containers: x86_64, arm64, ...
    os: str
    size: int  #: bytes of all layers, unpacked
    config: bytes
    layers: tuple[Layer, ...]


def read_archive(path: Path) -> ImageArchive:
    """Check an archive whole: one image, its config and every layer as promised. Raises BadArchive, OSError."""
    with _opened(path) as archive:
        manifest = _manifest(archive)
        config = _small(archive, _text(manifest.get("Config")))
        image_id = hashlib.sha256(config).hexdigest()
        named = re.search(r"[0-9a-f]{64}", _text(manifest.get("Config")))
        if named is not None and named[0] != image_id:
            raise BadArchive("The image's config is not what its name says: the archive is damaged.")
        known = _json(config, "config")
        layers = _layers(archive, manifest, known)
        return ImageArchive(
            path=path,
            id=f"sha256:{image_id}",
            architecture=_architecture(known),
            os=_text(known.get("os")),
            size=sum(_unpacked(archive, layer) for layer in dict.fromkeys(layers)),
            config=config,
            layers=layers,
        )


def write_untagged(image: ImageArchive, out: Sink) -> None:
    """Write the image's archive anew, without any name or tag; constant memory."""
    config = f"{image.id.removeprefix('sha256:')}.json"
    files = {layer: f"{layer.diff_id.removeprefix('sha256:')}.tar" for layer in image.layers}
    manifest = [{"Config": config, "RepoTags": None, "Layers": [files[layer] for layer in image.layers]}]
    # A stream: the sink has to know nothing but how to write.
    with _opened(image.path) as archive, tarfile.open(fileobj=out, mode="w|") as written:  # type: ignore[call-overload]
        _add(written, "manifest.json", BytesIO(json.dumps(manifest).encode()))
        _add(written, config, BytesIO(image.config))
        for layer, name in files.items():
            _add(written, name, _member(archive, layer.member))


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, mode="r:") as archive:
            yield archive
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadArchive(
            f"{path.name} is no archive of `docker save`, or is not all there ({error})."
        ) from error


def _manifest(archive: tarfile.TarFile) -> dict[str, Any]:
    if "manifest.json" not in archive.getnames():
        raise BadArchive("The archive has no manifest.json: make it with `docker save IMAGE`.")
    images = _json(_small(archive, "manifest.json"), "manifest.json")
    if not isinstance(images, list) or not all(isinstance(one, dict) for one in images):
        raise BadArchive("The archive's manifest.json is not what `docker save` writes.")
    if len(images) != 1:
        raise BadArchive(f"The archive holds {len(images)} images; it must hold exactly one.")
    return dict(images[0])


def _layers(archive: tarfile.TarFile, manifest: dict[str, Any], config: Any) -> tuple[Layer, ...]:
    members = manifest.get("Layers")
    root = config.get("rootfs") if isinstance(config, dict) else None
    diff_ids = root.get("diff_ids") if isinstance(root, dict) else None
    if not isinstance(members, list) or not isinstance(diff_ids, list) or len(members) != len(diff_ids):
        raise BadArchive("The archive's manifest and the image's config do not list the same layers.")
    if not all(isinstance(one, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in diff_ids):
        raise BadArchive("The image's config has a layer without a proper hash.")
    # Equal layers are in there once: the first member that has the content stands for all.
    first: dict[str, str] = {}
    for member, diff_id in zip(members, diff_ids, strict=True):
        first.setdefault(diff_id, _text(member))
    return tuple(Layer(member=first[diff_id], diff_id=diff_id) for diff_id in diff_ids)


def _architecture(config: Any) -> str:
    name = _text(config.get("architecture"))
    if not re.fullmatch(r"[a-z0-9_]{1,32}", name):
        raise BadArchive("The image's config does not say for which architecture it is.")
    return ARCHITECTURES.get(name, name)


def _unpacked(archive: tarfile.TarFile, layer: Layer) -> int:
    """The bytes of a layer, unpacked; raises BadArchive unless they are the ones that the config names."""
    digest, size = hashlib.sha256(), 0
    with _member(archive, layer.member) as packed, _inflated(packed) as plain:
        while piece := plain.read(PIECE):
            digest.update(piece)
            size += len(piece)
    if f"sha256:{digest.hexdigest()}" != layer.diff_id:
        raise BadArchive(f"The layer {layer.member} is not the one that the image's config names.")
    return size


@contextmanager
def _inflated(packed: IO[bytes]) -> Iterator[IO[bytes]]:
    magic = packed.read(4)
    packed.seek(0)
    if magic.startswith(ZSTD):
        raise BadArchive(
            "The archive's layers are packed with zstd, which few engines read: use gzip or none."
        )
    if magic.startswith(GZIP):
        with gzip.GzipFile(fileobj=packed) as plain:
            yield plain  # type: ignore[misc]  # reads like any file
    else:
        yield packed


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """A file of the archive. Old engines write a link in the place of a layer that is in there already."""
    try:
        found = archive.getmember(name)
        if found.issym() or found.islnk():
            target = found.linkname
            if found.issym():
                target = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
            found = archive.getmember(target)
    except KeyError:
        raise BadArchive(f"The archive lacks {name}.") from None
    opened = archive.extractfile(found) if found.isreg() else None
    if opened is None:
        raise BadArchive(f"{name} is no ordinary file in the archive.")
    return opened


def _small(archive: tarfile.TarFile, name: str) -> bytes:
    with _member(archive, name) as opened:
        data = opened.read(MOST_JSON + 1)
    if len(data) > MOST_JSON:
        raise BadArchive(f"{name} of the archive is larger than any that an engine writes.")
    return data


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BadArchive(f"The archive's {name} is not JSON.") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadArchive("The archive's manifest or config lacks a name that it must have.")
    return value


def _add(written: tarfile.TarFile, name: str, content: IO[bytes]) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = 0o644
    with content:
        content.seek(0, 2)
        entry.size = content.tell()
        content.seek(0)
        written.addfile(entry, content)
