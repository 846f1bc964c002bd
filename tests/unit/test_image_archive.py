"""Archives of images: both layouts that engines save are read and written anew without tags; bad ones are refused."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from release_parts import config_of, new_archive, old_archive, sha256, tar

from source_server.image_archive import BadArchive, read_archive, write_untagged

BASE = tar({"bin/sh": b"shell" * 1000})
TOP = tar({"opt/job": b"job"})
TAGS = ["private.example/secret/project:v7"]


@pytest.fixture
def rewritten(tmp_path: Path) -> Any:
    """Store an archive; the image as read, and the archive that is written for it."""

    def make(content: bytes) -> tuple[Any, bytes]:
        path = tmp_path / "image.tar"
        path.write_bytes(content)
        image, out = read_archive(path), io.BytesIO()
        write_untagged(image, out)
        return image, out.getvalue()

    return make


def files_of(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {one.name: opened.extractfile(one).read() for one in opened if one.isreg()}  # type: ignore[union-attr]


@pytest.mark.parametrize("layout", ["old", "new", "packed"])
def test_either_layout_becomes_one_without_tags_and_keeps_its_id(rewritten: Any, layout: str) -> None:
    packed = (gzip.compress(BASE), gzip.compress(TOP))
    made = {
        "old": lambda: old_archive(BASE, TOP, tags=TAGS),
        "new": lambda: new_archive(BASE, TOP, tags=TAGS),
        "packed": lambda: new_archive(*packed, plain=(BASE, TOP), tags=TAGS),
    }
    image_id, archive = made[layout]()

    image, out = rewritten(archive)

    assert (image.id, image.architecture, image.os) == (image_id, "x86_64", "linux")
    assert image.size == len(BASE) + len(TOP)
    assert b"secret" not in out
    files = files_of(out)
    config = f"{image_id.removeprefix('sha256:')}.json"
    [entry] = json.loads(files.pop("manifest.json"))
    assert entry["RepoTags"] is None and entry["Config"] == config
    assert sha256(files.pop(config)) == image_id.removeprefix("sha256:")
    assert list(files) == entry["Layers"] and len(files) == 2
    assert rewritten(out)[1] == out, "written anew it stays as it is"


def test_the_same_image_gives_the_same_bytes_whatever_its_tags(rewritten: Any) -> None:
    _, first = rewritten(old_archive(BASE, TOP, tags=TAGS)[1])
    _, second = rewritten(new_archive(BASE, TOP)[1])

    assert first == second


def test_a_layer_that_comes_twice_is_kept_once(rewritten: Any) -> None:
    image, out = rewritten(old_archive(BASE, TOP, BASE)[1])

    [entry] = json.loads(files_of(out)["manifest.json"])
    assert len(entry["Layers"]) == 3 and entry["Layers"][0] == entry["Layers"][2]
    assert image.size == len(BASE) + len(TOP)


@pytest.mark.parametrize(
    ("given", "label"), [("amd64", "x86_64"), ("arm64", "arm64"), ("riscv64", "riscv64")]
)
def test_the_architecture_is_named_as_the_labels_of_containers_are(
    rewritten: Any, given: str, label: str
) -> None:
    assert rewritten(old_archive(BASE, architecture=given)[1])[0].architecture == label


def changed(archive: bytes, **by: bytes | None) -> bytes:
    """The archive with files replaced, or without them."""
    files: dict[str, Any] = files_of(archive)
    for name, content in by.items():
        files.pop(name)
        if content is not None:
            files[name] = content
    return tar(files)


def broken() -> dict[str, tuple[bytes, str]]:
    _, good = old_archive(BASE, TOP)
    files = files_of(good)
    layers = [name for name in files if name.endswith("layer.tar")]
    config = next(
        name for name in files if name.endswith(".json") and "/" not in name and name != "manifest.json"
    )
    [entry] = json.loads(files["manifest.json"])
    two = json.dumps([entry, entry]).encode()
    fewer = json.dumps([{**entry, "Layers": entry["Layers"][:1]}]).encode()
    out = json.dumps([{**entry, "Layers": ["../../etc/passwd", *entry["Layers"][1:]]}]).encode()
    zstd = json.dumps([{**entry, "Config": "z.json", "Layers": ["z"]}]).encode()
    nowhere = tar({**files, layers[0]: "/etc/passwd"})
    return {
        "no tar": (b"hello" * 1000, "is no archive"),
        "empty": (b"", "is no archive"),
        "cut off": (good[: len(good) // 2], "is no archive|lacks"),
        "another tar": (tar({"a": b"b"}), "no manifest.json"),
        "two images": (changed(good, **{"manifest.json": two}), "holds 2 images"),
        "no JSON": (changed(good, **{"manifest.json": b"{"}), "not JSON"),
        "odd JSON": (changed(good, **{"manifest.json": b'["a"]'}), "not what `docker save` writes"),
        "fewer layers": (changed(good, **{"manifest.json": fewer}), "do not list the same layers"),
        "a layer outside": (changed(good, **{"manifest.json": out}), "lacks ../../etc/passwd"),
        "a link outside": (nowhere, "lacks"),
        "another config": (changed(good, **{config: config_of(BASE, TOP, author="mallory")}), "is damaged"),
        "another layer": (changed(good, **{layers[0]: BASE.replace(b"shell", b"virus")}), "not the one"),
        "no layer": (changed(good, **{layers[0]: None}), "lacks"),
        "zstd": (
            tar({"manifest.json": zstd, "z.json": config_of(b"x"), "z": b"\x28\xb5\x2f\xfd123"}),
            "packed with zstd",
        ),
    }


@pytest.mark.parametrize("case", broken())
def test_what_is_not_the_whole_archive_of_one_image_is_refused_in_one_sentence(
    rewritten: Any, case: str
) -> None:
    content, sentence = broken()[case]

    with pytest.raises(BadArchive, match=sentence) as refused:
        rewritten(content)

    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)
