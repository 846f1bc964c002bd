"""Blobs: in one piece or in parts, stored once, read by their owners only, bounded; nothing received is lost."""

from __future__ import annotations

import hashlib
import itertools
import random
import threading
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from people import Person, Scientist

from source_server.app import create_app
from source_server.domain.blob import BlobLimits
from source_server.services.files import blobs as service
from source_server.services.files.blobs import Blobs

pytestmark = pytest.mark.mongo

DATA = random.Random(5).randbytes(3_500_000)  # several pieces, the last one not full


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def get(who: Person, path: str, method: str = "GET", **rest: Any) -> Any:
    """The answer, its place of a reader given back."""
    return who.call(method, path, buffered=True, **rest)


def put(who: Person, data: bytes, name: str | None = None, **rest: Any) -> Any:
    return who.call("PUT", f"/blobs/{name or sha(data)}", data=data, **rest)


def put_part(who: Person, data: bytes, start: int, end: int, name: str | None = None, **rest: Any) -> Any:
    span = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
    return put(who, data[start:end], name or sha(data), headers={**span, **rest})


@pytest.fixture
def other(app: Any, new_key: Callable[[str], str]) -> Scientist:
    """Another scientist."""
    return Scientist(app, new_key("scientist"))


@pytest.fixture
def bounded(stores: Any, new_key: Callable[[str], str]) -> Callable[..., Scientist]:
    """A scientist at a server with these limits."""

    def make(**limits: Any) -> Scientist:
        app = create_app(stores, beat_s=20.0, limits_of_blobs=BlobLimits(**limits))
        return Scientist(app, new_key("scientist"))

    return make


def pieces(raw: Any) -> int:
    return int(raw["blob_files.chunks"].count_documents({}))


