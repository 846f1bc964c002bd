"""The releases that a server has to serve: a folder with one folder a version. Nothing in it is ever changed here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from source_server.release.keys import BadKey, der_of, fingerprint, pem_of
from source_server.release.sums import MOST, VERSION, BadSums, listed, order

SUMS, SIGNATURE, PUBLIC_KEY, INSTALLER = "SHA256SUMS", "SHA256SUMS.sig", "release.pub", "install.sh"

SMALL = 2**20  #: bytes up to which a file is looked through whole for a private key
HEAD = 64 * 1024  #: and of a larger one: no key lies deep inside an archive by accident
_PEM = re.compile(rb"^[ \t]*-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----", re.MULTILINE)
_DER = re.compile(rb"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04")  #: an Ed25519 key, PKCS #8


class PrivateKeyHere(Exception):
    """The folder of releases holds a private key, or may hold one; the message names the file."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release, whole: every file that its SHA256SUMS names is there."""

    version: str
    folder: Path
    files: tuple[str, ...]  #: all that may be asked for
    public_key: bytes  #: DER

    def installer(self, server: str) -> bytes:
        """install.sh with the server's address, the release key and its fingerprint filled in.

        `server` goes into a shell script as it is: it has to be checked before.
        """
        pem = pem_of(self.public_key)
        filled = {b"@SERVER@": server, b"@RELEASE_KEY@": pem, b"@FINGERPRINT@": fingerprint(pem.encode())}
        script = (self.folder / INSTALLER).read_bytes()
        for name, value in filled.items():
            script = script.replace(name, value.encode("ascii"))
        return script


@dataclass(frozen=True)
class Shelf:
    """Releases by version, read anew each time: an operator copies one in, and it is there."""

    folder: Path

    def current(self) -> Release | None:
        """The one with the highest version; None when there is none."""
        try:
            names = [one.name for one in self.folder.iterdir() if VERSION.fullmatch(one.name)]
        except (FileNotFoundError, NotADirectoryError):
            return None
        for name in sorted(names, key=order, reverse=True):
            found = self.find(name)
            if found is not None:
                return found
        return None

    def find(self, version: str) -> Release | None:
        """The release of this version; None where there is none, or not all of it (yet)."""
        if not VERSION.fullmatch(version):
            return None
        folder = self.folder / version
        try:
            said, files = listed(_text(folder / SUMS))
            public_key = der_of(_text(folder / PUBLIC_KEY).encode())
        except (OSError, UnicodeDecodeError, BadSums, BadKey):
            return None
        names = (SUMS, SIGNATURE, PUBLIC_KEY, INSTALLER, *sorted(files))
        whole = said == version and all(_is_file(folder / name) for name in names)
        return Release(version=version, folder=folder, files=names, public_key=public_key) if whole else None


def require_no_private_key(folder: Path) -> None:
    """Raises PrivateKeyHere when any file below the folder holds a private key: a server must not have it."""
    for path in _all_files(folder):
        try:
            holds = _holds_private_key(path)
        except OSError as error:
            raise PrivateKeyHere(
                f"{path} cannot be read ({error.strerror}), so nobody can tell whether it is a private key: "
                "take it away from the releases."
            ) from error
        if holds:
            raise PrivateKeyHere(
                f"{path} holds a private key, which a server must not have: take it away, and make a new key if "
                "others could read it."
            )


def _holds_private_key(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(SMALL)
        if file.read(1):
            head = head[:HEAD]
    return _PEM.search(head) is not None or _DER.match(head) is not None


def _all_files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, onerror=_unreadable):
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file():
                yield path


def _unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise PrivateKeyHere(f"{error.filename} cannot be read ({error.strerror}).") from error


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MOST).decode()
