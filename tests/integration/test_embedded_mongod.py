"""The embedded MongoDB on a real mongod: starts, stops, kills, and every refusal."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from product import free_port
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from source_server.stores.embedded import (
    DataFolderInUse,
    EmbeddedMongod,
    MongodDied,
    MongodTooSlow,
    StartInterrupted,
)
from source_server.stores.mongod_binary import MongodUnavailable
from source_server.stores.mongod_files import DataFolderDamaged, PortTaken, WrongRelease, find_uri

pytestmark = pytest.mark.mongo

Make = Callable[..., EmbeddedMongod]


@pytest.fixture
def make(home: Path, mongod_binary: Path) -> Iterator[Make]:
    """Makes EmbeddedMongods on the one folder of this test, and stops them."""
    made: list[EmbeddedMongod] = []

    def make_one(folder: Path = home / "mongodb", **options: Any) -> EmbeddedMongod:
        made.append(EmbeddedMongod(folder, mongod_binary, cache_gb=0.25, **options))
        return made[-1]

    yield make_one
    for mongod in made:
        mongod.stop()


@contextmanager
def client(uri: str) -> Iterator[MongoClient[dict[str, Any]]]:
    with MongoClient(uri, serverSelectionTimeoutMS=10_000) as connected:
        yield connected


def insert(uri: str, value: int) -> None:
    with client(uri) as connected:
        connected.lab.values.insert_one({"value": value})


def values(uri: str) -> list[int]:
    with client(uri) as connected:
        return sorted(document["value"] for document in connected.lab.values.find())


def fingerprint(folder: Path) -> dict[str, str]:
    """What is in the data folder, file by file; mongod.lock only ever holds a process id."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file() and file.name != "mongod.lock"
    }


def test_data_port_and_password_survive_a_clean_restart(make: Make, home: Path) -> None:
    first = make()
    first.start()
    uri = first.uri
    insert(uri, 1)

    first.stop()
    second = make()
    second.start()

    assert not first.alive()
    assert second.uri == uri
    assert values(second.uri) == [1]


def test_acknowledged_data_survives_kill_9(make: Make) -> None:
    mongod = make()
    mongod.start()
    insert(mongod.uri, 1)
    assert mongod.pid is not None

    os.kill(mongod.pid, signal.SIGKILL)
    while mongod.alive():
        pass
    mongod.start()

    assert values(mongod.uri) == [1]


def test_a_clean_stop_leaves_no_process_and_a_free_folder(make: Make, home: Path) -> None:
    mongod = make()
    mongod.start()
    pid = mongod.pid
    assert pid is not None

    mongod.stop()

    assert mongod.pid is None
    assert not runs(pid)
    assert "Shutting down" in (home / "mongodb" / "mongod.log").read_text()
    assert find_uri(home / "mongodb") is None


def test_a_first_start_killed_after_any_step_is_finished_by_the_next(make: Make) -> None:
    finished = False
    kills = 0
    while not finished:
        asked = iter(range(kills, -1, -1))
        mongod = make()
        try:
            mongod.start(stopping=lambda asked=asked: next(asked) == 0)
            finished = True
        except StartInterrupted:
            kills += 1
            mongod.stop()

    insert(mongod.uri, 7)

    assert kills > 1
    assert values(mongod.uri) == [7]
    with client(mongod.uri) as connected:
        assert len(connected.admin.command("usersInfo")["users"]) == 1


def test_it_is_a_bounded_replica_set_of_one_on_loopback(make: Make) -> None:
    mongod = make()
    mongod.start()

    with client(mongod.uri) as connected:
        members = connected.admin.command("replSetGetConfig")["config"]["members"]
        status = connected.admin.command("serverStatus")
        oplog = connected.local.command("collStats", "oplog.rs")["maxSize"]

    assert [member["host"].split(":")[0] for member in members] == ["127.0.0.1"]
    assert status["wiredTiger"]["cache"]["maximum bytes configured"] == 256 * 2**20
    assert oplog == 256 * 2**20


def test_nobody_gets_in_without_the_password(make: Make) -> None:
    mongod = make()
    mongod.start()
    place = mongod.uri.rpartition("@")[2]

    for who in ("", "dockercomp:wrong@"):
        with (
            pytest.raises(OperationFailure, match=r"[Aa]uthentication"),
            client(f"mongodb://{who}{place}") as intruder,
        ):
            intruder.lab.values.find_one()

    with pytest.raises(OperationFailure, match="authentication"), client(f"mongodb://{place}") as intruder:
        intruder.admin.command("createUser", "mallory", pwd="x", roles=["root"])


