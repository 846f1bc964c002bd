"""How fast chunks are handed out and results are taken in, beside what plain pymongo needs for the same writes.

    scripts/bench dispatch                   some minutes; up to 10^5 ready chunks
    scripts/bench dispatch --quick           tiny, to see that it works
    scripts/bench dispatch --ready 1000000   all of it: laying a million chunks takes minutes

Starts a server of its own in a temporary folder. Everything is measured in three ways, in turn, so that what else goes
on hits all of them alike: `services` calls Claim and Accept in this process, in one thread a client; `http` speaks to
gunicorn; `raw` makes the writes that the services were heard to make, by plain pymongo. Progress and a readable table
go to stderr, one JSON object to stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import requests

from bench import laying, passes, tables
from bench.load import Round, latencies, one_round, p50_ms, p99_ms
from bench.raw import Raw, Recorded, record
from bench.server import Served, end_on_sigterm, machine, serving
from bench.sides import BEAT_S, KeptAlive, Pool, Side, ThroughHttp, ThroughServices
from source_server.app import build_services
from source_server.domain.account import Role
from source_server.services.accounts.people import People

RAW = "raw"
PARTS = ("throughput", "latency", "passes")
NOTES = (
    "The clients (threads of one Python process), gunicorn and mongod share the same cores.",
    "services: Claim and Accept called in the clients' process; http: POST /next and /add to gunicorn over loopback.",
    "raw: the writes of the services, recorded and made again by plain pymongo for chunks that are known beforehand: "
    "the same documents, guards, indexes and write concerns, and no reads. ratio: raw figure / figure for times, "
    "figure / raw figure for rates; 1 is as fast as raw.",
    "One container a host; each host's record was laid with the highest limit of chunks in flight (a newcomer may "
    "hold 2), and each client holds at most 500.",
    "Containers are kept alive by writing their beats straight into their records.",
    "Jobs have a timeout of 1 s, as a claim gets what about ten minutes suffice for.",
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured."""

    clients: tuple[int, ...] = (1, 4, 16, 64)
    ks: tuple[int, ...] = (1, 10, 100)
    chunks: int = 1000  #: that the clients claim in one round, all together, unless one claim each is more
    ready: tuple[int, ...] = (10_000, 100_000)  #: chunks that are ready while latency is measured
    calls: int = 200  #: claims whose latency is measured in one round
    k: int = 10  #: chunks of each of those
    passed: int = 100_000  #: chunks of a pass
    containers: int = 1000  #: containers of a pass
    rounds: int = 3  #: of which the median counts


QUICK = Sizes(
    clients=(1, 4), ks=(1, 10), chunks=40, ready=(200, 400), calls=10, passed=2000, containers=20, rounds=1
)


