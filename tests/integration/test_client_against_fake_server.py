"""The whole client, as a process of its own, against a small HTTP server that can also fail, hang and die."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from fake_server import CUT, HANG, Reply, clients_of, served, spooled, until

from client_container import service

#: A client leaves within 5 s of a signal, on a machine that has time for it; the server hangs for a minute.
PATIENCE_S = 20


@pytest.fixture
def server():
    with served() as peer:
        yield peer


@pytest.fixture
def client(server, tmp_path):
    with clients_of(server, tmp_path) as start:
        yield start


def command_lines(mark):
    """The command lines of this machine's processes that contain `mark`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().decode(errors="replace"))
    return [line for line in found if mark in line]


def test_all_chunks_are_computed_and_claims_grow(server, client, tmp_path):
    names = [f"t.{n}" for n in range(60)]
    server.offer(*names, data='{"é": 1}')
    server.job["timeout_s"] = 2.0

    client()
    until(lambda: len(server.stored) == 60)

    assert {server.stored[name]["stdout"] for name in names} == {'{"é": 1}'}
    assert all(server.stored[name]["outcome"] == "ok" for name in names)
    wants = [request.body["want"] for request in server.of("/next")]
    assert wants[0] == 1
    assert all(later <= 4 * earlier for earlier, later in itertools.pairwise(wants))
    tokens = [request.body["token"] for request in server.of("/next")]
    assert len({str(uuid.UUID(token)) for token in tokens}) == len(tokens)
    until(lambda: not spooled(tmp_path))


def test_a_lost_reply_makes_the_client_ask_with_the_same_token(server, client):
    server.offer("t.1", "t.2")
    lost = []

    def lose_two_replies(request):
        if request.path == "/next" and len(lost) < 2:
            server.usual(request)  # the server did hand out the chunks
            lost.append(request.body["token"])
            return CUT
        return None

    server.rules.append(lose_two_replies)
    client()
    until(lambda: len(server.stored) == 2)

    asked = [request.body["token"] for request in server.of("/next")]
    assert asked[:3] == [lost[0]] * 3
    assert asked[3] != lost[0]


def test_results_of_an_outage_stay_on_disk_and_are_delivered_when_the_server_is_back(
    server, client, tmp_path
):
    server.offer("t.1")
    server.job["action"] = ["/bin/sh", "-c", "sleep 0.5; echo 3"]

    client()
    until(lambda: server.leases and any(server.leases.values()))
    server.stop()
    until(lambda: spooled(tmp_path))
    assert server.stored == {}
    server.start()
    until(lambda: "t.1" in server.stored)

    assert server.stored["t.1"]["stdout"] == "3\n"
    until(lambda: not spooled(tmp_path))


def test_a_killed_client_delivers_what_it_had_finished_when_it_is_started_again(server, client, tmp_path):
    server.offer("t.1")
    server.rules.append(
        lambda request: CUT if request.body and request.body.get("results") and server.lives < 2 else None
    )
    first = client()
    until(lambda: spooled(tmp_path))

    first.kill()
    first.wait()
    client()
    until(lambda: "t.1" in server.stored)

    ids = {request.body["id"] for request in server.of("/containers")}
    assert len(ids) == 1 and server.lives == 2
    assert all(request.key == "account-key" for request in server.of("/containers"))


def test_a_finished_result_does_not_wait_for_a_long_chunk(server, client):
    server.beat_s = 0.3
    server.offer("t.0")
    server.job |= {"action": ["/bin/sh", "-c", "case {a} in long) sleep 600;; esac"], "timeout_s": 600.0}

    for name in ("t.1", "t.2"):
        server.offer(name, data='{"a": "short"}')
    server.waiting[0]["input"] = '{"a": "short"}'
    server.offer("t.3", data='{"a": "long"}')
    client()
    until(lambda: any("t.3" in request.body["started"] for request in server.of("/heartbeat")))

    until(lambda: {"t.1", "t.2"} <= server.stored.keys())
    assert server.of("/add")
    seen = len(server.of("/heartbeat"))
    until(lambda: len(server.of("/heartbeat")) >= seen + 3)
    beats = [request.body["beat"] for request in server.of("/heartbeat")]
    assert beats == list(range(1, len(beats) + 1))
    held = server.of("/heartbeat")[-1].body["held"]
    assert list(held.values()) == [1]


