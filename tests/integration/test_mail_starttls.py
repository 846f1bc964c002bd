"""Mail that comes in encrypted: STARTTLS with the operator's certificate, and settings that are whole or refused."""

from __future__ import annotations

import os
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest
from mailing import ADA, NAMES, Post, SelfMade, letter
from people import Scientist
from product import free_port, running, until

ECHO = {"action": ["/bin/echo", "{name}"]}


@pytest.fixture
def made(tmp_path: Path) -> SelfMade:
    return SelfMade(tmp_path)


@pytest.fixture
def post(stores: Any, made: SelfMade) -> Iterator[Post]:
    """A door that offers STARTTLS."""
    from source_server.smtp_listener import Certificate

    opened = Post(stores, tls=Certificate(made.certificate, made.key))
    yield opened
    opened.close()


@pytest.fixture
def to(scientist: Scientist) -> str:
    """The address of a receiver."""
    scientist.ok("POST", "/projects", {"name": "letters"})
    way = scientist.ok("POST", "/projects/letters/receivers", {"kind": "mail", "template": ECHO})
    return f"run+{way['secret']}@any.example"


def trusting(made: SelfMade) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=os.fspath(made.certificate))


def shown(post: Post) -> bytes:
    """The certificate that the door shows to a new connection."""
    careless = ssl.create_default_context()
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    with post.client() as client:
        client.starttls(context=careless)
        certificate = client.sock.getpeercert(binary_form=True)  # type: ignore[union-attr]
    assert certificate is not None
    return certificate


def ready_for_tls(link: socket.socket, more: bytes = b"") -> None:
    """Say EHLO and STARTTLS, `more` in the same packet, and hear that the handshake may begin."""
    for said, end in ((b"", b"220 "), (b"EHLO me\r\n", b"250 "), (b"STARTTLS\r\n" + more, b"220 ")):
        link.sendall(said)
        line = b""
        while not (line.startswith(end) and line.endswith(b"\r\n")):
            if line.endswith(b"\r\n"):
                line = b""
            piece = link.recv(1)
            assert piece, "the door has hung up"
            line += piece


# --- encrypted


def test_a_message_comes_in_encrypted_for_a_sender_who_checks_the_certificate(
    post: Post, made: SelfMade, scientist: Scientist, to: str
) -> None:
    with smtplib.SMTP("localhost", post.port, timeout=20) as client:
        client.starttls(context=trusting(made))
        client.ehlo()
        refused = client.sendmail(ADA, [to], letter(NAMES).as_bytes(policy=SMTP))

        assert refused == {}
        assert client.sock.version() in ("TLSv1.2", "TLSv1.3")  # type: ignore[union-attr]
        assert not client.has_extn("starttls"), "it is offered once"
    [event] = scientist.ok("GET", "/projects/letters/events")["events"]
    assert event["key"] == "<one@example.org>"


def test_whoever_does_not_encrypt_gets_through_as_well(post: Post, to: str) -> None:
    assert post.send(to, letter(NAMES))[0] == 250


def test_a_door_without_a_certificate_offers_nothing_and_says_so(stores: Any) -> None:
    plain = Post(stores)
    try:
        with plain.client() as client:
            client.ehlo()

            assert not client.has_extn("starttls")
            assert client.docmd("STARTTLS")[0] in (454, 500)
    finally:
        plain.close()


def test_what_was_said_in_the_clear_counts_no_more_once_it_is_encrypted(
    post: Post, made: SelfMade, to: str
) -> None:
    with smtplib.SMTP("localhost", post.port, timeout=20) as client:
        client.ehlo()
        assert client.mail("eve@evil.example")[0] == 250
        client.starttls(context=trusting(made))
        client.ehlo()

        assert client.rcpt(to)[0] == 503


def test_what_somebody_on_the_way_slips_in_behind_starttls_is_not_obeyed(post: Post, made: SelfMade) -> None:
    with socket.create_connection(("localhost", post.port), timeout=20) as link:
        ready_for_tls(link, b"EHLO eve\r\nMAIL FROM:<eve@evil.example>\r\n")
        with trusting(made).wrap_socket(link, server_hostname="localhost") as secure:
            secure.sendall(b"RCPT TO:<a@b>\r\n")
            said = secure.recv(1000)

    assert said.startswith(b"503"), "nothing was said before, neither EHLO nor MAIL"


# --- those who do not go through with it


def free_again(post: Post) -> bool:
    """Whether an address has all of its places again."""
    links = [socket.create_connection(("127.0.0.1", post.port), timeout=20) for _ in range(10)]
    try:
        return all(link.recv(1000).startswith(b"220") for link in links)
    finally:
        for link in links:
            link.close()


