"""Folders of hostile programs: measured, emptied and collected without following anything."""

import hashlib
import os
import socket
from pathlib import Path

import pytest

from client_container.launcher.files.cache import Cache
from client_container.launcher.files.collect import MOST_FILES, collect
from client_container.launcher.files.folders import (
    NoPlainFile,
    empty,
    measure,
    open_plain_file,
    opened,
    remove,
)
from client_container.launcher.files.slots import BadFile, Slots
from client_container.launcher.jobs.inputs import Inbox, fill_in
from client_container.launcher.jobs.places import Places
from client_container.launcher.line.wire import GivenFile, Refusal

ME = os.geteuid()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def outside(tmp_path):
    """Something that must neither be read nor changed."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    yield folder
    assert (folder / "secret").read_bytes() == b"secret"


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def deep(folder, levels):
    """Folders in folders, deeper than any path can be long."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)


def hostile(folder, outside):
    """All that is no plain file."""
    (folder / "link").symlink_to(outside / "secret")
    (folder / "linked").symlink_to(outside)
    os.link(outside / "secret", folder / "hard")
    os.mkfifo(folder / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.close()
    (folder / "two\nlines").write_bytes(b"x")
    (folder / "Case").write_bytes(b"1")
    (folder / "case").write_bytes(b"2")
    (folder / os.fsdecode(b"\xff")).write_bytes(b"no text")


def collected(out, *, most_bytes=2**20):
    stored = {}

    def store(descriptor, room):
        data = os.read(descriptor, 2**21)
        if len(data) > room:
            raise BadFile("too big")
        stored[sha256(data)] = data
        return sha256(data), len(data)

    with opened(out) as descriptor:
        found = collect(descriptor, store, most_bytes=most_bytes)
    return {file.name: stored[file.sha256] for file in found.files}, found


def test_plain_files_are_collected_with_their_names(out):
    (out / "a").write_bytes(b"1")
    (out / "sub" / "deeper").mkdir(parents=True)
    (out / "sub" / "deeper" / "b.bin").write_bytes(b"22")
    (out / ".progress").write_text("0.5")

    files, found = collected(out)

    assert files == {"a": b"1", "sub/deeper/b.bin": b"22"}
    assert found.note == ""


def test_what_is_no_plain_file_is_left_out_and_named(out, outside):
    hostile(out, outside)
    (out / "good").write_bytes(b"good")

    files, found = collected(out)

    assert files == {"Case": b"1", "good": b"good"}
    assert len(found.left_out) == 8
    assert found.note.startswith("Left out of /out: ") and "\n" not in found.note


def test_too_many_too_big_and_too_deep_is_left_out(out):
    for number in range(MOST_FILES + 5):
        (out / f"f{number:05}").write_bytes(b"x")
    deep(out, 50)

    files, found = collected(out)

    assert len(files) == MOST_FILES and len(found.left_out) == 6
    assert collected(out, most_bytes=10)[0].keys() == {f"f{n:05}" for n in range(10)}


def test_a_measure_counts_blocks_and_entries_and_follows_nothing(out, outside):
    (outside / "huge").write_bytes(b"x" * 2**20)
    hostile(out, outside)
    (out / "sparse").touch()
    os.truncate(out / "sparse", 2**30)
    (out / "sub").mkdir()
    (out / "sub" / "file").write_bytes(b"x" * 100_000)

    with opened(out) as descriptor:
        usage = measure(descriptor, most_inodes=1000)

    assert 100_000 <= usage.bytes < 2**20
    assert usage.inodes == 12 and not usage.too_deep


def test_a_measure_stops_at_its_bounds(out):
    for number in range(200):
        (out / str(number)).touch()
    deep(out, 40)

    with opened(out) as descriptor:
        assert measure(descriptor, most_inodes=50).inodes == 51
        assert measure(descriptor, most_inodes=10**6).too_deep


def test_emptying_takes_everything_and_nothing_outside(out, outside):
    hostile(out, outside)
    (out / "closed").mkdir()
    (out / "closed" / "inner").mkdir()
    (out / "closed" / "inner" / "file").touch()
    (out / "closed").chmod(0)
    (out / ".lifted-1").touch()

    with opened(out) as descriptor:
        assert empty(descriptor)

    assert not list(out.iterdir())


def test_emptying_is_not_bounded_by_depth(out):
    deep(out, 3000)

    remove(out)

    assert not out.exists()


def test_emptying_stops_where_it_is_told_to(out):
    for number in range(100):
        (out / str(number)).touch()

    with opened(out) as descriptor:
        assert not empty(descriptor, most=50)
        assert empty(descriptor, most=100)


def test_only_a_regular_file_with_one_link_is_opened(out, outside):
    hostile(out, outside)
    with opened(out) as descriptor:
        for name in ("link", "linked", "hard", "fifo", "socket"):
            with pytest.raises((NoPlainFile, OSError)):
                open_plain_file(name, within=descriptor)


@pytest.fixture
def slots(tmp_path):
    slots = Slots(tmp_path / "slots", first_uid=ME)
    slots.prepare(0, b"dca_key\n")
    return slots


def test_a_slots_folder_is_its_clients_alone(slots):
    folder = slots.folder(0)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "files").stat().st_mode & 0o777 == 0o700
    assert (folder / "account.key").read_bytes() == b"dca_key\n"
    assert (folder / "account.key").stat().st_mode & 0o777 == 0o400


