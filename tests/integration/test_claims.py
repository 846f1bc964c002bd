"""What a claim gets: whose turn it is, which chunks may be taken by whom, how many, stragglers, canaries, labels."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from source_server.domain.chunk import MAX_LISTED, Candidate, Chunk, Failure, Lease
from source_server.domain.eligibility import Bar, Crowd, Taker, bar
from source_server.domain.validation import Distinct, Same, Validation
from source_server.services.containers.live import LiveContainers
from source_server.services.dispatch.claim import Claim
from source_server.services.dispatch.paces import FLUSH_S, Paces
from source_server.services.dispatch.turns import Turns
from source_server.stores.chunks import Chunks
from source_server.stores.connection import PrimaryClock

TWO = {"quorum": 2}


class Clock:
    """The primary's clock, to be set forward."""

    def __init__(self, clock: PrimaryClock) -> None:
        self._clock = clock
        self.ahead = timedelta()

    def now(self) -> datetime:
        return self._clock.now() + self.ahead


class Desk:
    """The claiming service by itself, with a clock and dice that the test holds."""

    def __init__(self, stores: Any, **extra: Any) -> None:
        self.clock = Clock(stores.clock)
        self.stores = replace(stores, clock=self.clock)
        self.instant = 0.0
        self.paces = Paces(self.stores, lambda: self.instant)
        self.claim = Claim(
            self.stores,
            beat_s=20.0,
            secret=b"secret",
            live=LiveContainers(self.stores, lambda: self.instant),
            paces=self.paces,
            monotonic=lambda: self.instant,
            dice=random.Random(7),
            **extra,
        )

    def give(self, who: Any, want: int = 1) -> list[str]:
        """Ids of the chunks that a volunteer's container gets."""
        container = self.stores.containers.find(who.id)
        claimed = self.claim(container, str(uuid.uuid4()), want)
        return [one.chunk.id for one in claimed.granted]

    def later(self, seconds: float) -> None:
        self.instant += seconds
        self.clock.ahead += timedelta(seconds=seconds)


@pytest.fixture
def desk(stores: Any) -> Desk:
    return Desk(stores)


@pytest.fixture
def accounts(new_key: Callable[[str], str], volunteer: Any) -> Callable[..., Any]:
    """Makes volunteers, each of an account of its own."""
    return lambda **extra: volunteer(account_key=new_key("volunteer"), **extra)


def task_of(chunk: dict[str, Any] | str) -> str:
    return (chunk if isinstance(chunk, str) else chunk["id"]).partition(".")[0]


def account_of(stores: Any, who: Any) -> str:
    return str(stores.containers.find(who.id).account)


def quarantine(raw: Any, stores: Any, who: Any) -> None:
    key = {"_id": f"{account_of(stores, who)} {who.host}"}
    raw.hosts.update_one(key, {"$set": {"quarantined": stores.clock.now(), "passed": 0}})


# --- whose turn it is


def test_projects_get_machine_time_in_proportion_to_their_shares(scientist: Any, volunteer: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "large", "share": 3})
    large, small = scientist.running(60, project="large"), scientist.running(60, project="small")
    who = volunteer()

    given = Counter(task_of(chunk) for _ in range(40) for chunk in who.claim())

    assert given[large] == pytest.approx(30, abs=2) and given[small] == pytest.approx(10, abs=2)


def test_a_newcomer_neither_waits_nor_takes_all(desk: Desk, scientist: Any, volunteer: Any) -> None:
    first = scientist.running(60, project="a-first")
    who = volunteer()
    for _ in range(10):
        desk.give(who)
    second = scientist.running(60, project="b-second")
    desk.later(1.1)  # the list of running tasks may be a second old

    given = Counter(task_of(chunk) for _ in range(20) for chunk in desk.give(who))

    assert given == {first: 10, second: 10}


def test_one_burst_is_charged_at_once_so_that_the_next_claim_is_anothers(
    desk: Desk, scientist: Any, volunteer: Any
) -> None:
    one, other = scientist.running(60, project="one"), scientist.running(60, project="other")
    who = volunteer()

    bursts = [desk.give(who, 10) for _ in range(7)]

    assert [len(burst) for burst in bursts] == [10] * 7
    served = [{task_of(chunk) for chunk in burst} for burst in bursts]
    assert served[:2] == [{one}, {other}] and (served.count({one}), served.count({other})) == (4, 3)


