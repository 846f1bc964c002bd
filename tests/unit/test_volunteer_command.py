"""dockercomp-volunteer: what it asks the launcher, what it says, and with which exit code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from client_container.launcher.policy.file import parse_policy, told
from client_container.launcher.service.control import ControlServer
from client_container.launcher.volunteer import cli as volunteer

STATUS: dict[str, Any] = {
    "instance": "default",
    "server": "https://science.example.org",
    "version": "0.1.0",
    "engine": {"version": "28.2.2", "problem": None},
    "problems": {},
    "standing": {"word": "run", "why": "", "confirmed": True, "paused": False, "until": None},
    "wanted": 1,
    "running": 1,
    "registered": 1,
    "clients": [
        {
            "slot": 0,
            "id": "38dca0243135aa",
            "state": "running",
            "since": "2026-11-22T07:05:59Z",
            "registered": True,
            "last_beat": "2026-11-22T12:00:00Z",
            "reachable": True,
            "problem": None,
            "undelivered": 0,
        }
    ],
    "jobs": [
        {
            "slot": 0,
            "project": "sums",
            "task": "t1",
            "chunk": "c1",
            "image": "sha256:" + "1" * 64,
            "since": "2026-11-22T12:00:00Z",
            "frozen": False,
            "progress": 0.5,
        }
    ],
    "self_test": {"verdict": "passed", "at": "2026-11-22T07:00:00Z", "checks": []},
    "transfer_today": {"bytes_in": 1_500_000, "bytes_out": 900},
    "contribution": {
        "since": "2026-11-01T00:00:00Z",
        "chunks": 12,
        "finished": 11,
        "cpu_hours": 3.25,
        "projects": [{"project": "sums", "chunks": 12, "cpu_s": 11700.0, "last": "2026-11-22T12:00:00Z"}],
    },
    "policy": {},
}


class Home:
    """An installed instance whose launcher answers from a table."""

    def __init__(self, folder: Path) -> None:
        self.etc = folder / "etc"
        self.etc.mkdir()
        self.asked: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {"status": STATUS, "limits": self._limits, "reload": self._limits}
        self.policy_file = self.etc / "policy.toml"
        self.policy_file.write_text('[limits]\ncontainers = 1\nmemory = "1g"\n')
        facts = {
            "instance": "default",
            "server": "https://science.example.org",
            "image": "sha256:" + "1" * 64,
            "first_uid": 730000,
            "home": str(folder / "var"),
            "control": str(folder / "control.sock"),
            "proxy": "http://proxy:3128",
            "ca_file": str(folder / "ca.pem"),
            "auto_update": True,
        }
        (self.etc / "launcher.json").write_text(json.dumps(facts))
        verbs = ("status", "pause", "resume", "limits", "reload", "history", "self_test", "drain")
        self.server = ControlServer(folder / "control.sock", dict.fromkeys(verbs, self._answer))

    def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(dict(request))
        answer = self.answers[request["verb"]]
        return answer() if callable(answer) else answer

    def _limits(self) -> dict[str, Any]:
        policy = parse_policy(self.policy_file.read_text())
        clients = [{"slot": slot, "state": "running"} for slot in range(policy.containers)]
        facts = {"policy": told(policy), "file": str(self.policy_file), "problem": None}
        return {**facts, "wanted": policy.containers, "clients": clients}

    def run(self, *arguments: str, status: int = 0) -> str:
        result: Result = CliRunner().invoke(volunteer.main, ["--etc", str(self.etc), *arguments])
        assert result.exit_code == status, (result.output, result.exception)
        return result.output


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    home.server.start()
    yield home
    home.server.stop()


@pytest.fixture
def becomes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The programs that the command would have gone on as."""
    programs: list[list[str]] = []

    def record(_file: str, arguments: list[str]) -> None:
        programs.append(arguments)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execvp", record)
    return programs


# --- status