def test_preparing_again_replaces_the_key_and_keeps_the_rest(slots):
    (slots.folder(0) / "spool" / "1.json").touch()

    slots.prepare(0, b"dca_other\n")

    assert (slots.folder(0) / "account.key").read_bytes() == b"dca_other\n"
    assert (slots.folder(0) / "spool" / "1.json").exists()


def test_preparing_does_not_follow_what_a_client_put_there(slots, outside):
    folder = slots.folder(0)
    (folder / "files").rmdir()
    (folder / "files").symlink_to(outside)
    mode = outside.stat().st_mode

    with pytest.raises(OSError):
        slots.prepare(0, b"key\n")

    assert outside.stat().st_mode == mode and [one.name for one in outside.iterdir()] == ["secret"]


def test_a_file_is_taken_by_its_hash(slots, tmp_path):
    data = b"x" * 3_000_000
    (slots.folder(0) / "files" / sha256(data)).write_bytes(data)
    target = os.open(tmp_path / "copy", os.O_WRONLY | os.O_CREAT)

    assert slots.copy_file(0, sha256(data), target, most=2**22) == len(data)
    os.close(target)
    assert (tmp_path / "copy").read_bytes() == data


@pytest.mark.parametrize(
    "kind", ["content", "size", "link", "hard link", "fifo", "missing", "name", "folder"]
)
def test_a_file_that_is_not_what_it_is_said_to_be_is_refused(slots, tmp_path, outside, kind):
    name, files = sha256(b"secret"), slots.folder(0) / "files"
    match kind:
        case "content":
            (files / name).write_bytes(b"other")
        case "size":
            (files / name).write_bytes(b"secret")
        case "link":
            (files / name).symlink_to(outside / "secret")
        case "hard link":
            os.link(outside / "secret", files / name)
        case "fifo":
            os.mkfifo(files / name)
        case "folder":
            files.rmdir()
            (outside / name).write_bytes(b"secret")
            files.symlink_to(outside)
        case "name":
            name = "../account.key"
    with (tmp_path / "copy").open("wb") as target, pytest.raises(BadFile):
        slots.copy_file(0, name, target.fileno(), most=5 if kind == "size" else 100)