def test_a_projects_priority_is_strict_and_the_operators_to_set(
    scientist: Any, admin: Any, volunteer: Any
) -> None:
    plain, urgent = scientist.running(5, project="plain"), scientist.running(5, project="urgent")
    refused = scientist.call("PATCH", "/projects/urgent", {"priority": 1})
    admin.ok("PATCH", "/projects/urgent", {"priority": 1})

    given = [task_of(chunk) for _ in range(10) for chunk in volunteer().claim()]

    assert refused.status_code == 403 and "operator" in refused.get_json()["error"]
    assert given == [urgent] * 5 + [plain] * 5


def test_within_a_project_priority_goes_first_and_then_who_runs_longest(
    scientist: Any, volunteer: Any
) -> None:
    tasks = {
        name: scientist.running(2, priority=priority)
        for name, priority in (("old", 0), ("late", 0), ("high", 5), ("low", -5))
    }
    who = volunteer()

    given = [task_of(chunk) for _ in range(8) for chunk in who.claim()]

    order = [tasks[name] for name in ("high", "old", "late", "low")]
    assert given == [task for task in order for _ in range(2)]


def test_usage_is_summed_and_written_every_few_seconds_only(
    desk: Desk, scientist: Any, volunteer: Any, raw: Any
) -> None:
    scientist.running(60, timeout_s=4.0)
    who = volunteer()

    for _ in range(5):
        desk.give(who)
    early = raw.projects.find_one({})["usage"]
    desk.later(FLUSH_S)
    desk.give(who)

    assert early is None
    assert raw.projects.find_one({})["usage"] == pytest.approx(24.0, abs=0.1)


def test_what_a_newcomer_used_is_written_on_top_of_the_lowest_figure(
    stores: Any, scientist: Any, raw: Any
) -> None:
    for name in ("old", "new"):
        scientist.ok("POST", "/projects", {"name": name, "share": 2})
    now = stores.clock.now()
    raw.projects.update_one({"_id": "old"}, {"$set": {"usage": 100.0, "usage_as_of": now}})
    instant = [0.0]
    turns = Turns(stores, lambda: instant[0])

    order = [one.id for one in turns.projects(["old", "new"])]
    instant[0] = FLUSH_S
    turns.charge("new", 7.0)

    assert order == ["new", "old"]
    assert raw.projects.find_one({"_id": "new"})["usage"] == pytest.approx(107.0, abs=0.1)


def test_fifty_tasks_without_a_ready_chunk_do_not_hide_the_fifty_first(
    scientist: Any, volunteer: Any
) -> None:
    for _ in range(51):
        scientist.running(1)
    who = volunteer()
    others = {chunk["id"] for _ in range(50) for chunk in who.claim()}

    (last,) = volunteer().claim()

    assert len(others) == 50 and last["id"] not in others


# --- to whom it was dealt


def test_in_an_assigned_only_project_a_chunk_goes_only_to_whom_it_was_dealt(
    scientist: Any, volunteer: Any, raw: Any, stores: Any
) -> None:
    scientist.ok("POST", "/projects", {"name": "closed", "assigned_only": True})
    scientist.running(4, project="closed")
    who, other = volunteer(), volunteer()
    life = stores.containers.find(who.id).life
    mine = [one["_id"] for one in raw.chunks.find({}, limit=2)]
    raw.chunks.update_many(
        {"_id": {"$in": mine}}, {"$set": {"assigned": {"container": who.id, "life": life}}}
    )

    assert other.claim(4) == []
    assert {chunk["id"] for chunk in who.claim(4)} == set(mine)
    assert other.claim(4) == []


def test_of_a_busy_container_at_most_half_is_taken_and_of_one_that_is_gone_all(
    desk: Desk, scientist: Any, volunteer: Any, raw: Any, stores: Any
) -> None:
    scientist.running(8)
    busy, gone, idle = volunteer(), volunteer(), volunteer()
    for index, chunk in enumerate(raw.chunks.find({})):
        life = stores.containers.find(busy.id).life if index < 5 else "an ended life"
        holder = {"container": busy.id if index < 5 else gone.id, "life": life}
        raw.chunks.update_one({"_id": chunk["_id"]}, {"$set": {"assigned": holder}})

    first = desk.give(idle, 8)
    desk.later(3.0)
    second = desk.give(idle, 8)

    assert (len(first), len(second)) == (3, 3)
    assert raw.chunks.count_documents({"assigned.container": gone.id}) == 0
    assert raw.chunks.count_documents({"assigned.container": busy.id}) == 2


