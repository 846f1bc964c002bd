"""What the installer refuses, on a machine without an engine: with the right sentence, and with nothing changed."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import fresh_machine
from laboratory import NAME, VERSION, Lab, openssl
from machines import Done, Machine, difference
from web_servers import Quiet, serving

pytestmark = [pytest.mark.docker, pytest.mark.mongo]

RAW = Path(__file__).parents[2] / "install" / "install.sh"
PLACES = ("/opt/dockercomp", "/etc/dockercomp", "/var/lib/dockercomp", "/usr/local/bin/dockercomp-volunteer")
UNTOUCHED = " && ".join(f"test ! -e {path}" for path in PLACES)


@pytest.fixture(scope="module")
def bare(lab: Lab) -> Iterator[Machine]:
    """A machine without an engine that nothing is ever installed on."""
    yield from fresh_machine("warm", lab)


@pytest.fixture(autouse=True)
def as_found(bare: Machine) -> Iterator[None]:
    """Each test finds the machine as it was, whatever the one before left."""
    yield
    bare.sh("rm -rf /opt/dockercomp /etc/dockercomp /var/lib/dockercomp /var/log/dockercomp-install.log")


def line(machine: Machine, *options: str, before: str = "") -> Done:
    """The documented line with these options."""
    return machine.try_(f"{before} curl -fsSL $SERVER/install.sh | {before} sh -s -- {' '.join(options)}")


def refused(machine: Machine, sentence: str, *options: str, status: int = 2, before: str = "") -> Done:
    """The line with these options ends with this status and sentence, and has installed nothing."""
    done = line(machine, *options, before=before)
    assert done.status == status, done.output
    assert sentence in " ".join(done.output.split()), done.output
    machine.sh(UNTOUCHED)
    return done


def test_without_a_terminal_and_without_yes_it_says_so_and_changes_nothing(bare: Machine) -> None:
    before = bare.snapshot()

    done = refused(bare, "There is no terminal to ask on.")

    assert "What will change:" in done.output
    assert difference(before, bare.snapshot()) == {}


def test_options_that_do_not_exist_or_make_no_sense_are_refused(bare: Machine) -> None:
    refused(bare, "There is no option --contaners.", "--yes", "--contaners", "2")
    refused(bare, "--containers must be a whole number", "--yes", "--containers", "0")
    refused(bare, "--memory must be a size", "--yes", "--memory=plenty")
    refused(bare, "needs a value", "--yes", "--disk")
    refused(bare, "holds a quote", "--yes", "--email", "'a\"b@c.de'")
    refused(bare, "--server must be a URL", "--yes", "--server", "ftp://server.test")
    refused(bare, "--purge goes with --uninstall", "--yes", "--purge")
    refused(bare, "cannot be read", "--yes", "--key-file", "/no/such/file")
    refused(bare, "DOCKERCOMP_INSTALL_YES must be 1 or 0", before="DOCKERCOMP_INSTALL_YES=maybe")
    refused(bare, "--cpus must be a number", "--yes", before="DOCKERCOMP_INSTALL_CPUS=all")


def test_the_plan_needs_neither_consent_nor_root(bare: Machine) -> None:
    bare.sh("id ada 2>/dev/null || useradd ada")

    done = bare.try_(
        'su -s /bin/sh ada -c "curl -fsSL $SERVER/install.sh | sh -s -- --plan --containers 3 --disk 2g"'
    )

    assert done.status == 0, done.output
    for said in ("3 client containers", "2g of disk", "Docker from the distribution", "To undo all of it"):
        assert said in done.output
    bare.sh(UNTOUCHED)


def test_somebody_who_is_not_root_is_helped_by_sudo_or_told_what_to_do(bare: Machine, lab: Lab) -> None:
    bare.sh("id ada 2>/dev/null || useradd ada; echo 'ada ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ada")
    bare.put("/tmp/raw.sh", RAW.read_text())
    print_told = f"--key-fingerprint SHA256:{fingerprint(lab.release_key).upper()}"

    # A copy from elsewhere, the server's key by the fingerprint that its operator told, up to the very last check.
    helped = bare.try_(
        f'su -s /bin/sh ada -c "sh /tmp/raw.sh --server $SERVER {print_told} --disk 2g --dry-run --yes"'
    )
    bare.sh("rm /etc/sudoers.d/ada; chmod 0700 /usr/bin/sudo")
    told = bare.try_('su -s /bin/sh ada -c "curl -fsSL $SERVER/install.sh | sh -s -- --yes --disk 2g"')
    bare.sh("chmod 4755 /usr/bin/sudo")

    assert helped.status == 0 and "It was a dry run: nothing was changed." in helped.output, helped.output
    assert told.status == 2 and "run it again as root" in told.output, told.output
    bare.sh(UNTOUCHED)


def test_a_script_that_was_cut_off_does_nothing(bare: Machine, lab: Lab) -> None:
    script = lab.script()
    bare.put("/root/whole.sh", script)
    before = bare.snapshot()

    for part in range(20):
        cut = part * (len(script) - 1) // 20 + 1
        done = bare.try_(f"head -c {cut} /root/whole.sh | sh -s -- --yes; true")
        assert "What will change" not in done.output and "[1/" not in done.output, cut

    assert difference(before, bare.snapshot()) == {}


def test_a_copy_that_no_server_filled_in_says_what_it_needs(bare: Machine, lab: Lab) -> None:
    bare.put("/root/raw.sh", RAW.read_text())

    alone = bare.try_("sh /root/raw.sh --yes")
    keyless = bare.try_("sh /root/raw.sh --yes --server $SERVER")

    assert alone.status == 2 and "give --server and --key-fingerprint or --release-key" in alone.output
    assert keyless.status == 1 and "There is no release key" in keyless.output, keyless.output
    bare.sh(UNTOUCHED)


def test_systems_that_are_not_supported_are_told_so(bare: Machine) -> None:
    bare.sh("mv /etc/os-release /root/os-release")
    try:
        for text, sentence in (
            ("ID=debian\nVERSION_ID=11\n", "debian 11 is too old: it must be 12 or later."),
            ("ID=ubuntu\nVERSION_ID=20.04\n", "ubuntu 20.04 is too old: it must be 22.04 or later."),
            ("ID=slackware\nVERSION_ID=15.0\n", "This system (slackware) is not supported"),
            ("", "This system (unknown) is not supported"),
        ):
            bare.put("/etc/os-release", text)
            refused(bare, sentence, "--yes")
    finally:
        bare.sh("mv /root/os-release /etc/os-release")


def test_an_old_engine_is_refused_and_left_alone(bare: Machine) -> None:
    old = (
        "#!/bin/sh\ncase $1 in --version) echo 'Docker version 19.03.15, build 1';; *) echo 19.03.15;; esac\n"
    )
    bare.put("/usr/local/bin/docker", old, mode="0755")

    refused(
        bare,
        "The Docker engine here is 19.03.15; 20.10 or later is needed, and yours is not touched.",
        "--yes",
    )

    podman = "#!/bin/sh\necho 'podman version 4.3.1'\n"
    bare.put("/usr/local/bin/docker", podman, mode="0755")
    refused(bare, "The docker command here is Podman's", "--yes")
    bare.sh("rm /usr/local/bin/docker")


def test_no_engine_is_installed_against_the_volunteers_word(bare: Machine) -> None:
    refused(bare, "There is no Docker engine here", "--yes", "--no-docker-install")


def test_a_disk_that_is_too_small_is_said_before_anything_is_changed(bare: Machine) -> None:
    refused(bare, "Free some, or give a smaller --disk.", "--yes", "--disk", "900t")
    bare.sh("mkdir -p /srv/small && mount -t tmpfs -o size=50m tmpfs /srv/small")
    refused(bare, "MB free for /srv/small/x and 500 MB are needed", "--yes", "--prefix", "/srv/small/x")
    bare.sh("umount /srv/small && rmdir /srv/small")


def test_a_disk_that_fills_up_midway_fails_the_step_and_names_it(bare: Machine) -> None:
    bare.sh("mkdir -p /srv/tiny && mount -t tmpfs -o size=64k tmpfs /srv/tiny")

    done = refused(
        bare,
        "This step failed: Release: download and signature.",
        "--yes",
        "--disk",
        "1g",
        before="TMPDIR=/srv/tiny",
        status=1,
    )

    assert "could not be downloaded" in done.output and "The same command can be run again" in done.output
    bare.sh("umount /srv/tiny && rmdir /srv/tiny")


def test_a_server_that_does_not_answer_or_is_open_to_everybody_is_refused(bare: Machine) -> None:
    refused(
        bare,
        "https://server.test:1 does not answer as it should",
        "--yes",
        "--server",
        "https://server.test:1",
    )
    refused(
        bare,
        "is not encrypted, and 192.0.2.7 is a public address",
        "--yes",
        "--server",
        "http://192.0.2.7:8765",
    )


def test_a_clock_that_is_wrong_is_said(bare: Machine, lab: Lab) -> None:
    with clock_of_last_year(lab) as url:
        done = refused(bare, "seconds off the server's: set it first", "--yes", "--server", url)

    assert "This machine's clock is 31" in done.output


def test_a_second_installer_waits_for_nobody(bare: Machine) -> None:
    bare.sh(
        "flock -o /run/dockercomp-install.lock sleep 600 >/dev/null 2>&1 & echo $! >/tmp/holder; sleep 0.5"
    )

    refused(bare, "Another installation is under way on this machine", "--yes", "--disk", "1g")

    bare.sh("kill $(cat /tmp/holder)")


# --- what the server sends is believed only if it is signed


def test_a_release_that_is_not_exactly_what_was_signed_is_not_used(bare: Machine, lab: Lab) -> None:
    changed = lab.mirror("changed")
    text = (changed / "SHA256SUMS").read_text()
    (changed / "SHA256SUMS").write_text(text.replace("# expires 20", "# expires 21"))

    stranger = lab.mirror("stranger")
    openssl("genpkey", "-algorithm", "ed25519", "-out", lab.folder / "stranger.key")
    lab.sign(stranger / "SHA256SUMS", lab.folder / "stranger.key")

    for name in ("changed", "stranger"):
        refused(bare, "The release's signature is WRONG", "--yes", "--disk", "1g", *at(lab, name), status=1)


def test_an_archive_that_was_changed_or_cut_off_is_not_unpacked(bare: Machine, lab: Lab) -> None:
    name = f"dockercomp-{VERSION}.tar.gz"
    whole = (lab.mirror("short") / name).read_bytes()
    (lab.folder / "mirrors" / "short" / "releases" / "current" / name).write_bytes(whole[:-1000])
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 1
    (lab.mirror("flipped") / name).write_bytes(flipped)

    for mirror in ("short", "flipped"):
        sentence = "is not the signed one. Nothing of it was used."
        refused(bare, sentence, "--yes", "--disk", "1g", *at(lab, mirror), status=1)


def test_an_expired_release_is_refused(bare: Machine, lab: Lab) -> None:
    folder = lab.mirror("expired")
    resign(lab, folder, "# expires ", "# expires 2025-01-01T00:00:00Z")

    refused(bare, "expired at 2025-01-01", "--yes", "--disk", "1g", *at(lab, "expired"), status=1)


def test_a_release_of_another_version_than_was_asked_for_is_refused(bare: Machine, lab: Lab) -> None:
    folder = lab.mirror("other")
    (folder.parent / "0.2.0").symlink_to("current")

    refused(
        bare,
        "sent release 0.1.0 where 0.2.0",
        "--yes",
        "--disk",
        "1g",
        "--version",
        "0.2.0",
        *at(lab, "other"),
        status=1,
    )


def test_a_release_older_than_the_installed_one_needs_the_volunteers_word(bare: Machine, lab: Lab) -> None:
    bare.sh("mkdir -p /opt/dockercomp/payload && echo 0.10.0 >/opt/dockercomp/payload/VERSION")

    done = line(bare, "--yes", "--disk", "1g")

    assert done.status == 1 and "older than what is installed (0.10.0)" in done.output, done.output


def test_another_key_than_at_the_first_installation_is_refused_with_both_shown(
    bare: Machine, lab: Lab
) -> None:
    other = lab.folder / "other.key"
    openssl("genpkey", "-algorithm", "ed25519", "-out", other)
    pinned = openssl("pkey", "-in", other, "-pubout")
    bare.sh("mkdir /etc/dockercomp")
    bare.put("/etc/dockercomp/release.pub", pinned)

    done = line(bare, "--yes", "--disk", "1g")

    assert done.status == 1, done.output
    assert fingerprint(lab.release_key) in done.output and fingerprint(other) in done.output


def test_the_fingerprint_that_an_operator_told_is_compared(bare: Machine, lab: Lab) -> None:
    refused(bare, "The release key is", "--yes", "--disk", "1g", "--key-fingerprint", "0" * 64, status=1)


def test_enrolment_that_the_server_refuses_is_told_in_its_own_words(bare: Machine, lab: Lab) -> None:
    bare.put("/root/used.key", "dce_this-key-was-never-made\n")

    done = line(bare, "--yes", "--disk", "1g", "--key-file", "/root/used.key")

    assert done.status == 1 and "The server did not enrol this machine:" in done.output, done.output
    assert "dce_" not in bare.sh("cat /var/log/dockercomp-install.log") + done.output
    assert bare.sh("stat -c %a /var/log/dockercomp-install.log") == "600"
    gone = line(bare, "--uninstall", "--yes")
    assert gone.status == 0, gone.output
    bare.sh(UNTOUCHED)


def test_a_key_for_one_machine_is_not_lost_when_a_later_step_fails(bare: Machine, lab: Lab) -> None:
    file = lab.folder / "once.key"
    lab.product.run("dockercomp-server", "enrol", "key", "--uses", "1", "--key-file", str(file))
    bare.put("/root/once.key", file.read_text(), mode="0600")
    # An engine that says its version and cannot be started.
    fake = "#!/bin/sh\ncase $1 in --version) echo 'Docker version 24.0.7, build 1';; *) echo 24.0.7;; esac\n"
    bare.put("/usr/local/bin/docker", fake, mode="0755")

    for _ in range(2):
        done = line(bare, "--yes", "--disk", "1g", "--key-file", "/root/once.key")
        assert done.status == 1 and "This step failed: Docker engine." in done.output, done.output
        kept = bare.sh("cd /etc/dockercomp && ls && stat -c '%a %U' account.key && head -c 4 account.key")
        assert kept.split() == ["account.key", "600", "root", "dca_"]

    bare.sh("rm /usr/local/bin/docker; ! grep -q dca_ /var/log/dockercomp-install.log")
    gone = line(bare, "--uninstall", "--yes")
    assert gone.status == 0, gone.output
    bare.sh(UNTOUCHED)


def test_a_piped_script_runs_no_file_of_the_folder_and_asks_before_it_takes_away(bare: Machine) -> None:
    bare.sh("id ada 2>/dev/null || useradd ada; echo 'ada ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ada")
    bare.sh("mkdir -p /srv/planted /var/lib/dockercomp")
    bare.put("/srv/planted/sh", "touch /srv/planted/ran\nown_server='x'\nmain\n")
    uninstall = "cd /srv/planted && curl -fsSL $SERVER/install.sh | sh -s -- --uninstall"

    asked = bare.try_(f'su -s /bin/sh ada -c "{uninstall}"')

    assert asked.status == 2 and "There is no terminal to ask on." in asked.output, asked.output
    bare.sh("test -d /var/lib/dockercomp && test ! -e /srv/planted/ran")
    agreed = bare.try_(f'su -s /bin/sh ada -c "{uninstall} --yes"')
    assert agreed.status == 0, agreed.output
    bare.sh(f"{UNTOUCHED} && test ! -e /srv/planted/ran && rm -r /srv/planted /etc/sudoers.d/ada")


def at(lab: Lab, mirror: str) -> tuple[str, str]:
    return "--server", f"{lab.mirror_url}/{mirror}"


def resign(lab: Lab, folder: Path, start: str, whole: str) -> None:
    """Replace the line of SHA256SUMS that starts so, and sign it as the operator would."""
    sums = folder / "SHA256SUMS"
    lines = [whole if one.startswith(start) else one for one in sums.read_text().splitlines()]
    sums.write_text("\n".join(lines) + "\n")
    lab.sign(sums)


def fingerprint(key: Path) -> str:
    der = key.with_suffix(".der")
    openssl("pkey", "-in", key, "-pubout", "-outform", "DER", "-out", der)
    return hashlib.sha256(der.read_bytes()).hexdigest()


@contextmanager
def clock_of_last_year(lab: Lab) -> Iterator[str]:
    """The URL of a server whose clock is a year behind."""

    class Behind(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write((lab.product.home / "releases" / VERSION / "SHA256SUMS").read_bytes())

        def date_time_string(self, timestamp: float | None = None) -> str:
            then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=365)
            return f"{then:%a, %d %b %Y %H:%M:%S} GMT"

    where = {"certificate": lab.folder / "server.pem", "key": lab.folder / "server.key"}
    with serving(Behind, host="0.0.0.0", **where) as server:
        yield f"https://{NAME}:{server.port}"
