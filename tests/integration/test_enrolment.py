"""`POST /enrol`: how a newcomer with a machine to lend gets an account, and how the operator decides who may."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from people import Volunteer

from source_server.services.accounts.enrol import Enrol

pytestmark = pytest.mark.mongo

WEEK = timedelta(days=7)


@pytest.fixture
def service(stores: Any) -> Enrol:
    return Enrol(stores)


@pytest.fixture
def half_past(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's clock stands in the middle of an hour: none ends during the test."""
    stands = stores.clock.now().replace(minute=30)
    monkeypatch.setattr(stores.clock, "now", lambda: stands)


def post(app: Any, **body: Any) -> Any:
    return app.test_client().post("/enrol", json=body)


def test_a_key_makes_one_account_that_registers_containers_and_nothing_else(app: Any, service: Enrol) -> None:
    key = service.make_key(uses=1, valid=WEEK)

    made = post(app, key=key, email="ada@example.org", host_name="attic", from_the_future=1)
    again = post(app, key=key)

    assert made.status_code == 201 and made.get_json()["key"].startswith("dca_")
    who = Volunteer(app, made.get_json()["key"])
    assert who.call("GET", "/containers").status_code in (200, 401)  # a container's own key is no account's
    who.key = who.account_key
    assert who.call("POST", "/projects", {"name": "sums"}).status_code == 403
    assert again.status_code == 403 and "has been used" in again.get_json()["error"]


def test_the_address_is_recorded_and_the_key_is_not(app: Any, service: Enrol, raw: Any) -> None:
    key = service.make_key(uses=1, valid=WEEK)
    made = post(app, key=key, email="ada@example.org", host_name="attic").get_json()

    [account] = raw.accounts.find({"name": made["account"]})

    assert account["enrolment"]["email"] == "ada@example.org" and account["enrolment"]["host_name"] == "attic"
    assert account["role"] == "volunteer" and "ada" not in account["pseudonym"]
    stored = str(list(raw.accounts.find()) + list(raw.enrolments.find()))
    assert key not in stored and made["key"] not in stored


def test_of_many_at_once_one_gets_the_last_use(app: Any, service: Enrol, raw: Any) -> None:
    key = service.make_key(uses=2, valid=WEEK)

    with ThreadPoolExecutor(12) as pool:
        statuses = sorted(pool.map(lambda _: post(app, key=key).status_code, range(12)))

    assert statuses == [201, 201] + [403] * 10
    assert raw.accounts.count_documents({"enrolment": {"$exists": True}}) == 2


def test_after_a_lost_answer_the_same_request_gives_the_same_account_and_another_key(
    app: Any, service: Enrol, raw: Any
) -> None:
    key, nonce = service.make_key(uses=1, valid=WEEK), "4f2a" * 8

    lost, again = (post(app, key=key, nonce=nonce) for _ in range(2))
    another = post(app, key=key, nonce="beef" * 8)

    assert (lost.status_code, again.status_code, another.status_code) == (201, 201, 403)
    assert lost.get_json()["account"] == again.get_json()["account"]
    keys = [one.get_json()["key"] for one in (lost, again)]
    known = [
        app.test_client().get("/containers", headers={"Authorization": f"Bearer {one}"}).status_code
        for one in keys
    ]
    assert known == [401, 200]
    assert nonce not in str(list(raw.enrolments.find()))


def test_a_request_is_the_same_for_an_hour(app: Any, service: Enrol, raw: Any) -> None:
    key, nonce = service.make_key(uses=2, valid=WEEK), "4f2a" * 8
    first = post(app, key=key, nonce=nonce).get_json()
    hour_ago = service._stores.clock.now() - timedelta(minutes=61)
    raw.enrolments.update_one({"kind": "key"}, {"$set": {"entries.0.at": hour_ago}})

    second, third = (post(app, key=key, nonce=nonce).get_json() for _ in range(2))

    assert first["account"] != second["account"] == third["account"]


def test_a_use_that_was_taken_by_a_request_that_got_no_further_is_not_lost(
    app: Any, service: Enrol, raw: Any
) -> None:
    key, nonce = service.make_key(uses=1, valid=WEEK), "4f2a" * 8
    post(app, key=key, nonce=nonce)
    raw.accounts.delete_many({"enrolment": {"$exists": True}})

    assert post(app, key=key, nonce=nonce).status_code == 201


