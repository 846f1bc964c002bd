"""The figures of `bench.dispatch` for people, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Figures = dict[str, Any]


def markdown(figures: Figures) -> str:
    """All tables, with what they were measured on above and the notes below."""
    parts = [_machine(figures["machine"])]
    if figures["throughput"]:
        parts += ["Rates of concurrent clients. In brackets: the share of the raw rate."]
        parts += [_throughput(figures["throughput"])]
    if figures["latency"]:
        parts += ["Latency of one client, in milliseconds. In brackets: how many times raw."]
        parts += [_latency(figures["latency"])]
    if figures["passes"]:
        parts += ["Passes over all chunks. In brackets: how many times raw."]
        parts += [_passes(figures["passes"])]
        parts += [
            "What housekeeping looks at again and again, with as many chunks dealt, leased and resting each."
        ]
        parts += [_table(("look", "ms"), [(what, f"{ms:g}") for what, ms in figures["looks_ms"].items()])]
    parts += ["\n".join(f"- {note}" for note in figures["notes"])]
    return "\n\n".join(parts)


def _machine(here: Figures) -> str:
    return (
        f"{here['cpu']}, {here['cores']} cores, {here['memory_gb']} GB, {here['system']}, Python {here['python']}, "
        f"gunicorn {here['web']}, {here['date']}; load average before and after: {here['load']}, {here['load_after']}"
    )


def _throughput(lines: Sequence[Figures]) -> str:
    head = ("clients", "K", "through", "claims/s", "chunks claimed/s", "results/s")
    rows = [
        (
            f"{one['clients']}",
            f"{one['k']}",
            one["through"],
            *(
                _beside(one[name], one[f"{name}_ratio"], one)
                for name in ("claims_per_s", "chunks_per_s", "results_per_s")
            ),
        )
        for one in lines
    ]
    return _table(head, rows)


def _latency(lines: Sequence[Figures]) -> str:
    names = ("claim_p50_ms", "claim_p99_ms", "delivery_p50_ms", "delivery_p99_ms")
    head = ("ready", "through", "claim p50", "claim p99", "delivery p50", "delivery p99")
    rows = [
        (
            f"{one['ready']}",
            one["through"],
            *(_beside(one[name], _longer(one[f"{name}_ratio"]), one) for name in names),
        )
        for one in lines
    ]
    return _table(head, rows)


def _passes(lines: Sequence[Figures]) -> str:
    head = ("pass", "through", "chunks", "containers", "seconds", "raw seconds")
    rows = [
        (
            one["what"],
            one["through"],
            f"{one['chunks']}",
            f"{one['containers']}",
            f"{one['seconds']:.2f} ({_longer(one['ratio']):.2f})",
            f"{one['raw_seconds']:.2f}",
        )
        for one in lines
    ]
    return _table(head, rows)


def _beside(value: float, ratio: float, line: Figures) -> str:
    shown = f"{value:.0f}" if value >= 100 else f"{value:.1f}"
    return shown if line["through"] == "raw" else f"{shown} ({ratio:.2f})"


def _longer(ratio: float) -> float:
    return 1 / ratio if ratio else 0.0


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