def test_what_was_put_comes_back_whole_or_in_ranges(scientist: Scientist) -> None:
    made = put(scientist, DATA)
    path = f"/blobs/{sha(DATA)}"

    whole, range_ = get(scientist, path), {"Range": "bytes=1048570-2097160"}
    middle, head = get(scientist, path, headers=range_), get(scientist, path, "HEAD")

    assert (made.status_code, made.get_json()) == (201, {"sha256": sha(DATA), "bytes": len(DATA)})
    assert whole.data == DATA and whole.headers["ETag"] == f'"{sha(DATA)}"'
    assert (middle.status_code, middle.data) == (206, DATA[1048570:2097161])
    assert (head.status_code, head.content_length) == (200, len(DATA))
    assert get(scientist, path, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304


def test_an_empty_blob_is_a_blob(scientist: Scientist) -> None:
    assert put(scientist, b"").status_code == 201
    assert get(scientist, f"/blobs/{sha(b'')}").data == b""


def test_parts_of_any_size_make_the_whole(scientist: Scientist, raw: Any) -> None:
    path, cuts = f"/blobs/{sha(DATA)}", [0, 1, 999, 1_048_576, 2_500_000, 2_500_001, len(DATA)]

    answers = [put_part(scientist, DATA, *span) for span in itertools.pairwise(cuts)]
    sizes = [one.get_json() for one in answers[:-1]]

    assert [one.status_code for one in answers] == [202] * 5 + [201]
    assert [one["received"] for one in sizes] == cuts[1:-1] and {one["bytes"] for one in sizes} == {len(DATA)}
    assert get(scientist, path).data == DATA
    assert raw.blob_uploads.count_documents({}) == 0


def test_a_part_that_does_not_continue_is_told_where_the_upload_stands(scientist: Scientist) -> None:
    first = put_part(scientist, DATA, 10, 20)
    put_part(scientist, DATA, 0, 1_500_000)
    wrong = [
        put_part(scientist, DATA, *span) for span in ((0, 5), (1_499_999, 1_600_000), (2_000_000, len(DATA)))
    ]
    head = get(scientist, f"/blobs/{sha(DATA)}", "HEAD")

    assert (first.status_code, first.get_json()["received"]) == (409, 0)
    assert [(one.status_code, one.get_json()["received"]) for one in wrong] == [(409, 1_500_000)] * 3
    assert (head.status_code, head.headers["Dockercomp-Received"]) == (404, "1500000")
    assert put_part(scientist, DATA, 1_500_000, len(DATA)).status_code == 201


def test_what_a_broken_connection_left_is_kept_and_gone_on_from(scientist: Scientist) -> None:
    path = f"/blobs/{sha(DATA)}"

    broken = scientist.call(
        "PUT", path, data=DATA[:2_000_000], environ_overrides={"CONTENT_LENGTH": str(len(DATA))}
    )
    received = int(get(scientist, path, "HEAD").headers["Dockercomp-Received"])
    rest = put_part(scientist, DATA, received, len(DATA))

    assert broken.status_code == 408 and received == 2_000_000
    assert rest.status_code == 201 and get(scientist, path).data == DATA


def test_another_server_goes_on_with_the_parts_of_one_that_was_killed(
    scientist: Scientist, stores: Any, raw: Any, new_key: Any
) -> None:
    put_part(scientist, DATA, 0, 1_500_000)
    # It stored a piece, and died before it could say so, with the upload in its hand.
    file = raw.blob_uploads.find_one({})["file"]
    raw["blob_files.chunks"].insert_one({"files_id": file, "n": 1, "data": DATA[1_048_576:2_097_152]})
    raw.blob_uploads.update_one({}, {"$set": {"hand": "dead"}})
    again = Scientist(create_app(stores, beat_s=20.0), scientist.key)

    at_once = put_part(again, DATA, 1_500_000, len(DATA))
    raw.blob_uploads.update_one({}, {"$set": {"touched": stores.clock.now() - 2 * service.QUIET}})
    later = put_part(again, DATA, 1_500_000, len(DATA))

    assert at_once.status_code == 503 and int(at_once.headers["Retry-After"]) > 0
    assert later.status_code == 201 and get(again, f"/blobs/{sha(DATA)}").data == DATA


def test_a_server_that_died_before_it_saw_the_hash_is_sent_the_last_piece_again(
    scientist: Scientist, monkeypatch: Any
) -> None:
    put_part(scientist, DATA, 0, 1000)
    with monkeypatch.context() as dying:
        dying.setattr(Blobs, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            put_part(scientist, DATA, 1000, len(DATA))

    received = int(get(scientist, f"/blobs/{sha(DATA)}", "HEAD").headers["Dockercomp-Received"])
    last = put_part(scientist, DATA, received, len(DATA))

    assert len(DATA) - service.COUNTED - service.PIECE <= received < len(DATA) and last.status_code == 201
    assert get(scientist, f"/blobs/{sha(DATA)}").data == DATA


def test_what_has_another_hash_is_not_kept(scientist: Scientist, raw: Any) -> None:
    wrong = put(scientist, DATA, sha(b"other"))
    put_part(scientist, DATA, 0, 2_000_000, sha(b"parts"))
    wrong_too = put_part(scientist, DATA, 2_000_000, len(DATA), sha(b"parts"))

    assert (wrong.status_code, wrong_too.status_code) == (400, 400)
    assert "another hash" in wrong.get_json()["error"]
    assert pieces(raw) == raw.blobs.count_documents({}) == raw.blob_uploads.count_documents({}) == 0
    assert get(scientist, f"/blobs/{sha(b'parts')}", "HEAD").headers.get("Dockercomp-Received") is None


def test_a_second_owner_brings_all_of_it_and_it_is_stored_once(
    scientist: Scientist, other: Scientist, admin: Person, volunteer: Any, raw: Any
) -> None:
    put(scientist, DATA)
    path, stored = f"/blobs/{sha(DATA)}", pieces(raw)
    who = volunteer()

    before = [get(other, path).status_code, get(other, path, "HEAD").status_code]
    guessed = put_part(other, DATA, 0, 10), put_part(other, DATA, len(DATA) - 1, len(DATA))
    still = get(other, path).status_code
    brought = put_part(other, DATA, 10, len(DATA))

    assert before == [404, 404] and still == 404
    assert [one.status_code for one in guessed] == [202, 409]
    assert brought.status_code == 201 and get(other, path).data == DATA
    assert pieces(raw) == stored and raw.blobs.count_documents({}) == 1
    assert get(admin, path).status_code == 200
    assert get(who, path).status_code == 401  # a container's key alone
    who.key = who.account_key
    assert get(who, path).status_code == 404 and put(who, DATA).status_code == 403


def test_one_who_has_it_already_need_not_send_it_again(scientist: Scientist, raw: Any) -> None:
    put(scientist, DATA)

    again = scientist.call(
        "PUT", f"/blobs/{sha(DATA)}", headers={"Content-Range": f"bytes 0-0/{len(DATA)}"}, data=b"?"
    )

    assert again.status_code == 201


@pytest.mark.parametrize("name", ["0" * 63, "G" * 64, "A" * 64, "..%2f..", "0" * 64 + "%00"])
def test_only_hashes_name_blobs(scientist: Scientist, name: str) -> None:
    assert get(scientist, f"/blobs/{name}").status_code in (400, 404)
    assert scientist.call("PUT", f"/blobs/{name}", data=b"x").status_code in (400, 404)


@pytest.mark.parametrize(
    "said",
    [
        "bytes 0-4",
        "bytes 0-4/*",
        "bytes 3-1/10",
        "bytes 0-4/4",
        "bytes 0-3/10",
        "bytes -5/10",
        "lines 0-4/10",
    ],
)
def test_a_range_that_does_not_fit_the_body_is_refused(scientist: Scientist, said: str) -> None:
    answer = scientist.call("PUT", f"/blobs/{sha(DATA)}", data=b"12345", headers={"Content-Range": said})

    assert answer.status_code == 400 and get(scientist, f"/blobs/{sha(DATA)}", "HEAD").status_code == 404


def test_sizes_and_quotas_hold(bounded: Callable[..., Scientist], raw: Any) -> None:
    who = bounded(largest=10_000, quota=25_000)

    large, first, second = put(who, b"x" * 10_001), put(who, b"a" * 10_000), put(who, b"b" * 10_000)
    third = put(who, b"c" * 10_000)
    lied = put_part(who, b"d" * 5000, 0, 10), put_part(who, b"e" * 4000, 0, 10)
    listed = who.ok("GET", "/blobs")

    assert [one.status_code for one in (large, first, second, third)] == [413, 201, 201, 413]
    assert "quota" in third.get_json()["error"]
    # Begun is counted as a whole: 5000 fit exactly, nothing beside them.
    assert [one.status_code for one in lied] == [202, 413]
    assert listed["usage"] == {"bytes": 25_000, "quota": 25_000, "largest": 10_000}
    assert {one["sha256"] for one in listed["blobs"]} == {sha(b"a" * 10_000), sha(b"b" * 10_000)}


def test_two_at_once_do_not_both_fit_into_what_was_left_for_one(
    bounded: Callable[..., Scientist], stores: Any
) -> None:
    who = bounded(largest=10_000, quota=15_000)
    statuses: list[int] = []

    def one(letter: bytes) -> None:
        statuses.append(put(Scientist(who._http.application, who.key), letter * 10_000).status_code)

    threads = [threading.Thread(target=one, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses.count(201) <= 1 and set(statuses) <= {201, 413}
    assert who.ok("GET", "/blobs")["usage"]["bytes"] <= 10_000


def test_two_uploads_of_the_same_blob_at_once_end_with_one(scientist: Scientist, raw: Any) -> None:
    data = random.Random(6).randbytes(20_000_000)
    statuses: list[int] = []

    def one() -> None:
        who = Scientist(scientist._http.application, scientist.key)
        while (status := upload(who, data)) not in (200, 201):
            statuses.append(status)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert not any(thread.is_alive() for thread in threads) and set(statuses) <= {409, 503, 408, 202}
    assert get(scientist, f"/blobs/{sha(data)}").data == data
    assert pieces(raw) == 20 and raw.blob_uploads.count_documents({}) == 0


def upload(who: Person, data: bytes) -> int:
    """One try to go on from where the upload stands; the status."""
    head = get(who, f"/blobs/{sha(data)}", "HEAD")
    if head.status_code == 200:
        return 200
    received = int(head.headers.get("Dockercomp-Received", "0"))
    return int(put_part(who, data, received, len(data)).status_code)


def test_a_large_one_passes_through_a_few_megabytes_of_memory(scientist: Scientist) -> None:
    size, name = 60_000_000, hashlib.sha256()
    for _ in range(60):
        name.update(b"\xa5" * 1_000_000)
    path, digest = f"/blobs/{name.hexdigest()}", hashlib.sha256()

    class Body:
        """A body that takes no room."""

        left = size

        def read(self, most: int = -1) -> bytes:
            taken = min(self.left, most if most >= 0 else self.left, 65536)
            self.left -= taken
            return b"\xa5" * taken

    tracemalloc.start()
    environ = {"wsgi.input": Body(), "CONTENT_LENGTH": str(size)}
    made = scientist._http.open(
        path, method="PUT", headers={"Authorization": f"Bearer {scientist.key}"}, environ_overrides=environ
    )
    for piece in scientist.call("GET", path).response:
        digest.update(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert made.status_code == 201 and digest.hexdigest() == name.hexdigest()
    assert peak < 12_000_000


def test_what_the_server_makes_itself_is_stored_the_same(stores: Any, raw: Any) -> None:
    blobs = Blobs(stores, BlobLimits(largest=5_000_000, quota=8_000_000, grace=timedelta(days=1)))

    made = blobs.keep("ada", (DATA[at : at + 70_000] for at in range(0, len(DATA), 70_000)))
    again, count = blobs.keep("bob", iter([DATA])), pieces(raw)
    with blobs.open(made[0]) as content:
        read = content.read()

    assert made == again == (sha(DATA), len(DATA)) and read == DATA and count == 4
    for account, body, refused in (("ada", b"x" * 5_000_001, "5000000"), ("ada", b"y" * 4_900_000, "quota")):
        with pytest.raises(Exception, match=refused):
            blobs.keep(account, [body])
    assert pieces(raw) == 4 and blobs.usage("ada") == len(DATA)
