"""Clients at work at the same time: all claim, then all deliver, each phase timed by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from bench.sides import Client, Side

MOST_HELD = 500  #: chunks that a client holds at once, within its host's limit
MOST_CLAIMS = 100  #: that a client makes in one round


@dataclass(frozen=True)
class Round:
    """One phase of claims and one of deliveries, and what was counted in them."""

    claims: int
    chunks: int
    claiming_s: float
    results: int
    delivering_s: float


def one_round(side: Side, *, clients: int, k: int, chunks: int) -> Round:
    """Let so many clients claim about so many chunks in all, k at a time, and deliver each claim in one request."""
    claims = max(1, min(MOST_CLAIMS, MOST_HELD // k, round(chunks / (clients * k))))
    crowd = side.clients(clients)
    for client in crowd:
        client.prepare(k, claims)
    won, claiming_s = together(crowd, lambda client: sum(client.claim(k) for _ in range(claims)))
    stored, delivering_s = together(crowd, lambda client: sum(client.deliver() for _ in range(claims)))
    return Round(claims * clients, won, claiming_s, stored, delivering_s)


def together(clients: Sequence[Client], work: Callable[[Client], int]) -> tuple[int, float]:
    """All clients do it at once; the sum of what they answer, and the seconds until the last was done."""
    start = threading.Barrier(len(clients) + 1)
    counts: list[int] = []
    failures: list[BaseException] = []

    def run(client: Client) -> None:
        start.wait()
        try:
            counts.append(work(client))
        except BaseException as error:  # noqa: BLE001  # it is raised again, where it is heard
            failures.append(error)

    threads = [threading.Thread(target=run, args=(client,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if failures:
        raise failures[0]
    return sum(counts), seconds


def latencies(side: Side, *, k: int, calls: int) -> tuple[list[float], list[float]]:
    """Seconds of each of so many claims of k chunks, and of each delivery, by a single client."""
    (client,) = side.clients(1)
    client.prepare(k, calls)
    claiming, delivering = [], []
    for _ in range(calls):
        began = time.perf_counter()
        won = client.claim(k)
        between = time.perf_counter()
        stored = client.deliver()
        ended = time.perf_counter()
        assert won == stored == k, f"{side.name}: {won} claimed, {stored} stored, {k} wanted"
        claiming.append(between - began)
        delivering.append(ended - between)
    return claiming, delivering


def p50_ms(seconds: Sequence[float]) -> float:
    """The median, in milliseconds."""
    return round(1000 * median(seconds), 2)


def p99_ms(seconds: Sequence[float]) -> float:
    """What one in a hundred exceeds, in milliseconds."""
    return round(1000 * quantiles(seconds, n=100, method="inclusive")[98], 2)
