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
