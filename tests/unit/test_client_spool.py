import hashlib
import json
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from client_container.blob import NamedBlob
from client_container.protocol import Attempt
from client_container.spool import KEPT_ASIDE, Spool

NOW = datetime(2026, 11, 22, 6, tzinfo=timezone.utc)
EVERYTHING = {"most": 10_000, "most_bytes": 1 << 30}


def attempt(n, stdout="3\n", files=()):
    return Attempt(
        files=tuple(
            NamedBlob(name=f"f{place}", sha256=sha256(content), bytes=len(content))
            for place, content in enumerate(files)
        ),
        chunk=f"t.{n}",
        run=0,
        token="T",
        ticket="x",
        outcome="ok",
        exit_code=0,
        signal=None,
        stdout=stdout,
        stderr_tail="",
        started=NOW,
        ended=NOW,
        cpu_s=0.0,
        runtime="process",
        image=None,
    )


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def opened(folder, limit_bytes=1 << 20):
    spool = Spool(folder, limit_bytes=limit_bytes)
    spool.open()
    return spool


def chunks(taken):
    return [parcel.chunk for parcel, _ in taken]


def test_an_attempt_stays_on_disk_until_it_is_stored(tmp_path):
    opened(tmp_path).put(attempt(1))

    again = opened(tmp_path)
    [(parcel, data)] = again.take(**EVERYTHING)
    assert json.loads(data) == json.loads(attempt(1).to_json())
    again.stored(parcel)

    assert opened(tmp_path).take(**EVERYTHING) == []


def test_what_was_given_back_is_taken_again_in_order(tmp_path):
    spool = opened(tmp_path)
    for n in range(5):
        spool.put(attempt(n))

    first = spool.take(most=3, most_bytes=1 << 20)
    spool.give_back(parcel for parcel, _ in first)

    assert chunks(spool.take(**EVERYTHING)) == [f"t.{n}" for n in range(5)]


def test_a_batch_keeps_to_its_bytes_but_is_never_empty(tmp_path):
    spool = opened(tmp_path)
    for n in range(3):
        spool.put(attempt(n, stdout="x" * 1000))

    assert chunks(spool.take(most=500, most_bytes=2800)) == ["t.0", "t.1"]
    assert chunks(spool.take(most=500, most_bytes=10)) == ["t.2"]


def test_a_full_spool_says_so_until_something_was_delivered(tmp_path):
    spool = opened(tmp_path, limit_bytes=1000)
    spool.put(attempt(1, stdout="x" * 900))
    assert spool.full

    [(parcel, _)] = spool.take(**EVERYTHING)
    assert spool.full  # on its way is not yet there
    spool.stored(parcel)

    assert not spool.full


def test_a_refused_attempt_is_kept_aside_and_the_oldest_of_too_many_go(tmp_path):
    spool = opened(tmp_path, limit_bytes=1 << 20)
    for n in range(KEPT_ASIDE + 5):
        spool.put(attempt(n))

    for parcel, _ in spool.take(**EVERYTHING):
        spool.refuse(parcel, "No.")

    kept = sorted((tmp_path / "refused").iterdir())
    assert len(kept) == KEPT_ASIDE
    assert json.loads(kept[0].read_bytes())["chunk"] == "t.5"
    assert opened(tmp_path).take(**EVERYTHING) == []


def test_numbers_rise_over_restarts_so_that_nothing_set_aside_is_overwritten(tmp_path):
    for n in range(2):
        spool = opened(tmp_path)
        spool.put(attempt(n))
        [(parcel, _)] = spool.take(**EVERYTHING)
        spool.refuse(parcel, "No.")

    assert len(list((tmp_path / "refused").iterdir())) == 2


@pytest.mark.parametrize(
    "garbage", [b"", b'{"chunk": "t.1"', b"\x00" * 400, b"[]", b'{"chunk": "t.1"}', b"\xff"]
)
def test_a_torn_file_is_moved_aside_and_bars_nothing(tmp_path, garbage):
    spool = opened(tmp_path)
    spool.put(attempt(1))
    spool.put(attempt(2))
    (tmp_path / "000000000001.json").write_bytes(garbage)

    assert chunks(opened(tmp_path).take(**EVERYTHING)) == ["t.2"]
    assert (tmp_path / "broken" / "000000000001.json").read_bytes() == garbage


def test_a_file_torn_under_a_running_client_is_left_out_of_the_batch(tmp_path):
    spool = opened(tmp_path)
    spool.put(attempt(1))
    spool.put(attempt(2))
    (tmp_path / "000000000001.json").unlink()

    assert chunks(spool.take(**EVERYTHING)) == ["t.2"]


def test_without_room_on_the_disk_a_result_is_kept_in_memory_and_written_later(tmp_path):
    folder = tmp_path / "spool"
    spool = opened(folder)
    hidden = tmp_path / "hidden"
    folder.rename(hidden)  # as good as a full disk: nothing can be written there

    spool.put(attempt(1))
    assert spool.full
    spool.save_again()
    assert spool.full
    hidden.rename(folder)
    spool.save_again()

    assert not spool.full
    assert chunks(opened(folder).take(**EVERYTHING)) == ["t.1"]


