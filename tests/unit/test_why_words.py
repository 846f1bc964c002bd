"""What is known about a chunk, turned into sentences."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from source_server.domain.attempt import Verdict
from source_server.domain.chunk import Candidate, Chunk, ChunkState, Failure, Holder, Lease
from source_server.domain.container import Container, Host
from source_server.domain.eligibility import Bar
from source_server.domain.facts import Explanation, Facts, Past, Queue
from source_server.domain.job import Job
from source_server.domain.project import Project
from source_server.domain.prospects import Prospect, quorum_shortage
from source_server.domain.requirements import Requirement
from source_server.domain.rounds import Round, Which
from source_server.domain.task import Lack, Task, TaskState, Upload, fits, lacks
from source_server.domain.validation import Comparison, Distinct, Same, Validation
from source_server.domain.why import explain

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=timezone.utc)
TASK = Task(
    id="t",
    project="sums",
    owner="ada",
    name="t",
    job=Job(action=("true",)),
    created=NOW,
    state=TaskState.RUNNING,
    sealed=True,
    upload=Upload(id="u", attempt="u", complete=True),
)
CHUNK = Chunk(id="t.0", project="sums", task="t", n=0, r=0.5, rev=1, upload="u")
QUORUM = Validation(quorum=2, replicas=2, most=6)
GPU = Lack(needs="gpu at least 1")
BIG = Lack(needs="memory_gb at least 64", has="8")


def prospect(name: str = "c1", **other: Any) -> Prospect:
    return Prospect(**{"container": name, "life": "l", "host": f"h-{name}", "account": f"a-{name}", **other})


def lease(name: str = "c1", **other: Any) -> Lease:
    until = NOW + timedelta(minutes=5)
    known = {
        "token": "k",
        "life": "l",
        "host": f"h-{name}",
        "account": f"a-{name}",
        "since": NOW,
        "until": until,
    }
    return Lease(**{"container": name, **known, **other})


def candidate(name: str, digest: str) -> Candidate:
    return Candidate(result=f"r-{name}", account=f"a-{name}", host=f"h-{name}", container=name, digest=digest)


def failures(*hosts: str, bad_data: bool = False) -> tuple[Failure, ...]:
    return tuple(
        Failure(error=f"e{n}", host=host, account=f"a-{host}", signature="s", bad_data=bad_data)
        for n, host in enumerate(hosts)
    )


def past(outcome: str = "failed", **other: Any) -> Past:
    known = {
        "id": "e",
        "run": 0,
        "verdict": Verdict.COUNTED,
        "stored": NOW,
        "signature": f"{outcome}, exit 1: boom",
    }
    return Past(outcome=outcome, **{**known, **other})


def why(chunk: Chunk = CHUNK, task: Task = TASK, **other: Any) -> Explanation:
    return explain(Facts(chunk=chunk, task=task, now=NOW, **other))


def whole(told: Explanation) -> str:
    return "\n".join((told.summary, *told.reasons, told.next))


# --- settled chunks


def test_a_done_chunk_names_who_answered_and_counts_the_verdicts_of_the_others() -> None:
    chunk = replace(CHUNK, state=ChunkState.DONE, result="r", failures=2)
    given = {"outcome": "ok", "signature": None, "container": "c1", "host": "h1", "account": "volunteer-1"}
    answers = [
        past(id=name, verdict=verdict, **given)
        for name, verdict in (
            ("r", Verdict.ACCEPTED),
            ("x", Verdict.AGREED),
            ("y", Verdict.DISAGREED),
        )
    ]

    told = why(chunk, attempts=answers)

    assert told.summary == "It is done: answered by container c1 on host h1 (volunteer-1) at 12:00:00 UTC."
    assert told.reasons == (
        "1 other answer agreed with it.",
        "1 other answer disagreed with it.",
        "It failed twice before.",
    )


def test_a_suspect_answer_is_called_so() -> None:
    chunk = replace(CHUNK, state=ChunkState.DONE, result="r")
    accepted = past("ok", id="r", verdict=Verdict.ACCEPTED, suspect=True)

    assert "suspect" in why(chunk, attempts=[accepted]).reasons[0]


@pytest.mark.parametrize(
    ("history", "sentence"),
    [
        (
            {"failures": 6, "failed": failures("h1")},
            "it failed 6 times, and 6 times is the most that is tried",
        ),
        ({"losses": 5}, "5 containers vanished while they computed it"),
        (
            {"failures": 2, "failed": failures("h1", "h2", bad_data=True)},
            "the program says on 2 hosts that the data is bad (exit code 65)",
        ),
        (
            {"failures": 1, "failed": failures("h1", bad_data=True)},
            "the program says that the data is bad (exit code 65), and no other host could be asked",
        ),
        ({"failures": 3, "failed": failures("h1", "h2", "h3")}, "it failed on 3 different hosts"),
        ({"failures": 3, "failed": failures("h1")}, "it failed 3 times, on every host that could compute it"),
    ],
)
def test_a_quarantined_chunk_says_by_which_rule_and_how_to_requeue_it(history: Any, sentence: str) -> None:
    chunk = replace(CHUNK, state=ChunkState.QUARANTINED, **history)

    told = why(chunk, attempts=[past()])

    assert told.summary == f"It is set aside (quarantined): {sentence}."
    assert told.reasons[-1] == "The last failure: failed, exit 1: boom"
    assert "requeue --chunk t.0" in told.next


def test_without_agreement_the_number_of_different_answers_is_told_even_if_it_failed_before() -> None:
    three = (candidate("c1", "x"), candidate("c2", "y"), candidate("c3", "x"))
    failed = failures("h1", "h2", "h3")
    chunk = replace(CHUNK, state=ChunkState.QUARANTINED, candidates=three, failed=failed, failures=3)

    told = why(chunk, attempts=[past("disagreement"), past("failed")])

    assert "came to 3 answers, 2 of them different, and no quorum agrees" in told.summary


def test_a_rerun_under_way_is_told_until_it_has_come_to_the_chunk() -> None:
    rerun = replace(TASK, round=Round(number=2, which=Which.ALL, anew=True))
    chunk = replace(CHUNK, state=ChunkState.DONE, result="r", round=1)

    assert "may send it out again" in whole(why(chunk, rerun))
    assert "may send it out again" not in whole(why(replace(chunk, round=2), rerun))


# --- gates


def test_gates_come_before_everything_else() -> None:
    assert "cancelled" in why(task=replace(TASK, cancelled=True)).summary
    assert "is not complete" in why(task=replace(TASK, sealed=False, state=TaskState.WAITING)).summary
    waiting = why(task=replace(TASK, state=TaskState.WAITING))
    assert waiting.summary == "Its task has not been started."
    assert waiting.next == "Start it: dockercomp assign --project sums"


def test_a_paused_task_says_who_paused_it_and_what_would_still_be_missing() -> None:
    owner = why(task=replace(TASK, paused=True))
    itself = why(
        task=replace(TASK, paused=True, paused_why="18 of its first 20 attempts failed alike: boom.")
    )

    assert owner.summary == "Its task is paused: nothing more of it is handed out."
    assert owner.reasons == ("No client container is live.",)
    assert owner.next == "Go on with: dockercomp resume t"
    assert itself.summary == "Its task paused itself: 18 of its first 20 attempts failed alike: boom."


# --- at work, resting, in the queue


def test_a_running_chunk_says_where_and_since_when() -> None:
    earlier = NOW - timedelta(minutes=2)
    leases = (lease("c1", started=NOW), lease("c2", started=earlier), lease("c3", since=earlier))
    chunk = replace(CHUNK, state=ChunkState.LEASED, wanted=0, leases=leases)

    told = why(chunk, pseudonyms={"a-c1": "volunteer-1"})

    assert told.summary == "It is running on 2 containers since 11:58:00 UTC."
    assert told.reasons[0] == (
        "Container c1 on host h-c1 (volunteer-1) began at 12:00:00 UTC; its time ends at 12:05:00 UTC."
    )
    assert "c3 on host h-c3 (unknown) has it in its queue" in told.reasons[2]


def test_a_lease_past_its_deadline_is_said_to_be_taken_back() -> None:
    late = lease(until=NOW - timedelta(days=1))

    told = why(replace(CHUNK, state=ChunkState.LEASED, wanted=0, leases=(late,)))

    assert told.reasons[0].endswith(
        "its time was over at 2026-11-21 12:00:00 UTC, and it is being taken back."
    )


def test_a_test_of_a_host_is_never_mentioned() -> None:
    chunk = replace(CHUNK, state=ChunkState.DONE, result="r", leases=(lease(canary=True),))

    assert "c1" not in whole(why(chunk))


def test_a_chunk_that_failed_says_until_when_it_rests_and_why() -> None:
    until = NOW + timedelta(seconds=40)
    chunk = replace(CHUNK, state=ChunkState.DELAYED, failures=3, not_before=until)

    told = why(chunk, attempts=[past()], prospects=[prospect()])

    assert told.summary == "It failed 3 times and rests until 12:00:40 UTC before it is tried again."
    assert told.reasons == ("The last failure: failed, exit 1: boom",)
    assert told.next == "It is offered again at 12:00:40 UTC."


@pytest.mark.parametrize(
    ("queue", "summary"),
    [
        (Queue(), "It is ready, and next to be handed out."),
        (Queue(beside=1), "It is ready and in the queue, with at most 1 chunk before it."),
        (
            Queue(projects_ahead=5, tasks_ahead=3, beside=2),
            "It is ready and in the queue, with at most 10 chunks before it.",
        ),
        (Queue(projects_ahead=10_000), "It is ready and in the queue."),
    ],
)
def test_a_ready_chunk_says_how_many_are_before_it(queue: Queue, summary: str) -> None:
    assert why(prospects=[prospect()], queue=queue).summary == summary


def test_the_queue_is_told_by_priority_and_by_turn() -> None:
    told = why(prospects=[prospect()], queue=Queue(projects_ahead=10_000, tasks_ahead=1, turn=2, turns=3))

    assert told.reasons == (
        "10000 or more ready chunks of projects with a higher priority go first.",
        "1 ready chunk of its project's tasks with a higher priority go first.",
        "Its project is number 2 in turn of 3 that have chunks ready.",
    )


# --- nobody takes it


def test_no_live_container_at_all_is_said() -> None:
    assert why().summary == "No client container is live."


def test_when_none_fits_each_requirement_is_counted_and_the_nearest_container_is_named() -> None:
    crowd = [prospect("c1", lacks=(GPU, BIG)), prospect("c2", lacks=(GPU,)), prospect("c3", lacks=(GPU, BIG))]

    told = why(prospects=crowd)

    assert told.summary == "None of the 3 live containers fits."
    assert told.reasons == (
        "The job needs gpu at least 1: none of them has it.",
        "The job needs memory_gb at least 64: 2 of 3 lack it.",
        "Nearest is container c2 on host h-c2: it lacks gpu at least 1 (it has nothing of the kind).",
    )


def test_what_a_container_lacks_is_told_with_what_it_has_instead() -> None:
    job = Job(
        action=("true",),
        image="sha256:1",
        requires=(
            Requirement(name="arch", one_of=("arm64",)),
            Requirement(name="memory_mb", at_least=1048576.0),
        ),
    )
    one = Container(
        id="c",
        host=Host(id="h"),
        account="a",
        life="l",
        registered=NOW,
        last_seen=NOW,
        labels={"arch": "x86_64"},
    )

    missing = lacks(replace(TASK, job=job), one)

    assert [str(lack) for lack in missing] == [
        "image sha256:1 or a sandbox runtime (it has image none)",
        "arch = arm64 (it has x86_64)",
        "memory_mb at least 1048576 (it has nothing of the kind)",
    ]
    assert not fits(replace(TASK, job=job), one)
    assert fits(TASK, one)


@pytest.mark.parametrize(
    ("bar", "words"),
    [
        (Bar.ANSWERED, "its account has given one of the answers"),
        (Bar.PLATFORM, "its other answers come from another platform"),
        (Bar.UNPROVED, "an account with a long record of agreement"),
        (Bar.FAILED_HERE, "it failed on this host, and others have not tried it"),
    ],
)
def test_when_all_that_fit_are_barred_the_bar_is_said(bar: Bar, words: str) -> None:
    told = why(
        task=replace(TASK, validation=QUORUM), prospects=[prospect("c1", bar=bar), prospect("c2", bar=bar)]
    )

    assert told.summary == "None of the 2 live containers that fit may take this chunk."
    assert told.reasons[0].startswith("2 containers: ") and words in told.reasons[0]
    assert told.next.startswith("It waits for a container")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"paused": True}, "1 container: paused by the volunteer."),
        ({"quarantined": True}, "1 container: the host is in quarantine, until test chunks clear it."),
        ({"full": True}, "1 container: the host holds as many chunks as it may just now."),
    ],
)
def test_when_those_that_fit_take_nothing_now_the_reason_is_said(state: Any, words: str) -> None:
    told = why(prospects=[prospect("c1", **state), prospect("c2", lacks=(GPU,))])

    assert told.summary == "No live container that fits can take it just now."
    assert told.reasons == (words,)


def test_a_dealt_chunk_names_its_container_and_what_that_has_to_do_first() -> None:
    dealt = replace(CHUNK, assigned=Holder(container="c1", life="l"))
    gone = replace(CHUNK, assigned=Holder(container="c1", life="earlier"))
    only = Project(id="sums", owner="ada", created=NOW, assigned_only=True)

    told = why(dealt, prospects=[prospect("c1", holds=7), prospect("c2")], project=only)

    assert told.summary == "It is dealt to container c1 on host h-c1, which has 7 chunks in hand."
    assert told.next == "It waits for that container."
    assert "which is gone" in why(gone, prospects=[prospect("c1")]).summary


def test_in_an_assigned_only_project_an_undealt_chunk_says_that_it_must_be_dealt() -> None:
    only = Project(id="sums", owner="ada", created=NOW, assigned_only=True)

    told = why(prospects=[prospect()], project=only)

    assert told.summary == "It is dealt to no container."
    assert told.next == "Deal it: dockercomp assign --project sums"


# --- quorum


@pytest.mark.parametrize(
    ("distinct", "words"),
    [(Distinct.ACCOUNT, "accounts"), (Distinct.HOST, "hosts"), (Distinct.CONTAINER, "containers")],
)
def test_too_few_of_what_must_differ_is_a_shortage(distinct: Distinct, words: str) -> None:
    rule = replace(QUORUM, quorum=3, distinct=distinct)
    two = [prospect("c1"), prospect("c2")]

    assert quorum_shortage(rule, two) == (
        f"3 answers of different {words} have to agree, and the live containers that fit belong to only 2 {words}."
    )
    assert quorum_shortage(rule, [*two, prospect("c3")]) is None


def test_enough_accounts_but_each_on_its_own_platform_is_a_shortage_too() -> None:
    rule = replace(QUORUM, same=Same.ARCH)

    told = quorum_shortage(rule, [prospect("c1", platform="arm64"), prospect("c2", platform="x86_64")])

    assert told is not None and "from the same arch" in told


def test_those_who_answered_count_for_the_quorum_though_they_are_gone() -> None:
    rule = QUORUM

    assert quorum_shortage(rule, [prospect("c1")]) is not None
    assert quorum_shortage(rule, [prospect("c1")], {("somebody else", "")}) is None


def test_a_ready_chunk_that_could_start_says_that_its_quorum_cannot_be_met() -> None:
    told = why(task=replace(TASK, validation=QUORUM), prospects=[prospect("c1")], queue=Queue())

    assert told.summary == "It is ready, and next to be handed out."
    assert "belong to only 1 account" in told.reasons[-1]


# --- the validator

VALIDATED = replace(
    TASK, validator=Job(action=("compare",)), validation=replace(QUORUM, comparison=Comparison.VALIDATOR)
)
ANSWERED = replace(
    CHUNK, state=ChunkState.VALIDATING, wanted=0, candidates=(candidate("c1", "x"), candidate("c2", "y"))
)
ASKED = Facts(
    chunk=replace(CHUNK, id="t-v.0", task="t-v"), task=replace(TASK, id="t-v", validates="t"), now=NOW
)
TRUSTED = Lack(needs="the operator's label trusted")


def test_answers_without_a_validator_wait_for_a_verdict() -> None:
    assert why(ANSWERED).summary == "2 answers came and wait for the verdict."


def test_with_no_trusted_container_live_the_validator_waits_for_the_operator() -> None:
    asked = replace(ASKED, prospects=[prospect("c1", lacks=(TRUSTED,))])

    told = why(ANSWERED, VALIDATED, asked=asked)

    assert told.summary == "2 answers came and wait for the project's validator to compare them."
    assert told.reasons == ("No live container that can run it is labelled trusted by the operator.",)
    assert "container trust" in told.next


def test_a_validator_that_fails_is_told_with_its_errors() -> None:
    set_aside = replace(ASKED.chunk, state=ChunkState.QUARANTINED, failures=6)
    asked = replace(ASKED, chunk=set_aside, attempts=[past(signature="failed, exit 1: no module")])

    told = why(ANSWERED, VALIDATED, asked=asked)

    assert "t-v.0: It is set aside" in told.reasons[0]
    assert "The last failure: failed, exit 1: no module" in told.reasons
    assert "requeue --chunk t-v.0" in told.next


def test_a_validator_at_work_is_told_like_any_chunk() -> None:
    asked = replace(ASKED, prospects=[prospect()], queue=Queue(beside=4))

    told = why(ANSWERED, VALIDATED, asked=asked)

    assert "t-v.0: It is ready and in the queue, with at most 4 chunks before it." in told.reasons[0]
    assert why(ANSWERED, VALIDATED).summary == "2 answers came and are about to be put to the validator."
    assert (
        "has compared them"
        in why(
            ANSWERED, VALIDATED, asked=replace(ASKED, chunk=replace(ASKED.chunk, state=ChunkState.DONE))
        ).summary
    )
