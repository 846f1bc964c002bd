"""The whole client, as a process of its own, with files: they come, are kept, are made, and reach the server."""

import contextlib
import hashlib
import json
import os
import random
import signal
import tempfile
from pathlib import Path

import pytest
from fake_server import CUT, Reply, clients_of, served, spooled, until

MB = 1_000_000


@pytest.fixture
def server():
    with served() as peer:
        yield peer


@pytest.fixture
def client(server, tmp_path):
    with clients_of(server, tmp_path) as start:
        yield start


def some_bytes(count, seed=1):
    return random.Random(seed).randbytes(count)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def shell(script):
    return ["/bin/sh", "-c", script.replace("{", "{{").replace("}", "}}")]


def puts(server):
    return [request for request in server.heard if request.method == "PUT"]


def made(server, chunk):
    """The files of an accepted attempt, by name."""
    files = server.stored[chunk].get("files", [])
    assert all(len(server.blobs[file["sha256"]]) == file["bytes"] for file in files)
    return {file["name"]: server.blobs[file["sha256"]] for file in files}


def test_the_tasks_files_and_the_chunks_own_lie_in_the_input_folder_and_cannot_be_changed(server, client):
    server.job["files"] = [server.file("code/fit.py", b"print(1)"), server.file("empty", b"")]
    server.job["action"] = shell(
        'cd "$DOCKERCOMP_IN" && find . -type f | sort && cat code/fit.py data/part.bin && stat -c %a empty'
    )
    server.offer("t.1", files=[server.file("data/part.bin", b"PART")])

    client()
    until(lambda: "t.1" in server.stored)

    assert server.stored["t.1"]["stdout"] == (
        "./chunk.json\n./code/fit.py\n./data/part.bin\n./empty\nprint(1)PART444\n"
    )
    assert server.tickets_seen == {"t.1"}
    assert "files" not in server.stored["t.1"]


def test_a_file_of_the_task_is_fetched_once_for_all_chunks_and_for_all_clients_that_share_the_folder(
    server, client, tmp_path
):
    big = server.file("big", some_bytes(50 * MB))
    server.piece_s = 0.001
    server.job["files"] = [big]
    server.job["action"] = shell('sha256sum < "$DOCKERCOMP_IN/big"; sleep 0.2')
    names = [f"t.{n}" for n in range(8)]
    server.offer(*names)
    shared = {"DOCKERCOMP_FILES": str(tmp_path / "files")}

    client(**shared)
    client(**shared, DOCKERCOMP_HOME=str(tmp_path / "other"))
    until(lambda: len(server.stored) == len(names), within_s=120)

    assert {one["stdout"].split()[0] for one in server.stored.values()} == {big["sha256"]}
    assert server.sent[big["sha256"]] == 50 * MB
    assert server.lives == 2 and (tmp_path / "files" / big["sha256"]).exists()


def test_a_large_input_comes_as_a_file_on_stdin_and_in_its_place(server, client):
    text = json.dumps({"rows": [{"x": "y" * 100} for _ in range(30_000)], "first_row": 0}).encode()
    server.job |= {"rows": 30_000, "action": shell('cat > a; cmp a "$DOCKERCOMP_IN/chunk.json" && wc -c < a')}
    server.offer("t.1", data=None, input_file={"sha256": server.give(text), "bytes": len(text)})

    client()
    until(lambda: "t.1" in server.stored)

    assert server.stored["t.1"]["stdout"].strip() == str(len(text))


def test_fields_of_an_input_that_is_a_file_are_filled_in_up_to_a_bound(server, client):
    small, large = (json.dumps({"a": "x", "b": "y" * size}).encode() for size in (100_000, 5_000_000))
    server.job["action"] = ["/bin/echo", "{a}"]
    for name, text in (("t.1", small), ("t.2", large)):
        server.offer(name, data=None, input_file={"sha256": server.give(text), "bytes": len(text)})

    client()
    until(lambda: len(server.stored) == 2)

    assert server.stored["t.1"]["stdout"] == "x\n"
    assert server.stored["t.2"]["outcome"] == "failed" and "4 MiB" in server.stored["t.2"]["stderr_tail"]