# --- who may take which chunk


def test_under_a_quorum_an_account_gets_each_chunk_once(
    scientist: Any, volunteer: Any, accounts: Any
) -> None:
    scientist.running(6, validation=TWO)
    one, same, other = volunteer(), volunteer(), accounts()

    first = {chunk["id"] for chunk in one.claim(6)}
    second = same.claim(6)
    third = {chunk["id"] for chunk in other.claim(6)}

    assert len(first) == 6 and second == [] and third == first


def test_a_host_that_failed_a_chunk_gets_it_again_only_when_no_other_is_there(
    scientist: Any, volunteer: Any, stores: Any, raw: Any
) -> None:
    scientist.running(1)
    one, other = volunteer(), volunteer()
    who = {"host": one.host, "account": account_of(stores, one)}
    failed = {"error": "e", **who, "signature": "s", "bad_data": False}
    raw.chunks.update_one({}, {"$set": {"failed": [failed]}})

    assert one.claim() == []
    assert len(other.claim()) == 1


def test_replicas_stay_on_one_platform_where_the_task_asks_for_it(
    scientist: Any, accounts: Any, raw: Any
) -> None:
    scientist.running(3, validation={**TWO, "same": "arch"})
    first, arm, intel = (accounts(labels={"arch": arch}) for arch in ("x86_64", "arm64", "x86_64"))
    taken = {chunk["id"] for chunk in first.claim(3)}

    assert arm.claim(3) == []
    assert {chunk["id"] for chunk in intel.claim(3)} == taken
    assert {one["platform"] for chunk in raw.chunks.find({}) for one in chunk["leases"]} == {"x86_64"}


def test_the_one_eligible_chunk_among_five_thousand_is_found_in_a_few_steps(
    desk: Desk, scientist: Any, volunteer: Any, accounts: Any, raw: Any, stores: Any
) -> None:
    scientist.running(5000, validation=TWO)
    early, late = volunteer(), volunteer()
    given = Candidate(
        result="r", account=account_of(stores, early), host=early.host, container=early.id, digest="d"
    )
    only = raw.chunks.find_one({})["_id"]
    raw.chunks.update_many({"_id": {"$ne": only}}, {"$set": {"candidates": [vars(given)], "wanted": 1}})

    found: list[str] = []
    for _ in range(8):
        found += desk.give(late, 5)
        desk.later(0.6)

    assert found == [only]
    assert len(desk.give(accounts(), 5)) == 5


def test_that_nothing_is_eligible_is_believed_for_two_seconds_and_only_of_those_it_is_true_of(
    desk: Desk, scientist: Any, volunteer: Any, accounts: Any, raw: Any
) -> None:
    task = scientist.running(3, validation=TWO)
    one, same = volunteer(), volunteer()
    desk.give(one, 3)

    nothing = desk.give(same, 3)
    raw.chunks.update_one({"task": task}, {"$set": {"leases": [], "wanted": 2}})
    still, another = desk.give(same, 3), desk.give(accounts(), 1)
    desk.later(2.1)

    assert (nothing, still) == ([], [])
    assert len(another) == 1
    assert len(desk.give(same, 3)) == 1


@pytest.mark.parametrize("seed", range(6))
def test_what_the_database_looks_for_never_leaves_out_a_chunk_that_may_be_taken(
    stores: Any, seed: int
) -> None:
    dice = random.Random(seed)
    rule = Validation(
        quorum=dice.choice([1, 2, 3]), distinct=dice.choice(list(Distinct)), same=dice.choice(list(Same))
    )
    crowd = Crowd(takers=tuple(_taker(dice) for _ in range(dice.randint(0, 4))))
    chunks = [_chunk(dice, n) for n in range(300)]
    stores.chunks.add(chunks)

    for taker in (_taker(dice) for _ in range(10)):
        found = stores.windows.eligible("t", "u", taker, rule, crowd, start=0.0, end=1.0, limit=1000)
        bars = {one.id: bar(one, taker, rule, crowd) for one in chunks}
        may = {chunk for chunk, why in bars.items() if why is None}
        besides = {bars[one.id] for one in found} - {None}

        assert may <= {one.id for one in found}
        # Under a quorum who else is there matters for three of the bars: those are looked at afterwards.
        known = {Bar.UNPROVED, Bar.FAILED_HERE, Bar.PLATFORM} if rule.checks else set()
        # Which variants were tried the database does not look at.
        assert besides <= known | ({Bar.VARIANT} if rule.distinct is Distinct.VARIANT else set())


