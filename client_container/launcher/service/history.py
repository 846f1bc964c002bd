"""What this machine computed, for whom and with how much transfer: a small database that stays small."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client_container.launcher.jobs.ran import Ran

MOST_JOBS = 100_000
KEPT_DAYS = 90
MOST_WAITING = 10_000  #: jobs in memory while the disk is full; the oldest are forgotten

_COLUMNS = (
    "slot",
    "project",
    "task",
    "chunk",
    "image",
    "started",
    "ended",
    "ran_s",
    "cpu_s",
    "cause",
    "exit_code",
    "bytes_in",
    "bytes_out",
)
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, {", ".join(_COLUMNS)});
CREATE INDEX IF NOT EXISTS jobs_by_end ON jobs (ended);
CREATE TABLE IF NOT EXISTS totals (
    project TEXT PRIMARY KEY, chunks INTEGER, finished INTEGER, ran_s REAL, cpu_s REAL, first TEXT, last TEXT);
CREATE TABLE IF NOT EXISTS transfer (day TEXT PRIMARY KEY, bytes_in INTEGER, bytes_out INTEGER);
CREATE TABLE IF NOT EXISTS counters (container TEXT PRIMARY KEY, bytes_in INTEGER, bytes_out INTEGER);
"""


class History:
    """Safe from any thread. Jobs are written by `flush`, in one go: until then a crash forgets them."""

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Ran] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = _open(path, timeout_s)

    def record(self, ran: Ran) -> None:
        """Remember a finished job."""
        with self._lock:
            self._waiting = [*self._waiting[-MOST_WAITING + 1 :], ran]

    def flush(self, today: str) -> None:
        """Write what was recorded, and forget what is too old (`today` is YYYY-MM-DD); raises sqlite3.Error."""
        with self._lock:
            if not self._waiting:
                return
            with self._database:
                for ran in self._waiting:
                    self._insert(ran)
                self._trim(today)
            self._waiting.clear()

    def count_transfer(self, day: str, counters: Mapping[str, tuple[int, int]]) -> None:
        """Add what each container's counters (bytes in, bytes out, since its start) gained since the last call."""
        with self._lock, self._database:
            before = {
                name: (got, sent) for name, got, sent in self._database.execute("SELECT * FROM counters")
            }
            gains = [_gain(now, before.get(name)) for name, now in counters.items()]
            self._database.execute("DELETE FROM counters")
            rows = [(name, *now) for name, now in counters.items()]
            self._database.executemany("INSERT INTO counters VALUES (?, ?, ?)", rows)
            self._database.execute(
                "INSERT INTO transfer VALUES (:day, :got, :sent) ON CONFLICT (day) DO UPDATE "
                "SET bytes_in = bytes_in + :got, bytes_out = bytes_out + :sent",
                {"day": day, "got": sum(got for got, _ in gains), "sent": sum(sent for _, sent in gains)},
            )

    def transfer(self, day: str) -> tuple[int, int]:
        """Bytes in and out of that day."""
        with self._lock:
            row = self._database.execute(
                "SELECT bytes_in, bytes_out FROM transfer WHERE day = ?", (day,)
            ).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def jobs(self, count: int) -> list[dict[str, Any]]:
        """The latest finished jobs, newest first."""
        with self._lock:
            waiting = [_row(ran) for ran in reversed(self._waiting[-count:])]
            query = f"SELECT {', '.join(_COLUMNS)} FROM jobs ORDER BY id DESC LIMIT ?"  # noqa: S608  # our own names
            rows = self._database.execute(query, (max(0, count - len(waiting)),)).fetchall()
        return [*waiting, *(dict(zip(_COLUMNS, row, strict=True)) for row in rows)]

    def days(self, count: int) -> list[dict[str, Any]]:
        """Transfer of the latest days, newest first."""
        query = "SELECT day, bytes_in, bytes_out FROM transfer ORDER BY day DESC LIMIT ?"
        with self._lock:
            rows = self._database.execute(query, (count,)).fetchall()
        return [dict(zip(("day", "bytes_in", "bytes_out"), row, strict=True)) for row in rows]

    def contribution(self) -> dict[str, Any]:
        """Everything that this machine ever gave: chunks, hours of processor, since when, by project."""
        with self._lock:
            rows = self._database.execute(
                "SELECT project, chunks, finished, ran_s, cpu_s, first, last FROM totals ORDER BY cpu_s DESC"
            ).fetchall()
        names = ("project", "chunks", "finished", "ran_s", "cpu_s", "first", "last")
        projects = [dict(zip(names, row, strict=True)) for row in rows]
        return {
            "since": min((one["first"] for one in projects), default=None),
            "chunks": sum(one["chunks"] for one in projects),
            "finished": sum(one["finished"] for one in projects),
            "cpu_hours": sum(one["cpu_s"] for one in projects) / 3600,
            "projects": projects,
        }

    def close(self) -> None:
        """Close the database; what was not flushed is lost."""
        with self._lock:
            self._database.close()

    def _insert(self, ran: Ran) -> None:
        row = _row(ran)
        marks = ", ".join(f":{name}" for name in _COLUMNS)
        self._database.execute(f"INSERT INTO jobs ({', '.join(_COLUMNS)}) VALUES ({marks})", row)  # noqa: S608
        self._database.execute(
            "INSERT INTO totals VALUES (:project, 1, :good, :ran_s, :cpu_s, :started, :ended) "
            "ON CONFLICT (project) DO UPDATE SET chunks = chunks + 1, finished = finished + :good, "
            "ran_s = ran_s + :ran_s, cpu_s = cpu_s + :cpu_s, last = :ended",
            {**row, "good": int(row["cause"] is None and row["exit_code"] == 0)},
        )

    def _trim(self, today: str) -> None:
        oldest = (datetime.fromisoformat(today) - timedelta(days=KEPT_DAYS)).strftime("%Y-%m-%d")
        self._database.execute("DELETE FROM jobs WHERE ended < ?", (oldest,))
        self._database.execute("DELETE FROM jobs WHERE id <= (SELECT max(id) FROM jobs) - ?", (MOST_JOBS,))
        self._database.execute("DELETE FROM transfer WHERE day < ?", (oldest,))


def _open(path: Path, timeout_s: float) -> sqlite3.Connection:
    """The database, made if need be; one that is broken is set aside: it is no reason to compute nothing."""
    try:
        return _connect(path, timeout_s)
    except sqlite3.OperationalError:  # locked, or no room: it may be as good as ever
        raise
    except sqlite3.DatabaseError:
        path.replace(path.with_suffix(".broken"))
        return _connect(path, timeout_s)


def _connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False, timeout=timeout_s)
    try:
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_SCHEMA)
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def _gain(now: tuple[int, int], before: tuple[int, int] | None) -> tuple[int, int]:
    """What was added to two counters; after a restart of the container they begin at zero."""
    if before is None or now[0] < before[0] or now[1] < before[1]:
        return now
    return now[0] - before[0], now[1] - before[1]


def _row(ran: Ran) -> dict[str, Any]:
    values = {name: getattr(ran, name) for name in _COLUMNS}
    return {name: _instant(value) if isinstance(value, datetime) else value for name, value in values.items()}


def _instant(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