def test_status_says_what_runs_for_whom_and_what_was_given(home: Home) -> None:
    said = home.run("status")

    assert "computing for https://science.example.org" in said
    assert "Docker engine 28.2.2 answers." in said
    assert "1 of 1 client containers run, 1 registered:" in said
    assert "project sums, task t1, chunk c1, image sha256:111111111111, for" in said and "50% done" in said
    assert "Today's transfer: 1.5 MB in, 900 bytes out." in said
    assert "Contribution since 2026-11-01: 12 chunks, 3.2 h of processor time." in said
    assert "Problem" not in said


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"engine": {"version": None, "problem": "No Docker engine answers."}},
            "Docker engine No Docker engine answers.",
        ),
        (
            {"standing": {**STATUS["standing"], "word": "freeze", "why": "You paused it."}},
            "Jobs: frozen. You paused it.",
        ),
        (
            {
                "standing": {
                    **STATUS["standing"],
                    "word": "give_back",
                    "why": "The network is metered.",
                    "confirmed": False,
                }
            },
            "Jobs: given back. The network is metered. (Not confirmed by the engine yet.)",
        ),
        ({"problems": {"policy": "limits.cpus must be a number."}}, "Problem: limits.cpus must be a number."),
        (
            {"self_test": {"verdict": "unknown", "at": None, "checks": []}},
            "Self-test: not finished yet; until",
        ),
        (
            {
                "self_test": {
                    "verdict": "failed",
                    "at": "2026-11-22T07:00:00Z",
                    "checks": [{"name": "network", "ok": False}],
                }
            },
            "(network); no job runs.",
        ),
        (
            {
                "clients": [
                    {**STATUS["clients"][0], "registered": False, "problem": "This account is blocked."}
                ]
            },
            "not registered: This account is blocked.",
        ),
        (
            {
                "clients": [
                    {**STATUS["clients"][0], "reachable": False, "problem": "No answer.", "undelivered": 3}
                ]
            },
            "server away: No answer., 3 results wait to be delivered",
        ),
        ({"jobs": []}, "No job runs."),
        ({"contribution": {"chunks": 0}}, "Contribution: nothing computed yet."),
    ],
)
def test_status_says_what_is_not_as_it_should_be(home: Home, change: dict[str, Any], line: str) -> None:
    home.answers["status"] = {**STATUS, **change}

    assert line in home.run("status")


def test_status_for_programs_is_what_the_launcher_said(home: Home) -> None:
    facts = json.loads(home.run("status", "--json"))

    assert facts["registered"] == 1 and facts["self_test"]["verdict"] == "passed"


def test_without_a_launcher_or_an_installation_status_is_one_sentence(home: Home, tmp_path: Path) -> None:
    home.server.stop()
    assert (
        home.run("status", status=2)
        == f"Error: No launcher runs here (nobody listens on {tmp_path}/control.sock).\n"
    )
    (home.etc / "launcher.json").unlink()
    assert "dockercomp is not installed here" in home.run("status", status=2)


# --- pause, resume

FROZEN = {
    "standing": {**STATUS["standing"], "word": "freeze", "paused": True},
    "acted": True,
    "problem": None,
}


def test_a_pause_says_what_is_frozen(home: Home) -> None:
    home.answers["pause"] = {**FROZEN, "jobs": [{"slot": 0, "task": "t1", "frozen": True}]}

    assert home.run("pause") == "Paused until you resume: 1 job is frozen.\n"
    assert home.asked[-1]["minutes"] is None


def test_a_pause_for_a_while_says_until_when(home: Home) -> None:
    standing = {**FROZEN["standing"], "until": "2026-11-22T14:05"}  # type: ignore[dict-item]
    home.answers["pause"] = {**FROZEN, "standing": standing, "jobs": []}

    assert home.run("pause", "--for", "2h") == "Paused until 2026-11-22 14:05: no job runs.\n"
    assert home.asked[-1]["minutes"] == 120


def test_a_pause_that_is_not_confirmed_is_not_called_one(home: Home) -> None:
    home.answers["pause"] = {**FROZEN, "jobs": [{"slot": 0, "task": "t1", "frozen": False}]}
    assert home.run("pause", status=1) == "Paused until you resume: still running: slot 0 (task t1).\n"

    home.answers["pause"] = {**FROZEN, "acted": False, "problem": "No Docker engine answers.", "jobs": []}
    assert (
        home.run("pause", status=1)
        == "Paused until you resume: not confirmed yet. No Docker engine answers.\n"
    )


@pytest.mark.parametrize("text", ["2", "soon", "-1h", "0m"])
def test_a_pause_for_nonsense_is_one_sentence(home: Home, text: str) -> None:
    assert (
        home.run("pause", f"--for={text}", status=2)
        == f"Error: --for must be a time like 30m or 2h, not {text!r}.\n"
    )
    assert home.asked == []


