"""A task's data arrives whole or not at all: large, broken off, slow, failed and sent again."""

from __future__ import annotations

import io
import threading
from datetime import timedelta
from typing import Any

import pytest

from source_server.housekeeping import Housekeeper
from source_server.services.tasks import upload as service
from source_server.stores.chunks import Chunks


def empty_task(scientist: Any, **job: Any) -> str:
    scientist.ok("POST", "/projects", {"name": "sums"})
    return str(scientist.ok("POST", "/projects/sums/tasks", {"action": ["/bin/cat"], **job})["id"])


def put(scientist: Any, task: str, body: bytes, **rest: Any) -> Any:
    return scientist.call("PUT", f"/tasks/{task}/chunks/u", data=body, content_type="text/csv", **rest)


def test_an_upload_may_be_larger_than_any_other_body(scientist: Any) -> None:
    task = empty_task(scientist, rows_per_chunk=1000)
    rows = 17 * 1024 * 1024 // 32

    answer = put(scientist, task, b"a\n" + b"0123456789012345678901234567890\n" * rows)

    assert answer.status_code == 201 and answer.get_json()["rows"] == rows


def test_an_upload_that_breaks_off_at_the_end_of_a_row_is_not_taken_for_the_whole(
    scientist: Any, raw: Any
) -> None:
    task = empty_task(scientist)
    sent = b"a\n1\n2\n"

    answer = scientist.call(
        "PUT",
        f"/tasks/{task}/chunks/u",
        content_type="text/csv",
        environ_overrides={"wsgi.input": io.BytesIO(sent), "CONTENT_LENGTH": str(len(sent) + 100)},
    )

    assert answer.status_code == 408 and "broke off" in answer.get_json()["error"]
    assert raw.chunks.count_documents({}) == 0 and not scientist.ok("GET", f"/tasks/{task}")["sealed"]
    assert put(scientist, task, sent).status_code == 201


def test_who_sent_what_was_refused_does_not_wait_until_all_of_it_is_cleared_away(
    scientist: Any, stores: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "REMOVED_AT_ONCE", 30)
    monkeypatch.setattr(service, "BATCH", 10)
    first, second = empty_task(scientist), empty_task(scientist)
    ragged = b"a\n" + b"1\n" * 100 + b"1,2\n"

    answers = [put(scientist, task, ragged).get_json()["error"] for task in (first, second)]

    assert answers == ["Line 102 has 2 values for 1 columns."] * 2
    assert raw.chunks.count_documents({"task": first}) == 70
    assert put(scientist, second, b"a\n1\n").status_code == 201  # its place is free all the same
    assert raw.chunks.count_documents({"task": second}) == 1
    Housekeeper(stores, beat_s=20.0).tasks()
    assert raw.chunks.count_documents({"task": first}) == 0
    assert put(scientist, first, b"a\n1\n").status_code == 201


