"""The client's half of the protocol against the golden messages."""

import base64
import json
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from client_container.blob import Blob, NamedBlob, Pass
from client_container.connection import ServerConnection
from client_container.failures import BadAnswer, LifeEnded, ProtocolTooOld
from client_container.protocol import FEATURES, Archive, Attempt, Beat, Claim, Introduction, Job, Registration
from client_container.runtime.contract import BadChunk, BadJob, command_line, seed

V1 = Path(__file__).parent / "v1"


def golden(name):
    return json.loads((V1 / f"{name}.json").read_text())


class Peer(HTTPServer):
    """Answers every request as one golden says, and keeps what it was sent."""

    def __init__(self, message):
        self.message, self.heard = message, None
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        message = self.server.message
        plain = "request_base64" in message
        self.server.heard = (
            self.command,
            self.path,
            self.headers,
            body if plain else json.loads(body) if body else None,
        )
        response = message.get("response")
        said = b"" if response is None else json.dumps(response).encode()
        if "response_base64" in message:
            said = base64.b64decode(message["response_base64"])
        self.send_response(message["status"])
        for header, value in message.get("headers", {}).items():
            self.send_header(header, value)
        if message["status"] != 204:
            self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, *_):
        pass


@pytest.fixture
def peer():
    peers = []

    def start(name):
        server = Peer(golden(name))
        peers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server, ServerConnection(f"http://127.0.0.1:{server.server_port}", "account-key")

    yield start
    for server in peers:
        server.shutdown()
        server.server_close()


def member():
    return Registration.from_message(golden("register")["response"])


def attempts(name):
    def instants(result):
        return result | {
            field: datetime.fromisoformat(result[field].replace("Z", "+00:00"))
            for field in ("started", "ended")
        }

    def files(result):
        return {"files": tuple(NamedBlob(**file) for file in result.get("files", ()))}

    return [
        Attempt(**instants(result) | files(result)).to_json()
        for result in golden(name)["request"].get("results", [])
    ]


def assert_heard(server, name, key):
    method, path, headers, body = server.heard
    expected = golden(name)
    assert (method, path, body) == (expected["method"], expected["path"], expected["request"])
    assert headers["Authorization"] == f"Bearer {key}"
    assert headers["User-Agent"].startswith("dockercomp-client/")
    assert body is None or headers["Content-Type"] == "application/json"


def introduction(name="register"):
    said = golden(name)["request"]
    return Introduction(
        container=said["id"],
        host=said["host"]["id"],
        host_name=said["host"].get("name"),
        labels=said["labels"],
        cpus=said["resources"]["cpus"],
        memory_mb=said["resources"]["memory_mb"],
        runtimes=tuple(said["runtimes"]),
        image=said["image"],
        features=tuple(said.get("features", ())),
        projects=tuple(said["policy"]["projects"]) if "policy" in said else None,
        shares=said["policy"]["shares"] if "policy" in said else None,
        self_test=said.get("self_test"),
    )


def test_registering_says_and_hears_the_golden_message(peer):
    server, connection = peer("register")

    registration = connection.register(introduction())

    assert_heard(server, "register", "account-key")
    assert registration.id == server.message["request"]["id"]
    assert (registration.life, registration.key, registration.beat_s) == (
        "c9a1d0de-7a53-4d0b-a0a3-5b9d5a1b2c3d",
        "dcc_example",
        20.0,
    )


def test_a_container_before_a_launcher_says_what_the_launcher_said(peer):
    server, connection = peer("register_sandbox")

    connection.register(introduction("register_sandbox"))

    assert_heard(server, "register_sandbox", "account-key")


def test_a_container_says_what_it_knows_of_jobs(peer):
    server, connection = peer("register_features")

    connection.register(introduction("register_features"))

    assert_heard(server, "register_features", "account-key")
    assert tuple(server.message["request"]["features"]) == FEATURES


def test_a_claim_tells_that_a_job_asks_for_graphics_processors(peer):
    server, connection = peer("next_gpu")
    said = server.message["request"]

    assert connection.next(member(), said["token"], said["want"]).chunks[0].job.gpu


def test_the_first_servers_answers_are_enough_for_todays_client(peer):
    server, connection = peer("next")
    for job in server.message["response"]["jobs"].values():
        del job["project"], job["task"]  # which came later
    said = server.message["request"]

    claim = connection.next(member(), said["token"], said["want"], attempts("next"))

    job = claim.chunks[0].job
    assert (len(claim.chunks), job.files, job.outputs, job.gpu) == (2, (), (), False)
    assert (job.cpus, job.memory_mb, job.disk_mb) == (None, None, None)
    assert all(one.input and not one.files and one.input_file is None for one in claim.chunks)


