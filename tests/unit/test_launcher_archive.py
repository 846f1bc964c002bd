"""Archives of job images, checked before the engine sees them: strangers made them."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_parts import config_of, new_archive, old_archive, opened, sha256, tar

from client_container.launcher.images.archive import check_archive, engine_archive
from client_container.launcher.images.layer import BadArchive, TooLarge
from source_server.image_archive import read_archive, write_untagged

BASE = tar({"bin/": None, "bin/sh": random.Random(1).randbytes(300_000), "etc/motd": "../run/motd"})
TOP = tar({"opt/job": b"job" * 700})
MOST = 10**8


def checked(image_id: str, content: bytes, most: int = MOST) -> Any:
    with opened(content) as descriptor:
        return check_archive(descriptor, image_id, most=most)


def for_engine(image_id: str, content: bytes) -> dict[str, bytes]:
    """The files of the archive that the engine gets, in order."""
    with opened(content) as descriptor:
        archive = check_archive(descriptor, image_id, most=MOST)
        out = b"".join(engine_archive(descriptor, archive))
    with tarfile.open(fileobj=io.BytesIO(out)) as read:
        return {one.name: read.extractfile(one).read() for one in read}  # type: ignore[union-attr]


def members(archive: bytes) -> dict[str, Any]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        return {one.name: read.extractfile(one).read() for one in read if one.isreg()}  # type: ignore[union-attr]


@pytest.mark.parametrize("layout", ["old", "new", "packed", "the server's"])
def test_every_layout_becomes_the_one_that_the_engine_gets(layout: str, tmp_path: Path) -> None:
    packed = (gzip.compress(BASE), gzip.compress(TOP[:1000]) + gzip.compress(TOP[1000:]))
    image_id, archive = {
        "old": lambda: old_archive(BASE, TOP),
        "new": lambda: new_archive(BASE, TOP),
        "packed": lambda: new_archive(*packed, plain=(BASE, TOP)),
        "the server's": lambda: old_archive(BASE, TOP, BASE, tags=["a:b"]),
    }[layout]()
    if layout == "the server's":
        (tmp_path / "a.tar").write_bytes(archive)
        out = io.BytesIO()
        write_untagged(read_archive(tmp_path / "a.tar"), out)
        archive = out.getvalue()

    found = checked(image_id, archive)
    files = for_engine(image_id, archive)

    assert (found.architecture, found.size) == ("amd64", len(BASE) + len(TOP))
    assert list(files)[-1] == "manifest.json", "nothing is loaded before everything has been checked again"
    [entry] = json.loads(files["manifest.json"])
    assert entry["RepoTags"] is None
    assert [files[name] for name in entry["Layers"]][:2] == [BASE, TOP]
    assert sha256(files[entry["Config"]]) == image_id.removeprefix("sha256:")


@pytest.mark.parametrize("place", ["manifest", "repositories", "index"])
def test_a_tag_in_any_place_is_refused(place: str) -> None:
    make = {"index": new_archive}.get(place, old_archive)
    image_id, archive = make(BASE, tags=["debian:latest"])
    files = members(archive)
    if place != "manifest":
        [entry] = json.loads(files["manifest.json"])
        files["manifest.json"] = json.dumps([{**entry, "RepoTags": None}]).encode()
    if place == "manifest":
        del files["repositories"]

    with pytest.raises(BadArchive, match="carries a tag"):
        checked(image_id, tar(files))
    assert checked(*make(BASE)).size == len(BASE)


def test_another_image_than_the_one_asked_for_is_refused() -> None:
    _, archive = old_archive(BASE)
    other, _ = old_archive(TOP)

    with pytest.raises(BadArchive, match="another image"):
        checked(other, archive)


def hostile() -> dict[str, tuple[bytes, str]]:
    _, good = old_archive(BASE, TOP)
    files = members(good)
    layer = next(name for name in files if name.endswith("layer.tar"))
    [entry] = json.loads(files["manifest.json"])

    def manifest(**changes: Any) -> bytes:
        return tar({**files, "manifest.json": json.dumps([{**entry, **changes}]).encode()})

    return {
        "a link": (tar({**files, "0" * 64 + "/layer.tar": "../../../etc/passwd"}), "something else in it"),
        "an absolute name": (tar({**files, "/etc/passwd": b""}), "none of an image's"),
        "a way out": (tar({**files, "../x": b""}), "none of an image's"),
        "a script": (tar({**files, "run.sh": b""}), "none of an image's"),
        "a name twice": (good[:-10240] + tar({"manifest.json": b"[]"}), "twice|lacks|exactly one"),
        "a changed layer": (tar({**files, layer: BASE[:-1] + b"x"}), "not the one"),
        "a layer less": (tar({name: one for name, one in files.items() if name != layer}), "lacks a file"),
        "two images": (tar({**files, "manifest.json": json.dumps([entry, entry]).encode()}), "exactly one"),
        "no image": (tar({**files, "manifest.json": b"[]"}), "exactly one"),
        "layers outside": (manifest(Layers=["/etc/passwd", "/etc/shadow"]), "lacks a file"),
        "a layer more": (manifest(Layers=[*entry["Layers"], entry["Layers"][0]]), "do not list the same"),
        "deep JSON": (tar({**files, "manifest.json": b"[" * 10**6}), "not JSON"),
        "a large config": (tar({**files, "manifest.json": b" " * (5 * 2**20)}), "larger than any"),
        "cut off": (good[:200_000], "ends in the middle"),
        "nothing": (b"", "ends in the middle"),
        "zeros": (bytes(10240), "lacks a file"),
        "no tar": (b"\x1f\x8b" + bytes(2000), "checksum|number"),
    }


@pytest.mark.parametrize("case", hostile())
def test_what_no_engine_saves_is_refused_in_one_sentence(case: str) -> None:
    content, sentence = hostile()[case]

    with pytest.raises(BadArchive, match=sentence) as refused:
        checked(old_archive(BASE, TOP)[0], content)

    assert str(refused.value).count(".") >= 1 and "\n" not in str(refused.value)


def archive_of(layer: bytes, plain: bytes | None = None) -> tuple[str, bytes]:
    config = config_of(layer if plain is None else plain)
    image = sha256(config)
    names = {"Config": f"{image}.json", "RepoTags": None, "Layers": ["0" * 64 + ".tar"]}
    files = {f"{image}.json": config, "0" * 64 + ".tar": layer, "manifest.json": json.dumps([names]).encode()}
    return f"sha256:{image}", tar(files)


def test_a_bomb_is_left_as_soon_as_it_is_larger_than_there_is_room_for() -> None:
    engine = zlib.compressobj(9, wbits=31)
    bomb = b"".join(engine.compress(bytes(2**20)) for _ in range(2000)) + engine.flush()
    assert len(bomb) < 3_000_000
    image_id, archive = archive_of(bomb, plain=b"never read")

    with pytest.raises(TooLarge):
        checked(image_id, archive, most=50 * 2**20)


def test_the_bound_is_for_all_layers_together() -> None:
    image_id, archive = old_archive(BASE, TOP)
    room = checked(image_id, archive).room

    assert checked(image_id, archive, most=room).size == len(BASE) + len(TOP)
    with pytest.raises(TooLarge):
        checked(image_id, archive, most=room - 1)


def test_folders_links_and_empty_files_take_room_too() -> None:
    names = {f"d{n}/": None for n in range(300)} | {f"e{n}": b"" for n in range(300)}
    image_id, archive = old_archive(tar({**names, "link": "e1", "file": b"x" * 4097}))

    found = checked(image_id, archive)

    assert found.room == 601 * 4096 + 2 * 4096
    assert found.entries == 602
    with pytest.raises(TooLarge):
        checked(image_id, archive, most=found.room - 1)


def test_files_are_counted_over_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    image_id, archive = old_archive(BASE, TOP)
    entries = checked(image_id, archive).entries

    monkeypatch.setattr("client_container.launcher.images.archive.MOST_ENTRIES", entries)
    assert checked(image_id, archive).entries == entries
    monkeypatch.setattr("client_container.launcher.images.archive.MOST_ENTRIES", entries - 1)
    with pytest.raises(BadArchive, match="files"):
        checked(image_id, archive)


def entry(kind: bytes, size: int = 0, data: bytes = b"", name: str = "f") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def record(name: str, value: str) -> bytes:
    text = f" {name}={value}\n"
    length = len(text) + 2 if len(text) + 2 > 9 else len(text) + 1
    return f"{length}{text}".encode()


SIZE = record("size", "512")
HOLES = record("GNU.sparse.major", "1") + record("GNU.sparse.realsize", "99")
HIDDEN = record("comment", "x\n9 size=0")  #: a value that looks like a record of its own


@pytest.mark.parametrize(
    "layer",
    [
        entry(b"S"),
        entry(b"x", len(HOLES), HOLES) + entry(b"0"),
        # Behind entries whose sizes the engine does not believe, or believes only by the extended header:
        entry(b"1", 512) + entry(b"S"),
        entry(b"x", len(SIZE), SIZE) + entry(b"0", 0, bytes(512)) + entry(b"S"),
        entry(b"x", len(HIDDEN), HIDDEN) + entry(b"0", 512, b"\1" * 512) + entry(b"S"),
    ],
)
def test_sparse_files_are_found_wherever_they_hide(layer: bytes) -> None:
    with pytest.raises(BadArchive, match="sparse"):
        checked(*archive_of(layer + bytes(1024)))


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_pipes_and_devices_which_the_engine_might_open_are_refused(kind: bytes) -> None:
    with pytest.raises(BadArchive, match="named pipe or a device"):
        checked(*archive_of(entry(b"0", 1, b"x") + entry(kind, name="etc/passwd") + bytes(1024)))


def renamed(kind: bytes, name: str) -> bytes:
    """An extended header that gives the next entry another name."""
    text = record("path", name)
    return entry(kind, len(text), text)


def test_the_devices_of_a_base_system_may_stay_in_dev() -> None:
    checked(*archive_of(entry(tarfile.CHRTYPE, name="./dev/null") + bytes(1024)))


@pytest.mark.parametrize(
    "layer",
    [
        entry(tarfile.FIFOTYPE, name="dev/../etc/passwd"),
        entry(tarfile.FIFOTYPE, name="device"),
        renamed(b"x", "etc/passwd") + entry(tarfile.FIFOTYPE, name="dev/null"),
        renamed(b"g", "etc/passwd") + entry(b"0") + entry(tarfile.FIFOTYPE, name="dev/null"),
        entry(b"L", 11, b"etc/passwd\0") + entry(tarfile.FIFOTYPE, name="dev/null"),
    ],
)
def test_nothing_that_only_seems_to_lie_in_dev_gets_through(layer: bytes) -> None:
    with pytest.raises(BadArchive, match="named pipe or a device"):
        checked(*archive_of(layer + bytes(1024)))


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (entry(b"x", 2**40), "larger than any"),
        (entry(b"L", 2**40), "larger than any"),
        (entry(b"0", 2**40), "ends in the middle"),
        (entry(b"x", 5, b"junk\n"), "is none"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "packed with zstd"),
        (gzip.compress(TOP)[:-20], "not the one|ends in"),
        (gzip.compress(TOP) + b"junk", "behind its end"),
        (b"\x1f\x8b" + b"\x77" * 600, "damaged"),
    ],
)
def test_headers_that_claim_too_much_cost_nothing(layer: bytes, sentence: str) -> None:
    with pytest.raises(BadArchive, match=sentence):
        checked(*archive_of(layer, plain=TOP if layer[:2] == b"\x1f\x8b" else None))


def test_a_file_that_changes_after_the_check_never_gets_a_manifest() -> None:
    image_id, archive = old_archive(BASE, TOP)
    place = archive.index(b"jobjob")
    with opened(archive) as descriptor:
        good = check_archive(descriptor, image_id, most=MOST)
        os.pwrite(descriptor, b"EVIL", place)

        sent = b""
        with pytest.raises(BadArchive, match="has changed"):
            for piece in engine_archive(descriptor, good):
                sent += piece

    assert b"manifest.json" not in sent


def test_a_layer_that_grows_after_the_check_is_cut_at_its_size() -> None:
    packed = gzip.compress(BASE)
    image_id, archive = archive_of(packed, plain=BASE)
    place = archive.index(packed)
    with opened(archive) as descriptor:
        good = check_archive(descriptor, image_id, most=MOST)
        bomb = gzip.compress(bytes(200 * 2**20))[: len(packed)]
        os.pwrite(descriptor, bomb, place)

        sent = 0
        with pytest.raises(BadArchive, match="has changed"):
            for piece in engine_archive(descriptor, good):
                sent += len(piece)

    assert sent < len(BASE) + 4096


@given(st.data())
def test_no_change_of_an_archive_brings_anything_but_a_refusal_or_the_same_image(data: Any) -> None:
    image_id, archive = old_archive(TOP)
    spoilt = bytearray(archive)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        spoilt[at : at + 1] = data.draw(st.binary(min_size=0, max_size=3))

    try:
        found = checked(image_id, bytes(spoilt))
    except (BadArchive, TooLarge):
        return

    assert found.diff_ids == (f"sha256:{sha256(TOP)}",)
