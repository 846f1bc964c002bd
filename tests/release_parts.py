"""A small checkout to make releases from, and images as engines save them, made by hand."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

INSTALLER = '#!/bin/sh\nSERVER="@SERVER@"\nFINGERPRINT="@FINGERPRINT@"\nKEY="@RELEASE_KEY@"\necho "$SERVER"\n'


def checkout(folder: Path, version: str = "0.1.0") -> Path:
    """A folder with everything that a release takes, and some that it must not."""
    for name, text in {
        "pyproject.toml": f'[project]\nname = "dockercomp"\nversion = "{version}"\n',
        "client_container/__init__.py": "",
        "client_container/launcher/cli.py": "print('launcher')\n",
        "client_container/__pycache__/old.pyc": "junk",
        "client_container/.hidden": "junk",
        "playbooks/volunteer.yml": "- hosts: all\n",
        "playbooks/roles/launcher/tasks/main.yml": "---\n",
        "install/install.sh": INSTALLER,
        "install/remove.py": "print('remove')\n",
        "install/README.md": "# What changes\n",
        "locks/launcher.txt": "docker==7\n",
        "locks/install.txt": "ansible-core==2\n",
        "locks/dev.txt": "pytest\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "install/install.sh").chmod(0o755)
    return folder


def tar(files: Mapping[str, bytes | str | None]) -> bytes:
    """A tar of these files: bytes are files, a text is where a link points, None a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
            else:
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def config_of(*layers: bytes, architecture: str = "amd64", **more: Any) -> bytes:
    """The config of an image with these layers (plain tars)."""
    root = {"type": "layers", "diff_ids": [f"sha256:{sha256(one)}" for one in layers]}
    return json.dumps(
        {"architecture": architecture, "os": "linux", "rootfs": root, "config": {}, **more}
    ).encode()


def old_archive(
    *layers: bytes, tags: list[str] | None = None, architecture: str = "amd64"
) -> tuple[str, bytes]:
    """(id, archive) in the layout of engines up to 24: a folder a layer, a link where a layer comes again."""
    config = config_of(*layers, architecture=architecture)
    image = sha256(config)
    files: dict[str, bytes | str | None] = {}
    names, seen = [], dict[bytes, str]()
    for number, layer in enumerate(layers):
        folder = sha256(layer + bytes([number]))
        files |= {f"{folder}/": None, f"{folder}/VERSION": b"1.0", f"{folder}/json": b"{}"}
        files[f"{folder}/layer.tar"] = f"../{seen[layer]}/layer.tar" if layer in seen else layer
        seen.setdefault(layer, folder)
        names.append(f"{folder}/layer.tar")
    files[f"{image}.json"] = config
    manifest = [{"Config": f"{image}.json", "RepoTags": tags, "Layers": names}]
    files["manifest.json"] = json.dumps(manifest).encode()
    if tags:
        repository, _, tag = tags[0].partition(":")
        files["repositories"] = json.dumps({repository: {tag: folder}}).encode()
    return f"sha256:{image}", tar(files)


def new_archive(
    *layers: bytes, plain: tuple[bytes, ...] = (), tags: list[str] | None = None
) -> tuple[str, bytes]:
    """(id, archive) in the layout of engines from 25 on; `plain`: the layers unpacked, where they are packed."""
    config = config_of(*(plain or layers))
    image = sha256(config)
    blobs = {sha256(one): one for one in (config, *layers)}
    manifest = json.dumps({"schemaVersion": 2, "config": {"digest": f"sha256:{image}"}}).encode()
    blobs[sha256(manifest)] = manifest
    notes = {"annotations": {"io.containerd.image.name": f"docker.io/{tags[0]}"}} if tags else {}
    index = {"schemaVersion": 2, "manifests": [{"digest": f"sha256:{sha256(manifest)}", **notes}]}
    entry = {
        "Config": f"blobs/sha256/{image}",
        "RepoTags": tags,
        "Layers": [f"blobs/sha256/{sha256(one)}" for one in layers],
    }
    files: dict[str, bytes | str | None] = {"blobs/": None, "blobs/sha256/": None}
    files |= {f"blobs/sha256/{name}": content for name, content in blobs.items()}
    files |= {
        "index.json": json.dumps(index).encode(),
        "manifest.json": json.dumps([entry]).encode(),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
    }
    return f"sha256:{image}", tar(files)


@contextmanager
def opened(content: bytes) -> Iterator[int]:
    """An open file with this content, by its descriptor; it has no name."""
    descriptor = os.memfd_create("archive")
    try:
        os.write(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)