@pytest.mark.parametrize("name", ["heartbeat", "heartbeat_cannot"])
def test_a_heartbeat_says_and_hears_the_golden_message(peer, name):
    server, connection = peer(name)
    said = server.message["request"]
    beat = Beat(
        beat=said["beat"],
        held=said["held"],
        started=tuple(said["started"]),
        cannot=said.get("cannot", {}),
    )

    answer = connection.heartbeat(member(), beat)

    assert_heard(server, name, "dcc_example")
    assert answer.drop == ("5f2a9c1d7e3b.12",)
    assert answer.lost == ("5f2a9c1d7e3b.14",)
    assert answer.claim_again == ("3d5e7f90-1a2b-4c3d-8e4f-5a6b7c8d9e0f",)
    assert answer.beat_s == 20.0


def test_a_claim_says_and_hears_the_golden_message(peer):
    server, connection = peer("next")
    said = server.message["request"]

    claim = connection.next(member(), said["token"], said["want"], attempts("next"))

    assert_heard(server, "next", "dcc_example")
    assert [chunk.id for chunk in claim.chunks] == ["5f2a9c1d7e3b.15", "5f2a9c1d7e3b.16"]
    told = server.message["response"]["chunks"][1]
    assert claim.chunks[1].input == told["input"]  # the text itself, not a number or a string read from it
    assert claim.chunks[1].token == said["token"]
    assert claim.chunks[0].job == Job(
        id="5f2a9c1d7e3b/main",
        image=None,
        action=("/usr/bin/env", "echo", "{a}"),
        env={"MODE": "fast"},
        timeout_s=60.0,
        rows=None,
        project="sums",
        task="5f2a9c1d7e3b",
    )
    assert [delivery.stored for delivery in claim.deliveries] == [True]


def test_a_job_whose_image_comes_as_an_archive_says_how_big_it_is(peer):
    server, connection = peer("next_archive")
    said = server.message["request"]

    claim = connection.next(member(), said["token"], said["want"])

    told = server.message["response"]["jobs"]["5f2a9c1d7e3b/main"]
    job = claim.chunks[0].job
    assert (job.image, job.project, job.task) == (told["image"], told["project"], told["task"])
    assert job.archive == Archive(sha256="9c" * 32, bytes=52428800)


def test_a_claim_tells_the_files_of_the_job_and_of_each_chunk(peer):
    server, connection = peer("next_files")
    said = server.message["request"]

    small, large = connection.next(member(), said["token"], said["want"]).chunks

    assert small.job.files == (NamedBlob(name="code/fit.py", sha256="9c" * 32, bytes=4096),)
    assert small.job.outputs == ("*.csv", "model/**")
    assert (small.job.cpus, small.job.memory_mb, small.job.disk_mb) == (1.5, 512, 2048)
    assert small.files == (NamedBlob(name="a.bin", sha256="5a" * 32, bytes=52428800),)
    assert small.input_file is None and small.input
    assert (large.files, large.input) == ((), "")
    assert large.input_file == Blob(sha256="6b" * 32, bytes=1048576)


def test_an_attempt_with_files_says_the_golden_message(peer):
    server, connection = peer("add_files")

    [delivery] = connection.add(member(), attempts("add_files"))

    assert_heard(server, "add_files", "dcc_example")
    assert delivery.stored


def test_an_attempt_whose_files_the_server_lacks_is_told_from_one_that_it_refuses(peer):
    server, connection = peer("add_files_first")

    [delivery] = connection.add(member(), attempts("add_files_first"))

    assert_heard(server, "add_files_first", "dcc_example")
    assert (delivery.stored, delivery.status) == (False, 409)


def blob_of(name):
    chunk, run, token, ticket = golden(name)["request_headers"]["Dockercomp-Ticket"].split()
    sha256 = golden(name)["path"].rpartition("/")[2]
    return Blob(sha256=sha256, bytes=10), Pass(chunk=chunk, run=int(run), token=token, ticket=ticket)


def assert_blob_heard(server, name):
    method, path, headers, body = server.heard
    expected = golden(name)
    assert (method, path) == (expected["method"], expected["path"])
    assert (body or b"") == base64.b64decode(expected["request_base64"])
    assert headers["Authorization"] == "Bearer dcc_example"
    assert expected["request_headers"].items() <= dict(headers).items()


def test_a_blob_is_asked_for_from_a_byte_on_with_the_chunks_ticket(peer):
    server, connection = peer("blob_get")
    blob, proof = blob_of("blob_get")

    with connection.blob(member(), blob.sha256, proof, start=4) as (begins, pieces):
        assert (begins, b"".join(pieces)) == (4, b"456789")
    assert_blob_heard(server, "blob_get")


@pytest.mark.parametrize(
    ("name", "start", "received"),
    [("blob_put_part", 0, 4), ("blob_put_last", 4, 10), ("blob_put_elsewhere", 6, 4)],
)
def test_a_part_of_a_blob_is_brought_and_the_answer_says_where_the_next_begins(peer, name, start, received):
    server, connection = peer(name)
    part = base64.b64decode(golden(name)["request_base64"])

    assert connection.put_blob(member(), *blob_of(name), start, part) == received
    assert_blob_heard(server, name)