def test_the_same_request_many_times_at_once_makes_one_account(app: Any, service: Enrol, raw: Any) -> None:
    key = service.make_key(uses=5, valid=WEEK)

    with ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(lambda _: post(app, key=key, nonce="4f2a" * 8).status_code, range(8)))

    assert 201 in statuses <= {201, 503}
    assert raw.accounts.count_documents({"enrolment": {"$exists": True}}) == 1
    assert raw.enrolments.find_one({"kind": "key"})["left"] == 4


@pytest.mark.usefixtures("half_past")
def test_through_the_open_door_a_repeat_is_not_counted(app: Any, service: Enrol) -> None:
    service.open(per_hour=1)
    first, again = (post(app, nonce="4f2a" * 8) for _ in range(2))

    assert first.get_json()["account"] == again.get_json()["account"]
    assert post(app, nonce="beef" * 8).status_code == 429
    assert post(app, nonce="guessed").status_code == 400


def test_an_expired_key_says_so_and_an_unknown_one_is_unknown(app: Any, service: Enrol, raw: Any) -> None:
    key = service.make_key(uses=1, valid=WEEK)
    raw.enrolments.update_one({"kind": "key"}, {"$set": {"expires": service._stores.clock.now()}})

    expired, unknown = post(app, key=key), post(app, key="dce_nobody")

    assert expired.status_code == 403 and "expired on" in expired.get_json()["error"]
    assert unknown.status_code == 401 and "not known" in unknown.get_json()["error"]


def test_without_a_key_one_is_asked_for_until_the_operator_opens_the_door(app: Any, service: Enrol) -> None:
    before = post(app)
    service.open(per_hour=100)
    meanwhile = post(app)
    bad_key = post(app, key="dce_nobody")
    service.close()
    after = post(app)

    assert [one.status_code for one in (before, meanwhile, bad_key, after)] == [401, 201, 401, 401]
    assert "asks for an enrolment key" in before.get_json()["error"]


@pytest.mark.usefixtures("half_past")
def test_so_many_an_hour_come_through_the_open_door_however_many_try_at_once(
    app: Any, service: Enrol
) -> None:
    service.open(per_hour=5)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: post(app), range(20)))

    assert sorted(one.status_code for one in answers) == [201] * 5 + [429] * 15
    late = next(one for one in answers if one.status_code == 429)
    assert (
        "5 have enrolled within this hour" in late.get_json()["error"]
        and int(late.headers["Retry-After"]) > 0
    )
    assert service.status().this_hour == 5
    key = service.make_key(uses=1, valid=WEEK)
    assert post(app, key=key).status_code == 201, "a key is not bound by it"


@pytest.mark.parametrize(
    "email",
    ["", "ada", "ada@", "@example.org", "a b@example.org", "ada@example", "a@b.c\n", "a@" + "b" * 300 + ".c"],
)
def test_what_is_no_address_is_refused_before_the_key_is_used(app: Any, service: Enrol, email: str) -> None:
    key = service.make_key(uses=1, valid=WEEK)

    refused = post(app, key=key, email=email)

    assert refused.status_code == 400 and "email" in refused.get_json()["error"]
    assert post(app, key=key).status_code == 201


def test_the_commands_hand_out_keys_and_tell_how_things_stand(
    stores: Any, mongo_uri: str, raw: Any, app: Any
) -> None:
    env = {**os.environ, "DOCKERCOMP_MONGO_URI": mongo_uri, "DOCKERCOMP_DATABASE": raw.name}

    def run(*argv: str) -> Any:
        command = [sys.executable, "-m", "source_server.cli", "enrol", *argv]
        return subprocess.run(command, env=env, capture_output=True, text=True)

    key = run("key", "--uses", "3", "--expires", "12h").stdout.strip()
    opened, status, odd = run("open", "--per-hour", "7"), run("status"), run("key", "--expires", "soon")

    assert post(app, key=key).status_code == 201
    assert "7 an hour" in opened.stdout
    assert "open, 0 of 7 this hour" in status.stdout and "3 of 3 left" in status.stdout
    assert odd.returncode == 2 and "12h, 7d or 4w" in odd.stderr
    assert run("close").returncode == 0 and "needs a key" in run("status").stdout