def test_a_dropped_chunk_is_killed_and_not_reported(server, client):
    server.beat_s = 0.2
    server.offer("t.1")
    server.job["action"] = ["/bin/sh", "-c", "sleep 60"]

    def drop(request):
        if request.path == "/heartbeat" and "t.1" in request.body["started"]:
            return Reply(200, {"drop": ["t.1"], "lost": [], "claim_again": [], "config": {"beat_s": 0.1}}, {})
        return None

    server.rules.append(drop)
    client()
    until(lambda: any("t.1" in request.body["started"] for request in server.of("/heartbeat")))
    server.job["action"] = ["/bin/echo", "3"]
    server.offer("t.2")
    until(lambda: "t.2" in server.stored)

    assert "t.1" not in server.stored


def test_a_lost_chunk_is_not_started_and_the_running_one_is_delivered(server, client):
    server.beat_s = 0.1
    server.job["action"] = ["/bin/sh", "-c", "sleep 1.5; echo 3"]
    server.offer("t.1", "t.2")
    rules_over = []

    def two_at_once_then_lose_both(request):
        if request.path == "/next" and not server.leases:
            return server.claim(request.body | {"want": 2})
        if request.path == "/heartbeat" and request.body["started"] and not rules_over:
            rules_over.append(True)
            return Reply(200, {"drop": [], "lost": ["t.1", "t.2"], "claim_again": [], "config": {}}, {})
        return None

    server.rules.append(two_at_once_then_lose_both)
    client()
    until(lambda: "t.1" in server.stored)
    server.job["action"] = ["/bin/echo", "4"]
    server.offer("t.3")
    until(lambda: "t.3" in server.stored)

    assert "t.2" not in server.stored


def test_the_server_may_have_a_token_claimed_again(server, client):
    server.beat_s = 0.1
    server.job["action"] = ["/bin/sh", "-c", "sleep 0.6; echo 3"]
    server.offer("t.1")
    again = []

    def found_another(request):
        if request.path == "/heartbeat" and request.body["started"] and not again:
            [token] = request.body["held"]
            again.append(token)
            server.offer("t.9")
            server.leases[token].append(server.waiting.pop())
            return Reply(200, {"drop": [], "lost": [], "claim_again": [token], "config": {}}, {})
        return None

    server.rules.append(found_another)
    client()
    until(lambda: {"t.1", "t.9"} <= server.stored.keys())

    assert [request.body["token"] for request in server.of("/next")].count(again[0]) == 2


@pytest.mark.parametrize("status", [401, 410])
def test_an_ended_life_makes_the_client_register_again_and_keep_its_spool(server, client, status):
    server.offer("t.1", "t.2")
    ended = []

    def purge_once(request):
        if request.path in ("/next", "/add") and request.body.get("results") and not ended:
            ended.append(True)
            return Reply(status, {"error": "This life has ended; register again."}, {})
        return None

    server.rules.append(purge_once)
    client()
    until(lambda: server.stored.keys() >= {"t.1"})

    assert server.lives == 2
    assert server.stored["t.1"]["ticket"] == "ticket-t.1"


def test_a_finally_refused_result_is_set_aside_and_its_neighbours_are_delivered(server, client, tmp_path):
    server.offer("t.1", "t.2", "t.3")

    def refuse_one(request):
        results = (request.body or {}).get("results", [])
        if "t.2" not in {result["chunk"] for result in results}:
            return None
        if request.path == "/next" or len(results) > 1:  # a request refused as a whole
            return Reply(400, {"error": "Something in this request is wrong."}, {})
        entry = {"chunk": "t.2", "error": "No such chunk.", "status": 404}
        return Reply(404, {"results": [entry], "error": "No such chunk."}, {})

    server.rules.append(refuse_one)
    client()
    until(lambda: {"t.1", "t.3"} <= server.stored.keys())

    refused = tmp_path / "home" / "spool" / "refused"
    until(lambda: len(list(refused.iterdir())) == 1)
    assert "t.2" not in server.stored


