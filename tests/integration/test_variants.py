"""Jobs in several images: each attempt is made in one variant, chosen by the row or at random."""

from __future__ import annotations

from typing import Any

IMAGES = {name: "sha256:" + digit * 64 for name, digit in (("perl", "a"), ("ruby", "b"), ("lua", "c"))}
VARIANTS = [
    {"name": name, "image": image, "labels": {"language": name}, "env": {"WHICH": name}}
    for name, image in IMAGES.items()
]
SANDBOX = {"runtimes": ["sandbox"]}


def _jobs(answer: Any) -> dict[str, Any]:
    return dict(answer.get_json()["jobs"])


def _claim(who: Any, want: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    token = "00000000-0000-4000-8000-" + f"{id(who) % 10**12:012d}"
    answer = who.call("POST", "/next", {"token": token, "want": want})
    if answer.status_code == 204:
        return [], {}
    return [{**one, "token": token} for one in answer.get_json()["chunks"]], _jobs(answer)


def test_without_a_field_that_names_it_each_chunk_goes_to_a_random_variant(
    scientist: Any, volunteer: Any
) -> None:
    task = scientist.running(60, action=["calc"], variants=VARIANTS, timeout_s=1)

    chunks, jobs = _claim(volunteer(**SANDBOX), 60)

    assert set(jobs) == {f"{task}/main.{name}" for name in IMAGES}
    assert {one["job"] for one in chunks} == set(jobs)
    assert jobs[f"{task}/main.lua"]["image"] == IMAGES["lua"]
    assert jobs[f"{task}/main.lua"]["env"] == {"WHICH": "lua"}
    assert jobs[f"{task}/main.lua"]["action"] == ["calc"]


def test_a_row_names_its_variant_and_the_table_tells_it(scientist: Any, volunteer: Any) -> None:
    rows = b"which\nruby\nperl\nlua\n"
    task = scientist.running(action=["test"], variants=VARIANTS, variant_field="which", body=rows)
    someone = volunteer(**SANDBOX)

    chunks, _ = _claim(someone, 10)
    someone.add(*[someone.attempt(one, runtime="sandbox") for one in chunks])

    assert {one["n"]: one["job"].rpartition(".")[2] for one in chunks} == {0: "ruby", 1: "perl", 2: "lua"}
    table = scientist.call("GET", f"/results.csv?task={task}").text.splitlines()
    place = table[0].split(",").index("variant")
    assert [line.split(",")[place] for line in table[1:]] == ["ruby", "perl", "lua"]


def test_a_container_that_cannot_take_an_image_gets_the_other_variants_only(
    scientist: Any, volunteer: Any
) -> None:
    task = scientist.running(30, action=["calc"], variants=VARIANTS, timeout_s=1)
    someone = volunteer(**SANDBOX)
    refusing = dict.fromkeys((IMAGES["ruby"], IMAGES["lua"]), "image too large here")
    someone.call("POST", "/heartbeat", {"life": someone.life, "beat": 1, "held": {}, "cannot": refusing})

    chunks, jobs = _claim(someone, 30)

    assert len(chunks) == 30
    assert set(jobs) == {f"{task}/main.perl"}


def test_chunks_of_variants_that_a_container_cannot_run_do_not_hide_the_others(
    scientist: Any, volunteer: Any
) -> None:
    rows = b"which\n" + b"ruby\n" * 400 + b"perl\n"
    scientist.running(action=["t"], variants=VARIANTS, variant_field="which", body=rows)
    someone = volunteer(**SANDBOX)
    someone.call(
        "POST", "/heartbeat", {"life": someone.life, "beat": 1, "held": {}, "cannot": {IMAGES["ruby"]: "no"}}
    )

    found = [one for _ in range(5) for one in someone.claim(5)]

    assert [one["n"] for one in found] == [400]


def test_answers_of_different_variants_have_to_agree(scientist: Any, volunteer: Any) -> None:
    rule = {
        "quorum": 2,
        "distinct": "variant",
        "comparator": {"kind": "json", "relative": 1e-9},
    }
    task = scientist.running(1, action=["calc"], variants=VARIANTS, validation=rule)
    first, second, third = (
        volunteer(**SANDBOX) for _ in range(3)
    )  # of one account, which does not matter here

    given = [(one, one.claim()[0]) for one in (first, second)]
    for (one, chunk), answer in zip(given, ("0.5\n", "7\n"), strict=True):
        one.add(one.attempt(chunk, answer, runtime="sandbox"))
    [last] = third.claim()
    third.add(third.attempt(last, "0.50000000001\n", runtime="sandbox"))

    variants = [chunk["job"].rpartition(".")[2] for chunk in (*(chunk for _, chunk in given), last)]
    assert sorted(variants) == sorted(IMAGES)
    assert scientist.ok("GET", f"/tasks/{task}")["outcome"] == "succeeded"


def test_a_variant_that_the_job_does_not_have_is_refused_with_its_row(scientist: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    body = {"action": ["t"], "variants": VARIANTS, "variant_field": "which"}
    task = scientist.ok("POST", "/projects/sums/tasks", body)["id"]

    answer = scientist.call(
        "PUT", f"/tasks/{task}/chunks/one", data=b"which\nperl\ncobol\n", content_type="text/csv"
    )

    assert answer.status_code == 400
    assert "'cobol'" in answer.get_json()["error"]


def test_wishes_that_contradict_themselves_are_refused(scientist: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    one = VARIANTS[0]
    for wish in (
        {"action": ["t"], "variants": VARIANTS, "image": IMAGES["perl"]},
        {"action": ["t"], "variants": [one, one]},
        {"action": ["t"], "variant_field": "x"},
        {"action": ["t"], "variants": VARIANTS, "variant_field": "x", "rows_per_chunk": 2},
        {"action": ["t"], "variants": VARIANTS[:1], "validation": {"quorum": 2, "distinct": "variant"}},
        {"action": ["t"], "validation": {"quorum": 2, "distinct": "variant"}},
    ):
        assert scientist.call("POST", "/projects/sums/tasks", wish).status_code == 400, wish


def test_the_same_id_and_body_is_the_same_task_and_another_body_is_refused(scientist: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    body = {"id": "4f2a9c", "action": ["t"], "env": {"A": "1"}, "validation": {"quorum": 2}}

    made = scientist.call("POST", "/projects/sums/tasks", body)
    together = {
        "id": "4f2a9c",
        "validation": {"quorum": 2},
        "jobs": {"main": {"action": ["t"], "env": {"A": "1"}}},
    }
    again = scientist.call("POST", "/projects/sums/tasks", together)
    other = scientist.call("POST", "/projects/sums/tasks", {**body, "env": {"A": "2"}})

    assert (made.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert made.get_json()["id"] == again.get_json()["id"] == "4f2a9c"
    for bad in ("a--b", "x-v", "", "a/b", "ä", "x" * 49):
        assert scientist.call("POST", "/projects/sums/tasks", {**body, "id": bad}).status_code == 400, bad


def test_a_deal_gives_a_chunk_to_a_container_that_can_run_its_variant(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    body = b"which\n" + b"ruby\nperl\n" * 10
    task = scientist.task(action=["t"], variants=VARIANTS, variant_field="which", body=body)
    everything, no_ruby = volunteer(**SANDBOX), volunteer(**SANDBOX)
    said = {"life": no_ruby.life, "beat": 1, "held": {}, "cannot": {IMAGES["ruby"]: "too large here"}}
    no_ruby.call("POST", "/heartbeat", said)

    scientist.ok("POST", "/assign/sums")

    dealt = list(raw.chunks.find({"task": task}))
    assert {one["assigned"]["container"] for one in dealt if one["variant"] == "ruby"} == {everything.id}
    assert len({one["assigned"]["container"] for one in dealt}) == 2


def test_why_says_which_image_a_variant_lacks(scientist: Any, volunteer: Any) -> None:
    task = scientist.running(action=["t"], variants=VARIANTS, variant_field="which", body=b"which\nruby\n")
    someone = volunteer(**SANDBOX)
    said = {"life": someone.life, "beat": 1, "held": {}, "cannot": {IMAGES["ruby"]: "too large here"}}
    someone.call("POST", "/heartbeat", said)

    why = str(scientist.ok("GET", f"/chunks/{task}.0/why"))

    assert "too large here" in why


def test_two_attempts_at_a_chunk_are_made_in_two_variants(scientist: Any, volunteer: Any, raw: Any) -> None:
    rule = {"quorum": 2, "distinct": "variant"}
    task = scientist.running(20, action=["calc"], variants=VARIANTS, validation=rule, timeout_s=1)

    for _ in range(2):
        volunteer(**SANDBOX).claim(20)

    leases = [one["leases"] for one in raw.chunks.find({"task": task})]
    assert [len({lease["variant"] for lease in each}) for each in leases] == [2] * 20


def test_one_lease_brings_one_variant_whatever_image_its_client_claims(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    rule = {"quorum": 2, "distinct": "variant", "comparator": {"kind": "json", "relative": 1e-9}}
    task = scientist.running(1, action=["calc"], variants=VARIANTS, validation=rule)
    liar = volunteer(**SANDBOX)
    [chunk] = liar.claim()

    for answer, image in zip(("777\n", "777.0\n"), IMAGES.values(), strict=False):
        liar.add(liar.attempt(chunk, answer, runtime="sandbox", image=image))

    [stored] = raw.chunks.find({"task": task})
    assert (stored["state"], len(stored["candidates"])) == ("ready", 1)
    assert {one["variant"] for one in raw.results.find({"task": task})} == {chunk["job"].rpartition(".")[2]}


def test_the_variant_in_a_ticket_cannot_be_changed(scientist: Any, volunteer: Any) -> None:
    scientist.running(1, action=["calc"], variants=VARIANTS)
    someone = volunteer(**SANDBOX)
    [chunk] = someone.claim()
    own, _, proof = chunk["ticket"].rpartition(".")
    other = next(name for name in IMAGES if name != own)

    for forged in (f"{other}.{proof}", proof, f".{proof}", f"{own}.{own}.{proof}"):
        assert someone.add(someone.attempt({**chunk, "ticket": forged})).status_code == 403, forged
    assert someone.add(someone.attempt(chunk)).status_code == 200