def test_clearing_a_failed_upload_away_never_takes_its_successors_chunks(
    scientist: Any, app: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = empty_task(scientist)
    clearing, go_on = threading.Event(), threading.Event()
    really_remove = Chunks.remove_upload

    def slowly(self: Chunks, task_id: str, attempt: str, **rest: Any) -> int:
        clearing.set()
        go_on.wait(20)
        return really_remove(self, task_id, attempt, **rest)

    monkeypatch.setattr(Chunks, "remove_upload", slowly)
    hasty = type(scientist)(app, scientist.key)
    failing = threading.Thread(target=lambda: put(hasty, task, b"a,b\n1\n"))
    failing.start()
    assert clearing.wait(20)

    second = put(scientist, task, b"a\n" + b"1\n" * 50)
    go_on.set()
    failing.join()

    assert second.status_code == 201 and raw.chunks.count_documents({"task": task}) == 50


def test_a_slow_upload_keeps_its_place(
    scientist: Any, app: Any, stores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, passed = stores.clock.now(), [0.0]
    monkeypatch.setattr(stores.clock, "now", lambda: began + timedelta(seconds=passed[0]))
    monkeypatch.setattr(service.time, "monotonic", lambda: passed[0])
    task = empty_task(scientist)
    impatient = type(scientist)(app, scientist.key)
    statuses: list[int] = []

    class Slow(io.RawIOBase):
        """A row each twelve seconds, four minutes long."""

        rows = 20

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            passed[0] += service.QUIET.total_seconds() / 5
            if self.rows == 10:
                statuses.append(put(impatient, task, b"a\n7\n").status_code)
            self.rows -= 1
            line = b"a\n" if self.rows == 19 else b"1\n" if self.rows > 0 else b""
            buffer[: len(line)] = line
            return len(line)

    slow = scientist.call(
        "PUT",
        f"/tasks/{task}/chunks/u",
        content_type="text/csv",
        environ_overrides={"wsgi.input": Slow(), "CONTENT_LENGTH": "38"},
    )

    assert statuses == [503]
    assert slow.status_code == 201 and slow.get_json()["rows"] == 18


def test_a_server_that_wakes_after_another_attempt_was_sealed_hides_nothing_and_holds_nothing_up(
    scientist: Any, volunteer: Any, raw: Any, stores: Any
) -> None:
    task = empty_task(scientist)
    put(scientist, task, b"a\n1\n2\n")
    stray = {**raw.chunks.find_one({"_id": f"{task}.1"}), "_id": f"{task}.7", "n": 7, "upload": "asleep"}
    raw.chunks.insert_one(stray)
    scientist.ok("POST", f"/tasks/{task}/start")
    who = volunteer()

    chunks = who.claim(10)
    who.add(*(who.attempt(chunk) for chunk in chunks))
    Housekeeper(stores, beat_s=20.0).tasks()

    assert sorted(chunk["n"] for chunk in chunks) == [0, 1]
    assert scientist.ok("GET", f"/tasks/{task}")["outcome"] == "succeeded"
    assert len(scientist.call("GET", f"/results.csv?task={task}").get_data(as_text=True).splitlines()) == 3


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("application/jsonl", b'{"\\ud800": 1}\n', "lone surrogate"),
        ("text/csv", b'a\n"' + b"x\n" * 600_000 + b'"\n', "spread over many lines is longer than"),
        ("text/csv", b"a\n" + b"0123456789\n" * 120_000, "more than 2097152"),
    ],
)
def test_what_would_fill_the_servers_memory_or_break_its_columns_is_refused(
    scientist: Any, raw: Any, kind: str, body: bytes, expected: str
) -> None:
    task = empty_task(scientist, rows_per_chunk=100_000)

    answer = scientist.call("PUT", f"/tasks/{task}/chunks/u", data=body, content_type=kind)

    assert answer.status_code == 400 and expected in answer.get_json()["error"]
    assert raw.chunks.count_documents({}) == 0


def test_text_takes_the_bytes_that_it_has(scientist: Any) -> None:
    task = empty_task(scientist)

    assert put(scientist, task, ("a\n" + "ж" * 15_000 + "\n").encode()).status_code == 201


def test_an_upload_whose_server_died_is_asked_to_come_again_and_another_one_is_refused(
    scientist: Any, stores: Any, raw: Any
) -> None:
    task = empty_task(scientist)
    half = {
        "id": "one",
        "attempt": "a" * 16,
        "touched": stores.clock.now(),
        "complete": False,
        "ended": False,
    }
    raw.tasks.update_one(
        {"_id": task}, {"$set": {"upload": {**half, "digest": None, "chunks": 0, "rows": 0}}}
    )

    def send(upload: str) -> Any:
        place = f"/tasks/{task}/chunks/{upload}"
        return scientist.call("PUT", place, data=b"a\n1\n", content_type="text/csv")

    again, another = send("one"), send("two")

    assert again.status_code == 503 and "Retry-After" in again.headers
    assert another.status_code == 409
