"""Archives of job images: checked before the engine sees them, and handed to it in a form of our own.

`docker load` would give an image whatever tags its archive carries, the volunteer's own ones too. So an archive is
read twice: once to check it and to learn its sizes, and once to write the archive that the engine gets, which has our
manifest, without tags, as its last file. Whoever changes the file in between gains nothing: each layer is hashed
again on the way, and without a manifest the engine loads nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from client_container.launcher.images.layer import (
    BLOCK,
    MOST_ENTRIES,
    PIECE,
    BadArchive,
    Header,
    Plain,
    TooLarge,
    look_through,
    read_header,
)

MOST_JSON = 4 * 2**20  #: bytes of a manifest or a config
MOST_FILES = 2000  #: in an archive
MOST_LAYERS = 256

#: What `docker save` names files, in either of its layouts, and what the source server names them.
_NAME = re.compile(
    rb"manifest\.json|repositories|index\.json|oci-layout|[0-9a-f]{64}\.(json|tar)"
    rb"|[0-9a-f]{64}/(VERSION|json|layer\.tar)?|blobs/(sha256/([0-9a-f]{64})?)?"
)
#: Annotations by which an index names an image.
_TAG = re.compile(r"org\.opencontainers\.image\.ref\.name|io\.containerd\.image\.name")
_DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}")

Progress = Callable[[int, int], object]  #: told bytes done, and bytes in all


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a file's bytes lie in an archive."""

    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer."""

    place: Place
    diff_id: str  #: sha256:... of its tar, unpacked
    size: int  #: of that tar
    room: int  #: bytes that it takes on a disk, unpacked
    entries: int  #: files, folders and links


@dataclass(frozen=True, kw_only=True)
class CheckedArchive:
    """An archive that was read through and found good."""

    image_id: str
    architecture: str  #: as the engine names it: amd64, arm64, ...
    config: bytes
    layers: tuple[Layer, ...]  #: from the bottom; the same one may come more than once
    size: int  #: bytes of all layers' tars, unpacked; one that comes more than once counts once
    room: int  #: bytes that they take on a disk
    entries: int  #: files, folders and links of all layers

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The layers' hashes, from the bottom."""
        return tuple(one.diff_id for one in self.layers)


def check_archive(
    descriptor: int, image_id: str, *, most: int, progress: Progress = lambda done, total: None
) -> CheckedArchive:
    """Read an archive whole; raises BadArchive, or TooLarge as soon as it needs more than `most` bytes unpacked."""
    places = _places(descriptor)
    entry = _the_manifest(descriptor, places)
    _require_no_tags(descriptor, places, entry)
    config = _small(descriptor, _place(places, entry.get("Config")))
    if f"sha256:{hashlib.sha256(config).hexdigest()}" != image_id:
        raise BadArchive("The archive holds another image than the one that was asked for.")
    known = _json(config)
    diff_ids = _diff_ids(known)
    names = entry.get("Layers")
    if not isinstance(names, list) or len(names) != len(diff_ids):
        raise BadArchive("The archive's manifest and the image's config do not list the same layers.")
    found: dict[str, Layer] = {}
    total = os.fstat(descriptor).st_size
    for name, diff_id in zip(names, diff_ids, strict=True):
        place = _place(places, name)
        if diff_id not in found:
            left = most - sum(one.room for one in found.values())
            entries = MOST_ENTRIES - sum(one.entries for one in found.values())
            found[diff_id] = _checked(descriptor, place, diff_id, left, entries)
            progress(place.offset + place.size, total)
    return CheckedArchive(
        image_id=image_id,
        architecture=str(known.get("architecture") or ""),
        config=config,
        layers=tuple(found[diff_id] for diff_id in diff_ids),
        size=sum(one.size for one in found.values()),
        room=sum(one.room for one in found.values()),
        entries=sum(one.entries for one in found.values()),
    )


def engine_archive(
    descriptor: int, archive: CheckedArchive, progress: Progress = lambda done, total: None
) -> Iterator[bytes]:
    """The archive that the engine is given, as pieces; raises BadArchive when the file has changed since the check."""
    done = 0
    for layer in dict.fromkeys(archive.layers):
        yield _header(_file(layer), layer.size)
        plain = Plain(_pieces(descriptor, layer.place), most=layer.size)
        try:
            for piece in plain:
                yield piece
                done += len(piece)
                progress(done, archive.size)
        except TooLarge:
            raise BadArchive("The archive has changed while it was read.") from None
        if (plain.size, plain.diff_id) != (layer.size, layer.diff_id):
            raise BadArchive("The archive has changed while it was read.")
        yield _padding(layer.size)
    config = f"{archive.image_id.removeprefix('sha256:')}.json"
    manifest = [{"Config": config, "RepoTags": None, "Layers": [_file(one) for one in archive.layers]}]
    for name, content in ((config, archive.config), ("manifest.json", json.dumps(manifest).encode())):
        yield _header(name, len(content)) + content + _padding(len(content))
    yield bytes(2 * BLOCK)


