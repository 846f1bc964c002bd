"""The installer's small programs, and its playbooks' syntax: quick, without a machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from parts import require
from web_servers import Quiet, serving

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "install"
SCRIPT = (INSTALL / "install.sh").read_text()


def ran(program: str, *arguments: str, env: dict[str, str] | None = None, told: str = "") -> Any:
    """One of the programs in install/, ended."""
    return subprocess.run(
        [sys.executable, INSTALL / program, *arguments],
        input=told,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )


# --- install.sh


def test_nothing_runs_before_the_last_line_of_the_installer() -> None:
    assert SCRIPT.endswith('\nmain "$@"\n')
    outside = re.sub(r"^\w+\(\) \{.*?^\}$", "", SCRIPT, flags=re.MULTILINE | re.DOTALL)
    code = [line for line in outside.splitlines() if line and not line.startswith("#")]
    plain = re.compile(
        r"set -eu|umask 077|export [A-Z_ ]+|[a-zA-Z_]+=\S*.*|\w+\(\) \{ .* \}( #.*)?|main \"\$@\""
    )
    assert [line for line in code if not plain.fullmatch(line)] == []


def test_every_option_of_the_installer_is_in_its_help_and_in_the_guide_and_has_a_variable() -> None:
    parsed = set(
        re.findall(r"--[a-z][a-z-]+", SCRIPT[SCRIPT.index("\nparse() {") : SCRIPT.index("\nvariable() {")])
    )
    parsed -= {"--help"}
    helped = set(re.findall(r"--[a-z][a-z-]+", SCRIPT[SCRIPT.index("<<'USAGE'") : SCRIPT.index("\nUSAGE\n")]))
    guide = (ROOT / "docs" / "how-to" / "lend-a-machine.md").read_text()
    section = guide[guide.index("## Options") : guide.index("## Take it back")]

    assert len(parsed) > 20
    assert parsed <= helped
    assert parsed == set(re.findall(r"`(--[a-z][a-z-]+)", section))
    variables = {option.removeprefix("--").replace("-", "_").upper() for option in parsed}
    known = set(re.findall(r"DOCKERCOMP_INSTALL_([A-Z_]+)", SCRIPT)) | set(
        re.findall(r"\$\(switch ([A-Z_]+)\)", SCRIPT)
    )
    assert variables <= known


def test_the_installer_is_filled_in_at_exactly_three_places() -> None:
    assert {name: SCRIPT.count(name) for name in ("@SERVER@", "@RELEASE_KEY@", "@FINGERPRINT@")} == {
        "@SERVER@": 1,
        "@RELEASE_KEY@": 1,
        "@FINGERPRINT@": 1,
    }


def shell(commands: str, *, folder: Path, file: bool = False, path: Path | None = None) -> Any:
    """Commands with the installer's functions, which run nothing by themselves: piped into sh, or as a file's."""
    text = SCRIPT.replace('\nmain "$@"\n', f'\nwork={folder}\n{commands}\nexit\nmain "$@"\n')
    (folder / "install-it").write_text(text)
    return subprocess.run(
        ["sh", *(["./install-it"] if file else [])],
        input="" if file else text,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]},
    )


def test_for_sudo_a_piped_script_is_fetched_again_and_a_file_called_sh_is_not_believed(
    tmp_path: Path,
) -> None:
    (tmp_path / "sh").write_text(SCRIPT.replace("set -eu", "echo planted"))
    commands = """server=https://server.test; fetch() { printf 'main "$@"\\n' >"$2"; }; own_copy"""

    assert shell(commands, folder=tmp_path).stdout == f"{tmp_path}/install.sh\n"
    assert shell(commands, folder=tmp_path, file=True).stdout == "./install-it\n"


