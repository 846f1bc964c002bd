"""A release is made: archive, client images, hashes, and the signature over these. Needs a checkout and the key."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from source_server.image_archive import read_archive, write_untagged
from source_server.release.keys import fingerprint, load_key, public_pem
from source_server.release.payload import NoCheckout, require_checkout, write_payload
from source_server.release.shelf import INSTALLER, PUBLIC_KEY, SIGNATURE, SUMS
from source_server.release.sums import VERSION, ClientImage, Sums


class NotMade(Exception):
    """The release cannot be made so; the message is one sentence."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A finished release."""

    folder: Path
    sums: Sums
    fingerprint: str


def make_release(
    checkout: Path,
    out: Path,
    *,
    key_file: Path,
    version: str,
    made: datetime,
    valid: timedelta,
    client_images: Sequence[Path] = (),
) -> Made:
    """Make OUT/VERSION, whole or not at all. Raises NotMade, NoCheckout, BadKey, BadArchive, OSError."""
    if not VERSION.fullmatch(version):
        raise NotMade(f"A version is two to four numbers with dots between them, not {version!r}.")
    require_checkout(checkout)
    key = load_key(key_file)
    if key_file.resolve().is_relative_to(out.resolve()):
        raise NotMade(f"{key_file} lies in {out}, which servers serve: keep the key elsewhere.")
    if (out / version).exists():
        raise NotMade(f"{out / version} is there already: a release never changes, so raise the version.")
    with _whole(out, version) as folder:
        archive = f"dockercomp-{version}.tar.gz"
        with (folder / archive).open("wb") as packed:
            write_payload(checkout, version, packed)
        images = [_client_image(path, folder) for path in client_images]
        if len({one.architecture for one in images}) < len(images):
            raise NotMade("Two client images are for the same architecture.")
        files = {name: _sha256(folder / name) for name in (archive, *(one.file for one in images))}
        sums = Sums(version=version, made=made, expires=made + valid, images=tuple(images), files=files)
        (folder / SUMS).write_bytes(str(sums).encode())
        (folder / SIGNATURE).write_bytes(key.sign(str(sums).encode()))
        (folder / PUBLIC_KEY).write_bytes(public_pem(key))
        shutil.copyfile(checkout / "install" / INSTALLER, folder / INSTALLER)
    return Made(folder=out / version, sums=sums, fingerprint=fingerprint(public_pem(key)))


def version_of(checkout: Path) -> str:
    """The version that the checkout's pyproject.toml names; raises NoCheckout."""
    try:
        text = (checkout / "pyproject.toml").read_text()
    except OSError:
        text = ""
    found = re.search(r'^version = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise NoCheckout(f"{checkout} is no checkout to make a release from: it lacks pyproject.toml.")
    return found[1]


@contextmanager
def _whole(out: Path, version: str) -> Iterator[Path]:
    """A folder that gets its name when the block has ended well, and is gone otherwise."""
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".making-{version}-", dir=out))
    try:
        yield folder
        for file in folder.iterdir():
            file.chmod(0o644)
        folder.chmod(0o755)
        folder.rename(out / version)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _client_image(path: Path, folder: Path) -> ClientImage:
    image = read_archive(path)
    name = f"client-image-{image.architecture}.tar"
    with (folder / name).open("wb") as out:
        write_untagged(image, out)
    return ClientImage(architecture=image.architecture, id=image.id, file=name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
