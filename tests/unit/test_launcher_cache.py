"""The files that a host keeps for its jobs: fetched once, checked, bounded, and nobody else's."""

import contextlib
import hashlib
import os
import subprocess
import threading
import time

import pytest
from parts import require

from client_container.launcher.files import cache as module
from client_container.launcher.files.cache import GRANT_S, PIN_S, Cache
from client_container.launcher.files.slots import BadFile, FileMissing, Slots
from client_container.launcher.line.wire import WantedFile

ME = os.geteuid()
FIRST, SECOND = 0, 1  #: slots


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Lent:
    """A host's folders."""

    def __init__(self, folder, limit=1000):
        self.folder, self.limit, self.clock = folder, limit, Clock()
        # Every slot is ours: only root could give them to others.
        self.slots = Slots(folder / "slots", first_uid=ME)
        self.slots.uid = lambda slot: ME
        for slot in range(4):
            self.slots.prepare(slot, b"key")
        self.cache = self.restarted()

    def restarted(self):
        cache = Cache(self.folder / "cache", self.slots, limit=lambda: self.limit, clock=self.clock)
        cache.prepare()
        return cache

    def look(self, slot, *contents, project="sums"):
        want = [WantedFile(sha256=sha256(one), bytes=len(one)) for one in contents]
        found = self.cache.look(slot, want, project)
        return tuple(len(names) for names in (found.here, found.fetch, found.wait))

    def bring(self, slot, content, *, project="sums", name=None):
        name = name or sha256(content)
        (self.slots.folder(slot) / "files" / name).write_bytes(content)
        return self.cache.keep(slot, name, project)

    def kept(self):
        return {path.read_bytes() for path in (self.folder / "cache").glob("*/*")}

    def linked(self, content, project="sums"):
        target = self.folder / f"in-{time.monotonic_ns()}"
        size = self.cache.link(sha256(content), project, target)
        return None if size is None else target.read_bytes()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def lent(tmp_path):
    return Lent(tmp_path)


HERE, FETCH, WAIT = (1, 0, 0), (0, 1, 0), (0, 0, 1)


def test_one_client_fetches_the_others_wait_and_then_it_is_here_for_all(lent):
    assert lent.look(FIRST, b"data") == FETCH
    assert lent.look(SECOND, b"data") == WAIT
    assert lent.look(FIRST, b"data") == FETCH, "who asks again goes on"

    assert lent.bring(FIRST, b"data")

    assert lent.look(SECOND, b"data") == lent.look(FIRST, b"data") == HERE
    assert lent.linked(b"data") == b"data"


def test_what_a_job_is_given_is_no_copy_and_nobodys_to_change(lent):
    lent.bring(FIRST, b"data")
    target = lent.folder / "in-1"

    assert lent.cache.link(sha256(b"data"), "sums", target) == 4

    found = target.stat()
    assert (found.st_nlink, found.st_mode & 0o777, found.st_uid) == (2, 0o444, ME)


def test_a_client_that_does_not_ask_again_loses_its_turn(lent):
    lent.look(FIRST, b"data")
    lent.clock.now += GRANT_S / 2
    lent.look(FIRST, b"data")
    lent.clock.now += GRANT_S * 0.6
    assert lent.look(SECOND, b"data") == WAIT

    lent.clock.now += GRANT_S * 0.6

    assert lent.look(SECOND, b"data") == FETCH
    assert lent.look(FIRST, b"data") == WAIT


def test_a_file_with_another_content_than_its_name_says_is_never_kept(lent):
    with pytest.raises(BadFile, match="another content"):
        lent.bring(FIRST, b"poison", name=sha256(b"data"))

    assert lent.look(SECOND, b"data") == FETCH, "somebody else may bring it now"
    assert lent.kept() == set() and lent.linked(b"data") is None


def test_a_file_that_is_changed_while_it_is_taken_in_is_never_kept(lent):
    content = bytes(30_000_000)
    lent.limit = 10**9
    path = lent.slots.folder(FIRST) / "files" / sha256(content)
    path.write_bytes(content)
    stop = threading.Event()

    def scribble():
        with path.open("r+b") as file:
            while not stop.is_set():
                file.seek(-1, os.SEEK_END)
                file.write(b"x")
                file.flush()

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        with contextlib.suppress(BadFile):
            assert lent.cache.keep(FIRST, path.name, "sums")
    finally:
        stop.set()
        thread.join()

    assert lent.kept() <= {content}
    if lent.kept():  # it was quicker: but what it writes now stays its own
        assert lent.linked(content) == content


@pytest.mark.parametrize("what", ["link", "second name", "folder", "pipe", "nothing"])
def test_what_is_no_plain_file_of_the_clients_is_never_kept(lent, what):
    secret = lent.folder / "secret"
    secret.write_bytes(b"data")
    place = lent.slots.folder(FIRST) / "files" / sha256(b"data")
    made = {
        "link": lambda: place.symlink_to(secret),
        "second name": lambda: place.hardlink_to(secret),
        "folder": place.mkdir,
        "pipe": lambda: os.mkfifo(place),
        "nothing": lambda: None,
    }
    made[what]()

    with pytest.raises(FileMissing if what == "nothing" else BadFile):
        lent.cache.keep(FIRST, place.name, "sums")
    assert lent.kept() == set()