def test_resume_says_so_when_something_else_stops_jobs(home: Home) -> None:
    home.answers["resume"] = {"standing": STATUS["standing"], "jobs": STATUS["jobs"], "acted": True}
    assert home.run("resume") == "Resumed: jobs may run, 1 goes on.\n"

    standing = {**STATUS["standing"], "word": "freeze", "why": "The machine runs on battery."}
    home.answers["resume"] = {"standing": standing, "jobs": [], "acted": True}
    assert home.run("resume") == "Resumed, but jobs still rest: The machine runs on battery.\n"


# --- limits


def test_scale_changes_the_policy_and_waits(home: Home) -> None:
    assert home.run("scale", "3") == "limits.containers = 3\n3 of 3 client containers run.\n"

    assert parse_policy(home.policy_file.read_text()).containers == 3
    assert home.policy_file.stat().st_mode & 0o777 == 0o644
    assert home.asked[-1]["verb"] == "reload"


def test_several_limits_are_set_at_once_and_all_or_none(home: Home) -> None:
    said = home.run("limits", "set", "cpus", "1.5", "hours", "mon-fri 18:00-24:00", "transfer_a_day", "none")
    assert 'when.hours = { weekdays = ["18:00-24:00"] }' in said and "limits.transfer_a_day = none" in said

    before = home.policy_file.read_text()
    assert home.run("limits", "set", "cpus", "1", "memory", "1m", status=2).startswith(
        "Error: limits.memory must be"
    )
    assert (
        home.run("limits", "set", "cpus", status=2)
        == "Error: cpus has no value; write KEY VALUE, like memory 4g.\n"
    )
    assert home.policy_file.read_text() == before


def test_a_limit_that_does_not_hold_is_exit_code_1(home: Home) -> None:
    home.answers["reload"] = lambda: {**home._limits(), "problem": "limits.cpus must be less."}
    assert "It does not hold: limits.cpus must be less." in home.run("limits", "set", "cpus", "1", status=1)

    home.answers["reload"] = lambda: {**home._limits(), "clients": []}
    assert "0 of 2 client containers run; the rest is being seen to" in home.run("scale", "2", status=1)


def test_limits_are_shown_with_the_files_problem(home: Home) -> None:
    home.answers["limits"] = lambda: {**home._limits(), "problem": "limits.cpu is unknown."}

    said = home.run("limits", "show")

    assert re.search(r"^limits\.memory +1g$", said, re.M) and re.search(
        r"transfer_a_day +no limit$", said, re.M
    )
    assert "Problem: limits.cpu is unknown. Until it is mended, the limits above hold." in said


# --- the rest


def test_a_self_test_that_fails_is_exit_code_1(home: Home) -> None:
    checks = [
        {"name": "network", "ok": True, "said": "no way out"},
        {"name": "root", "ok": False, "said": "writable"},
    ]
    home.answers["self_test"] = {"verdict": "failed", "checks": checks}

    assert home.run("self-test", status=1) == (
        "ok    network: no way out\nFAIL  root: writable\nFAILED: jobs do not run here until every wall holds.\n"
    )
    home.answers["self_test"] = {"verdict": "passed", "checks": checks[:1]}
    assert home.run("self-test").endswith("Passed: every wall of the sandbox holds.\n")


def test_history_says_for_whom_from_which_image_how_long_and_how_it_ended(home: Home) -> None:
    job = {
        "ended": "2026-11-22T12:00:10Z", "project": "sums", "task": "t1", "image": "sha256:" + "1" * 64,
        "cause": None, "exit_code": 0, "ran_s": 10.0, "cpu_s": 7.5, "bytes_in": 100, "bytes_out": 2000,
    }  # fmt: skip
    days = [{"day": "2026-11-22", "bytes_in": 1, "bytes_out": 2}]
    home.answers["history"] = {"jobs": [job], "days": days, "contribution": STATUS["contribution"]}

    said = home.run("history", "-n", "5")

    assert said.startswith(
        "2026-11-22T12:00:10Z  project sums, task t1, image sha256:111111111111: ok, 10.0 s, 7.5 s of processor, "
        "100 bytes in, 2.0 KB out\n"
    )
    assert "\n2026-11-22: 1 bytes in, 2 bytes out\n" in said
    assert home.asked[-1]["count"] == 5


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that print their arguments and what an attacker would like to print."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("journalctl", "docker"):
        (folder / name).write_text(
            '#!/bin/sh\necho "${0##*/} $*"\nprintf "a\\033]0;x\\007\\tb\\302\\2332J\\377\\n" >&2\nexit 3\n'
        )
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def test_logs_are_the_journals_or_the_containers(home: Home, on_path: Path) -> None:
    journal = home.run("logs", "-f", status=3).splitlines()[0]
    container = home.run("logs", "0", status=3).splitlines()[0]

    assert journal == "journalctl --no-pager -o cat -u dockercomp-launcher.service -n 200 -f"
    assert container == "docker logs --tail 200 38dca0243135aa"
    assert home.run("logs", "7", status=2) == "Error: There is no client container in slot 7.\n"