@pytest.mark.parametrize("instead", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\x00" * 200])
def test_who_never_ends_the_handshake_is_cut_off_and_takes_nobodys_place(
    post: Post, monkeypatch: pytest.MonkeyPatch, instead: bytes
) -> None:
    monkeypatch.setattr("source_server.smtp_listener.CONNECTION_S", 5.0)
    with socket.create_connection(("127.0.0.1", post.port), timeout=30) as link:
        ready_for_tls(link)
        link.sendall(instead)
        try:
            while link.recv(1000):
                pass
        except ConnectionError:
            pass

    monkeypatch.undo()
    until(lambda: free_again(post), seconds=30, what="the place is free again")


def test_who_lingers_encrypted_is_cut_off_in_the_end(
    post: Post, made: SelfMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("source_server.smtp_listener.CONNECTION_S", 5.0)
    begin = time.monotonic()
    with smtplib.SMTP("localhost", post.port, timeout=60) as client:
        client.starttls(context=trusting(made))

        with pytest.raises((smtplib.SMTPServerDisconnected, OSError)):
            while time.monotonic() - begin < 40:  # fewer commands than would end it by their number
                client.noop()
                time.sleep(0.5)

    assert time.monotonic() - begin < 40
    monkeypatch.undo()
    until(lambda: free_again(post), seconds=30, what="the place is free again")


# --- the certificate


def test_a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_never(
    post: Post, made: SelfMade, tmp_path: Path
) -> None:
    before = shown(post)
    made.certificate.write_text("half a file")
    broken = shown(post)
    (tmp_path / "new").mkdir()
    renewed = SelfMade(tmp_path / "new")
    renewed.key.replace(made.key)
    renewed.certificate.replace(made.certificate)

    assert before == broken == made.der
    assert shown(post) == renewed.der


# --- half of a setting


def half_settings(folder: Path) -> dict[str, tuple[dict[str, str], str]]:
    """Settings that are no certificate, by what is wrong with them; and what the operator is told."""
    for name in ("one", "two", "locked"):
        (folder / name).mkdir()
    one, two = SelfMade(folder / "one"), SelfMade(folder / "two")
    locked = SelfMade(folder / "locked", passphrase=b"secret")
    certificate, key = "DOCKERCOMP_MAIL_CERT", "DOCKERCOMP_MAIL_CERT_KEY"
    return {
        "a key alone": ({key: str(one.key)}, f"{key} is set without {certificate}"),
        "no key": ({certificate: str(one.certificate)}, "cannot be used"),
        "a file that is not there": ({certificate: str(folder / "none.pem")}, "No such file"),
        "another one's key": ({certificate: str(one.certificate), key: str(two.key)}, "belongs to it"),
        "a passphrase": (
            {certificate: str(locked.certificate), key: str(locked.key)},
            "without a passphrase",
        ),
        "a folder": ({certificate: str(folder)}, "cannot be used"),
    }


@pytest.mark.parametrize("command", ["up", "mail"])
@pytest.mark.parametrize(
    "wrong",
    ["a key alone", "no key", "a file that is not there", "another one's key", "a passphrase", "a folder"],
)
def test_half_of_a_certificate_is_refused_before_anything_starts(
    tmp_path: Path, command: str, wrong: str
) -> None:
    settings, says = half_settings(tmp_path)[wrong]
    home, port = tmp_path / "home", free_port()
    options = {
        "up": ("up", "--bind", f"127.0.0.1:{free_port()}", "--mail", f"127.0.0.1:{port}"),
        "mail": ("mail", "--listen", f"127.0.0.1:{port}"),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DOCKERCOMP_")}

    done = subprocess.run(
        [sys.executable, "-m", "source_server.cli", *options[command]],
        env={**kept, "DOCKERCOMP_HOME": str(home), **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 2, done.stderr
    assert says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not home.exists()


# --- as the operator sets it up


@pytest.mark.mongo
def test_a_server_that_was_given_a_certificate_takes_mail_encrypted(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        from parts import require

        require("no openssl")
    certificate, key, port = tmp_path / "mail.pem", tmp_path / "mail.key", free_port()
    # fmt: off
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )
    # fmt: on
    settings = {"DOCKERCOMP_MAIL_CERT": str(certificate), "DOCKERCOMP_MAIL_CERT_KEY": str(key)}
    with running("--mail", f"127.0.0.1:{port}", settings=settings) as product:
        (product.home / "job.json").write_text('{"action": ["/bin/echo", "{name}"]}')
        product.run("dockercomp", "project", "letters")
        template = ("--template", str(product.home / "job.json"))
        said = product.run("dockercomp", "receiver", "add", "mail", "--project", "letters", *template)
        secret = said.split("secret")[-1].strip()

        # No waiting: `up` says that it runs once the door is open.
        with smtplib.SMTP("localhost", port, timeout=60) as client:
            client.starttls(context=ssl.create_default_context(cafile=os.fspath(certificate)))
            refused = client.sendmail(ADA, [f"run+{secret}@localhost"], letter(NAMES).as_bytes(policy=SMTP))

        assert refused == {}
        listed = product.run("dockercomp", "receiver", "events", "--project", "letters")
        assert "names.csv from ada@example.org" in listed