def test_sudo_agrees_to_a_plan_that_was_shown_and_to_no_removal_that_nobody_was_asked_about(
    tmp_path: Path,
) -> None:
    def handed_over(options: str) -> str:
        stubs = 'id() { echo 1000; }; has() { :; }; own_copy() { echo "$0"; }; sudo() { echo "$*"; }'
        done = shell(f"{stubs}; parse {options}; check_options; become_root", folder=tmp_path, file=True)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    assert "--yes" not in handed_over("--uninstall --purge")
    assert "--yes" in handed_over("--uninstall --yes")
    proxied = handed_over("--server https://server.test --proxy http://ada:secret@proxy.test:3128")
    assert "--yes" in proxied and "secret" not in proxied
    assert (tmp_path / "proxy").read_text() == "http://ada:secret@proxy.test:3128\n"
    told = f'DOCKERCOMP_INSTALL_PROXY_FILE={tmp_path}/proxy; parse; printf %s "$proxy"'
    assert "ada:secret@" in shell(told, folder=tmp_path).stdout


def test_the_password_of_a_proxy_is_not_among_the_words_of_a_command(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "curl").write_text('#!/bin/sh\necho "$@"\n')
    (programs / "curl").chmod(0o755)
    # The script has the system's folders of programs last.
    settings = "server=https://server.test; ca_file=; proxy=http://ada:secret@proxy.test:3128"

    done = shell(f"{settings}; fetch thing {tmp_path}/thing 1000", folder=tmp_path, path=programs)

    assert "https://server.test/thing" in done.stdout and "secret" not in done.stdout, done
    assert "--max-time 120" in done.stdout
    config = tmp_path / "curl.conf"
    assert config.read_text() == 'proxy = "http://ada:secret@proxy.test:3128"\n'
    assert config.stat().st_mode & 0o777 == 0o600


