"""Blobs that nothing names go after the grace period, and no others: whatever happens at the same time."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from people import Scientist, Volunteer

from source_server.app import create_app
from source_server.domain.blob import BlobLimits
from source_server.services.files import sweep_blobs
from source_server.services.files.blobs import Blobs
from source_server.services.files.sweep_blobs import SweepBlobs

pytestmark = pytest.mark.mongo

DAY = timedelta(days=1)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(who: Scientist, data: bytes) -> str:
    assert who.call("PUT", f"/blobs/{sha(data)}", data=data).status_code == 201
    return sha(data)


def age(raw: Any, by: timedelta = 2 * DAY) -> None:
    """Let everything have happened so much earlier."""
    back = by.total_seconds() * 1000
    for owner in raw.blobs.find({}):
        for place, one in enumerate(owner["owners"]):
            change = {f"owners.{place}.touched": one["touched"] - by}
            raw.blobs.update_one({"_id": owner["_id"]}, {"$set": change})
    for name, field in (
        ("blob_uploads", "touched"),
        ("blob_deliveries", "touched"),
        ("blob_files.files", "uploadDate"),
        ("blob_sweeps", "begun"),
    ):
        raw[name].update_many({}, [{"$set": {field: {"$subtract": [f"${field}", back]}}}])


def sweep(stores: Any, grace: timedelta = DAY) -> int:
    """One whole sweep; how many blobs it removed."""
    keeper, removed = SweepBlobs(stores, BlobLimits(grace=grace)), 0
    before = stores.sweeps.last()
    stores.sweeps._gate.update_one({}, {"$set": {"begun": stores.clock.now() - 30 * DAY}})
    while (last := stores.sweeps.last()) is None or last.phase or (before and last.number == before.number):
        removed += keeper(stores.clock.now())
    return removed


def here(raw: Any) -> set[str]:
    return {one["_id"] for one in raw.blobs.find({})}


def nothing_is_left(raw: Any) -> bool:
    names = ("blobs", "blob_uploads", "blob_deliveries", "blob_files.files", "blob_files.chunks")
    return all(raw[name].count_documents({}) == 0 for name in names)


def test_what_tasks_chunks_and_answers_name_stays_and_the_rest_goes(
    scientist: Scientist, volunteer: Any, stores: Any, raw: Any
) -> None:
    job, row, reaction, unused = (put(scientist, data) for data in (b"job", b"row", b"reaction", b"unused"))
    reactions = {"after": {"action": ["x"], "inputs": {"code": reaction}}}
    jobs = {
        "jobs": {"main": {"action": ["x"], "inputs": {"a": job, "b": "{h}"}, "outputs": ["*"]}, **reactions}
    }
    scientist.ok("POST", "/projects", {"name": "sums"})
    task = scientist.ok("POST", "/projects/sums/tasks", jobs)["id"]
    body = f'{{"h": "{row}"}}\n'.encode() + b'{"h": "%s", "x": "%s"}\n' % (row.encode(), b"y" * 100_000)
    scientist.ok("PUT", f"/tasks/{task}/chunks/one", data=body, content_type="application/jsonl")
    scientist.ok("POST", f"/tasks/{task}/start")
    who: Volunteer = volunteer()
    chunk = who.claim(1)[0]
    place = {"Dockercomp-Ticket": f"{chunk['id']} 0 {chunk['token']} {chunk['ticket']}"}
    for data in (b"answer", b"thrown away"):
        assert who.call("PUT", f"/blobs/{sha(data)}", data=data, headers=place).status_code == 201
    files = [{"name": "a", "sha256": sha(b"answer"), "bytes": 6}]
    assert who.add(who.attempt(chunk, files=files)).status_code == 200
    [large] = [one["input_file"]["sha256"] for one in raw.chunks.find({"input_file": {"$ne": None}})]
    whole = here(raw)

    early = sweep(stores), here(raw)
    age(raw)
    late = sweep(stores), here(raw)

    kept = {job, row, reaction, large, sha(b"answer")}
    assert early == (0, whole) and whole == kept | {unused, sha(b"thrown away")}
    assert late == (2, kept)
    assert scientist.call("GET", f"/blobs/{row}", buffered=True).data == b"row"
    assert scientist.call("GET", f"/blobs/{unused}").status_code == 404


def test_when_the_last_task_goes_its_blobs_go_with_everything_that_was_stored_of_them(
    scientist: Scientist, stores: Any, raw: Any
) -> None:
    data = random.Random(1).randbytes(3_000_000)
    scientist.running(1, inputs={"a": put(scientist, data)})
    scientist.call("PUT", f"/blobs/{sha(b'never')}", data=b"nev", headers={"Content-Range": "bytes 0-2/5"})
    stores.blobs.files.begin("a crash left it", stores.clock.now())
    age(raw)
    assert sweep(stores) == 0 and here(raw) == {sha(data)}
    assert raw.blob_uploads.count_documents({}) == 0 and raw["blob_files.files"].count_documents({}) == 1

    raw.tasks.delete_many({})
    age(raw)
    sweep(stores)

    assert nothing_is_left(raw)
    assert scientist.ok("GET", "/blobs")["usage"]["bytes"] == 0


def test_each_owner_keeps_it_for_as_long_as_something_of_his_own_names_it(
    scientist: Scientist, app: Any, new_key: Any, stores: Any, raw: Any
) -> None:
    other = Scientist(app, new_key("scientist"))
    put(scientist, b"both"), put(other, b"both")
    other.running(1, project="theirs", inputs={"a": sha(b"both")})
    age(raw)

    sweep(stores)

    assert scientist.call("GET", f"/blobs/{sha(b'both')}").status_code == 404
    assert scientist.ok("GET", "/blobs")["usage"]["bytes"] == 0
    assert other.call("GET", f"/blobs/{sha(b'both')}", buffered=True).data == b"both"


def test_a_reference_touches_first_and_what_is_touched_stays_for_the_grace_period(
    scientist: Scientist, stores: Any, raw: Any
) -> None:
    known = put(scientist, b"data")
    owner = raw.accounts.find_one({"role": "scientist"})["_id"]
    age(raw)

    touched = Blobs(stores).touch(owner, [known])
    removed = sweep(stores)
    age(raw)
    later = sweep(stores), Blobs(stores).touch(owner, [known])

    assert (touched, removed, later) == ({known: 4}, 0, (1, {}))


def test_a_sweep_goes_on_where_another_process_died(
    scientist: Scientist, stores: Any, raw: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sweep_blobs, "PAGE", 2)
    monkeypatch.setattr(sweep_blobs, "PAGES", 1)
    named = [put(scientist, b"%d" % n) for n in range(7)]
    for one in named[:3]:
        scientist.running(1, inputs={"a": one})
    age(raw)
    phases = set()

    for _ in range(200):  # a process for every step; it dies before it lets the sweep go
        SweepBlobs(stores)(stores.clock.now())
        long_ago = stores.clock.now() - 2 * sweep_blobs.SILENT
        raw.blob_sweeps.update_one({}, {"$set": {"hand": "dead", "touched": long_ago}})
        last = stores.sweeps.last()
        phases.add(last.phase)
        if last.phase is None:
            break

    assert here(raw) == set(named[:3]) and last.number == 1
    assert phases >= {"tasks", "chunks", "results", "events", "blobs", "files", None}


def test_a_blob_that_comes_anew_while_it_is_removed_is_whole_afterwards(
    scientist: Scientist, stores: Any, raw: Any, monkeypatch: Any
) -> None:
    data = random.Random(2).randbytes(2_500_000)
    known = put(scientist, data)
    age(raw)
    forget = stores.blobs.files.forget

    def forget_late(file: Any) -> None:
        put(scientist, data)  # in the moment between the look at its owners and the end of its file
        forget(file)

    monkeypatch.setattr(stores.blobs.files, "forget", forget_late)
    sweep(stores)
    monkeypatch.undo()

    assert scientist.call("GET", f"/blobs/{known}", buffered=True).data == data
    assert raw["blob_files.chunks"].count_documents({}) == 3


@pytest.mark.parametrize("by", ["tasks", "chunks"])
def test_what_was_swept_in_the_moment_before_it_was_named_is_refused(
    stores: Any, raw: Any, new_key: Any, monkeypatch: Any, by: str
) -> None:
    app = create_app(stores, beat_s=20.0, limits_of_blobs=BlobLimits(grace=timedelta(0)))
    who = Scientist(app, new_key("scientist"))
    who.ok("POST", "/projects", {"name": "sums"})
    rows = {"action": ["x"], "inputs": {"a": "{h}"}}
    task = who.ok("POST", "/projects/sums/tasks", rows)["id"]
    known, store = put(who, b"data"), getattr(stores, by)
    real = store.add

    def late(made: Any) -> None:
        sweep(stores, timedelta(0))
        real(made)

    monkeypatch.setattr(store, "add", late)
    if by == "tasks":
        job = {"action": ["x"], "inputs": {"a": known}}
        answer = who.call("POST", "/projects/sums/tasks", job)
    else:
        path, body = f"/tasks/{task}/chunks/one", f"h\n{known}\n".encode()
        answer = who.call("PUT", path, data=body, content_type="text/csv")

    assert answer.status_code in (400, 409), answer.text
    states = {one["_id"]: one["cancelled"] for one in raw.tasks.find({})}
    assert states.pop(task) is False and all(states.values())
    assert raw.chunks.count_documents({}) == 0


def test_no_new_reference_is_ever_left_without_its_blob_however_the_sweep_races(
    stores: Any, raw: Any, new_key: Any
) -> None:
    # No grace at all: what protects a reference is the order of its steps alone.
    limits = BlobLimits(grace=timedelta(0))
    app = create_app(stores, beat_s=20.0, limits_of_blobs=limits)
    key, stop, sweeps = new_key("scientist"), threading.Event(), [0, 0]
    Scientist(app, key).ok("POST", "/projects", {"name": "sums"})

    def keep_sweeping(place: int) -> None:
        keeper = SweepBlobs(stores, limits)
        while not stop.is_set():
            raw.blob_sweeps.update_one({"phase": None}, {"$set": {"begun": stores.clock.now() - DAY}})
            sweeps[place] += keeper(stores.clock.now())

    made: dict[str, bytes] = {}
    refused = [0]

    def keep_naming(seed: int) -> None:
        who, dice = Scientist(app, key), random.Random(seed)
        for _ in range(60):
            data = b"%d" % dice.randrange(6)  # the same few, again and again, from both
            if who.call("PUT", f"/blobs/{sha(data)}", data=data).status_code != 201:
                continue
            job = {"action": ["x"], "inputs": {"a": sha(data)}}
            task = who.call("POST", "/projects/sums/tasks", job)
            if task.status_code == 201:
                made[task.get_json()["id"]] = data
            else:
                refused[0] += 1
            if dice.random() < 0.5 and made:
                gone = dice.choice(sorted(made))
                made.pop(gone, None)
                raw.tasks.delete_one({"_id": gone})

    sweepers = [threading.Thread(target=keep_sweeping, args=(place,)) for place in range(2)]
    namers = [threading.Thread(target=keep_naming, args=(seed,)) for seed in range(2)]
    for thread in (*sweepers, *namers):
        thread.start()
    for thread in namers:
        thread.join()
    deadline = time.monotonic() + 60
    while not sum(sweeps) and time.monotonic() < deadline:
        time.sleep(0.1)
    stop.set()
    for thread in sweepers:
        thread.join()

    who = Scientist(app, key)
    lost = [
        task
        for task, data in made.items()
        if who.call("GET", f"/blobs/{sha(data)}", buffered=True).data != data
    ]
    assert lost == [] and made and sum(sweeps) > 0
