"""What comes in takes no more than its share: of memory, of disk, of the housekeeper's time."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from people import Scientist

from source_server.domain.refusal import BadInput, TooLarge
from source_server.receivers.archive import members

ECHO = {"action": ["/bin/echo", "{name}"]}
LONG_AGO = datetime.now(timezone.utc) - timedelta(hours=1)
SOON = timedelta(hours=1)
PACKERS = [gzip.compress, bz2.compress, lzma.compress]


def tar(*files: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files:
            item = tarfile.TarInfo(name)
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    return out.getvalue()


def unpacked(packed: bytes, pattern: str = "**", kind: str = "tar") -> dict[str, bytes]:
    return {one.path: one.content.read() for one in members(kind, io.BytesIO(packed), pattern)}


# --- archives

READ = """
import resource, sys
from source_server.receivers.archive import members
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(sys.argv[1], "rb") as archive:
    for one in members("tar", archive, sys.argv[2]):
        while one.content.read(65536):
            pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
@pytest.mark.parametrize("pattern", ["**", "small"])
def test_an_archive_of_zeros_is_read_or_passed_over_in_little_memory(
    tmp_path: Path, pack: Callable[[bytes], bytes], pattern: str
) -> None:
    packed = pack(tar(("large", bytes(200_000_000)), ("small", b"1")))
    (tmp_path / "archive").write_bytes(packed)

    argv = [sys.executable, "-c", READ, str(tmp_path / "archive"), pattern]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True)

    assert len(packed) < 100_000
    assert int(done.stdout) < 60, "megabytes"