def _taker(dice: random.Random) -> Taker:
    return Taker(
        container=dice.choice("xyz"),
        host=dice.choice("hij"),
        account=dice.choice("ab"),
        platform=dice.choice(["", "p"]),
        established=dice.random() < 0.3,
        variants=dice.choice([(), ("v",), ("v", "w")]),
    )


def _chunk(dice: random.Random, n: int) -> Chunk:
    def given(number: int) -> dict[str, Any]:
        taker = _taker(dice)
        return {
            name: getattr(taker, name) for name in ("container", "host", "account", "platform", "established")
        }

    now = datetime(2026, 11, 22)
    times = {"since": now, "until": now, "token": "k", "life": "l"}
    chunk = Chunk(id=f"t.{n}", project="p", task="t", n=n, r=dice.random(), rev=n, upload="u", wanted=1)
    return replace(
        chunk,
        variant=dice.choice([None, None, "v", "w"]),
        leases=tuple(
            Lease(**given(i), variant=dice.choice("vwx"), **times) for i in range(dice.randint(0, 2))
        ),  # type: ignore[arg-type]
        candidates=tuple(Candidate(result=str(i), digest="d", **given(i)) for i in range(dice.randint(0, 2))),
        failed=tuple(
            Failure(error=str(i), host=dice.choice("hij"), account="a", signature="s")
            for i in range(dice.randint(0, 3))
        )[:MAX_LISTED],
    )


