"""The hook of a bare repository: what the pusher is told, and that no push is lost or held up."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parts import require
from product import free_port, running
from repositories import IDENTITY, Repository
from web_servers import Quiet, WebServer

from dockercomp.api import Server
from dockercomp.config import read_key
from dockercomp.hooks import AddressUnfit, post_receive

SECRET = "dcr_" + "s3cr-t_" * 6
JOB = "dockercomp: 1\nmain: {action: [/bin/echo, hello]}\n"


class Listener:
    """Stands in for a source server, to see what is sent: it answers as the test says."""

    def __init__(self) -> None:
        self.status, self.answer = 202, {"state": "done", "task": "abc", "why": None, "about": {}}
        self.got: list[tuple[dict[str, str], bytes]] = []
        listener = self

        class Handler(Quiet):
            def do_POST(self) -> None:
                body = self.body()
                listener.got.append(({name.lower(): text for name, text in self.headers.items()}, body))
                self.answer(listener.status, json.dumps(listener.answer).encode())

        server = WebServer(Handler)
        self.url, self.close = server.url, server.close


@pytest.fixture
def listener() -> Iterator[Listener]:
    one = Listener()
    yield one
    one.close()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    for tool in ("openssl", "curl", "od", "sed"):
        if shutil.which(tool) is None:
            require(f"no {tool}")
    return Repository(tmp_path)


def install(
    repository: Repository, url: str, receiver: str = "r1", secret: str = SECRET, shell: str = "sh"
) -> Path:
    hook = repository.bare / "hooks" / "post-receive"
    hook.parent.mkdir(exist_ok=True)
    path = shutil.which(shell)
    assert path is not None
    hook.write_text(post_receive(url, receiver).replace("#!/bin/sh", f"#!{path}", 1))
    hook.chmod(0o755)
    (repository.bare / "dockercomp-secret").write_text(secret + "\n")
    return repository.bare / "dockercomp-spool"


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_a_push_is_sent_signed_and_the_pusher_is_told_what_became_of_it(
    repository: Repository, listener: Listener, shell: str
) -> None:
    if shutil.which(shell) is None:
        require(f"no {shell}")
    spool = install(repository, listener.url, shell=shell)

    commit = repository.commit({"a": "1"}, push=False)
    told = repository.push()

    [(headers, body)] = listener.got
    assert json.loads(body) == {
        "ref": "refs/heads/main",
        "before": "0" * 40,
        "after": commit,
        "deleted": False,
    }
    made = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert headers["x-hub-signature-256"] == f"sha256={made}" and headers["x-github-event"] == "push"
    assert "dockercomp: refs/heads/main: task abc runs; watch it with: dockercomp watch abc" in told
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("secret", ["k", "k" * 64, "k" * 65, "k" * 200])
def test_the_signature_is_an_hmac_for_secrets_of_any_length(
    repository: Repository, listener: Listener, secret: str
) -> None:
    install(repository, listener.url, secret=secret)

    repository.commit({"a": "1"})

    [(headers, body)] = listener.got
    assert (
        headers["x-hub-signature-256"]
        == "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    )


def test_odd_names_of_branches_a_deletion_and_a_tag_arrive_as_they_are(
    repository: Repository, listener: Listener
) -> None:
    install(repository, listener.url)
    commit = repository.commit({"a": "1"}, push=False)
    odd = 'refs/heads/it\'s-"quoted"-$(id)-é'

    repository.push(f"HEAD:{odd}", "HEAD:refs/tags/v1")
    repository.push(f":{odd}")

    sent = [json.loads(body) for _, body in listener.got]
    assert {(one["ref"], one["after"], one["deleted"]) for one in sent} == {
        (odd, commit, False),
        ("refs/tags/v1", commit, False),
        (odd, "0" * 40, True),
    }


def test_while_the_server_is_away_pushes_are_kept_and_sent_with_the_next_one(
    repository: Repository, listener: Listener
) -> None:
    spool = install(repository, f"http://127.0.0.1:{free_port()}")
    first = repository.commit({"a": "1"}, push=False)
    told = repository.push()
    kept = len(list(spool.iterdir()))

    install(repository, listener.url)
    second = repository.commit({"a": "2"})

    assert "does not take it now" in told and "1 not delivered yet" in told and kept == 1
    assert [json.loads(body)["after"] for _, body in listener.got] == [first, second]
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_what_may_go_better_later_is_kept(repository: Repository, listener: Listener, status: int) -> None:
    spool = install(repository, listener.url)
    listener.status, listener.answer = status, {"error": 'Not "now".'}

    repository.commit({"a": "1"}, push=False)
    told = repository.push()

    assert "Not 'now'." in told and len(list(spool.iterdir())) == 1


@pytest.mark.parametrize("status", [400, 409, 413])
def test_what_will_never_be_taken_is_told_and_not_sent_again(
    repository: Repository, listener: Listener, status: int
) -> None:
    spool = install(repository, listener.url)
    listener.status, listener.answer = status, {"error": "Not understood."}

    repository.commit({"a": "1"}, push=False)
    told = repository.push()

    assert "refs/heads/main: refused: Not understood." in told and list(spool.iterdir()) == []


def test_a_refused_event_is_told_with_its_reason(repository: Repository, listener: Listener) -> None:
    install(repository, listener.url)
    listener.answer = {"state": "refused", "task": None, "why": "dockercomp.yml: Line 3: no.", "about": {}}

    repository.commit({"a": "1"}, push=False)

    assert "refs/heads/main: no task: dockercomp.yml: Line 3: no." in repository.push()


def test_a_server_that_never_answers_does_not_hold_a_push_up_for_long(repository: Repository) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        spool = install(repository, f"http://127.0.0.1:{silent.getsockname()[1]}")
        for n in range(5):
            (spool.parent / "hooks" / "post-receive").chmod(0o755)
            spool.mkdir(exist_ok=True)
            (spool / f"0-{n}").write_text('{"ref":"refs/heads/x","before":"0","after":"1","deleted":false}')
        repository.commit({"a": "1"}, push=False)
        began = time.monotonic()

        told = repository.push()

    assert time.monotonic() - began < 60 and "6 not delivered yet" in told
    assert len(list(spool.iterdir())) == 6


def test_a_hook_without_its_secret_says_so_and_keeps_the_push(
    repository: Repository, listener: Listener
) -> None:
    spool = install(repository, listener.url)
    (repository.bare / "dockercomp-secret").unlink()

    repository.commit({"a": "1"}, push=False)
    told = repository.push()

    assert "dockercomp-secret is missing" in told and len(list(spool.iterdir())) == 1


def test_the_secret_is_on_no_command_line(repository: Repository, tmp_path: Path, listener: Listener) -> None:
    install(repository, listener.url)
    seen, bin_folder = tmp_path / "seen", tmp_path / "bin"
    bin_folder.mkdir()
    for tool in ("openssl", "curl", "od", "tr", "sed", "cat"):
        wrapper = bin_folder / tool
        wrapper.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{seen}\nexec {shutil.which(tool)} "$@"\n')
        wrapper.chmod(0o755)
    commit = repository.commit({"a": "1"})
    listener.got.clear()

    env = {
        **os.environ,
        **IDENTITY,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "GIT_DIR": str(repository.bare),
    }
    line = f"{'0' * 40} {commit} refs/heads/main\n"
    subprocess.run([repository.bare / "hooks" / "post-receive"], input=line, text=True, env=env, check=True)

    made = hmac.new(SECRET.encode(), listener.got[0][1], hashlib.sha256).hexdigest()
    assert listener.got[0][0]["x-hub-signature-256"] == f"sha256={made}"
    assert (
        seen.read_text() and SECRET not in seen.read_text() and SECRET.encode().hex() not in seen.read_text()
    )


@pytest.mark.parametrize("address", ["ftp://x", "http://x'; id; '", "http://x\n", "x", "http://a b"])
def test_an_address_that_a_script_might_misread_makes_no_hook(address: str) -> None:
    with pytest.raises(AddressUnfit, match="must be like"):
        post_receive(address, "r1")
    with pytest.raises(AddressUnfit, match="receiver"):
        post_receive("http://x", "r1'; id; '")


@pytest.mark.mongo
def test_with_a_real_server_the_pusher_learns_of_the_task_and_of_what_is_wrong(
    repository: Repository,
) -> None:
    with running_with_git(repository) as product:
        server = Server(product.address, read_key(Path(product.env["DOCKERCOMP_KEY_FILE"])))
        server.add_project("tests")
        receiver = server.add_receiver("tests", "git", {"repository": repository.url})
        install(repository, product.address, receiver["id"], receiver["secret"])

        good = repository.commit({"dockercomp.yml": JOB}, push=False)
        told = repository.push()
        repository.commit({"dockercomp.yml": JOB + "mian: 1\n"}, push=False)
        told_of_bad = repository.push()
        install(repository, product.address, receiver["id"], "dcr_wrong")
        repository.commit({"dockercomp.yml": JOB + "\n"}, push=False)
        told_of_wrong_secret = repository.push()
        tasks = [one["id"] for one in server.tasks()]

    assert f"task {good} runs" in told and tasks == [good]
    assert "no task: dockercomp.yml: There is no field 'mian' in a job file." in told_of_bad
    assert "must be signed" in told_of_wrong_secret and "1 not delivered yet" in told_of_wrong_secret


def running_with_git(repository: Repository) -> Any:
    return running(settings={"DOCKERCOMP_GIT_FROM": f"file://{repository.bare.parent}/"})
