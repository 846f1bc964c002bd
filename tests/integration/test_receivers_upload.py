"""Files that are sent to a receiver: tables and archives, hostile ones too."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from parts import require
from people import Scientist

CAT = {"action": ["/bin/cat"]}
PARQUET = "application/vnd.apache.parquet"


@pytest.fixture
def keeper(stores: Any) -> Any:
    """A housekeeper, whose steps a test calls."""
    from source_server.housekeeping import Housekeeper

    return Housekeeper(stores, beat_s=20.0)


@pytest.fixture
def receiver(scientist: Scientist) -> Callable[..., dict[str, Any]]:
    """Opens a way into the project `files`."""
    scientist.ok("POST", "/projects", {"name": "files"})

    def make(template: Any = CAT, **settings: Any) -> dict[str, Any]:
        body = {"kind": "upload", "template": template, **settings}
        return dict(scientist.ok("POST", "/projects/files/receivers", body))

    return make


def put(app: Any, receiver: dict[str, Any], name: str, body: Any, kind: str | None = None) -> Any:
    headers = {"Authorization": f"Bearer {receiver['secret']}"}
    return app.test_client().put(
        f"{receiver['address']}/{name}".rstrip("/"), data=body, headers=headers, content_type=kind
    )


def handled(scientist: Scientist, keeper: Any) -> dict[str, Any]:
    """The newest event, after it was handled."""
    keeper.slow_events()
    return dict(scientist.ok("GET", "/projects/files/events")["events"][0])


def inputs(raw: Any, task: str) -> list[Any]:
    return [json.loads(one["input"]) for one in raw.chunks.find({"task": task}, sort=[("n", 1)])]


def tar(files: Iterable[tuple[str, bytes]], kind: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=kind) as archive:
        for name, content in files:
            item = tarfile.TarInfo(name)
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    return out.getvalue()


def zipped(files: Iterable[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return out.getvalue()


# --- tables


def test_a_csv_is_a_task_with_so_many_rows_a_chunk(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any, raw: Any
) -> None:
    way = receiver(chunking={"rows": 2})

    taken = put(app, way, "pairs.csv", "a,b\n1,2\n3,4\n5,6\n")

    assert taken.status_code == 202, taken.text
    event = handled(scientist, keeper)
    assert event["state"] == "done", event["why"]
    assert [len(one["rows"]) for one in inputs(raw, event["task"])] == [2, 1]
    assert scientist.ok("GET", f"/tasks/{event['task']}")["state"] == "running"


def test_chunks_by_size_have_as_many_rows_as_fit(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any, raw: Any
) -> None:
    way = receiver(chunking={"bytes": 2000})
    rows = [{"n": n, "text": "ü" * (n % 300)} for n in range(500)]

    put(app, way, "texts.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    event = handled(scientist, keeper)
    texts = [one["input"] for one in raw.chunks.find({"task": event["task"]}, sort=[("n", 1)])]
    assert max(len(text.encode()) for text in texts) <= 2000
    assert len(texts) < 200
    assert [row for text in texts for row in json.loads(text)["rows"]] == rows
    assert [json.loads(text)["first_row"] for text in texts][:2] == [0, len(json.loads(texts[0])["rows"])]


def test_the_same_file_again_is_the_same_task_and_other_contents_are_another(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any
) -> None:
    way = receiver()
    first = put(app, way, "day.csv", "a\n1\n").get_json()
    keeper.slow_events()

    same = put(app, way, "day.csv", "a\n1\n").get_json()
    other = put(app, way, "day.csv", "a\n2\n").get_json()
    keeper.slow_events()

    assert same["id"] == first["id"] != other["id"]
    assert same["state"] == "done"
    assert len(scientist.ok("GET", "/tasks")["tasks"]) == 2


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("pairs.csv", "a,b\n1\n", "1 values for 2 columns"),
        ("pairs.jsonl", "{}\n", "no fields"),
        ("pairs.parquet", "PAR1 and nothing", "Parquet"),
        ("pairs.csv", b"a\n\xff\n", "not UTF-8"),
    ],
)
def test_a_table_that_is_none_is_an_event_that_says_why(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any, name: str, body: Any, says: str
) -> None:
    way = receiver()

    assert put(app, way, name, body).status_code == 202

    event = handled(scientist, keeper)
    assert event["state"] == "refused"
    assert says in event["why"]


@pytest.mark.parametrize(
    ("name", "kind", "status", "says"),
    [
        ("pairs.xlsx", None, 400, ".csv"),
        ("pairs.tar", None, 400, "a table, not tar"),
        ("", None, 400, "Content-Type"),
        ("pairs", "text/csv; charset=utf-8", 202, ""),
        ("../../etc/passwd.csv", None, 202, ""),
    ],
)
def test_what_a_file_is_its_type_or_its_name_says(
    app: Any, receiver: Any, name: str, kind: str | None, status: int, says: str
) -> None:
    way = receiver()

    answer = put(app, way, name, "a\n1\n", kind)

    assert answer.status_code == status
    assert says in answer.get_json().get("error", "")


def test_a_wrong_secret_stores_nothing(app: Any, receiver: Any, raw: Any) -> None:
    way = receiver()

    answer = put(app, {**way, "secret": "dcr_no"}, "pairs.csv", "a\n1\n")

    assert answer.status_code == 401
    assert raw.blobs.count_documents({}) == raw.events.count_documents({}) == 0


# --- Parquet


@pytest.fixture
def parquet() -> Callable[..., bytes]:
    """Writes a Parquet file with these columns."""
    try:
        import pyarrow
        from pyarrow import parquet as format_
    except ImportError:
        require("pyarrow is not installed")

    def write(columns: dict[str, Any], **options: Any) -> bytes:
        out = io.BytesIO()
        format_.write_table(pyarrow.table(columns), out, **options)
        return out.getvalue()

    return write


def test_a_parquet_file_is_a_table_with_its_types(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any, raw: Any, parquet: Any
) -> None:
    import datetime
    import decimal

    moment = datetime.datetime(2026, 3, 29, 1, 30, tzinfo=datetime.timezone.utc)
    columns = {
        "n": [1, 2**62],
        "x": [0.1, None],
        "name": ["Ada", "Zoë"],
        "ok": [True, False],
        "day": [datetime.date(2026, 3, 29), None],
        "at": [moment, moment],
        "price": [decimal.Decimal("1.50"), decimal.Decimal("2.25")],
        "list": [[1, 2], []],
        "of": [{"a": 1}, {"a": None}],
    }

    put(app, receiver(), "table.parquet", parquet(columns))

    event = handled(scientist, keeper)
    assert event["state"] == "done", event["why"]
    first, second = inputs(raw, event["task"])
    assert first == {
        "n": 1,
        "x": 0.1,
        "name": "Ada",
        "ok": True,
        "day": "2026-03-29",
        "at": "2026-03-29T01:30:00+00:00",
        "price": "1.50",
        "list": [1, 2],
        "of": {"a": 1},
    }
    assert (second["n"], second["x"], second["name"]) == (2**62, None, "Zoë")


def test_a_task_takes_parquet_as_it_takes_csv(scientist: Scientist, raw: Any, parquet: Any) -> None:
    body = parquet({"a": list(range(1000)), "b": [str(n) for n in range(1000)]}, row_group_size=100)
    scientist.ok("POST", "/projects", {"name": "sums"})
    task = scientist.ok("POST", "/projects/sums/tasks", {**CAT, "rows_per_chunk": 300})["id"]

    first = scientist.ok("PUT", f"/tasks/{task}/chunks/one", data=body, content_type=PARQUET)
    again = scientist.ok("PUT", f"/tasks/{task}/chunks/one", data=body, content_type=PARQUET)

    assert first == again == {"upload": "one", "chunks": 4, "rows": 1000}
    assert inputs(raw, task)[3]["rows"][-1] == {"a": 999, "b": "999"}


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"x": [1.0, float("nan")]}, "Row 2"),
        ({"x": [float("inf")]}, "Row 1"),
        ({"x": [b"\x00"]}, "type bytes"),
    ],
)
def test_values_without_a_place_in_json_are_refused_and_named(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any, parquet: Any, columns: Any, says: str
) -> None:
    put(app, receiver(), "table.parquet", parquet(columns))

    event = handled(scientist, keeper)

    assert event["state"] == "refused"
    assert says in event["why"]


def test_a_parquet_file_is_read_in_constant_memory(parquet: Any, tmp_path: Any) -> None:
    import resource
    import subprocess
    import sys

    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.parquet"
        path.write_bytes(parquet({"n": list(range(rows)), "t": ["x" * 200] * rows}, row_group_size=20_000))
        program = (
            "import resource, subprocess, sys\n"
            f"with open({str(path)!r}, 'rb') as source:\n"
            "    subprocess.run([sys.executable, '-m', 'source_server.parquet_rows'], stdin=source,"
            " stdout=subprocess.DEVNULL, check=True)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return int(said.stdout)

    assert resource.RLIMIT_AS
    small, large = peak(20_000), peak(400_000)

    assert large < small + 60_000, f"{small} kB for 20,000 rows and {large} kB for 400,000"


def test_a_parquet_file_that_unfolds_to_billions_of_rows_is_refused(parquet: Any, tmp_path: Any) -> None:
    import subprocess
    import sys

    import pyarrow

    rows = 20_000_000
    same = pyarrow.DictionaryArray.from_arrays(pyarrow.nulls(rows, pyarrow.int32()).fill_null(0), ["x"])
    bomb = tmp_path / "bomb.parquet"
    bomb.write_bytes(parquet({"t": same}))

    with bomb.open("rb") as source:
        done = subprocess.run(
            [sys.executable, "-m", "source_server.parquet_rows"],
            stdin=source,
            capture_output=True,
            check=False,
        )

    assert bomb.stat().st_size < 100_000
    assert (done.returncode, done.stdout) == (65, b"")
    assert b"20000000 rows" in done.stderr


def test_a_few_bytes_of_parquet_do_not_fill_the_database(
    scientist: Scientist, raw: Any, parquet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow

    monkeypatch.setattr("source_server.services.tasks.parquet.MAX_ROWS", 1_000_000)
    same = pyarrow.DictionaryArray.from_arrays(
        pyarrow.nulls(2000, pyarrow.int32()).fill_null(0), ["x" * 60_000]
    )
    body = parquet({"t": same}, compression="zstd")
    scientist.ok("POST", "/projects", {"name": "sums"})
    task = scientist.ok("POST", "/projects/sums/tasks", CAT)["id"]

    answer = scientist.call("PUT", f"/tasks/{task}/chunks/one", data=body, content_type=PARQUET)

    assert len(body) < 2000
    assert answer.status_code == 413 and "more than 1000000 bytes" in answer.get_json()["error"]
    assert raw.chunks.count_documents({}) == 0


def test_the_reader_of_parquet_is_told_nothing_of_the_servers_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    from source_server.domain.table import Lines
    from source_server.services.tasks.parquet import parquet_rows

    says = "import json, os; print(json.dumps(dict(os.environ)))"
    monkeypatch.setattr("source_server.services.tasks.parquet.PROGRAM", (sys.executable, "-c", says))
    monkeypatch.setenv("DOCKERCOMP_MONGO_URI", "mongodb://somebody:password@host/")

    (row,) = parquet_rows(Lines([b"PAR1"]))

    assert "PATH" in row.names and "password" not in row.text


# --- archives


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_every_matching_file_of_an_archive_is_a_chunk_with_that_file_as_input(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any, raw: Any, kind: str
) -> None:
    files = [("day/a.dat", b"one"), ("day/b.dat", b"two" * 1000), ("README", b"no"), ("other/c.dat", b"x")]
    body = zipped(files) if kind == "zip" else tar(files, kind)
    way = receiver(chunking={"files": "day/*.dat"})

    taken = put(
        app, way, f"day.{'zip' if kind == 'zip' else kind.replace('w', 'tar').replace(':', '.')}", body
    )

    assert taken.status_code == 202, taken.text
    event = handled(scientist, keeper)
    assert event["state"] == "done", event["why"]
    rows = inputs(raw, event["task"])
    assert [(row["name"], row["path"], row["bytes"]) for row in rows] == [
        ("a.dat", "day/a.dat", 3),
        ("b.dat", "day/b.dat", 3000),
    ]
    assert scientist.call("GET", f"/blobs/{rows[0]['sha256']}").data == b"one"
    assert scientist.ok("GET", f"/tasks/{event['task']}")["state"] == "running"


@pytest.mark.parametrize(
    "name", ["../a.dat", "/etc/a.dat", "x/../../a.dat", "a\\b.dat", "x//a.dat", "e\u0301.dat", "a\n.dat"]
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_that_could_mean_another_place_is_refused(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any, name: str, kind: str
) -> None:
    body = zipped([(name, b"x")]) if kind == "zip" else tar([(name, b"x")])
    put(app, receiver(chunking={"files": "**"}), f"a.{kind}", body)

    event = handled(scientist, keeper)

    assert event["state"] == "refused"
    assert "name" in event["why"]


def test_links_and_devices_that_match_are_refused(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any
) -> None:
    for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            item = tarfile.TarInfo(f"{number}.dat")
            item.type, item.linkname = kind, "/etc/passwd"
            archive.addfile(item)
        put(app, receiver(chunking={"files": "*.dat"}), "a.tar", out.getvalue())

        event = handled(scientist, keeper)

        assert event["state"] == "refused"
        assert "link" in event["why"]


def test_a_path_that_comes_twice_and_an_archive_without_a_match_are_refused(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any
) -> None:
    put(app, receiver(chunking={"files": "*"}), "a.tar", tar([("a", b"1"), ("./a", b"2")], "w"))
    assert "twice" in handled(scientist, keeper)["why"]

    put(app, receiver(chunking={"files": "*.txt"}), "b.tar", tar([("a", b"1")], "w"))
    assert "No file" in handled(scientist, keeper)["why"]


def test_an_archive_that_unfolds_beyond_bounds_is_given_up(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("source_server.receivers.archive.MOST_UNPACKED", 10_000_000)
    for name, body in (
        ("bomb.zip", zipped([("a", bytes(50_000_000))])),
        ("bomb.tgz", tar([("a", bytes(50_000_000))])),
    ):
        assert len(body) < 100_000
        put(app, receiver(chunking={"files": "*"}), name, body)

        event = handled(scientist, keeper)

        assert event["state"] == "refused"
        assert "more than 10000000 bytes" in event["why"]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a.tar", b"x" * 2000),
        ("a.tgz", gzip.compress(b"x" * 2000)),
        ("a.tgz", tar([("a", b"1" * 100_000)])[:-20]),
        ("a.zip", b"PK" + b"x" * 100),
        ("a.zip", zipped([("a", b"1" * 100_000)])[:-30]),
        ("a.tar.bz2", bz2.compress(b"no tar")),
    ],
)
def test_a_broken_archive_is_an_event_that_says_so(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any, name: str, body: bytes
) -> None:
    put(app, receiver(chunking={"files": "*"}), name, body)

    event = handled(scientist, keeper)

    assert event["state"] == "refused"
    assert "archive" in event["why"]


def test_a_header_of_a_gigabyte_of_packed_zeros_is_not_read(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any
) -> None:
    item = tarfile.TarInfo("././@LongLink")
    item.type, item.size = tarfile.GNUTYPE_LONGNAME, 500_000_000
    body = gzip.compress(item.tobuf(tarfile.GNU_FORMAT) + bytes(50_000_000))
    put(app, receiver(chunking={"files": "*"}), "a.tgz", body)

    event = handled(scientist, keeper)

    assert event["state"] == "refused"
    assert "header" in event["why"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"chunking": {}}, "one of"),
        ({"chunking": {"rows": 1, "bytes": 2000}}, "one of"),
        ({"chunking": {"bytes": 10}}, "bytes"),
        ({"template": {**CAT, "rows_per_chunk": 3}}, "chunking"),
        ({"template": {"action": ["/bin/echo", "{a}"]}, "chunking": {"rows": 2}}, "placeholders"),
    ],
)
def test_chunking_that_could_not_work_is_refused(scientist: Scientist, settings: Any, says: str) -> None:
    scientist.ok("POST", "/projects", {"name": "files"})

    body = {"kind": "upload", "template": CAT, **settings}
    answer = scientist.call("POST", "/projects/files/receivers", body)

    assert answer.status_code == 400
    assert says in answer.get_json()["error"]