def test_files_that_the_job_asked_for_are_at_the_server_before_the_attempt_and_no_others(
    server, client, tmp_path
):
    server.job["outputs"] = ["*.csv", "model/**"]
    server.job["action"] = shell(
        'cd "$DOCKERCOMP_OUT"; mkdir -p model/a other; echo 1 > t.csv; echo 2 > model/a/w; : > model/empty; '
        "echo 3 > other/t.csv; echo 4 > note; ln -s /etc/passwd p.csv; mkfifo f.csv; echo done"
    )
    server.offer("t.1")

    client()
    until(lambda: "t.1" in server.stored)

    assert made(server, "t.1") == {"model/a/w": b"2\n", "model/empty": b"", "t.csv": b"1\n"}
    assert server.stored["t.1"]["stdout"] == "done\n"
    assert "Left out of /out: f.csv (not a regular file" in server.stored["t.1"]["stderr_tail"]
    order = [request.method + request.path[:5] for request in server.heard]
    assert max(n for n, one in enumerate(order) if one == "PUT/blob") < len(order)
    assert len(puts(server)) == 3
    until(lambda: not spooled(tmp_path))
    until(lambda: not list((tmp_path / "home" / "spool" / "files").iterdir()))
    assert not list((tmp_path / "home" / "files").iterdir())


def test_a_failed_attempt_brings_no_files(server, client):
    server.job |= {"outputs": ["**"], "action": shell('echo 1 > "$DOCKERCOMP_OUT/f"; exit 3')}
    server.offer("t.1")

    client()
    until(lambda: "t.1" in server.stored)

    assert server.stored["t.1"]["outcome"] == "failed" and "files" not in server.stored["t.1"]
    assert not puts(server)


def test_a_big_file_goes_up_in_parts_and_on_where_a_killed_client_was(server, client, tmp_path):
    server.job["outputs"] = ["big"]
    server.job["action"] = shell('head -c 40000000 /dev/zero > "$DOCKERCOMP_OUT/big"')
    server.offer("t.1")
    parts = []

    def hold_the_third(request):
        if request.method == "PUT" and server.lives < 2:
            parts.append(request)
            return CUT if len(parts) > 2 else None
        return None

    server.rules.append(hold_the_third)
    first = client()
    until(lambda: len(parts) > 2)
    first.kill()
    first.wait()
    assert [len(part) for part in server.parts.values()] == [2 * 8 * 2**20]
    client()
    until(lambda: "t.1" in server.stored)

    assert made(server, "t.1") == {"big": bytes(40_000_000)}
    again = [request for request in puts(server) if request not in parts]
    assert len(again) == 3, "the parts that were missing, and none of the others"
    until(lambda: not list((tmp_path / "home" / "spool" / "files").iterdir()))


def test_a_client_killed_while_it_fetches_goes_on_where_it_was(server, client, tmp_path):
    big = server.file("big", some_bytes(30 * MB))
    server.job |= {"files": [big], "action": shell('wc -c < "$DOCKERCOMP_IN/big"')}
    server.offer("t.1")
    server.piece_s = 0.01
    first = client()
    until(lambda: server.sent[big["sha256"]] > 15 * MB)

    first.kill()
    first.wait()
    server.piece_s = 0.0
    server.offer("t.1")
    client()
    until(lambda: "t.1" in server.stored)

    assert server.stored["t.1"]["stdout"].strip() == str(30 * MB)
    assert server.sent[big["sha256"]] < 40 * MB, "what was in the socket's buffers at most came twice"


def test_a_server_that_lost_a_file_gets_it_once_more(server, client):
    server.job |= {"outputs": ["f"], "action": shell('echo 1 > "$DOCKERCOMP_OUT/f"')}
    server.offer("t.1")
    lost = []

    def lose_it_once(request):
        if request.method == "POST" and request.body.get("results") and not lost:
            lost.append(server.blobs.popitem())
        return

    server.rules.append(lose_it_once)
    client()
    until(lambda: "t.1" in server.stored)

    assert made(server, "t.1") == {"f": b"1\n"} and len(puts(server)) == 2


def test_files_that_the_server_has_no_room_for_are_an_error_of_the_attempt(server, client, tmp_path):
    server.job |= {"outputs": ["f"], "action": shell('echo 1 > "$DOCKERCOMP_OUT/f"; echo 42')}
    server.offer("t.1")
    server.rules.append(
        lambda request: Reply(413, {"error": "The quota is full."}, {}) if request.method == "PUT" else None
    )

    client()
    until(lambda: "t.1" in server.stored)

    said = server.stored["t.1"]
    assert (said["outcome"], said["stdout"]) == ("output_limit", "") and "files" not in said
    assert "The quota is full." in said["stderr_tail"]
    until(lambda: not list((tmp_path / "home" / "spool" / "files").iterdir()))