def test_a_result_is_stored_under_its_hash_for_the_client(slots, tmp_path):
    (tmp_path / "result").write_bytes(b"42")
    source = os.open(tmp_path / "result", os.O_RDONLY)

    assert slots.store_file(0, source, most=10) == (sha256(b"42"), 2)
    os.close(source)
    assert [one.name for one in (slots.folder(0) / "files").iterdir()] == [sha256(b"42")]


@pytest.fixture
def places(tmp_path):
    places = Places(tmp_path / "base", instance="default")
    places.prepare()
    return places


def test_a_chunk_that_ended_without_a_result_finds_its_checkpoint_again(places):
    first = places.make("0-a", "chunk.1", uid=ME)
    (first / "checkpoint" / "state").write_text("epoch 7")

    places.remove(first, keep_checkpoint=True)

    assert places.has_checkpoint("chunk.1") and not places.has_checkpoint("chunk.2")
    second = places.make("1-b", "chunk.1", uid=ME)
    assert (second / "checkpoint" / "state").read_text() == "epoch 7"
    assert not places.has_checkpoint("chunk.1")


def test_a_chunk_with_a_result_leaves_no_checkpoint(places):
    folder = places.make("0-a", "chunk.1", uid=ME)
    (folder / "checkpoint" / "state").touch()

    places.remove(folder, keep_checkpoint=False)

    assert not places.has_checkpoint("chunk.1") and not folder.exists()


def test_after_a_crash_the_checkpoints_of_unknown_jobs_are_rescued(places):
    folder = places.make("0-a", "chunk.1", uid=ME)
    places.assign(folder, "chunk.2")
    (folder / "checkpoint" / "state").touch()
    known = places.make("1-b", "chunk.3", uid=ME)

    places.rescue(lambda: {"1-b"})

    assert places.has_checkpoint("chunk.2") and not places.has_checkpoint("chunk.1")
    assert known.exists() and not folder.exists()


def test_a_checkpoint_that_nobody_came_back_for_is_swept(places):
    folder = places.make("0-a", "chunk.1", uid=ME)
    (folder / "checkpoint" / "state").touch()
    places.remove(folder, keep_checkpoint=True)
    now = Path(places._checkpoint("chunk.1")).stat().st_mtime

    places.sweep(now=now + 6 * 86400)
    assert places.has_checkpoint("chunk.1")
    places.sweep(now=now + 8 * 86400)
    assert not places.has_checkpoint("chunk.1")


@pytest.fixture
def inbox(tmp_path, slots):
    cache = Cache(tmp_path / "cache", slots, limit=lambda: 1000)
    cache.prepare()
    return Inbox(cache=cache, slots=slots, slot=0, project="sums")


def test_the_input_is_laid_out_anew_for_each_chunk(places, slots, inbox):
    folder = places.make("0-a", "c", uid=ME)
    (slots.folder(0) / "files" / sha256(b"code")).write_bytes(b"code")

    fill_in(folder, inbox, b"1", [GivenFile(name="lib/code.py", sha256=sha256(b"code"))], most=100)
    size = fill_in(folder, inbox, b"22", [GivenFile(name="main.py", sha256=sha256(b"code"))], most=100)

    assert size == 6
    files = {one.relative_to(folder / "in").as_posix(): one for one in (folder / "in").rglob("*")}
    assert files.keys() == {"chunk.json", "main.py"}
    assert files["chunk.json"].read_bytes() == b"22"
    assert all(one.stat().st_mode & 0o777 == 0o444 for one in files.values())


def test_input_beyond_the_jobs_disk_is_refused(places, slots, inbox):
    folder = places.make("0-a", "c", uid=ME)
    (slots.folder(0) / "files" / sha256(b"code")).write_bytes(b"code")

    with pytest.raises(Refusal):
        fill_in(folder, inbox, b"x" * 11, [], most=10)
    with pytest.raises(BadFile):
        fill_in(folder, inbox, b"x" * 8, [GivenFile(name="f", sha256=sha256(b"code"))], most=10)
