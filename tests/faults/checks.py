"""What must be true at the end, as pure functions of the evidence: each answers sentences about what is not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from faults.evidence import Document, Evidence
from faults.ledger import Told

SHOWN = 5  #: sentences shown of each check

#: Verdicts that settle a result, and an error.
SETTLED_RESULTS = {"accepted", "agreed", "disagreed", "duplicate"}
SETTLED_ERRORS = {"counted", "stale"}
PASSING = (401, 408, 410, 429, 503)  #: refusals that are about the moment


def violations(evidence: Evidence) -> list[str]:
    """Every sentence of every check, shortened."""
    found: list[str] = []
    for check in CHECKS:
        sentences = list(check(evidence))
        found += sentences[:SHOWN]
        if len(sentences) > SHOWN:
            found.append(f"... and {len(sentences) - SHOWN} more of this kind")
    return found


def every_chunk_is_done(evidence: Evidence) -> Iterator[str]:
    """All chunks that were given are there, done, with a result and without leases."""
    states = {one["_id"]: one for one in evidence.chunks}
    for chunk_id in evidence.given.answers:
        chunk = states.get(chunk_id)
        if chunk is None:
            yield f"chunk {chunk_id} is not in the database"
        elif chunk["state"] != "done" or chunk["result"] is None:
            yield f"chunk {chunk_id} is {chunk['state']} with the result {chunk['result']}"
        elif chunk["leases"] or chunk["assigned"]:
            yield f"chunk {chunk_id} is done, and still leased or assigned: {chunk['leases']}"
    for chunk_id in sorted(states.keys() - evidence.given.answers.keys()):
        yield f"chunk {chunk_id} was never given"


def one_accepted_result_each(evidence: Evidence) -> Iterator[str]:
    """Each chunk points at the only result of it that was accepted."""
    accepted: dict[str, list[str]] = defaultdict(list)
    for one in evidence.results:
        if one["verdict"] == "accepted":
            accepted[one["chunk"]].append(one["_id"])
    for chunk in evidence.chunks:
        if accepted[chunk["_id"]] != [chunk["result"]]:
            yield f"chunk {chunk['_id']} points at {chunk['result']}, accepted: {accepted[chunk['_id']]}"


def accepted_results_are_right(evidence: Evidence) -> Iterator[str]:
    """The accepted answer is the known one; with a quorum two accounts gave it."""
    agreeing: dict[str, set[str]] = defaultdict(set)
    for one in evidence.results:
        if one["verdict"] in ("accepted", "agreed"):
            agreeing[one["chunk"]].add(one["account"])
        if one["verdict"] == "accepted":
            right = evidence.given.answers.get(one["chunk"])
            if one.get("answer") != f"{right}\n":
                yield f"chunk {one['chunk']}: accepted {one.get('answer')!r}, right is {right!r}"
    for chunk_id in evidence.given.answers:
        if chunk_id.split(".")[0] in evidence.given.quorum_tasks and len(agreeing[chunk_id]) < 2:
            yield f"chunk {chunk_id} needs two accounts that agree, and has {len(agreeing[chunk_id])}"


def nothing_acknowledged_is_missing(evidence: Evidence) -> Iterator[str]:
    """Each attempt of which a server said "stored" is there exactly once."""
    stored = _stored(evidence)
    for told in sorted(evidence.ledger.acknowledged, key=lambda one: (one.chunk, one.client)):
        if stored[told] != 1:
            yield f"{_named(told)} was acknowledged, and is there {stored[told]} times"


def nothing_came_from_nowhere(evidence: Evidence) -> Iterator[str]:
    """Each stored attempt was delivered by the very client that it is stored against, with its host and account."""
    for one in (*evidence.results, *evidence.errors):
        member = evidence.members.get(one["container"])
        if member is None:
            yield f"{one['_id']} is stored against the unknown container {one['container']}"
        elif one["host"] != member.host_id or evidence.accounts.get(one["account"]) != member.account:
            yield f"{one['_id']} of {member.name} is stored against another host or account"
    for told, count in _stored(evidence).items():
        if told not in evidence.ledger.sent:
            yield f"{_named(told)} is stored {count} times, and that client never delivered it"


def every_attempt_is_settled(evidence: Evidence) -> Iterator[str]:
    """No result and no error waits for its verdict."""
    for one in evidence.results:
        if one["verdict"] not in SETTLED_RESULTS:
            yield f"result {one['_id']} of {one['chunk']} is {one['verdict']}"
    for one in evidence.errors:
        if one["verdict"] not in SETTLED_ERRORS:
            yield f"error {one['_id']} of {one['chunk']} is {one['verdict']}"


def the_table_says_the_same(evidence: Evidence) -> Iterator[str]:
    """results.csv has one line a chunk, in order, with the right answers and who gave them."""
    given = list(evidence.given.answers)
    listed = [f"{row['task']}.{row['n']}" for row in evidence.rows]
    if listed != given:
        missing = len(set(given) - set(listed))
        yield f"results.csv has {len(listed)} lines for {len(given)} chunks, or another order; {missing} are missing"
    accepted = {one["chunk"]: one for one in evidence.results if one["verdict"] == "accepted"}
    for chunk_id, row in zip(listed, evidence.rows, strict=True):
        right, result = evidence.given.answers.get(chunk_id), accepted.get(chunk_id, {})
        if (row["answer"], row["state"]) != (right, "done"):
            yield f"results.csv has {row['answer']!r} ({row['state']}) where {chunk_id} should have {right!r}"
        elif (row["container"], row["host"]) != (result.get("container"), result.get("host")):
            yield f"results.csv names the container {row['container']} for {chunk_id}"


def only_forgeries_are_refused(evidence: Evidence) -> Iterator[str]:
    """No forgery was taken, and nothing that a client computed itself was refused for good."""
    honest = {member.number for member in evidence.members.values() if member.honest}
    for said in evidence.ledger.refused:
        if said.told.client in honest and said.status not in PASSING:
            yield f"{_named(said.told)} was refused ({said.status}): {said.sentence}"
    for told in evidence.ledger.acknowledged:
        if told.client not in honest:
            yield f"{_named(told)} is a forgery, and was taken"
    yield from evidence.ledger.broken


CHECKS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    every_chunk_is_done,
    one_accepted_result_each,
    accepted_results_are_right,
    nothing_acknowledged_is_missing,
    nothing_came_from_nowhere,
    every_attempt_is_settled,
    the_table_says_the_same,
    only_forgeries_are_refused,
)


def _stored(evidence: Evidence) -> Counter[Told]:
    """What is in the database, as deliveries."""
    found: Counter[Told] = Counter()
    for good, documents in ((True, evidence.results), (False, evidence.errors)):
        found.update(_told(one, evidence, good=good) for one in documents)
    return found


def _told(document: Document, evidence: Evidence, *, good: bool) -> Told:
    member = evidence.members.get(document["container"])
    number = -1 if member is None else member.number
    return Told(number, document["chunk"], document["run"], document["token"], good, document["digest"])


def _named(told: Told) -> str:
    what = "result" if told.good else "failure"
    return f"the {what} of client-{told.client} for {told.chunk} (token {told.token})"