def test_how_much_of_a_blob_has_arrived_is_asked_with_the_chunks_ticket(peer):
    server, connection = peer("blob_head")

    assert connection.blob_received(member(), *blob_of("blob_head")) == 4
    assert_blob_heard(server, "blob_head")


def test_a_claim_that_brings_nothing_tells_how_long_to_wait(peer):
    server, connection = peer("next_nothing")
    said = server.message["request"]

    claim = connection.next(member(), said["token"], said["want"])

    assert claim == Claim(retry_after=1.0)
    assert server.heard[3] == said | {"results": []}


def test_delivering_says_and_hears_the_golden_message(peer):
    server, connection = peer("add")

    deliveries = connection.add(member(), attempts("add"))

    assert_heard(server, "add", "dcc_example")
    assert [(delivery.chunk, delivery.final) for delivery in deliveries] == [
        ("5f2a9c1d7e3b.12", True),
        ("5f2a9c1d7e3b.13", True),
    ]


def test_a_refused_attempt_is_told_from_a_refused_request(peer):
    server, connection = peer("add_refused")

    [delivery] = connection.add(member(), attempts("add_refused"))

    assert_heard(server, "add_refused", "dcc_example")
    assert (delivery.stored, delivery.final, delivery.status) == (False, True, 403)
    assert delivery.error == "The ticket does not fit this chunk, run, token and container."


def test_releasing_says_and_hears_the_golden_message(peer):
    server, connection = peer("release")

    assert connection.release(member(), server.message["request"]["chunks"]) == 1
    assert_heard(server, "release", "dcc_example")


def test_leaving_says_and_hears_the_golden_message(peer):
    server, connection = peer("leave")

    assert connection.leave(member()) == 3
    assert_heard(server, "leave", "dcc_example")


def test_an_ended_life_and_an_old_protocol_are_named(peer):
    _, ended = peer("life_ended")
    _, old = peer("too_old")

    with pytest.raises(LifeEnded, match="register again"):
        ended.heartbeat(member(), Beat(beat=8, held={}, started=()))
    with pytest.raises(ProtocolTooOld, match="update the client"):
        old.register(introduction())


def without(message, *path):
    *way, last = path
    copy = json.loads(json.dumps(message))
    place = copy
    for step in way:
        place = place[step]
    del place[last]
    return copy


@pytest.mark.parametrize(
    "path",
    [
        ("chunks",),
        ("jobs",),
        ("chunks", 0, "id"),
        ("chunks", 0, "run"),
        ("chunks", 0, "input"),
        ("chunks", 0, "job"),
        ("chunks", 0, "ticket"),
        ("jobs", "5f2a9c1d7e3b/main", "action"),
        ("jobs", "5f2a9c1d7e3b/main", "timeout_s"),
    ],
)
def test_an_answer_that_lacks_a_needed_field_is_refused(path):
    with pytest.raises(BadAnswer):
        Claim.from_message(without(golden("next")["response"], *path), token="T")


@pytest.mark.parametrize(
    "path",
    [
        ("chunks", 0, "files", 0, "sha256"),
        ("chunks", 0, "files", 0, "name"),
        ("chunks", 1, "input_file", "bytes"),
        ("jobs", "5f2a9c1d7e3b/main", "files", 0, "bytes"),
    ],
)
def test_a_file_that_lacks_a_needed_field_is_refused(path):
    with pytest.raises(BadAnswer):
        Claim.from_message(without(golden("next_files")["response"], *path), token="T")


def test_a_hash_that_is_none_is_refused():
    message = golden("next_files")["response"]
    message["chunks"][0]["files"][0]["sha256"] = "../../etc/passwd"

    with pytest.raises(BadAnswer, match="hash"):
        Claim.from_message(message, token="T")


def test_unknown_fields_are_ignored():
    message = golden("next")["response"]
    message["news"] = message["chunks"][0]["news"] = message["results"][0]["news"] = {"a": 1}
    message["jobs"]["5f2a9c1d7e3b/main"]["news"] = 1

    assert len(Claim.from_message(message, token="T").chunks) == 2


@pytest.mark.parametrize("case", golden("placeholders")["cases"], ids=lambda case: " ".join(case["action"]))
def test_placeholders_are_replaced_as_the_vectors_say(case):
    assert command_line(case["action"], case["input"]) == case["argv"]


@pytest.mark.parametrize("action", golden("placeholders")["bad_actions"], ids=" ".join)
def test_a_stray_brace_is_an_error(action):
    with pytest.raises(BadJob):
        command_line(action, '{"a": "1"}')


@pytest.mark.parametrize("case", golden("placeholders")["missing"])
def test_a_field_the_chunk_lacks_is_named(case):
    with pytest.raises(BadChunk, match=case["name"]):
        command_line(case["action"], case["input"])


@pytest.mark.parametrize("case", golden("seeds")["cases"])
def test_seeds_are_as_the_vectors_say(case):
    assert seed(case["chunk"]) == case["seed"]
