"""The Ed25519 key that signs releases. The private half never comes near a source server."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: What DER puts before the 32 bytes of an Ed25519 public key (RFC 8410).
_DER_HEAD = bytes.fromhex("302a300506032b6570032100")


class BadKey(Exception):
    """A key that cannot be used; the message is one sentence."""


def make_key(path: Path) -> str:
    """Write a new private key to `path` (0600) and its public half beside it; the fingerprint. Raises BadKey."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = public_path(path)
    for file in (path, public):
        if file.exists():
            raise BadKey(f"{file} is there already: a release key is made once; name another file.")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(pem)
        public.write_bytes(public_pem(key))
    except OSError as error:
        raise BadKey(f"{path} cannot be written ({error.strerror}).") from error
    return fingerprint(public_pem(key))


def public_path(path: Path) -> Path:
    """Where the public half of the key at `path` lies."""
    return path.with_name(f"{path.name}.pub")


def load_key(path: Path) -> Ed25519PrivateKey:
    """The private key at `path`; raises BadKey."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise BadKey(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{path} holds no plain private key in PEM form.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"{path} holds a key of another kind: releases are signed with Ed25519.")
    return key


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """The public half, in PEM form."""
    from cryptography.hazmat.primitives import serialization as forms

    pem: bytes = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    return pem


def der_of(pem: bytes) -> bytes:
    """The DER form of an Ed25519 public key in PEM form; raises BadKey for anything else."""
    text = pem.decode("ascii", "replace").strip()
    form = r"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+?)\s+-----END PUBLIC KEY-----"
    found = re.fullmatch(form, text)
    try:
        der = base64.b64decode("".join(found[1].split()), validate=True) if found else b""
    except ValueError:
        der = b""
    if len(der) != 44 or not der.startswith(_DER_HEAD):
        raise BadKey("The file holds no Ed25519 public key in PEM form.")
    return der


def pem_of(der: bytes) -> str:
    """The PEM form, one line of base64, without a line's end after it: nothing in it needs quoting in a shell."""
    return f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----"


def fingerprint(pem: bytes) -> str:
    """`SHA256:` and the hexadecimal SHA-256 of the key's DER form; raises BadKey."""
    return f"SHA256:{hashlib.sha256(der_of(pem)).hexdigest()}"