def _places(descriptor: int) -> dict[str, Place]:
    """Where each file lies; raises BadArchive for anything but files and folders that an engine's archive has."""
    places: dict[str, Place] = {}
    offset, end = 0, os.fstat(descriptor).st_size
    while (header := read_header(os.pread(descriptor, BLOCK, offset))) is not None:
        offset += BLOCK
        if header.kind == b"x":
            _require_harmless(descriptor, header, offset)
        else:
            name = _checked_name(header)
            if name in places or len(places) >= MOST_FILES:
                raise BadArchive("The archive names a file twice, or has more files than any image.")
            places[name] = Place(offset=offset, size=header.size)
        offset += header.padded
        if offset > end:
            raise BadArchive("The archive ends in the middle of a file.")
    return places


def _checked_name(header: Header) -> str:
    if header.kind not in (b"0", b"5") or (header.kind == b"5" and header.size):
        raise BadArchive("The archive has something else in it than files and folders.")
    name = header.name + b"/" if header.kind == b"5" and not header.name.endswith(b"/") else header.name
    if not _NAME.fullmatch(name) or (header.kind == b"5") != name.endswith(b"/"):
        raise BadArchive("The archive has a file in it that is none of an image's.")
    return name.decode("ascii")


def _require_harmless(descriptor: int, header: Header, offset: int) -> None:
    """Engines write extended headers for fractions of seconds; none that changes what follows."""
    if header.size > MOST_JSON:
        raise BadArchive("The archive has a header that is larger than any that an engine writes.")
    text = os.pread(descriptor, header.size, offset)
    if not re.fullmatch(rb"(\d+ [acm]time=[0-9.]+\n)*", text):
        raise BadArchive("The archive has a header that no engine writes.")


def _the_manifest(descriptor: int, places: dict[str, Place]) -> dict[str, Any]:
    images = _json(_small(descriptor, _place(places, "manifest.json")))
    if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], dict):
        raise BadArchive("The archive does not hold exactly one image.")
    return images[0]


def _require_no_tags(descriptor: int, places: dict[str, Place], entry: dict[str, Any]) -> None:
    named = bool(entry.get("RepoTags"))
    if "repositories" in places:
        named = named or bool(_json(_small(descriptor, places["repositories"])))
    if "index.json" in places:
        index = _json(_small(descriptor, places["index.json"]))
        named = named or _TAG.search(json.dumps(index)) is not None
    if named:
        raise BadArchive("The archive carries a tag, which could take the place of one on this machine.")


def _diff_ids(config: Any) -> list[str]:
    root = config.get("rootfs") if isinstance(config, dict) else None
    found = root.get("diff_ids") if isinstance(root, dict) else None
    if not isinstance(found, list) or len(found) > MOST_LAYERS:
        raise BadArchive("The image's config does not list its layers.")
    if not all(isinstance(one, str) and _DIFF_ID.fullmatch(one) for one in found):
        raise BadArchive("The image's config has a layer without a proper hash.")
    return found


def _checked(descriptor: int, place: Place, diff_id: str, most: int, entries: int) -> Layer:
    plain = Plain(_pieces(descriptor, place), most=most)
    contents = look_through(plain, most_entries=entries)
    if plain.diff_id != diff_id:
        raise BadArchive("A layer of the archive is not the one that the image's config names.")
    return Layer(
        place=place,
        diff_id=diff_id,
        size=plain.size,
        room=max(contents.room, plain.size),
        entries=contents.entries,
    )


def _place(places: dict[str, Place], name: Any) -> Place:
    if not isinstance(name, str) or name not in places or name.endswith("/"):
        raise BadArchive("The archive lacks a file that its manifest names.")
    return places[name]


def _small(descriptor: int, place: Place) -> bytes:
    if place.size > MOST_JSON:
        raise BadArchive("A manifest or config of the archive is larger than any that an engine writes.")
    return os.pread(descriptor, place.size, place.offset)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BadArchive("A manifest or config of the archive is not JSON.") from None


def _pieces(descriptor: int, place: Place) -> Iterator[bytes]:
    offset, end = place.offset, place.offset + place.size
    while offset < end:
        piece = os.pread(descriptor, min(PIECE, end - offset), offset)
        if not piece:
            raise BadArchive("The archive ends in the middle of a file.")
        offset += len(piece)
        yield piece


def _file(layer: Layer) -> str:
    return f"{layer.diff_id.removeprefix('sha256:')}.tar"


def _header(name: str, size: int) -> bytes:
    """A plain header of a regular file; sizes from 8 GiB on are in binary."""
    number = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    fields = name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + number + b"00000000000\0"
    rest = b"0" + bytes(100) + b"ustar\x0000" + bytes(247)
    checksum = sum(fields) + 8 * 32 + sum(rest)
    return fields + b"%06o\0 " % checksum + rest


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)