def test_another_projects_jobs_are_neither_given_a_file_nor_told_that_it_is_here(lent):
    lent.bring(FIRST, b"data", project="sums")

    assert lent.look(SECOND, b"data", project="digits") == FETCH
    assert lent.linked(b"data", project="digits") is None
    assert lent.bring(SECOND, b"data", project="digits") and lent.linked(b"data", project="digits") == b"data"


def used(lent, content, ago_s):
    [path] = (lent.folder / "cache").glob(f"*/{sha256(content)}")
    when = time.time() - ago_s
    os.utime(path, (when, when))


def test_what_was_used_least_recently_goes_when_there_is_no_room(lent):
    old, newer, newest = (bytes([n]) * 400 for n in range(3))
    for content, ago_s in ((old, 100), (newer, 50)):
        lent.bring(FIRST, content)
        lent.cache.release(FIRST)
        used(lent, content, ago_s)
    lent.linked(old)  # a job uses it

    assert lent.bring(FIRST, newest)

    assert lent.kept() == {old, newest}


def test_what_a_client_was_told_is_here_stays_until_its_job_has_it_or_forgot_it(lent):
    one, two, three = (bytes([n]) * 600 for n in range(3))
    lent.bring(FIRST, one)
    lent.cache.release(FIRST)
    lent.look(SECOND, one)

    assert not lent.bring(FIRST, two), "there is no room"
    lent.cache.release(SECOND)
    assert lent.bring(FIRST, two) and lent.kept() == {two}
    lent.clock.now += PIN_S + 1
    assert lent.bring(FIRST, three) and lent.kept() == {three}


def test_a_file_larger_than_all_that_may_be_kept_is_not_kept_and_removes_nothing(lent):
    lent.bring(FIRST, b"data")
    lent.cache.release(FIRST)

    assert not lent.bring(FIRST, bytes(1001))

    assert lent.kept() == {b"data"}
    assert (lent.slots.folder(FIRST) / "files" / sha256(bytes(1001))).exists(), "it stays the client's"


def test_a_lower_limit_holds_at_the_next_sweep(lent):
    for n in range(3):
        lent.bring(FIRST, bytes([n]) * 300)
        used(lent, bytes([n]) * 300, 100 - n)
    lent.cache.release(FIRST)
    lent.limit = 300

    lent.cache.trim()

    assert lent.kept() == {bytes([2]) * 300}


def test_files_outlive_the_launcher_and_half_ones_do_not(lent):
    lent.bring(FIRST, b"data")
    [kept] = (lent.folder / "cache").glob("*/*")
    (kept.parent / ".0123.partial").write_bytes(b"half")

    lent.cache = lent.restarted()

    assert lent.look(SECOND, b"data") == HERE and lent.kept() == {b"data"}


def test_a_file_that_rotted_while_nobody_looked_is_fetched_anew(lent):
    lent.bring(FIRST, b"data")
    [kept] = (lent.folder / "cache").glob("*/*")
    kept.chmod(0o600)
    kept.write_bytes(b"rot!")

    lent.cache = lent.restarted()

    assert lent.look(SECOND, b"data") == FETCH and lent.kept() == set()


def test_a_file_that_vanished_is_fetched_anew(lent):
    lent.bring(FIRST, b"data")
    assert lent.look(SECOND, b"data") == HERE
    [kept] = (lent.folder / "cache").glob("*/*")

    kept.unlink()

    assert lent.linked(b"data") is None
    assert lent.look(SECOND, b"data") == FETCH


@pytest.fixture
def tiny(tmp_path):
    """A host whose whole disk has 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", folder], check=False).returncode:
        require("no right to mount a file system")
    yield Lent(folder, limit=10**9)
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_keeps_nothing_half_and_stops_nobody(tiny, monkeypatch):
    monkeypatch.setattr(module, "FREE", -(10**9))  # so that it is tried at all
    (tiny.folder / "ballast").write_bytes(bytes(1_000_000))
    content = bytes(1_500_000)

    assert not tiny.bring(FIRST, content)

    assert tiny.kept() == set()
    (tiny.folder / "ballast").unlink()
    assert tiny.bring(FIRST, content) and tiny.linked(content) == content


def test_room_is_left_on_the_disk(tiny, monkeypatch):
    monkeypatch.setattr(module, "FREE", 1_000_000)

    assert tiny.bring(FIRST, bytes(500_000))
    assert not tiny.bring(FIRST, bytes(600_001)), "with its copy less than a megabyte would be left"


def test_many_clients_at_once_keep_within_the_limit_and_lose_nothing(lent):
    lent.limit = 5_000
    done = []

    def live(slot):
        for n in range(60):
            project, content = ("sums", "digits")[n % 2], f"{n % 7}".encode() * 900
            want = [WantedFile(sha256=sha256(content), bytes=len(content))]
            if lent.cache.look(slot, want, project).fetch:
                lent.bring(slot, content, project=project)
            target = lent.folder / f"{slot}-{n}"
            if lent.cache.link(sha256(content), project, target) is not None:
                assert target.read_bytes() == content
            lent.cache.release(slot)
        done.append(slot)

    threads = [threading.Thread(target=live, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(done) == [0, 1, 2, 3]
    assert sum(map(len, (path.read_bytes() for path in (lent.folder / "cache").glob("*/*")))) <= 5_000