def test_what_could_not_be_written_can_be_delivered_from_memory(tmp_path):
    folder = tmp_path / "spool"
    spool = opened(folder)
    folder.rename(tmp_path / "hidden")
    spool.put(attempt(1))

    [(parcel, data)] = spool.take(**EVERYTHING)
    spool.stored(parcel)

    assert json.loads(data)["chunk"] == "t.1"
    assert not spool.full


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_client_spool import attempt
from client_container.spool import Spool
spool = Spool(Path(sys.argv[1]), limit_bytes=1 << 30)
spool.open()
n = 0
while True:
    spool.put(attempt(n, stdout="x" * 50_000))
    print(n, flush=True)
    n += 1
"""


@pytest.mark.parametrize("after_s", [0.03, 0.05, 0.08])
def test_a_client_killed_while_writing_loses_nothing_that_was_put(tmp_path, after_s):
    here = Path(__file__).parent
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path, here], stdout=subprocess.PIPE, text=True
    )
    writer.stdout.readline()
    time.sleep(after_s)

    writer.send_signal(signal.SIGKILL)
    put = 1 + writer.stdout.read().count("\n")
    writer.wait()
    writer.stdout.close()

    taken = chunks(opened(tmp_path, limit_bytes=1 << 30).take(**EVERYTHING))
    assert taken[:put] == [f"t.{n}" for n in range(put)]
    assert len(taken) <= put + 1
    assert not list(tmp_path.glob("*.tmp")) and not list((tmp_path / "broken").iterdir())


@pytest.fixture
def box(tmp_path):
    """The spool's folder, a folder where runtimes leave files, and a way to put an attempt with such files."""

    class Box:
        folder, outbox = tmp_path / "spool", tmp_path / "files"

        def put(self, spool, n, *contents):
            self.outbox.mkdir(exist_ok=True)
            for content in contents:
                (self.outbox / sha256(content)).write_bytes(content)
            spool.put(attempt(n, files=contents), self.outbox)

        def files(self):
            return {path.read_bytes() for path in (self.folder / "files").iterdir()}

    return Box()


def test_an_attempt_waits_for_its_files_and_they_for_it(box):
    spool = opened(box.folder)
    box.put(spool, 1, b"one", b"two")
    box.put(spool, 2)

    assert chunks(spool.take(**EVERYTHING)) == ["t.2"]
    parcel = spool.take_loaded()
    assert (parcel.chunk, len(parcel.files), spool.take_loaded()) == ("t.1", 2, None)
    assert spool.file(sha256(b"one")).read_bytes() == b"one" and not list(box.outbox.iterdir())
    spool.unloaded(parcel)
    [(parcel, data)] = spool.take(**EVERYTHING)
    assert [file["name"] for file in json.loads(data)["files"]] == ["f0", "f1"]
    spool.stored(parcel)

    assert box.files() == set()


def test_after_a_crash_attempts_have_their_files_and_files_of_nobody_are_gone(box):
    box.put(opened(box.folder), 1, b"one")
    (box.folder / "files" / sha256(b"nobody's")).write_bytes(b"nobody's")

    again = opened(box.folder)

    parcel = again.take_loaded()
    assert parcel.chunk == "t.1" and parcel.proof.header == "t.1 0 T x"
    assert box.files() == {b"one"}


def test_a_file_that_two_attempts_have_stays_until_both_are_stored(box):
    spool = opened(box.folder)
    box.put(spool, 1, b"same")
    box.put(spool, 2, b"same", b"other")
    first, second = spool.take_loaded(), None
    spool.unloaded(first)
    second = spool.take_loaded()
    [(taken, _)] = spool.take(**EVERYTHING)

    spool.stored(taken)
    assert box.files() == {b"same", b"other"}
    spool.unloaded(second)
    [(taken, _)] = spool.take(**EVERYTHING)
    spool.refuse(taken, "no")
    assert box.files() == set()


def test_files_count_for_the_bound(box):
    spool = opened(box.folder, limit_bytes=100_000)
    box.put(spool, 1, bytes(90_000))
    assert not spool.full
    box.put(spool, 2, bytes(20_000))

    assert spool.full and opened(box.folder, limit_bytes=100_000).full


def test_an_attempt_whose_files_cannot_be_brought_is_told_as_an_error_without_them(box):
    spool = opened(box.folder, limit_bytes=10_000)
    box.put(spool, 1, bytes(20_000))
    assert spool.full

    spool.instead(spool.take_loaded(), outcome="output_limit", stdout="")

    assert not spool.full and box.files() == set()
    [(_, data)] = opened(box.folder).take(**EVERYTHING)
    assert json.loads(data)["outcome"] == "output_limit" and "files" not in json.loads(data)


def test_an_attempt_whose_files_are_not_there_is_not_kept_at_all(box):
    spool = opened(box.folder)

    with pytest.raises(OSError):
        spool.put(attempt(1, files=[b"lost"]), box.folder)

    assert spool.take_loaded() is None and not list(box.folder.glob("*.json"))
