"""The final checks see each kind of damage: a sound record passes, and each test spoils one thing in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from faults.checks import violations
from faults.evidence import Evidence
from faults.ledger import Ledger, digest_of
from faults.roster import make_roster, make_stranger
from faults.workload import Given

ROSTER = make_roster(20)
FIRST, SECOND = ROSTER[0], ROSTER[5]  # of two accounts
FORGER = make_stranger(21, "forger")


def attempt(n: int, stdout: str, token: str = "token", **more: Any) -> dict[str, Any]:
    sent = {"chunk": f"task.{n}", "run": 0, "token": token, "outcome": "ok", "exit_code": 0, "signal": None}
    return {**sent, "stdout": stdout, "stderr_tail": "", **more}


FAILURE = attempt(1, "", token="other", outcome="failed", exit_code=1, stderr_tail="no\n")


def document(sent: dict[str, Any], container: str, verdict: str) -> dict[str, Any]:
    member = {"one": FIRST, "two": SECOND, "false": FORGER}[container]
    return {
        "_id": f"{container} {sent['chunk']} {sent['stdout']}",
        "chunk": sent["chunk"],
        "run": 0,
        "token": sent["token"],
        "outcome": sent["outcome"],
        "container": container,
        "host": member.host_id,
        "account": f"id of {member.account}",
        "digest": digest_of(sent),
        "answer": sent["stdout"],
        "verdict": verdict,
    }


def chunk(n: int, result: str | None, **other: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "_id": f"task.{n}",
        "state": "done",
        "result": result,
        "leases": [],
        "assigned": None,
    }
    return {**plain, **other}


def row(n: int, answer: str) -> dict[str, str]:
    line = {"task": "task", "n": str(n), "answer": answer, "state": "done"}
    return {**line, "container": "one", "host": FIRST.host_id}


class Record:
    """Three chunks: one answered twice (a quorum of two), one that failed once, and one simple one."""

    def __init__(self) -> None:
        self.given = Given()
        self.given.add("task", [(1, 2), (3, 4), (5, 6)], quorum=False)
        answers = [f"{self.given.answers[f'task.{n}']}\n" for n in range(3)]
        right = [attempt(n, answers[n]) for n in range(3)]
        self.ledger = Ledger()
        for client, sent in ((0, right[0]), (5, right[0]), (0, right[1]), (0, right[2]), (0, FAILURE)):
            self.deliver(client, sent)
        self.results = [document(sent, "one", "accepted") for sent in right]
        self.results.append(document(right[0], "two", "duplicate"))
        self.errors = [document(FAILURE, "one", "counted")]
        self.chunks = [chunk(n, self.results[n]["_id"]) for n in range(3)]
        self.rows = [row(n, answers[n].strip()) for n in range(3)]

    def deliver(self, client: int, sent: dict[str, Any], answer: str = '"stored": true') -> None:
        body = json.dumps({"results": [sent]}).encode()
        self.ledger.note_sent(client, body)
        reply = f'{{"results": [{{"chunk": "{sent["chunk"]}", {answer}}}]}}'
        self.ledger.note_reply(client, "POST /add", body, 200, reply.encode())

    def violations(self) -> list[str]:
        members = {"one": FIRST, "two": SECOND, "false": FORGER}
        return violations(
            Evidence(
                given=self.given,
                ledger=self.ledger,
                members=members,
                accounts={f"id of {one.account}": one.account for one in members.values()},
                chunks=self.chunks,
                results=self.results,
                errors=self.errors,
                rows=self.rows,
            )
        )


def test_a_sound_record_is_left_in_peace() -> None:
    assert Record().violations() == []


def missing_chunk(record: Record) -> None:
    del record.chunks[1]


def open_chunk(record: Record) -> None:
    record.chunks[1]["state"] = "delayed"


def lease_left(record: Record) -> None:
    record.chunks[1]["leases"] = [{"token": "token"}]


def two_accepted(record: Record) -> None:
    record.results[3]["verdict"] = "accepted"


def pointing_at_nothing(record: Record) -> None:
    record.chunks[2]["result"] = "never stored"


def wrong_answer(record: Record) -> None:
    lie = attempt(2, "1\n")
    record.deliver(0, lie)
    record.results[2] = document(lie, "one", "accepted")
    record.chunks[2]["result"] = record.results[2]["_id"]


def lost_result(record: Record) -> None:
    del record.results[3]


def lost_error(record: Record) -> None:
    record.errors.clear()


def error_twice(record: Record) -> None:
    record.errors.append({**record.errors[0], "_id": "again"})


def other_container(record: Record) -> None:
    record.results[2].update(container="two", host=SECOND.host_id, account=f"id of {SECOND.account}")


def other_host(record: Record) -> None:
    record.results[2]["host"] = SECOND.host_id


def unknown_container(record: Record) -> None:
    record.errors[0]["container"] = "three"


def unsettled(record: Record) -> None:
    record.results[3]["verdict"] = "new"


def unsettled_error(record: Record) -> None:
    record.errors[0]["verdict"] = "new"


def one_account(record: Record) -> None:
    record.given.quorum_tasks.add("task")


def wrong_table(record: Record) -> None:
    record.rows[1]["answer"] = "1"


def short_table(record: Record) -> None:
    del record.rows[2]


def refused_work(record: Record) -> None:
    record.deliver(5, attempt(2, "1\n"), '"error": "No.", "status": 409')


def forgery_taken(record: Record) -> None:
    record.deliver(21, attempt(2, "1\n"))


def mistake_of_the_server(record: Record) -> None:
    record.ledger.note_reply(0, "POST /next", b"", 500, b"")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (missing_chunk, "task.1 is not in the database"),
        (open_chunk, "task.1 is delayed"),
        (lease_left, "still leased"),
        (two_accepted, "accepted: ['one task.0"),
        (pointing_at_nothing, "points at never stored"),
        (wrong_answer, "accepted '1\\n', right is"),
        (lost_result, "was acknowledged, and is there 0 times"),
        (lost_error, "failure of client-0 for task.1 (token other) was acknowledged, and is there 0 times"),
        (error_twice, "and is there 2 times"),
        (other_container, "that client never delivered it"),
        (other_host, "another host or account"),
        (unknown_container, "the unknown container three"),
        (unsettled, "task.0 is new"),
        (unsettled_error, "task.1 is new"),
        (one_account, "needs two accounts that agree, and has 1"),
        (wrong_table, "results.csv has '1'"),
        (short_table, "2 lines for 3 chunks"),
        (refused_work, "was refused (409): No."),
        (forgery_taken, "is a forgery, and was taken"),
        (mistake_of_the_server, "answered 500"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_damage_is_seen(spoil: Callable[[Record], None], complaint: str) -> None:
    record = Record()

    spoil(record)

    assert any(complaint in sentence for sentence in record.violations()), record.violations()