def test_a_result_the_server_breaks_on_bars_no_other(server, client):
    names = [f"t.{n}" for n in range(4)]
    server.offer(*names)

    def break_on_one(request):
        if request.path == "/next" and not server.leases:
            return server.claim(request.body | {"want": 4})
        results = (request.body or {}).get("results", [])
        if "t.1" in {result["chunk"] for result in results}:
            return Reply(500, {"error": "A bug."}, {})
        return None

    server.rules.append(break_on_one)
    client()

    until(lambda: {"t.0", "t.2", "t.3"} <= server.stored.keys())


def test_a_proxys_error_page_makes_nobody_give_a_result_up(server, client, tmp_path):
    server.offer("t.1")
    seen = []

    def page(request):
        if request.body and request.body.get("results") and len(seen) < 2:
            seen.append(request)
            return Reply(404, ["not", "the", "protocol"], {})
        return None

    server.rules.append(page)
    client()
    until(lambda: "t.1" in server.stored)

    assert len(seen) == 2
    assert not list((tmp_path / "home" / "spool" / "refused").iterdir())


@pytest.mark.parametrize(
    "reply", [Reply(503, {"error": "Busy."}, {"Retry-After": "1.5"}), Reply(200, ["no"], {})]
)
def test_a_busy_or_muddled_server_is_left_alone_for_a_while(server, client, reply):
    server.rules.append(
        lambda request: reply if request.path == "/next" and len(server.of("/next")) <= 2 else None
    )
    server.offer("t.1")

    client()
    until(lambda: "t.1" in server.stored)

    first, second, third = server.of("/next")[:3]
    assert first.body == second.body == third.body
    if reply.status == 503:
        assert second.at - first.at >= 1.5 and third.at - second.at >= 1.5


def test_a_full_spool_claims_nothing_and_goes_on_delivering(server, client, tmp_path):
    server.job["action"] = ["/bin/sh", "-c", "head -c 250000 /dev/zero | tr '\\0' x"]
    server.job["timeout_s"] = 1.0
    server.offer(*[f"t.{n}" for n in range(40)])
    server.rules.append(
        lambda request: (
            server.claim(request.body | {"want": 40})
            if request.path == "/next" and not server.leases
            else None
        )
    )
    server.rules.append(
        lambda request: (
            Reply(503, {"error": "Busy."}, {"Retry-After": "0"})
            if not full and request.body and request.body.get("results")
            else None
        )
    )
    full = []

    client(DOCKERCOMP_SPOOL_MB="1")
    until(lambda: sum(path.stat().st_size for path in spooled(tmp_path)) >= 1 << 20)
    asked, kept = len(server.of("/next")), len(spooled(tmp_path))
    tries = len(server.of("/add"))
    until(lambda: len(server.of("/add")) >= tries + 2)
    assert (len(server.of("/next")), len(spooled(tmp_path))) == (asked, kept)
    full.append("over")

    until(lambda: len(server.stored) == 40)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_gives_the_running_chunk_back_delivers_the_rest_and_leaves(server, client, tmp_path, number):
    mark = str(uuid.uuid4())
    server.offer("t.1", data='{"a": "short"}')
    server.offer("t.2", data='{"a": "long"}')
    server.job["action"] = ["/bin/sh", "-c", "case $1 in long) sleep 60; sleep 60;; esac", mark, "{a}"]
    server.rules.append(
        lambda request: (
            server.claim(request.body | {"want": 2})
            if request.path == "/next" and not server.leases
            else None
        )
    )
    process = client()
    until(lambda: spooled(tmp_path) and command_lines(mark))
    began = time.monotonic()

    process.send_signal(number)

    assert process.wait(60) == 0
    assert time.monotonic() - began < PATIENCE_S
    assert set(server.stored) == {"t.1"}
    assert server.heard[-1].method == "DELETE"
    assert server.heard[-1].path == f"/containers/{server.of('/containers')[0].body['id']}"
    assert not command_lines(mark)