def test_secrets_are_private_and_not_on_the_command_line(make: Make, home: Path) -> None:
    mongod = make()
    mongod.start()
    folder = home / "mongodb"
    password = (folder / "password").read_text().strip()

    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in ("password", "keyfile")}
    command_line = Path(f"/proc/{mongod.pid}/cmdline").read_text()

    assert modes == {"password": 0o600, "keyfile": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert password not in command_line
    assert password not in (folder / "mongod.log").read_text()


def test_a_second_server_on_the_same_folder_is_refused_with_the_owners_pid(make: Make, home: Path) -> None:
    first = make()
    first.start()

    with pytest.raises(DataFolderInUse, match=rf"{home}/mongodb is in use by process {os.getpid()}: stop it"):
        make().start()

    insert(first.uri, 1)
    assert values(first.uri) == [1]


def test_a_folder_on_which_a_stranger_runs_a_mongod_is_refused(make, home, mongod_binary, tmp_path) -> None:
    data = home / "mongodb" / "data"
    data.mkdir(parents=True)
    port = free_port()
    argv = [mongod_binary, "--dbpath", data, "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket"]
    stranger = subprocess.Popen([*argv, "--logpath", tmp_path / "log"], stdout=subprocess.DEVNULL)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            assert stranger.poll() is None

        with pytest.raises(DataFolderInUse, match=f"in use by process {stranger.pid}: stop it first"):
            make().start()
    finally:
        stranger.terminate()
        stranger.wait()


def test_a_port_that_was_taken_meanwhile_is_named_and_the_data_is_left_alone(make: Make, home: Path) -> None:
    mongod = make()
    mongod.start()
    mongod.stop()
    port = int((home / "mongodb" / "port").read_text())
    before = fingerprint(home / "mongodb")

    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(PortTaken, match=f"Port {port} of 127.0.0.1"),
    ):
        make().start()

    assert fingerprint(home / "mongodb") == before | {"lock": before["lock"]}
    mongod.start()
    assert mongod.alive()


def test_a_port_taken_before_there_is_data_is_exchanged_for_another(make: Make, home: Path) -> None:
    (home / "mongodb").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (home / "mongodb" / "port").write_text(f"{port}\n")

        mongod = make()
        mongod.start()

    assert (home / "mongodb" / "port").read_text().strip() != str(port)


def test_data_of_a_newer_release_is_refused_before_a_mongod_touches_it(make: Make, home: Path) -> None:
    mongod = make()
    mongod.start()
    mongod.stop()
    (home / "mongodb" / "release").write_text("99.0\n")
    before = fingerprint(home / "mongodb")

    with pytest.raises(
        WrongRelease, match=r"belongs to MongoDB 99.0, which .* cannot open: set DOCKERCOMP_MONGOD"
    ):
        make().start()

    assert fingerprint(home / "mongodb") == before


def test_data_that_mongod_cannot_open_is_refused_with_its_reason_and_not_changed(
    make: Make, home: Path
) -> None:
    mongod = make()
    mongod.start()
    mongod.stop()
    (home / "mongodb" / "data" / "WiredTiger.turtle").write_text("garbage")
    before = fingerprint(home / "mongodb" / "data")

    with pytest.raises(
        MongodDied, match=r"database corruption detected.*left as it is.*mongod.log"
    ) as refused:
        make().start()

    assert "\n" not in str(refused.value)
    assert fingerprint(home / "mongodb" / "data") == before


@pytest.mark.parametrize("name", ["password", "port"])
def test_data_without_its_password_or_port_is_refused_and_no_new_one_is_made(
    make: Make, home: Path, name
) -> None:
    mongod = make()
    mongod.start()
    mongod.stop()
    (home / "mongodb" / name).unlink()

    with pytest.raises(DataFolderDamaged, match=f"mongodb/{name} is missing.*restore it from a backup"):
        make().start()

    assert not (home / "mongodb" / name).exists()


def test_a_password_that_is_not_the_datas_is_refused_in_a_sentence(make: Make, home: Path) -> None:
    mongod = make()
    mongod.start()
    mongod.stop()
    (home / "mongodb" / "password").write_text("another\n")

    with pytest.raises(DataFolderDamaged, match="does not open the MongoDB data beside it"):
        make().start()


def test_a_full_disk_is_told_in_a_sentence_and_leaves_nothing_running(make: Make, home: Path) -> None:
    disk = home / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=600k none {disk} 2>/dev/null") != 0:
        pytest.skip("only root can mount a small disk")
    try:
        mongod = make(disk / "mongodb")

        with pytest.raises(MongodUnavailable, match=r"[Nn]o (disk )?space .*left") as refused:
            mongod.start()

        assert str(disk) in str(refused.value)
        assert not mongod.alive()
    finally:
        assert os.system(f"umount {disk}") == 0


def test_a_mongod_that_is_not_ready_in_time_is_ended(make: Make, home: Path) -> None:
    mongod = make(start_timeout_s=0.0)

    with pytest.raises(MongodTooSlow, match="not ready after 0 s; its log is"):
        mongod.start()

    assert not mongod.alive()
    mongod = make()
    mongod.start()
    assert mongod.alive()


def test_a_long_log_is_put_aside_at_the_start(make: Make, home: Path) -> None:
    log = home / "mongodb" / "mongod.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * 20_000_001)

    make().start()

    assert log.stat().st_size < 1_000_000
    assert log.with_suffix(".log.1").stat().st_size == 20_000_001


def test_mongod_does_not_outlive_a_killed_owner_and_the_next_one_can_start(
    make: Make, home, mongod_binary
) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from source_server.stores.embedded import EmbeddedMongod\n"
        "mongod = EmbeddedMongod(Path(sys.argv[1]), Path(sys.argv[2]), cache_gb=0.25)\n"
        "mongod.start(); print(mongod.pid, flush=True); time.sleep(600)"
    )
    argv = [sys.executable, "-c", code, str(home / "mongodb"), str(mongod_binary)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()

    mongod = make()
    mongod.start()

    assert mongod.alive()
    assert mongod.pid != pid
    assert not runs(pid)


def runs(pid: int) -> bool:
    """Whether the process does more than wait for its parent to notice that it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