def test_claims_at_once_under_a_quorum_never_give_an_account_a_chunk_twice(
    scientist: Any, volunteer: Any, accounts: Any, raw: Any
) -> None:
    scientist.running(10, validation={"quorum": 2, "replicas": 3})
    account_keys = [accounts().account_key for _ in range(3)]
    crowd = [volunteer(account_key=key) for key in account_keys for _ in range(4)]
    gate = threading.Barrier(len(crowd))

    def some(who: Any) -> None:
        gate.wait()
        for _ in range(6):
            who.claim(2)

    threads = [threading.Thread(target=some, args=(who,)) for who in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for chunk in raw.chunks.find({}):
        holders = [lease["account"] for lease in chunk["leases"]]
        assert len(holders) == len(set(holders)) <= 3


def test_beaten_everywhere_a_container_is_told_to_ask_again_at_once(
    scientist: Any, volunteer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scientist.running(5)
    who = volunteer()
    looks: list[float] = []
    really = type(who).call

    with monkeypatch.context() as patch:
        # Others win every candidate between the look and the write.
        patch.setattr(Chunks, "apply", lambda self, changes, **rest: looks.append(0.0) or set())
        answer = really(who, "POST", "/next", {"token": str(uuid.uuid4()), "want": 1})

    assert (answer.status_code, answer.headers["Retry-After"]) == (204, "0")
    assert len(looks) == 4
    assert len(who.claim()) == 1


# --- how many


def test_a_new_host_holds_two_chunks_for_each_container_and_then_hears_later(
    scientist: Any, volunteer: Any
) -> None:
    scientist.running(20)
    one = volunteer(newcomer=True)
    two = volunteer(newcomer=True, host=one.host)

    first, second = one.claim(10), two.claim(10)
    third = one.call("POST", "/next", {"token": str(uuid.uuid4()), "want": 1})

    assert len(first) + len(second) == 4
    assert (third.status_code, third.headers["Retry-After"]) == (204, "1")


def test_a_host_may_hold_more_after_answers_and_less_after_failures(scientist: Any, volunteer: Any) -> None:
    scientist.running(20)
    who = volunteer(newcomer=True)

    first = who.claim(10)
    who.add(*(who.attempt(chunk) for chunk in first))
    second = who.claim(10)
    who.add(*(who.failure(chunk) for chunk in second))
    third = who.claim(10)

    assert [len(first), len(second)] == [2, 4]
    assert len(third) < 4


def test_another_account_under_the_same_hosts_id_uses_up_nothing(
    scientist: Any, volunteer: Any, accounts: Any
) -> None:
    scientist.running(20)
    victim = volunteer(newcomer=True)
    thief = accounts(host=victim.host)
    thief.claim(10)

    assert len(victim.claim(10)) == 2


@pytest.mark.parametrize(
    ("timeout_s", "took_s", "expected"),
    [(60.0, None, 10), (3600.0, None, 1), (60.0, 40.0, 15), (3600.0, 1000.0, 1)],
)
def test_a_claim_brings_ten_minutes_of_work_at_most(
    desk: Desk, scientist: Any, volunteer: Any, timeout_s: float, took_s: float | None, expected: int
) -> None:
    task = scientist.running(40, timeout_s=timeout_s)
    if took_s is not None:
        desk.paces.finished(task, took_s, True)

    assert len(desk.give(volunteer(), 30)) == expected


def test_validators_get_four_chunks_a_claim(scientist: Any, volunteer: Any, raw: Any, stores: Any) -> None:
    task = scientist.running(10)
    raw.tasks.update_one({"_id": task}, {"$set": {"validates": "another"}})
    who = volunteer()
    stores.containers.set_trusted(who.id, True)

    assert volunteer().claim(10) == []
    assert len(who.claim(10)) == 4


# --- paces


def test_paces_are_written_every_few_seconds_and_keep_the_last_two_hundred(stores: Any, raw: Any) -> None:
    instant = [0.0]
    paces, other = Paces(stores, lambda: instant[0]), Paces(stores, lambda: instant[0])

    for n in range(150):
        paces.finished("t", float(n), n % 10 != 0)
    early = raw.paces.find_one({})
    for n in range(150, 251):
        instant[0] += FLUSH_S if n in (150, 250) else 0.0
        paces.finished("t", float(n), n % 10 != 0 or n == 250)

    assert early is None
    stored = raw.paces.find_one({"_id": "t"})
    assert (len(stored["recent"]), stored["ok"], stored["failed"]) == (200, 226, 25)
    pace = other.of("t")
    assert pace is not None and pace.ended == 251 and pace.mean_s == pytest.approx(150.5)


def test_what_a_process_has_not_written_yet_it_knows_all_the_same(stores: Any) -> None:
    paces = Paces(stores)

    before = paces.of("t")
    paces.finished("t", 3.0, True)
    after = paces.of("t")

    assert before is None
    assert after is not None and (after.mean_s, after.ended) == (3.0, 1)


# --- stragglers


def start_all(raw: Any, now: datetime) -> None:
    raw.chunks.update_many({"leases.0": {"$exists": True}}, {"$set": {"leases.$[].started": now}})


def test_a_straggler_gets_one_more_attempt_on_another_host_and_the_first_goes_on(
    desk: Desk, scientist: Any, volunteer: Any, raw: Any
) -> None:
    task = scientist.running(1, timeout_s=3600.0)
    slow, quick, third = volunteer(), volunteer(), volunteer()
    neighbour = volunteer(host=slow.host)
    for _ in range(10):
        desk.paces.finished(task, 100.0, True)
    (chunk,) = desk.give(slow)
    start_all(raw, desk.clock.now())

    desk.later(190.0)
    early = desk.give(quick)
    desk.later(20.0)
    same_host, hedge, another = desk.give(neighbour), desk.give(quick), desk.give(third)

    assert (early, same_host, hedge, another) == ([], [], [chunk], [])
    leases = raw.chunks.find_one({})["leases"]
    assert [lease["container"] for lease in leases] == [slow.id, quick.id]


def test_nobody_straggles_within_a_minute_nor_before_the_timeout_while_little_is_known(
    desk: Desk, scientist: Any, volunteer: Any, raw: Any
) -> None:
    trivial, unknown = scientist.running(1, timeout_s=3600.0), scientist.running(1, timeout_s=3600.0)
    slow, idle = volunteer(), volunteer()
    for _ in range(10):
        desk.paces.finished(trivial, 0.1, True)
    for _ in range(9):
        desk.paces.finished(unknown, 0.1, True)
    desk.give(slow, 2)
    start_all(raw, desk.clock.now())

    desk.later(55.0)
    early = desk.give(idle)
    desk.later(10.0)
    then = desk.give(idle)
    desk.later(3600.0)

    assert early == [] and [task_of(chunk) for chunk in then] == [trivial]
    raw.chunks.update_many({"task": trivial}, {"$set": {"state": "done"}})
    assert [task_of(chunk) for chunk in desk.give(idle)] == [unknown]


def test_only_a_tenth_of_the_live_containers_hedge(
    desk: Desk, scientist: Any, volunteer: Any, raw: Any
) -> None:
    task = scientist.running(5, timeout_s=100.0)
    slow = volunteer()
    crowd = [volunteer() for _ in range(20)]
    assert len(desk.give(slow, 5)) == 5
    start_all(raw, desk.clock.now())

    desk.later(101.0)
    given = [chunk for who in crowd for chunk in desk.give(who, 5)]

    assert len(given) == 2 and {task_of(chunk) for chunk in given} == {task}


def test_what_waits_in_a_batch_is_no_straggler(desk: Desk, scientist: Any, volunteer: Any) -> None:
    scientist.running(1, timeout_s=1.0)
    desk.give(volunteer())

    desk.later(3600.0)

    assert desk.give(volunteer()) == []


def test_an_assigned_only_project_has_no_hedges(desk: Desk, scientist: Any, volunteer: Any, raw: Any) -> None:
    scientist.running(1, timeout_s=1.0)
    desk.give(volunteer())
    start_all(raw, desk.clock.now())
    scientist.ok("PATCH", "/projects/sums", {"assigned_only": True})

    desk.later(3600.0)

    assert desk.give(volunteer()) == []


# --- canaries


def settle(who: Any, count: int) -> set[str]:
    """Have a volunteer answer so many chunks; their ids."""
    chunks = who.claim(count)
    assert len(chunks) == count and who.add(*(who.attempt(chunk) for chunk in chunks)).status_code == 200
    return {chunk["id"] for chunk in chunks}


def test_a_quarantined_host_gets_settled_chunks_of_others_one_at_a_time_and_no_other(
    scientist: Any, volunteer: Any, raw: Any, stores: Any
) -> None:
    scientist.running(10)
    sound, bad = volunteer(), volunteer()
    own, others = settle(bad, 2), settle(sound, 3)
    quarantine(raw, stores, bad)

    (canary,) = bad.claim(4)
    (again,) = bad.claim(4)

    assert {canary["id"], again["id"]} <= others and not {canary["id"], again["id"]} & own
    chunk = raw.chunks.find_one({"_id": canary["id"]})
    assert chunk["state"] == "done" and [lease["canary"] for lease in chunk["leases"]] == [True]
    assert canary["input"] and canary["ticket"]


def test_a_canary_is_delivered_like_any_chunk_and_changes_nothing(
    scientist: Any, volunteer: Any, raw: Any, stores: Any
) -> None:
    scientist.running(3)
    sound, bad = volunteer(), volunteer()
    settle(sound, 1)
    quarantine(raw, stores, bad)
    (canary,) = bad.claim()
    before = raw.chunks.find_one({"_id": canary["id"]})

    assert bad.add(bad.attempt(canary, "wrong\n")).status_code == 200

    after = raw.chunks.find_one({"_id": canary["id"]})
    assert (after["state"], after["result"]) == (before["state"], before["result"])


def test_where_every_host_that_fits_is_quarantined_they_get_ordinary_work(
    scientist: Any, volunteer: Any, raw: Any, stores: Any
) -> None:
    plain, picky = scientist.running(3), scientist.running(3, requires={"room": "attic"})
    attic = volunteer(labels={"room": "attic"})
    quarantine(raw, stores, attic)
    volunteer()

    given = {task_of(chunk) for _ in range(6) for chunk in attic.claim()}

    assert given == {picky} and plain not in given


def test_a_canary_among_others_takes_a_place_and_looks_like_them(
    scientist: Any, volunteer: Any, raw: Any, stores: Any
) -> None:
    scientist.running(200, validation={"quorum": 1, "canaries": 0.5})
    sound, tested = volunteer(), volunteer()
    settled = settle(sound, 5)

    claims = [tested.claim(4) for _ in range(40)]

    seen = [[chunk["id"] in settled for chunk in claim] for claim in claims]
    with_one = [flags for flags in seen if any(flags)]
    # Five settled chunks, each at most once for one host; which claims get one is up to the dice.
    assert 1 <= len(with_one) <= 5 and all(sum(flags) == 1 for flags in with_one)
    assert {len(claim) for claim in claims} == {4}
    assert {frozenset(chunk) for claim in claims for chunk in claim} == {frozenset(claims[0][0])}


# --- labels and resources


@pytest.mark.parametrize(
    ("requires", "fits"),
    [
        ({"arch": "x86_64"}, True),
        ({"arch": ["arm64", "x86_64"]}, True),
        ({"arch": "arm64"}, False),
        ({"memory_mb": {"at_least": 4096}}, True),
        ({"memory_mb": {"at_least": 4097}}, False),
        ({"floor": 3, "cpus": 2}, True),
        ({"floor": [1, 2]}, False),
        ({"gpu": "any"}, False),
        ({"arch": {"at_least": 1}}, False),
    ],
)
def test_a_chunk_goes_only_where_labels_and_resources_meet_what_its_job_requires(
    scientist: Any, volunteer: Any, requires: dict[str, Any], fits: bool
) -> None:
    task = scientist.running(1, requires=requires)
    who = volunteer(labels={"arch": "x86_64", "floor": 3}, resources={"memory_mb": 4096, "cpus": 2})

    assert bool(who.claim()) is fits
    shown = scientist.ok("GET", f"/tasks/{task}")["requires"]
    assert shown.keys() == requires.keys()


@pytest.mark.parametrize(
    "requires",
    [
        {"arch": None},
        {"arch": True},
        {"arch": []},
        {"arch": [["x"]]},
        {"arch": {"at_least": "much"}},
        {"arch": {"at_least": 1, "at_most": 2}},
        {"arch": {}},
        {"arch": 10**30},
        {"arch": "x" * 201},
        {"arch": "a\0b"},
        {"": "x"},
        {"x" * 201: "x"},
        {f"l{n}": "x" for n in range(33)},
        [],
        "arch",
    ],
)
def test_requirements_of_the_wrong_form_are_refused_with_a_sentence(scientist: Any, requires: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})

    answer = scientist.call("POST", "/projects/sums/tasks", {"action": ["/bin/cat"], "requires": requires})

    assert answer.status_code == 400 and answer.get_json()["error"].startswith("The field 'requires'")


@pytest.mark.parametrize("priority", [1001, -1001, 0.5, "1", True])
def test_a_priority_is_a_whole_number_within_a_thousand(scientist: Any, priority: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})

    answer = scientist.call("POST", "/projects/sums/tasks", {"action": ["/bin/cat"], "priority": priority})

    assert answer.status_code == 400 and "priority" in answer.get_json()["error"]