@pytest.mark.parametrize("hanging", ["/containers", "/next", "/add /containers/"])
def test_a_signal_ends_the_client_soon_though_the_server_hangs(server, client, tmp_path, hanging):
    server.offer("t.1", data="1")
    server.rules.append(
        lambda request: (
            HANG if any(request.path.startswith(path) for path in hanging.split()) and armed else None
        )
    )
    server.rules.append(
        lambda request: (
            CUT if "add" in hanging and request.path == "/next" and request.body["results"] else None
        )
    )
    armed = [True] if "add" not in hanging else []
    process = client()
    if "add" in hanging:
        until(lambda: spooled(tmp_path))
        armed.append(True)
    else:
        until(lambda: server.of(hanging))
    began = time.monotonic()

    process.terminate()

    assert process.wait(60) == 0
    assert time.monotonic() - began < PATIENCE_S
    if "add" in hanging:
        assert spooled(tmp_path)


def test_the_steps_of_leaving_take_less_than_five_seconds_whatever_the_server_does():
    assert service.LAST_STEP_S + service.LAST_DELIVERY_S + service.LEAVE_S < 5


def test_a_protocol_no_longer_spoken_stops_the_client_with_a_sentence(server, client, tmp_path):
    server.rules.append(lambda request: Reply(426, {"error": "This server speaks protocol 2."}, {}))

    assert client().wait(60) == 3
    assert "Error: This server speaks protocol 2. Update this client." in (tmp_path / "log").read_text()


def test_a_refused_key_stops_a_client_that_was_never_welcome(server, client, tmp_path):
    server.rules.append(lambda request: Reply(401, {"error": "This key is not known."}, {}))

    assert client().wait(60) == 2
    log = (tmp_path / "log").read_text()
    assert "This key is not known." in log and "account-key" not in log


def test_there_is_one_client_in_a_home(server, client, tmp_path):
    first = client()
    until(lambda: server.lives)

    assert client().wait(60) == 2
    assert "Another client already runs in" in (tmp_path / "log").read_text()
    assert first.poll() is None


def test_no_secret_reaches_the_job_or_the_log(server, client, tmp_path):
    server.offer("t.1")
    server.job["action"] = ["/usr/bin/env"]

    client(DOCKERCOMP_LABELS='{"room": "attic"}')
    until(lambda: "t.1" in server.stored)

    for text in (server.stored["t.1"]["stdout"], (tmp_path / "log").read_text()):
        assert "account-key" not in text and "key-1" not in text and "DOCKERCOMP_KEY_FILE" not in text
    labels = server.of("/containers")[0].body["labels"]
    assert labels["room"] == "attic" and labels["os"] == "linux" and labels["arch"]


@pytest.mark.skipif(
    Path("/.dockerenv").exists(), reason="this is a container, where everything may be allowed"
)
def test_outside_a_container_a_client_does_not_allow_everything(tmp_path):
    (tmp_path / "key").write_text("account-key")
    env = {
        "PATH": os.environ["PATH"],
        "DOCKERCOMP_SERVER": "http://127.0.0.1:1",
        "DOCKERCOMP_KEY_FILE": str(tmp_path / "key"),
        "DOCKERCOMP_HOME": str(tmp_path / "home"),
        "DOCKERCOMP_ALLOW": "*",
    }

    said = subprocess.run(
        [sys.executable, "-m", "client_container"], env=env, capture_output=True, text=True, timeout=120
    )

    assert said.returncode == 2 and "DOCKERCOMP_ALLOW is *" in said.stderr