def test_unsent_files_fill_the_spool_and_no_more_is_claimed(server, client, tmp_path):
    server.job |= {"outputs": ["f"], "action": shell('head -c 2000000 /dev/zero > "$DOCKERCOMP_OUT/f"')}
    server.offer(*(f"t.{n}" for n in range(5)))
    closed = [True]
    server.rules.append(
        lambda request: (
            Reply(503, {"error": "Not now."}, {"Retry-After": "0"})
            if request.method == "PUT" and closed
            else None
        )
    )

    client(DOCKERCOMP_SPOOL_MB="1")
    until(lambda: len(puts(server)) > 3)
    assert len(spooled(tmp_path)) == 1 and not server.stored
    beats = len(server.heard)
    closed.clear()
    until(lambda: len(server.stored) == 5)

    assert len(server.heard) > beats


def test_a_file_with_another_content_than_its_hash_never_reaches_a_program(server, client):
    file = server.file("f", b"what was promised")
    server.blobs[file["sha256"]] = b"what is sent here"
    server.job |= {"files": [file], "action": shell('cat "$DOCKERCOMP_IN/f"')}
    server.offer("t.1")

    client()
    until(lambda: server.of("/release"))
    server.blobs[file["sha256"]] = b"what was promised"
    server.offer("t.1")
    until(lambda: "t.1" in server.stored)

    assert server.stored["t.1"]["stdout"] == "what was promised"


def test_a_file_that_rots_on_the_disk_is_fetched_anew(server, client, tmp_path):
    file = server.file("f", b"sound")
    server.job |= {"files": [file], "action": shell('cat "$DOCKERCOMP_IN/f"')}
    server.offer("t.1")
    client()
    until(lambda: "t.1" in server.stored)
    kept = tmp_path / "home" / "cache" / file["sha256"]
    kept.write_bytes(b"rot!!")

    server.offer("t.2")
    until(lambda: "t.2" in server.stored)

    assert server.stored["t.2"]["stdout"] == "sound" == kept.read_text()


def test_what_was_used_least_recently_goes_when_there_is_no_room(server, client, tmp_path):
    files = [server.file("f", some_bytes(400_000, seed)) for seed in range(4)]
    server.job["action"] = shell('wc -c < "$DOCKERCOMP_IN/f"')
    client(DOCKERCOMP_FILES_MB="1")
    for n, which in enumerate([0, 1, 0, 2]):  # the third is the second's end, not the first's
        server.offer(f"t.{n}", files=[files[which]])
        until(lambda n=n: f"t.{n}" in server.stored)

    there = {path.name for path in (tmp_path / "home" / "cache").iterdir() if "." not in path.name}
    assert there == {files[0]["sha256"], files[2]["sha256"]}
    server.offer("t.9", files=[server.file("f", bytes(2_000_000))])
    until(lambda: "t.9" in server.stored)
    assert (
        server.stored["t.9"]["outcome"] == "engine"
        and "too large here" in server.stored["t.9"]["stderr_tail"]
    )


def test_a_name_that_leads_out_of_the_input_folder_is_an_error_of_the_job(server, client, tmp_path):
    server.job["files"] = [server.file("../../escaped", b"x")]
    server.offer("t.1")

    client()
    until(lambda: "t.1" in server.stored)

    assert server.stored["t.1"]["outcome"] == "engine"
    assert not list(tmp_path.rglob("escaped"))


COUNTING = (
    'n=$(cat "$DOCKERCOMP_CHECKPOINT/n" 2>/dev/null || echo 0); echo $((n+1)) > "$DOCKERCOMP_CHECKPOINT/n"; '
    '[ "$n" -ge 1 ] || sleep 60; echo "$n"'
)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_next_attempt_of_a_chunk_goes_on_from_its_checkpoint_though_the_client_died(
    server, client, tmp_path, how
):
    server.beat_s = 0.1
    server.job["action"] = shell(COUNTING)
    server.offer("t.1")
    first = client()
    until(lambda: any("t.1" in request.body["started"] for request in server.of("/heartbeat")))
    until(lambda: checkpoint(tmp_path / "home") == "1")

    first.send_signal(how)
    first.wait()
    server.offer("t.1")
    client()
    until(lambda: "t.1" in server.stored)
    server.offer("t.1")
    before = server.stored.pop("t.1")

    assert before["stdout"] == "1\n"
    until(lambda: checkpoint(tmp_path / "home") == "1")  # it began anew


def checkpoint(home):
    """What the file n in the checkpoint of this client's job says."""
    as_another = f"dockercomp-jobs-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"
    for jobs in (home / "jobs", Path(tempfile.gettempdir()) / as_another):
        for path in jobs.glob("checkpoints/*/n"):
            with contextlib.suppress(FileNotFoundError):
                return path.read_text().strip()
    return None
