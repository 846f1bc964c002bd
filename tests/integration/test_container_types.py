"""Container types over a real MongoDB: jobs go only where they fit, and one that nobody fits says so."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from source_server.services.accounts.people import People

IMAGE = "sha256:" + "a" * 64


def test_what_asks_for_a_gpu_goes_only_to_those_and_others_are_told_why(
    scientist: Any, volunteer: Callable[..., Any]
) -> None:
    plain = volunteer(labels={"arch": "x86_64", "os": "linux"})
    task = scientist.running(2, requires={"gpu": {"at_least": 1}})

    nothing = plain.call("POST", "/next", {"token": str(uuid.uuid4()), "want": 1})
    why = scientist.ok("GET", f"/chunks/{task}.0/why")
    with_gpu = volunteer(labels={"arch": "x86_64", "gpu": 2, "gpu_name": "NVIDIA A100"})
    taken = with_gpu.claim()

    assert nothing.status_code == 204
    said = " ".join([why["summary"], *why["reasons"]])
    assert "gpu at least 1" in said and "nothing of the kind" in said
    assert len(taken) == 1


@pytest.mark.parametrize(
    ("asked", "enough", "too_little", "says"),
    [
        ({"cpus": 2}, {"cpus": 2}, {"cpus": 1}, "cpus at least 2"),
        ({"memory_mb": 4096}, {"memory_mb": 4096.0}, {"memory_mb": 4095.0}, "memory_mb at least 4096"),
        ({"disk_mb": 500}, {"disk_mb": 10_000}, {"disk_mb": 499}, "disk_mb at least 500"),
    ],
)
def test_a_job_goes_where_its_limits_fit(
    scientist: Any, volunteer: Callable[..., Any], asked: Any, enough: Any, too_little: Any, says: str
) -> None:
    small, silent = volunteer(resources=too_little), volunteer(resources={})
    task = scientist.running(2, **asked)

    refused = [*small.claim(), *silent.claim()]
    why = scientist.ok("GET", f"/chunks/{task}.0/why")
    taken = volunteer(resources=enough).claim()

    assert not refused and len(taken) == 1
    assert says in " ".join([why["summary"], *why["reasons"]])


def test_a_label_is_no_memory(scientist: Any, volunteer: Callable[..., Any]) -> None:
    boaster = volunteer(resources={"memory_mb": 100}, labels={"memory_mb": 10**6})
    scientist.running(1, memory_mb=4096)

    assert not boaster.claim()


def test_a_job_that_nobody_fits_says_so_when_it_is_submitted_and_started(
    scientist: Any, volunteer: Callable[..., Any]
) -> None:
    volunteer(resources={"cpus": 1, "memory_mb": 512})
    scientist.ok("POST", "/projects", {"name": "sums"})

    made = scientist.ok("POST", "/projects/sums/tasks", {"action": ["/bin/cat"], "memory_mb": 10**6})

    assert any("memory_mb at least 1000000" in one for one in made["warnings"])


# --- last year's clients

OLD = "its client is too old for that; update it"


@pytest.mark.parametrize(
    ("asks", "needs"),
    [
        ({"memory_mb": 100}, "a client that keeps to the limits of a job"),
        ({"outputs": ["*.csv"]}, "a client that brings files of answers"),
        ({"requires": {"gpu": {"at_least": 1}}}, "a client that hands graphics processors to jobs"),
        ({"body": b"a,b\n1," + b"x" * 100_000 + b"\n"}, "a client that fetches files"),
    ],
)
def test_what_only_newer_clients_know_waits_for_one_and_says_so(
    scientist: Any, volunteer: Callable[..., Any], asks: Any, needs: str
) -> None:
    has = {"labels": {"gpu": 1}, "resources": {"memory_mb": 1000}}
    old = volunteer(features=[], **has)
    task = scientist.task(1, **asks)
    started = scientist.ok("POST", f"/tasks/{task}/start")

    why = scientist.ok("GET", f"/chunks/{task}.0/why")

    assert old.claim() == []
    said = " ".join(why["reasons"])
    assert f"The job needs {needs}: none of them has it." in said and f"{needs} ({OLD})" in said
    assert any(needs in one for one in started["warnings"])
    assert [one["id"] for one in volunteer(**has).claim()] == [f"{task}.0"]


def test_a_reactions_table_is_a_file_which_old_clients_do_not_fetch(
    scientist: Any, volunteer: Callable[..., Any]
) -> None:
    task = scientist.running(1, after={"action": ["/bin/report"]})
    old = volunteer(features=[])
    [chunk] = old.claim()
    old.add(old.attempt(chunk))

    waiting, taken = old.claim(), volunteer().claim()

    assert waiting == [] and [one["id"].startswith(f"{task}--after") for one in taken] == [True]


def test_a_row_that_turns_out_large_goes_to_no_old_client_though_its_task_ran_before(
    scientist: Any, volunteer: Callable[..., Any]
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    task = scientist.ok("POST", "/projects/sums/tasks", {"action": ["/bin/cat"], "open_ended": True})["id"]
    old = volunteer(features=[])
    scientist.ok("POST", f"/tasks/{task}/start")
    scientist.ok("POST", f"/tasks/{task}/chunks", {"rows": [{"a": 1}]})
    small = [one["id"] for one in old.claim()]

    scientist.ok("POST", f"/tasks/{task}/chunks", {"rows": [{"a": "x" * 100_000}]})

    assert (small, old.claim()) == ([f"{task}.0"], [])
    assert [one["id"] for one in volunteer().claim()] == [f"{task}.1"]


def test_an_old_client_is_not_dealt_what_it_would_compute_wrongly(
    scientist: Any, volunteer: Callable[..., Any]
) -> None:
    old, new = volunteer(features=[]), volunteer()
    scientist.task(4, outputs=["*"])

    dealt = scientist.ok("POST", "/assign/sums")["dealt"]

    assert dealt == {new.id: 4} and old.id not in dealt


def test_a_chunk_with_a_large_input_stays_away_from_an_old_client_whatever_its_task_says(
    scientist: Any, volunteer: Callable[..., Any], stores: Any
) -> None:
    task = scientist.running(body=b"a,b\n1," + b"x" * 100_000 + b"\n")
    stores.tasks._gate.update_one(
        {"_id": task}, {"$set": {"large_inputs": False}}
    )  # as a claim before it read it

    assert volunteer(features=[]).claim() == []


# --- the server's own


def test_the_servers_own_containers_are_trusted_by_their_account_and_not_by_their_word(
    app: Any, stores: Any, scientist: Any, admin: Any, volunteer: Callable[..., Any]
) -> None:
    own = volunteer(account_key=People(stores).built_in(), runtimes=["sandbox"])
    liar = volunteer(runtimes=["sandbox"], labels={"built_in": "yes", "trusted": "yes"})

    by_id = {one["id"]: one for one in admin.ok("GET", "/containers")["containers"]}

    assert by_id[own.id]["built_in"] and by_id[own.id]["trusted"]
    assert not by_id[liar.id]["built_in"] and not by_id[liar.id]["trusted"]


def test_a_validator_runs_on_the_servers_own_containers_without_further_ado(
    app: Any, stores: Any, scientist: Any, volunteer: Callable[..., Any], new_key: Callable[[str], str]
) -> None:
    validator = {"action": ["/compare"], "image": IMAGE}
    rule = {"quorum": 2, "replicas": 2, "comparator": {"kind": "validator", "validator": validator}}
    task = scientist.running(1, validation=rule)
    crew = [volunteer(account_key=new_key("volunteer")) for _ in range(2)]
    for one in crew:
        (chunk,) = one.claim()
        assert one.add(one.attempt(chunk)).status_code == 200
    own = volunteer(account_key=People(stores).built_in(), runtimes=["sandbox"])

    (question,) = own.claim()
    own.add(own.attempt(question, stdout="[1, 1]\n"))

    assert scientist.ok("GET", f"/tasks/{task}")["outcome"] == "succeeded"


def test_the_account_of_the_servers_own_is_no_account_that_somebody_made_before(
    app: Any, stores: Any, volunteer: Callable[..., Any], admin: Any
) -> None:
    from source_server.domain.account import Role

    theirs = People(stores).add("built-in", Role.VOLUNTEER)
    early = volunteer(account_key=theirs)
    first = People(stores).built_in()
    again = People(stores).built_in()

    by_id = {one["id"]: one for one in admin.ok("GET", "/containers")["containers"]}
    assert not by_id[early.id]["built_in"]
    assert People(stores).is_built_in_key(again)
    assert not People(stores).is_built_in_key(first) and not People(stores).is_built_in_key(theirs)