# --- projects


def test_a_project_shows_its_policy_and_changes_what_is_named(scientist: Any) -> None:
    made = scientist.ok("POST", "/projects", {"name": "sums", "share": 2.5})
    again = scientist.ok("POST", "/projects", {"name": "sums"})
    changed = scientist.ok("PATCH", "/projects/sums", {"assigned_only": True})

    plain = {"id": "sums", "share": 2.5, "priority": 0, "assigned_only": False}
    assert {name: made[name] for name in plain} == plain
    assert again == made and changed == {**made, "assigned_only": True}
    assert scientist.ok("GET", "/projects")["projects"] == [changed]


@pytest.mark.parametrize(
    "policy", [{"share": 0.001}, {"share": 1001}, {"share": "2"}, {"assigned_only": 1}, {"colour": "red"}]
)
def test_a_policy_out_of_its_bounds_is_refused_by_name(scientist: Any, policy: dict[str, Any]) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})

    answer = scientist.call("PATCH", "/projects/sums", policy)

    assert answer.status_code == 400 and next(iter(policy)) in answer.get_json()["error"]


def test_anothers_project_is_not_there_to_be_changed(scientist: Any, app: Any, new_key: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    stranger = type(scientist)(app, new_key("scientist"))

    assert stranger.call("PATCH", "/projects/sums", {"share": 2}).status_code == 404
    assert stranger.ok("GET", "/projects")["projects"] == []


def test_a_projects_rule_for_checking_is_that_of_its_later_tasks(scientist: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "sums", "validation": {"quorum": 2}})

    task = scientist.task(1)

    assert scientist.ok("GET", f"/tasks/{task}")["validation"]["quorum"] == 2
