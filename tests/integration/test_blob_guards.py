"""What the unkind do with blobs: uploads that take over from each other, and other people's quotas."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import pytest
from people import Scientist, Volunteer

from source_server.app import create_app
from source_server.domain.blob import BlobLimits, OverQuota, Part, Uploader
from source_server.domain.refusal import TooLarge, Unavailable
from source_server.services.files import blobs as service
from source_server.services.files.blobs import Blobs
from source_server.services.files.drop_uploads import DropUploads
from source_server.services.results import result_files

pytestmark = pytest.mark.mongo

MIB = 1 << 20
GOOD = random.Random(7).randbytes(MIB + 1000)
PATIENCE = 60


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Fed:
    """A body, or a stream, whose bytes come when the test says so."""

    def __init__(self, run: Callable[[Fed], object]) -> None:
        self._go, self._asks, self._left, self._over = (
            threading.Semaphore(0),
            threading.Semaphore(0),
            b"",
            False,
        )
        self.answer: object = None
        self._run = run
        self._thread = threading.Thread(target=self._all, daemon=True)
        self._thread.start()
        self.waits()

    def _all(self) -> None:
        try:
            self.answer = self._run(self)
        except Exception as error:
            self.answer = error
        self._asks.release()

    def read(self, most: int) -> bytes:
        if not self._left and not self._over:
            self._asks.release()
            assert self._go.acquire(timeout=PATIENCE)
        piece, self._left = self._left[:most], self._left[most:]
        return piece

    def waits(self) -> None:
        """Until it wants more, or has its answer."""
        assert self._asks.acquire(timeout=PATIENCE)

    def feed(self, data: bytes, *, last: bool = False) -> None:
        self._left, self._over = data, last
        self._go.release()
        self.waits()


def uploading(blobs: Blobs, who: str) -> Fed:
    part, name = Part(start=0, bytes=len(GOOD), total=len(GOOD), whole=True), sha(GOOD)
    return Fed(lambda fed: blobs.receive(Uploader(id=who, account=who), name, part, fed.read))


def silence(stores: Any, raw: Any) -> None:
    """As if whoever holds an upload had said nothing for long."""
    raw.blob_uploads.update_many({}, {"$set": {"touched": stores.clock.now() - 2 * service.QUIET}})


def test_three_that_take_over_from_each_other_never_make_other_content_of_a_hash(
    stores: Any, raw: Any
) -> None:
    blobs, wrong, evil = Blobs(stores), b"A" * MIB, b"EVIL" * (MIB // 4)
    first = uploading(blobs, "mallory")
    first.feed(wrong[:-1])
    silence(stores, raw)
    second = uploading(blobs, "mallory")
    second.feed(evil[:-1])
    silence(stores, raw)
    third = uploading(blobs, "mallory")
    third.feed(GOOD[:MIB])

    first.feed(wrong[-1:])
    second.feed(evil[-1:])
    third.feed(GOOD[MIB:])
    victim = uploading(blobs, "victim")
    victim.feed(GOOD)

    for who in ("mallory", "victim"):
        if blobs.owned(who, [sha(GOOD)]):
            with blobs.reading(sha(GOOD), who, reader=who) as (_, content):
                assert sha(content.read()) == sha(GOOD)
    assert blobs.owned("victim", [sha(GOOD)]), victim.answer


def test_what_several_hands_stored_is_hashed_as_it_lies_there(stores: Any, raw: Any) -> None:
    blobs = Blobs(stores)
    first = uploading(blobs, "mallory")
    first.feed(b"x")
    silence(stores, raw)
    second = uploading(blobs, "mallory")
    second.feed(GOOD[:MIB])
    # Whatever way it was that another hand's piece came there.
    raw["blob_files.chunks"].update_one({"n": 0}, {"$set": {"data": b"EVIL" * (MIB // 4)}})

    second.feed(GOOD[MIB:])

    assert "another hash" in str(second.answer) and not blobs.owned("mallory", [sha(GOOD)])
    assert raw["blob_files.chunks"].count_documents({}) == raw.blob_uploads.count_documents({}) == 0


def test_an_upload_that_is_being_finished_is_nobody_elses_and_its_pieces_stay(
    stores: Any, raw: Any, monkeypatch: Any
) -> None:
    blobs, seen = Blobs(stores), []
    keep = Blobs._keep

    def kept(self: Blobs, *rest: Any) -> None:
        if not seen:
            seen.append("others come while the first one is about to keep it")
            for _ in range(2):
                late = uploading(blobs, "ada")
                seen.append(late.answer)
                silence(stores, raw)
            late.feed(b"x" * MIB)
        keep(self, *rest)

    monkeypatch.setattr(Blobs, "_keep", kept)

    uploading(blobs, "ada").feed(GOOD)

    assert isinstance(seen[1], Unavailable) and seen[2] is None
    with blobs.reading(sha(GOOD), "ada", reader="ada") as (_, content):
        assert content.read() == GOOD


# --- quotas


@pytest.fixture
def server(stores: Any) -> Callable[..., Any]:
    """The server with these limits."""
    return lambda **limits: create_app(stores, beat_s=20.0, limits_of_blobs=BlobLimits(**limits))


def bring(who: Volunteer, chunk: dict[str, Any], data: bytes, total: int | None = None) -> int:
    words = f"{chunk['id']} {chunk['run']} {chunk['token']} {chunk['ticket']}"
    headers = {"Dockercomp-Ticket": words}
    if total is not None:
        headers["Content-Range"] = f"bytes 0-{len(data) - 1}/{total}"
    return int(who.call("PUT", f"/blobs/{sha(data)}", data=data, headers=headers).status_code)


def usage(who: Scientist) -> int:
    return int(who.ok("GET", "/blobs")["usage"]["bytes"])


def test_what_a_container_only_announces_takes_nothing_of_the_owners_quota(
    server: Any, new_key: Any, raw: Any
) -> None:
    app = server(quota=100_000_000)
    scientist, key = Scientist(app, new_key("scientist")), new_key("volunteer")
    scientist.running(4, outputs=["*"])
    chunks = [(who, chunk) for who in (Volunteer(app, key), Volunteer(app, key)) for chunk in who.claim(2)]

    announced = [bring(who, chunk, b"%d" % n, 1_999_999_999) for n, (who, chunk) in enumerate(chunks)]
    own = scientist.call("PUT", f"/blobs/{sha(GOOD)}", data=GOOD).status_code

    assert announced == [202] * 4 and own == 201
    assert usage(scientist) == 4 * MIB + len(GOOD)  # in steps of 1 MiB


def test_one_volunteer_has_a_share_and_waits_others_go_on_and_an_answer_makes_room(
    server: Any, new_key: Any
) -> None:
    app = server(quota=40_000_000)
    scientist, key = Scientist(app, new_key("scientist")), new_key("volunteer")
    scientist.running(8, outputs=["*"], disk_mb=1)
    room = {"resources": {"disk_mb": 100}}
    hosts, other = (
        [Volunteer(app, key, **room) for _ in range(5)],
        Volunteer(app, new_key("volunteer"), **room),
    )
    claims, datas = (
        [(who, who.claim(1)[0]) for who in hosts],
        [bytes([letter]) * 1_000_000 for letter in range(6)],
    )

    statuses = [bring(*claim, data) for claim, data in zip(claims, datas, strict=False)]
    others = bring(other, other.claim(1)[0], datas[5])
    first_one_goes_on = bring(*claims[0], b"more" * 200_000)
    files = [{"name": "a", "sha256": sha(datas[0]), "bytes": len(datas[0])}]
    answered = hosts[0].add(hosts[0].attempt(claims[0][1], files=files)).status_code
    later = bring(*claims[4], datas[4])

    assert statuses == [201] * 4 + [503] and others == 201
    assert first_one_goes_on == 201 and answered == 200 and later == 201


def test_where_the_owner_has_no_room_an_answers_files_wait_and_are_not_refused(
    server: Any, new_key: Any
) -> None:
    app = server(quota=1_000_000)
    scientist, who = Scientist(app, new_key("scientist")), Volunteer(app, new_key("volunteer"))
    scientist.running(1, outputs=["*"])
    [chunk] = who.claim(1)
    own = b"o" * 900_000
    assert scientist.call("PUT", f"/blobs/{sha(own)}", data=own).status_code == 201

    assert bring(who, chunk, b"a" * 200_000) == 503
    assert scientist.call("PUT", f"/blobs/{sha(GOOD)}", data=GOOD).status_code == 413


@pytest.mark.parametrize("why", ["resting", "settled"])
def test_a_containers_upload_that_rests_or_is_of_no_use_is_forgotten_within_minutes(
    server: Any, new_key: Any, stores: Any, raw: Any, why: str
) -> None:
    app = server()
    scientist, who = Scientist(app, new_key("scientist")), Volunteer(app, new_key("volunteer"))
    scientist.running(1, outputs=["*"])
    [chunk] = who.claim(1)
    assert bring(who, chunk, GOOD[:MIB], len(GOOD)) == 202
    assert scientist.call("PUT", f"/blobs/{sha(b'own')}", data=b"o", headers={"Content-Range": "bytes 0-0/3"})
    before = DropUploads(stores)(stores.clock.now())
    if why == "settled":
        assert who.add(who.attempt(chunk)).status_code == 200

    early = DropUploads(stores)(stores.clock.now() + timedelta(minutes=2))
    late = DropUploads(stores)(stores.clock.now() + timedelta(minutes=11))

    assert (before, early, late) == ((0, 1, 0) if why == "settled" else (0, 0, 1))
    assert [one["who"] for one in raw.blob_uploads.find({})] == [
        raw.accounts.find_one({"role": "scientist"})["_id"]
    ]
    assert raw["blob_files.chunks"].count_documents({}) == 0


def test_the_smallest_blob_counts_for_what_it_costs(server: Any, new_key: Any) -> None:
    scientist = Scientist(server(quota=10_000), new_key("scientist"))

    statuses = [
        scientist.call("PUT", f"/blobs/{sha(data)}", data=data).status_code for data in (b"a", b"b", b"c")
    ]

    assert statuses == [201, 201, 413] and usage(scientist) == 8192


# --- what the server itself stores


def streaming(blobs: Blobs, who: str = "ada") -> Fed:
    return Fed(lambda fed: blobs.put_stream(who, cast(Any, fed)))


def test_streams_take_the_places_of_those_who_write(stores: Any) -> None:
    blobs = Blobs(stores)
    held = [streaming(blobs) for _ in range(service.EACH)]

    refused = streaming(blobs)
    for n, one in enumerate(held):
        one.feed(b"%d" % n, last=True)

    assert isinstance(refused.answer, Unavailable)
    assert [cast(Any, one.answer)[1] for one in held] == [1] * service.EACH
    assert streaming(blobs).answer is None


def test_streams_count_while_they_come_and_end_when_there_is_no_room_any_more(
    stores: Any, raw: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(service, "STEP", 1)
    blobs = Blobs(stores, BlobLimits(largest=8 * MIB, quota=5 * MIB))
    first, second = streaming(blobs), streaming(blobs)

    first.feed(b"a" * 3 * MIB)
    counted = blobs.usage("ada")
    second.feed(b"b" * 3 * MIB)
    first.feed(b"a", last=True)

    assert counted == 3 * MIB and isinstance(second.answer, OverQuota)
    assert cast(Any, first.answer)[1] == 3 * MIB + 1 == blobs.usage("ada")
    assert raw.blob_uploads.count_documents({}) == 0 and raw["blob_files.chunks"].count_documents({}) == 4


def test_a_stream_that_cannot_fit_is_not_read(stores: Any) -> None:
    blobs = Blobs(stores, BlobLimits(largest=8 * MIB, quota=5 * MIB))

    for size, says in ((6 * MIB, "more would bring"), (9 * MIB, "A blob has at most")):
        with pytest.raises(TooLarge, match=says):
            blobs.put_stream("ada", cast(Any, None), expected=size)


# --- the files of a task


def test_a_list_of_files_looks_at_so_many_chunks_and_says_where_to_go_on(
    scientist: Scientist, monkeypatch: Any
) -> None:
    task = scientist.running(5, outputs=["*"])
    monkeypatch.setattr(result_files, "PAGE", 1)
    monkeypatch.setattr(result_files, "PAGES", 2)

    def places() -> Iterator[int | None]:
        start: int | None = 0
        while start is not None:
            said = scientist.ok("GET", f"/tasks/{task}/files?from={start}")
            assert said["files"] == []
            yield (start := said["next"])

    assert list(places()) == [2, 4, None]