@contextmanager
def endless_answers() -> Iterator[str]:
    """The URL of a server that never stops to answer, and does not say how long the answer is."""

    class Endless(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                for _ in range(5000):
                    self.wfile.write(b"x" * 10_000)

    with serving(Endless) as server:
        yield server.url


def test_an_answer_without_end_is_cut_off_and_not_kept(tmp_path: Path) -> None:
    with endless_answers() as url:
        settings = f"server={url}; ca_file=; proxy="
        done = shell(f"{settings}; fetch thing {tmp_path}/thing 20000 --noproxy '*'", folder=tmp_path)

    assert done.returncode != 0
    assert not (tmp_path / "thing").exists()


def test_a_key_is_kept_whole_and_for_root_alone(tmp_path: Path) -> None:
    done = shell(f"keep {tmp_path}/account.key dca_1", folder=tmp_path)

    kept = tmp_path / "account.key"
    assert done.returncode == 0 and kept.read_text() == "dca_1\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "account.key.partial").exists()


def test_no_package_manager_finds_a_key_whose_fingerprint_was_not_compared() -> None:
    for system, final, check in (
        ("debian", "dest: /etc/apt/keyrings/docker.asc", "ansible.builtin.assert"),
        ("redhat", "dest: /etc/pki/rpm-gpg/RPM-GPG-KEY-docker", "ansible.builtin.rpm_key"),
    ):
        text = (ROOT / f"playbooks/roles/docker/tasks/repository-{system}.yml").read_text()
        assert text.index("docker.asc.unchecked") < text.index(check) < text.index(final)


def test_the_playbooks_are_valid() -> None:
    command = shutil.which("ansible-playbook", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if command is None:
        pytest.skip("ansible-playbook is not installed here; the tests of the installer run the playbooks")
    done = subprocess.run(
        [command, "--syntax-check", "-i", "localhost,", ROOT / "playbooks" / "volunteer.yml"],
        capture_output=True,
        text=True,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "playbooks" / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr


# --- the receipt


def receipt_after(file: Path, *arguments: str) -> dict[str, Any]:
    if os.getuid() != 0:
        require("the receipt's lock is root's")
    done = ran("receipt.py", *arguments, env={"DOCKERCOMP_RECEIPT": str(file)})
    assert done.returncode == 0, done.stderr
    return dict(json.loads(file.read_text()))


def test_the_receipt_lists_what_is_new_and_leaves_out_what_was_here_before(tmp_path: Path) -> None:
    file, ours, theirs = tmp_path / "receipt.json", tmp_path / "ours", tmp_path / "theirs"
    theirs.write_text("here before")

    receipt_after(file, "add", "files", str(ours), str(theirs), "users", "root", "dockercomp-nobody-has-this")
    ours.write_text("made now")
    held = receipt_after(file, "add", "files", str(ours), "units", "a.service", "folders", str(tmp_path))

    assert (held["files"], held["users"], held["units"]) == (
        [str(ours)],
        ["dockercomp-nobody-has-this"],
        ["a.service"],
    )
    assert held["folders"] == []
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_receipt_says_whether_it_changed(tmp_path: Path) -> None:
    env = {"DOCKERCOMP_RECEIPT": str(tmp_path / "receipt.json")}
    if os.getuid() != 0:
        require("the receipt's lock is root's")

    said = [ran("receipt.py", "note", "docker.installed_by_us=true", env=env).stdout for _ in range(2)]

    assert said == ["changed\n", ""]
    assert json.loads((tmp_path / "receipt.json").read_text())["docker"]["installed_by_us"] is True


def test_a_package_step_that_was_cut_off_is_settled_by_the_next_one(tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    if shutil.which("dpkg-query") is None:
        pytest.skip("this machine has no dpkg")

    held = receipt_after(file, "packages-before", "docker")
    assert "dpkg" in held["packages_before"]
    file.write_text(
        json.dumps({**held, "packages_before": [one for one in held["packages_before"] if one != "dpkg"]})
    )
    settled = receipt_after(file, "packages-after")

    assert settled["packages"] == settled["docker"]["packages"] == ["dpkg"]
    assert "packages_before" not in settled


# --- user ids and limits


def test_reserved_ids_never_overlap_with_anybody_elses() -> None:
    sys.path.insert(0, str(INSTALL))
    try:
        from free_uids import first_free, reserved_in
    finally:
        sys.path.remove(str(INSTALL))
    others = reserved_in("ada:100000:65536\nbob:689824:65536\n# a comment\nodd\n")

    assert first_free("dockercomp", 730_000, [], []) == 730_000
    assert first_free("dockercomp", 730_000, others, []) == 756_000
    assert first_free("dockercomp", 730_000, others, [757_000]) == 758_000
    assert first_free("dockercomp", 730_000, [*others, ("dockercomp", 756_000, 2000)], [756_001]) == 756_000


def limits_set(file: Path, **limits: str) -> Any:
    return ran("set_limits.py", str(file), told=json.dumps(limits))


def test_limits_that_are_not_named_stay_as_the_volunteer_wrote_them(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('# mine\n[limits]\ncontainers = 2\nmemory = "4g"\n[when]\nidle_only = true\n')

    same = limits_set(file)
    assert same.returncode == 0 and "changed" not in same.stdout and file.read_text().startswith("# mine")

    changed = limits_set(file, containers="3", hours="18:00-08:00")
    assert changed.stdout.splitlines()[0] == "changed"
    text = file.read_text()
    assert (
        "containers = 3" in text
        and 'memory = "4g"' in text
        and "idle_only = true" in text
        and "18:00" in text
    )


def test_a_limit_that_makes_no_sense_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[limits]\ncontainers = 2\n")

    done = limits_set(file, hours="when I sleep")

    assert done.returncode == 2 and "when.hours must be" in done.stderr
    assert file.read_text() == "[limits]\ncontainers = 2\n"


def test_a_first_policy_comes_from_the_hardware_and_what_was_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"

    done = limits_set(file, containers="1", disk="1g")

    assert json.loads(done.stdout.splitlines()[-1]) == {"containers": 1, "disk": 2**30}
    assert "cpus = 1\n" in file.read_text()
