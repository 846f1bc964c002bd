"""Both sides of the wire launcher-v1 against the golden conversations."""

import json
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from client_container.launcher.files.cache import Look
from client_container.launcher.files.slots import BadFile
from client_container.launcher.jobs.door import Caller, Door
from client_container.launcher.jobs.manifest import check_manifest
from client_container.launcher.line import events
from client_container.launcher.line.events import End, OutFile, output_data
from client_container.launcher.line.wire import (
    EVENT_BYTES,
    REQUEST_BYTES,
    Files,
    GivenChunk,
    GivenFile,
    Keep,
    Kill,
    Manifest,
    Pull,
    Refusal,
    Run,
    Stats,
    WantedFile,
    encode_frame,
    parse_request,
    read_frame,
    request_message,
)
from client_container.launcher.policy.policy import Policy
from client_container.protocol import FEATURES, Introduction
from client_container.runtime.launcher_line import LauncherLine
from client_container.runtime.sandbox import introduced

GOLDENS = Path(__file__).parent / "launcher-v1"
NAMES = sorted(path.stem for path in GOLDENS.glob("*.json"))

IMAGE = "sha256:" + "4f" * 32
FILE = "9c" * 32
TOKEN = "3d5e7f90-1a2b-4c3d-8e4f-5a6b7c8d9e0f"
MANIFEST = Manifest(
    image=IMAGE,
    action=("/usr/bin/fit", "--a={a}"),
    env={"MODE": "fast"},
    timeout_s=60.0,
    project="sums",
    task="5f2a9c1d7e3b",
)
RUN = Run(
    token=TOKEN,
    manifest=MANIFEST,
    chunk=GivenChunk(id="5f2a9c1d7e3b.15", run=0, input='{"a": "1"}'),
    files=(GivenFile(name="code/fit.py", sha256=FILE),),
)
REQUESTS = {
    "run": RUN,
    "kill": Kill(token=TOKEN),
    "stats": Stats(),
    "pull": Pull(image=f"registry.example/fit@{IMAGE}", project="sums"),
    "pull_archive_needed": Pull(image=IMAGE, project="sums"),
    "pull_archive": Pull(image=IMAGE, file=FILE, project="sums"),
    "run_files": replace(
        RUN,
        manifest=replace(MANIFEST, outputs=("*.csv", "model/**"), memory_mb=512, cpus=1.5, disk_mb=2048),
        chunk=GivenChunk(id="5f2a9c1d7e3b.16", run=0, input="", input_file="6b" * 32),
    ),
    "files": Files(
        want=(
            WantedFile(sha256=FILE, bytes=4096),
            WantedFile(sha256="5a" * 32, bytes=52428800),
            WantedFile(sha256="6b" * 32, bytes=1048576),
        ),
        project="sums",
    ),
    "keep": Keep(sha256="5a" * 32, project="sums"),
    "run_gpu_missing": replace(RUN, manifest=replace(MANIFEST, gpu=True)),
    "stats_features": Stats(),
}


