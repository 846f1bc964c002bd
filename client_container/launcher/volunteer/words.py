"""What the launcher answers, in words for the volunteer. Pure: facts in, text out."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from client_container.launcher.policy.text import about, show_duration, show_size

Facts = Mapping[str, Any]


def printable(text: str) -> str:
    """A text that others had a hand in, without what a terminal obeys: newlines and tabs alone stay."""
    return "".join(
        mark if mark in "\n\t" or not _commands(mark) else "\N{REPLACEMENT CHARACTER}" for mark in text
    )


def _commands(mark: str) -> bool:
    """Control characters (escape among them), formatting ones (which turn text around), odd line breaks."""
    return unicodedata.category(mark) in {"Cc", "Cf", "Zl", "Zp"}


def status(facts: Facts, *, now: datetime | None = None) -> str:
    """The whole report."""
    moment = now or datetime.now(timezone.utc)
    lines = [
        f"dockercomp {facts['version']}, instance {facts['instance']}, computing for {facts['server']}",
        f"Docker engine {_engine(facts['engine'])}",
        f"Jobs: {_standing(facts['standing'])}",
        f"Self-test: {_verdict(facts['self_test'], moment)}",
        "",
        f"{facts['running']} of {facts['wanted']} client containers run, {facts['registered']} registered:",
        *(_client(one, moment) for one in facts["clients"]),
        "",
        *_jobs(facts["jobs"], moment),
        f"Today's transfer: {_both_ways(facts['transfer_today'])}.",
        contribution(facts["contribution"]),
        *(f"Problem: {said}" for said in facts["problems"].values()),
    ]
    return "\n".join(lines)


def paused(facts: Facts) -> str:
    """What a pause came to."""
    until = facts["standing"].get("until")
    how_long = f"Paused until {until.replace('T', ' ')}" if until else "Paused until you resume"
    return f"{how_long}: {_resting(facts)}"


def resumed(facts: Facts) -> str:
    """What the end of a pause came to."""
    standing = facts["standing"]
    if not facts["acted"]:
        return f"Resumed, but the launcher has not acted on it yet. {facts.get('problem') or ''}".strip()
    if standing["word"] != "run":
        return f"Resumed, but jobs still rest: {standing['why']}"
    count = len(facts["jobs"])
    return (
        f"Resumed: jobs may run, {count} {'goes' if count == 1 else 'go'} on."
        if count
        else "Resumed: jobs may run."
    )


def at_rest(facts: Facts) -> bool:
    """Whether no job runs any more."""
    return bool(facts["acted"]) and all(job["frozen"] for job in facts["jobs"])


def _resting(facts: Facts) -> str:
    still = [f"slot {job['slot']} (task {job['task']})" for job in facts["jobs"] if not job["frozen"]]
    if still:
        return f"still running: {', '.join(still)}."
    if not facts["acted"]:
        return f"not confirmed yet. {facts.get('problem') or ''}".strip()
    count = len(facts["jobs"])
    return f"{count} {'job is' if count == 1 else 'jobs are'} frozen." if count else "no job runs."


def running(facts: Facts) -> str:
    """What a changed policy came to."""
    if facts["problem"]:
        return f"It does not hold: {facts['problem']}"
    alive = sum(one["state"] == "running" for one in facts["clients"])
    tail = (
        "." if all_run(facts) else "; the rest is being seen to, look again with dockercomp-volunteer status."
    )
    return f"{alive} of {facts['wanted']} client containers run{tail}"


def all_run(facts: Facts) -> bool:
    """Whether exactly as many client containers run as the policy wants."""
    alive = sum(one["state"] == "running" for one in facts["clients"])
    return bool(alive == len(facts["clients"]) == facts["wanted"])


def limits(facts: Facts) -> str:
    """The policy that holds."""
    sizes = {"limits.memory", "limits.disk", "limits.transfer_a_day", "images.largest", "images.total"}
    width = max(map(len, facts["policy"]))
    lines = [
        f"{path:<{width}}  {_value(value, size=path in sizes)}" for path, value in facts["policy"].items()
    ]
    lines.append(f"From {facts['file']}.")
    if facts["problem"]:
        lines.append(f"Problem: {facts['problem']} Until it is mended, the limits above hold.")
    return "\n".join(lines)


def self_test(facts: Facts) -> str:
    """Every check, and the verdict."""
    lines = [
        f"{'ok  ' if check.get('ok') else 'FAIL'}  {check.get('name')}: {check.get('said')}"
        for check in facts["checks"]
    ]
    verdict = {
        "passed": "Passed: every wall of the sandbox holds.",
        "failed": "FAILED: jobs do not run here until every wall holds.",
    }
    return "\n".join(
        [*lines, verdict.get(facts["verdict"], "It could not be finished; see the launcher's log.")]
    )


def history(facts: Facts) -> str:
    """What ran, newest first, then days, then the contribution."""
    lines = [_past(job) for job in facts["jobs"]] or ["No job has ended here yet."]
    lines += ["", *(f"{day['day']}: {_both_ways(day)}" for day in facts["days"])] if facts["days"] else []
    return "\n".join([*lines, "", contribution(facts["contribution"])])


def drained(facts: Facts) -> str:
    """What leaving the server came to."""
    parts = []
    if facts["finished"]:
        parts.append(f"{facts['finished']} running {_jobs_word(facts['finished'])} finished")
    if facts["given_back"]:
        parts.append(f"{facts['given_back']} {_jobs_word(facts['given_back'])} given back")
    parts.append(f"{facts['deregistered']} of {facts['clients']} client containers deregistered")
    text = f"{', '.join(parts)}."
    if facts["undelivered"]:
        why = f" ({facts['problems'][0]})" if facts["problems"] else ""
        text += f" {facts['undelivered']} finished results could not be delivered{why} and are lost."
    if facts["deregistered"] < facts["clients"]:
        text += " The server notices within minutes that the others are gone, and gives their work to others."
    if not facts["gone"]:
        text += " Not all client containers ended in time."
    return text


def contribution(facts: Facts) -> str:
    """One line, and one for each project."""
    if not facts["chunks"]:
        return "Contribution: nothing computed yet."
    hours = _hours(facts["cpu_hours"])
    head = f"Contribution since {facts['since'][:10]}: {facts['chunks']} chunks, {hours} of processor time"
    lines = [
        f"  {one['project']}: {one['chunks']} chunks, {_hours(one['cpu_s'] / 3600)}, last {one['last'][:10]}"
        for one in facts["projects"]
    ]
    return "\n".join([f"{head}.", *lines])


def _engine(engine: Facts) -> str:
    if engine["problem"]:
        return f"does not answer: {engine['problem']}" if engine["version"] else engine["problem"]
    return f"{engine['version']} answers."


def _standing(standing: Facts) -> str:
    said = {
        "run": "may run.",
        "freeze": f"frozen. {standing['why']}",
        "give_back": f"given back. {standing['why']}",
    }
    text = said.get(standing["word"] or "", str(standing["why"]))
    return text if standing["confirmed"] else f"{text} (Not confirmed by the engine yet.)"


def _verdict(test: Facts, now: datetime) -> str:
    if test["verdict"] == "unknown" or not test["at"]:
        return "not finished yet; until it has passed no job runs."
    when = f"{show_duration(_since(test['at'], now))} ago"
    if test["verdict"] == "passed":
        return f"passed, {when}."
    failed = [str(check.get("name")) for check in test["checks"] if not check.get("ok")]
    return f"FAILED {when} ({', '.join(failed)}); no job runs. See dockercomp-volunteer self-test."


def _client(one: Facts, now: datetime) -> str:
    since = show_duration(_since(one["since"], now))
    parts = [f"  {one['slot']}  {one['state']:<8} for {since:<12} {_server(one, now)}"]
    if one["undelivered"]:
        parts.append(f"{one['undelivered']} results wait to be delivered")
    return ", ".join(parts)


def _server(one: Facts, now: datetime) -> str:
    if one["registered"]:
        beat = (
            f"last beat {show_duration(_since(one['last_beat'], now))} ago"
            if one["last_beat"]
            else "no beat yet"
        )
        away = f", server away: {one['problem']}" if one["reachable"] is False else ""
        return f"registered, {beat}{away}"
    return f"not registered: {one['problem']}" if one["problem"] else "not registered yet"


def _jobs(jobs: Sequence[Facts], now: datetime) -> Iterator[str]:
    if not jobs:
        yield "No job runs."
        return
    yield f"{len(jobs)} {_jobs_word(len(jobs))} at work:"
    for job in jobs:
        ran = show_duration(_since(job["since"], now))
        frozen = ", frozen" if job["frozen"] else ""
        far = f", {job['progress']:.0%} done" if job.get("progress") is not None else ""
        yield (
            f"  {job['slot']}  project {job['project']}, task {job['task']}, chunk {job['chunk']}, "
            f"image {job['image'][:19]}, for {ran}{far}{frozen}"
        )


def _past(job: Facts) -> str:
    outcome = job["cause"] or ("ok" if job["exit_code"] == 0 else f"exit {job['exit_code']}")
    return (
        f"{job['ended']}  project {job['project']}, task {job['task']}, image {job['image'][:19]}: {outcome}, "
        f"{job['ran_s']:.1f} s, {job['cpu_s']:.1f} s of processor, {_both_ways(job)}"
    )


def _jobs_word(count: int) -> str:
    return "job" if count == 1 else "jobs"


def _both_ways(facts: Facts) -> str:
    return f"{about(facts['bytes_in'])} in, {about(facts['bytes_out'])} out"


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _value(value: Any, *, size: bool) -> str:
    if value is None:
        return "no limit"
    if size:
        return show_size(value)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}={weight:g}" for name, weight in value.items()) or "all alike"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _since(instant: str, now: datetime) -> float:
    try:
        return max(0.0, (now - datetime.fromisoformat(instant.replace("Z", "+00:00"))).total_seconds())
    except ValueError:
        return 0.0