@pytest.mark.parametrize("slot", [[], ["0"]])
def test_logs_have_nothing_in_them_that_a_terminal_obeys(home: Home, on_path: Path, slot: list[str]) -> None:
    said = home.run("logs", *slot, status=3)

    assert said.splitlines()[1] == "a\ufffd]0;x\ufffd\tb\ufffd2J\ufffd"


def test_what_a_container_said_last_cannot_command_the_volunteers_terminal(home: Home) -> None:
    home.answers["status"] = {**STATUS, "problems": {"clients": "It ended: \x1b[2J\x9b31m\u202egone\x7f"}}

    assert "It ended: \ufffd[2J\ufffd31m\ufffdgone\ufffd\n" in home.run("status")


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install = tmp_path / "payload" / "install"
    install.mkdir(parents=True)
    for name in ("install.sh", "remove.py"):
        (install / name).touch()
    monkeypatch.setattr(volunteer, "PREFIX", tmp_path)
    return install


def test_an_update_is_the_installer_with_the_same_server_and_the_pinned_key(
    home: Home, becomes: list[list[str]], release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKERCOMP_INSTALL_PROXY", "")
    home.run("update", "--yes")

    [[shell, script, *options]] = becomes
    assert (shell, script) == ("sh", str(release / "install.sh"))
    pairs = dict(zip(options[:-2:2], options[1:-2:2], strict=True))
    assert pairs["--server"] == "https://science.example.org"
    assert os.environ["DOCKERCOMP_INSTALL_PROXY"] == "http://proxy:3128" and "proxy:3128" not in str(becomes)
    assert pairs["--release-key"] == "/etc/dockercomp/release.pub" and pairs["--ca-file"].endswith("ca.pem")
    assert options[-2:] == ["--yes", "--auto-update"]


DRAINED: dict[str, Any] = {
    "finished": 1, "given_back": 1, "undelivered": 0, "clients": 2, "deregistered": 2, "gone": True, "problems": []
}  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may uninstall")
def test_uninstall_drains_first_and_says_what_became_of_the_work(
    home: Home, becomes: list[list[str]], release: Path
) -> None:
    home.answers["drain"] = DRAINED

    said = home.run("uninstall", "--yes", "--purge")

    assert "1 running job finished, 1 job given back, 2 of 2 client containers deregistered." in said
    assert becomes[0][1:] == [str(release / "remove.py"), "--yes", "--purge"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may uninstall")
def test_uninstall_goes_on_without_server_or_launcher_and_says_what_is_lost(
    home: Home, becomes: list[list[str]], release: Path
) -> None:
    away = {"undelivered": 3, "deregistered": 0, "problems": ["The server does not answer."]}
    home.answers["drain"] = {**DRAINED, **away}
    said = home.run("uninstall", "--yes")
    assert "3 finished results could not be delivered (The server does not answer.) and are lost." in said

    home.server.stop()
    said = home.run("uninstall", "--yes")
    assert "It could not be left in order (No launcher runs here" in said
    assert len(becomes) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may uninstall")
def test_uninstall_asks_and_changes_nothing_without_an_answer(
    home: Home, becomes: list[list[str]], release: Path
) -> None:
    assert "There is no terminal to ask on" in home.run("uninstall", status=2)
    assert becomes == [] and home.asked == []


def test_what_the_installer_did_not_put_here_cannot_be_updated(home: Home, tmp_path: Path) -> None:
    assert "was not put here by its installer" in home.run("update", status=2)


@pytest.mark.parametrize("name", ["../x", "", "UPPER"])
def test_an_instances_name_is_checked(home: Home, name: str) -> None:
    assert "a name is 1 to 32 small letters" in home.run("--instance", name, "status", status=2)