def golden(name):
    return json.loads((GOLDENS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_what_the_client_says_is_what_the_launcher_reads(name):
    said = golden(name)["request"]

    request = parse_request(json.dumps(said).encode())

    assert request_message(request) == said
    if name in REQUESTS:
        assert request == REQUESTS[name]


def test_what_the_launcher_builds_is_what_the_goldens_say():
    started, stderr, stdout, end = golden("run")["events"]

    assert started == events.started(container="0b7f6f3e9c1d", image=IMAGE, at="2026-11-22T12:00:00.000Z")
    assert stderr == events.output("stderr", b"epoch 1\n")
    assert stdout == events.output("stdout", b"42\n")
    made = End(
        exit_code=0,
        cpu_s=0.25,
        ran_s=1.5,
        image=IMAGE,
        files=[OutFile(name="model/weights.bin", sha256=FILE, bytes=4096)],
    )
    assert end == made.event()
    assert golden("pull")["events"] == [
        events.progress(2**20, 2**22),
        events.done(image=IMAGE),
    ]
    refusal = Refusal("not_allowed", "This host's owner does not run the project 'sums'.")
    assert golden("run_refused")["events"] == [events.refused(refusal)]


class GoldenLauncher(threading.Thread):
    """Answers one connection as a golden says, and keeps what it was asked."""

    def __init__(self, path, told):
        super().__init__(daemon=True)
        self.told, self.heard = told, None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()

    def run(self):
        connection, _ = self._listener.accept()
        with connection, self._listener:
            self.heard = json.loads(read_frame(connection, most=REQUEST_BYTES, seconds=10))
            connection.sendall(b"".join(map(encode_frame, self.told)))


@pytest.mark.parametrize("name", NAMES)
def test_the_client_asks_and_hears_the_golden_conversation(name, tmp_path):
    said = golden(name)
    launcher = GoldenLauncher(tmp_path / "s", said["events"])
    launcher.start()
    heard = []

    def ask():
        for event in LauncherLine(tmp_path / "s").ask(parse_request(json.dumps(said["request"]).encode())):
            heard.append(event)

    last = said["events"][-1]
    if "refused" in last:
        with pytest.raises(Refusal) as refused:
            ask()
        assert (refused.value.sentence, refused.value.code) == (last["refused"], last["code"])
    else:
        ask()
        assert heard == said["events"]
    launcher.join(10)
    assert launcher.heard == said["request"]


def test_a_client_says_what_its_launcher_carries_out_and_behind_an_old_one_nothing():
    who = Introduction(container="c", host="h", features=FEATURES)
    newer = {**golden("stats_features")["events"][0], "features": ["teleport", *FEATURES]}

    assert introduced(who, golden("stats_features")["events"][0]).features == FEATURES
    assert introduced(who, newer).features == FEATURES
    assert introduced(who, golden("stats")["events"][0]).features == ()


def test_graphics_processors_are_refused_before_anything_else_where_they_are_not_lent():
    refusal = golden("run_gpu_refused")["events"][-1]
    request = parse_request(json.dumps(golden("run_gpu_refused")["request"]).encode())

    with pytest.raises(Refusal) as refused:
        check_manifest(request.manifest, request.chunk, policy=Policy(), running=0)

    assert (refused.value.sentence, refused.value.code) == (refusal["refused"], refusal["code"])
    assert check_manifest(request.manifest, request.chunk, policy=Policy(gpu=True), running=0)


def test_the_client_understands_output_and_end():
    _, stderr, stdout, end = golden("run")["events"]

    assert (output_data(stderr), output_data(stdout)) == (b"epoch 1\n", b"42\n")
    assert End.from_event(end).files == (OutFile(name="model/weights.bin", sha256=FILE, bytes=4096),)
    timeout = End.from_event(golden("run_timeout")["events"][-1])
    assert (timeout.cause, timeout.exit_code, timeout.signal, timeout.ran_s) == ("timeout", None, 15, 60.0)


class GoldenJobs:
    """Tells what a golden says in place of running a job."""

    def __init__(self, told):
        self.told = told

    def run(self, slot, request, emit, gone):
        for event in self.told:
            emit(event)

    def kill(self, slot, token):
        return True

    def policy(self):
        return Policy(projects=() if self.told[-1].get("code") == "not_allowed" else None)

    @property
    def cache(self):
        return self

    def look(self, slot, want, project):
        return Look(**{name: self.told[-1][name] for name in ("here", "fetch", "wait")})

    def keep(self, slot, sha256, project):
        if "refused" in self.told[-1]:
            raise BadFile(self.told[-1]["refused"])
        return self.told[-1]["kept"]


@pytest.mark.parametrize(
    "name",
    [
        "run",
        "run_files",
        "run_paused",
        "kill",
        "stats",
        "stats_features",
        "run_gpu_missing",
        "files",
        "files_not_allowed",
        "keep",
        "keep_no_room",
        "keep_other_content",
    ],
)
def test_the_door_answers_as_the_goldens_say(name):
    said = golden(name)
    stats = {key: value for key, value in said["events"][0].items() if key != "event"}
    door = Door(slots=None, jobs=GoldenJobs(said["events"]), images=None, stats=lambda slot: stats)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(encode_frame(said["request"]))

        door._serve(0, Caller(theirs))

        heard = [json.loads(read_frame(ours, most=EVENT_BYTES, seconds=5)) for _ in said["events"]]
    assert heard == said["events"]