@pytest.mark.parametrize("pack", PACKERS)
def test_files_that_are_passed_over_count_too(
    monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr("source_server.receivers.archive.MOST_UNPACKED", 5_000_000)
    files = [(f"junk-{number}", bytes(1_000_000)) for number in range(8)]

    with pytest.raises(TooLarge, match="more than 5000000 bytes"):
        unpacked(pack(tar(*files, ("small.txt", b"1"))), "*.txt")


@pytest.mark.parametrize("pack", PACKERS)
def test_an_archive_that_was_packed_in_several_pieces_is_one(pack: Callable[[bytes], bytes]) -> None:
    whole = tar(("a", b"1" * 100_000), ("b", b"2" * 300_000))
    packed = pack(whole[:1000]) + pack(whole[1000:200_000]) + pack(b"") + pack(whole[200_000:])

    assert unpacked(packed) == {"a": b"1" * 100_000, "b": b"2" * 300_000}


@pytest.mark.parametrize("pack", PACKERS)
def test_an_archive_that_breaks_off_says_so(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(tar(("a", bytes(range(256)) * 1000)))

    with pytest.raises(BadInput, match="cannot be read"):
        unpacked(packed[: len(packed) // 2])


def test_a_million_empty_pieces_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("source_server.receivers.archive.MOST_UNPACKED", 5_000_000)

    with pytest.raises(TooLarge):
        unpacked(gzip.compress(b"") * 1000)


def test_xz_that_wants_more_memory_than_any_preset_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("source_server.receivers.unpack.MOST_MEMORY", 1024 * 1024)

    with pytest.raises(BadInput, match=r"[Mm]emory"):
        unpacked(lzma.compress(tar(("a", b"1")), preset=6))


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_is_stored_or_deflated(packing: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        archive.writestr("a", b"1" * 1000)

    with pytest.raises(BadInput, match="deflate"):
        unpacked(out.getvalue(), kind="zip")


def test_files_with_holes_are_refused() -> None:
    old = tarfile.TarInfo("a")
    old.type = tarfile.GNUTYPE_SPARSE
    new = tarfile.TarInfo("a")
    new.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}

    for packed in (old.tobuf(tarfile.GNU_FORMAT), new.tobuf(tarfile.PAX_FORMAT)):
        with pytest.raises(BadInput, match="holes"):
            unpacked(packed + bytes(1024))


def extended(said: bytes, *, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A tar with a file of two bytes, before which an extended header says this."""
    header, file = tarfile.TarInfo("header"), tarfile.TarInfo("short")
    header.type, header.size, file.size = kind, len(said), 2
    whole = header.tobuf(tarfile.USTAR_FORMAT) + said + bytes(-len(said) % 512)
    return whole + file.tobuf(tarfile.USTAR_FORMAT) + b"1\n" + bytes(510) + bytes(1024)


def record(name: bytes, value: bytes) -> bytes:
    length = len(name) + len(value) + 3
    length += len(str(length + len(str(length))))
    return b"%d %s=%s\n" % (length, name, value)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE])
@pytest.mark.parametrize(
    "said",
    [
        b"1" * 100_000,
        b"4 aa" * 25_000 + b"=\n",
        b"1" * 10 + b" hdrcharset=" * 8_000,
        record(b"comment", b"1" * 100_000),
        record(b"path", b"1" * 100_000),
    ],
    ids=["digits", "names", "charsets", "comment", "path"],
)
def test_no_header_of_a_tar_keeps_the_server_busy(said: bytes, kind: bytes) -> None:
    began = time.process_time()

    with contextlib.suppress(BadInput):
        assert unpacked(extended(said, kind=kind)) == {"short": b"1\n"}

    assert time.process_time() - began < 5


def test_what_an_extended_header_says_of_a_file_counts() -> None:
    said = record(b"comment", b"x") + record(b"path", b"a/" * 60 + b"long") + record(b"mtime", b"1.5")
    long = io.BytesIO()
    with tarfile.open(fileobj=long, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("ä" * 90 + ".csv", "plain"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = 3, 1.5, "ö"  # type: ignore[assignment]
            archive.addfile(info, io.BytesIO(b"abc"))

    # Sixty folders deep: it is this name that is looked at.
    with pytest.raises(BadInput, match="normalised"):
        unpacked(extended(said))
    assert unpacked(long.getvalue()) == {"ä" * 90 + ".csv": b"abc", "plain": b"abc"}


# --- events


@pytest.fixture
def keeper(stores: Any) -> Any:
    """A housekeeper, whose steps a test calls."""
    from source_server.housekeeping import Housekeeper

    return Housekeeper(stores, beat_s=20.0)


@pytest.fixture
def receiver(scientist: Scientist) -> Callable[..., dict[str, Any]]:
    """Opens a way into a project."""

    def make(project: str = "mine", **settings: Any) -> dict[str, Any]:
        scientist.ok("POST", "/projects", {"name": project})
        body = {"kind": "http", "template": ECHO, **settings}
        return dict(scientist.ok("POST", f"/projects/{project}/receivers", body))

    return make


@pytest.fixture
def send(app: Any) -> Callable[..., dict[str, Any]]:
    def send(way: dict[str, Any], name: str) -> dict[str, Any]:
        shown = {"Authorization": f"Bearer {way['secret']}"}
        body = {"id": name, "rows": [{"name": name}]}
        answer = app.test_client().post(way["address"], json=body, headers=shown)
        assert answer.status_code == 202, answer.text
        return dict(answer.get_json())

    return send


def states(scientist: Scientist, project: str) -> dict[str, str]:
    found = scientist.ok("GET", f"/projects/{project}/events")["events"]
    return {one["key"]: one["state"] for one in found}


def take_and_die(stores: Any, event: dict[str, Any]) -> None:
    now = stores.clock.now()
    assert stores.events.take(event["id"], "dead", now, silent_since=now + SOON)


@pytest.mark.parametrize(("deaths", "state"), [(4, "done"), (5, "refused")])
def test_an_event_over_which_its_handlers_die_is_set_aside_in_the_end(
    scientist: Scientist,
    stores: Any,
    keeper: Any,
    receiver: Any,
    send: Any,
    raw: Any,
    deaths: int,
    state: str,
) -> None:
    event = send(receiver(), "deadly")
    for _ in range(deaths):
        take_and_die(stores, event)
    raw.events.update_one({}, {"$set": {"touched": LONG_AGO}})

    keeper.events()

    [found] = scientist.ok("GET", "/projects/mine/events")["events"]
    assert found["state"] == state
    if state == "refused":
        assert "5 times in a row" in found["why"]
        scientist.ok("POST", f"/projects/mine/events/{event['id']}/again")
        keeper.events()
        assert states(scientist, "mine") == {"deadly": "done"}


def test_an_event_that_is_put_off_is_not_counted_as_deadly(
    scientist: Scientist, stores: Any, keeper: Any, receiver: Any, send: Any
) -> None:
    event = send(receiver(), "patient")
    for _ in range(9):
        now = stores.clock.now()
        taken = stores.events.take(event["id"], "living", now, silent_since=now)
        stores.events.put_off(taken, "Not now.", now)

    keeper.events()

    assert states(scientist, "mine") == {"patient": "done"}


def test_many_events_of_one_project_do_not_hold_up_another(
    scientist: Scientist, keeper: Any, receiver: Any, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("source_server.services.intake.handle_events.BATCH", 4)
    many, other = receiver("many"), receiver("few")
    for number in range(10):
        send(many, f"many-{number}")
    send(other, "few-0")

    keeper.events()

    assert states(scientist, "few") == {"few-0": "done"}
    assert sorted(states(scientist, "many").values()) == ["done"] * 3 + ["new"] * 7


def test_events_that_wait_in_order_leave_room_for_others_of_the_project(
    scientist: Scientist, keeper: Any, receiver: Any, send: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("source_server.services.intake.handle_events.BATCH", 4)
    ordered = receiver(template=None, append_to="stream")
    scientist.ok("POST", "/projects/mine/tasks", {**ECHO, "id": "stream", "open_ended": True})
    first = send(ordered, "n-0")
    for number in range(1, 10):
        send(ordered, f"n-{number}")
    raw.events.update_one({"_id": first["id"]}, {"$set": {"not_before": datetime.now(timezone.utc) + SOON}})
    send(receiver(), "other")

    keeper.events()

    found = states(scientist, "mine")
    assert found.pop("other") == "done"
    assert set(found.values()) == {"new"}


@pytest.mark.mongo
def test_a_slow_project_has_one_event_in_hand_and_others_go_on(
    stores: Any, new_key: Callable[[str], str], raw: Any
) -> None:
    from repositories import push_body, signed

    from source_server.app import build_services, create_app
    from source_server.receivers.git_fetch import GitSettings
    from source_server.services.intake.handle_events import HandleEvents

    with socket.create_server(("127.0.0.1", 0)) as silent:
        listed = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        git = GitSettings(listed=(listed,), seconds=20)
        ada = Scientist(create_app(stores, beat_s=20.0, git=git), new_key("scientist"))
        for project in ("slow", "quick"):
            ada.ok("POST", "/projects", {"name": project})
        body = {"kind": "git", "repository": f"{listed}x"}
        way = ada.ok("POST", "/projects/slow/receivers", body)
        for letter in "abcd":
            push = push_body(letter * 40)
            headers = signed(way["secret"], push)
            assert ada._http.post(way["address"], data=push, headers=headers).status_code == 202
        body = {"kind": "upload", "template": {"action": ["/bin/cat"]}}
        way = ada.ok("POST", "/projects/quick/receivers", body)
        for number in range(3):
            shown = {"Authorization": f"Bearer {way['secret']}"}
            ada._http.put(f"{way['address']}/{number}.csv", data=b"a\n1\n", headers=shown)
        handle = HandleEvents(stores, build_services(stores, beat_s=20.0, git=git).intake)
        working = threading.Thread(target=handle.work, kwargs={"slow": True}, daemon=True)
        working.start()

        in_hand, until = [0], time.monotonic() + 15
        while time.monotonic() < until:
            in_hand.append(list(states(ada, "slow").values()).count("handling"))
            if set(states(ada, "quick").values()) == {"done"} and in_hand[-1]:
                break
            time.sleep(0.02)

        assert set(states(ada, "quick").values()) == {"done"}
        assert working.is_alive() and in_hand[-1] == 1 == max(in_hand)
        raw.events.delete_many({"state": "new"})
    working.join(60)


# --- settings and schedules


def test_settings_have_a_limit_and_the_sentence_says_where_more_goes(scientist: Scientist) -> None:
    scientist.ok("POST", "/projects", {"name": "mine"})
    rows = [{"name": "x" * 1000} for _ in range(70)]
    body = {"kind": "schedule", "cron": "0 0 1 1 *", "template": ECHO, "rows": rows}

    answer = scientist.call("POST", "/projects/mine/receivers", body)

    assert answer.status_code == 413
    assert "65536 bytes" in answer.get_json()["error"] and "'data'" in answer.get_json()["error"]
    assert scientist.call("POST", "/projects/mine/receivers", {**body, "rows": rows[:60]}).status_code == 201


@pytest.fixture
def schedule(receiver: Any, raw: Any) -> Callable[..., str]:
    """Makes a schedule; its fields in the database are changed so."""

    def make(**fields: Any) -> str:
        way = receiver(kind="schedule", cron="0 0 * * *", template={"action": ["/bin/date"]})
        raw.receivers.update_one({"_id": way["id"]}, {"$set": fields})
        return str(way["id"])

    return make


def test_a_schedule_is_not_even_read_before_its_time(schedule: Any, keeper: Any, raw: Any) -> None:
    followed = schedule(planned=datetime.now(timezone.utc) - timedelta(days=2), next_due=LONG_AGO)
    keeper.schedules()
    found = raw.receivers.find_one({"_id": followed})
    now = datetime.now(timezone.utc)
    assert now < found["next_due"].replace(tzinfo=timezone.utc) <= now + timedelta(days=1)

    raw.receivers.update_one({"_id": followed}, {"$set": {"settings": "no JSON: reading it would fail"}})
    keeper.schedules()

    assert raw.events.count_documents({}) == 1


def test_a_schedule_of_an_older_release_is_followed(schedule: Any, keeper: Any, raw: Any) -> None:
    older = schedule(planned=datetime.now(timezone.utc) - timedelta(days=2))
    raw.receivers.update_one({"_id": older}, {"$unset": {"next_due": ""}})

    keeper.schedules()

    assert raw.events.count_documents({"receiver": older}) == 1


def test_schedules_that_cannot_be_followed_do_not_hold_up_the_others(
    schedule: Any, keeper: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("source_server.services.intake.handle_events.PLANNED", 2)
    since = datetime.now(timezone.utc) - timedelta(days=2)
    broken = json.dumps({"cron": "none", "template": {}})
    for _ in range(3):
        schedule(next_due=LONG_AGO - timedelta(days=3), settings=broken)
    good = schedule(planned=since, next_due=since)

    for _ in range(2):
        keeper.schedules()

    assert raw.events.count_documents({"receiver": good}) == 1