def main() -> None:
    """Run and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round")
    parser.add_argument("--ready", type=int, metavar="N", help="most ready chunks for the latencies")
    parser.add_argument("--chunks", type=int, metavar="N", help="chunks claimed in one round")
    parser.add_argument("--passed", type=int, metavar="N", help="chunks of a pass")
    parser.add_argument("--containers", type=int, metavar="N", help="containers of a pass")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds; their median counts")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be repeated")
    options = parser.parse_args()
    end_on_sigterm()
    figures = measure(sizes_of(options), options.only or PARTS)
    print(json.dumps(figures, indent=1), flush=True)
    print(tables.markdown(figures), file=sys.stderr)


def sizes_of(options: argparse.Namespace) -> Sizes:
    """What the options ask for."""
    sizes = QUICK if options.quick else Sizes()
    for name in ("chunks", "passed", "containers", "rounds"):
        chosen = getattr(options, name)
        if chosen is not None:
            if chosen < 1:
                raise SystemExit(f"--{name} is at least 1, not {chosen}.")
            sizes = replace(sizes, **{name: chosen})
    if options.ready is not None:
        steps = tuple(step for step in (10_000, 100_000, 1_000_000) if step < options.ready)
        sizes = replace(sizes, ready=(*steps, options.ready))
    return sizes


def measure(sizes: Sizes, parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """The figures of these parts; see `NOTES` for what they mean."""
    here = machine()
    with serving() as served:
        recorded = record(served.uri, "bench_recorded")
        pool = Pool(served.stores())
        services = build_services(pool.stores, beat_s=BEAT_S)
        sides: list[Side] = [
            ThroughServices(pool, services),
            ThroughHttp(pool, served.url),
            Raw(served.uri, "bench_raw", recorded),
        ]
        with KeptAlive(pool.stores):
            measured = {
                "throughput": throughput(sides, sizes) if "throughput" in parts else [],
                "latency": latency(sides, sizes) if "latency" in parts else [],
                **(
                    measure_passes(served, pool, sizes)
                    if "passes" in parts
                    else {"passes": [], "looks_ms": {}}
                ),
            }
    return {
        "machine": {
            **here,
            "web": f"{served.settings.web_processes} x {served.settings.web_threads} threads",
            "load_after": machine()["load"],
        },
        "sizes": asdict(sizes),
        "notes": list(NOTES),
        "operations": operations(recorded),
        **measured,
    }


def operations(recorded: Recorded) -> dict[str, Any]:
    """What one claim and one delivery of a single chunk ask of the database; raw makes the writes of it."""
    claim, delivery = recorded.claim.listed(), recorded.delivery.listed()
    return {
        "services": {"claim": claim, "delivery": delivery},
        RAW: {"claim": {"writes": claim["writes"]}, "delivery": {"writes": delivery["writes"]}},
    }


def throughput(sides: Sequence[Side], sizes: Sizes) -> list[dict[str, Any]]:
    """Claims, claimed chunks and results a second: for each number of clients, each K and each side."""
    lines = []
    for clients in sizes.clients:
        for k in sizes.ks:
            say(f"{clients} clients, {k} chunks a claim")
            rounds: dict[str, list[Round]] = {side.name: [] for side in sides}
            for _ in range(sizes.rounds):
                for side in sides:
                    side.have_ready(2 * max(sizes.chunks, clients * k) + sizes.ready[0])
                    rounds[side.name].append(one_round(side, clients=clients, k=k, chunks=sizes.chunks))
            measured = {name: _rates(name, of) for name, of in rounds.items()}
            lines += [
                {"through": name, "clients": clients, "k": k, **rates, **_ratios(rates, measured[RAW])}
                for name, rates in measured.items()
            ]
    return lines


def _rates(name: str, rounds: Sequence[Round]) -> dict[str, float]:
    for one in rounds:
        assert one.results == one.chunks > 0, f"{name}: {one.chunks} claimed, {one.results} delivered"
    return {
        "chunks": sum(one.chunks for one in rounds),
        "results": sum(one.results for one in rounds),
        "claims_per_s": round(median(one.claims / one.claiming_s for one in rounds), 1),
        "chunks_per_s": round(median(one.chunks / one.claiming_s for one in rounds), 1),
        "results_per_s": round(median(one.results / one.delivering_s for one in rounds), 1),
    }


def _ratios(rates: dict[str, float], raw: dict[str, float]) -> dict[str, float]:
    return {
        f"{name}_ratio": round(rates[name] / raw[name], 3)
        for name in ("claims_per_s", "chunks_per_s", "results_per_s")
    }


def latency(sides: Sequence[Side], sizes: Sizes) -> list[dict[str, Any]]:
    """Milliseconds of a claim and of a delivery by one client, with ever more chunks ready."""
    lines = []
    for ready in sizes.ready:
        say(f"latency with {ready} ready chunks")
        measured: dict[str, dict[str, list[float]]] = {side.name: {} for side in sides}
        for _ in range(sizes.rounds):
            for side in sides:
                side.have_ready(ready + sizes.calls * sizes.k)
                claiming, delivering = latencies(side, k=sizes.k, calls=sizes.calls)
                for name, seconds in (("claim", claiming), ("delivery", delivering)):
                    measured[side.name].setdefault(f"{name}_p50_ms", []).append(p50_ms(seconds))
                    measured[side.name].setdefault(f"{name}_p99_ms", []).append(p99_ms(seconds))
        medians = {name: {what: median(of) for what, of in one.items()} for name, one in measured.items()}
        for name, one in medians.items():
            ratios = {f"{what}_ratio": round(medians[RAW][what] / value, 3) for what, value in one.items()}
            lines.append({"through": name, "ready": ready, "k": sizes.k, **one, **ratios})
    return lines


def measure_passes(served: Served, pool: Pool, sizes: Sizes) -> dict[str, Any]:
    """Seconds of the passes, of what housekeeping always looks at, and of a deal as a scientist sees it."""
    lines = []
    for one in passes.PASSES:
        writes = passes.recorded_pass(served.uri, one)
        measured, raw = [], []
        for _ in range(sizes.rounds):
            say(f"{one.what}: {sizes.passed} chunks, {sizes.containers} containers")
            measured.append(
                passes.timed_pass(served.uri, one, chunks=sizes.passed, containers=sizes.containers)
            )
            raw.append(
                passes.raw_pass(served.uri, one, writes, chunks=sizes.passed, containers=sizes.containers)
            )
        lines.append(_pass_line(one.what, "services", sizes, measured, raw, [str(one) for one in writes]))
        if one.what == "deal all":
            say("the same by POST /assign/all and housekeeping")
            seconds = [deal_over_http(served, pool, sizes) for _ in range(sizes.rounds)]
            lines.append(_pass_line(one.what, "http", sizes, seconds, raw, []))
    say("what housekeeping looks at all the time")
    looks = passes.sweeps(served.uri, chunks=sizes.passed, containers=sizes.containers)
    return {"passes": lines, "looks_ms": looks}


def _pass_line(
    what: str,
    through: str,
    sizes: Sizes,
    measured: Sequence[float],
    raw: Sequence[float],
    writes: Sequence[str],
) -> dict[str, Any]:
    return {
        "what": what,
        "through": through,
        "chunks": sizes.passed,
        "containers": sizes.containers,
        "seconds": round(median(measured), 3),
        "raw_seconds": round(median(raw), 3),
        "ratio": round(median(raw) / median(measured), 3),
        "writes_for_one_chunk": list(writes),
    }


def deal_over_http(served: Served, pool: Pool, sizes: Sizes) -> float:
    """Seconds from POST /assign until the deal is done, asked for every second as the command does."""
    stores = pool.stores
    owner = People(stores).add(f"bench-{time.monotonic_ns()}", Role.ADMIN)
    project = f"deal-{time.monotonic_ns()}"
    task = laying.task_of(stores, project=project)
    laying.add(stores, laying.ready_chunks(task, 0, sizes.passed))
    stores.tasks.add(task)
    missing = sizes.containers - len(stores.containers.live())
    laying.crowd(stores, max(0, missing))
    http = requests.Session()
    http.headers["Authorization"] = f"Bearer {owner}"
    began = time.perf_counter()
    answer = http.post(f"{served.url}/assign/{project}", timeout=120)
    while not answer.json()["done"]:
        time.sleep(1.0)
        answer = http.get(f"{served.url}/deals/{answer.json()['id']}", timeout=120)
    seconds = time.perf_counter() - began
    assert sum(answer.json()["dealt"].values()) == sizes.passed
    stores.tasks.close_gate(task.id)
    stores.chunks.remove_upload(task.id, "bench")
    return seconds


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
