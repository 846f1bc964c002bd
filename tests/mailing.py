"""A door for mail on a port of its own, letters to bring there, and a certificate to encrypt with."""

from __future__ import annotations

import asyncio
import datetime
import smtplib
import threading
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from product import free_port

ADA = "ada@example.org"
NAMES = ("names.csv", b"name\r\nAda\r\nGrace\r\n")


class Post:
    """The door for mail, on a port of its own."""

    def __init__(self, stores: Any, tls: Any = None) -> None:
        from source_server.app import build_services
        from source_server.smtp_listener import Door, listen

        intake = build_services(stores, beat_s=20.0).intake
        self.port = free_port()
        self.loop = asyncio.new_event_loop()
        self.door = Door(intake, intake.kind("mail"))  # type: ignore[arg-type]
        self.loop.run_until_complete(listen(self.door, "127.0.0.1", self.port, tls=tls))
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def client(self) -> smtplib.SMTP:
        return smtplib.SMTP("127.0.0.1", self.port, timeout=60)

    def send(self, to: str, message: EmailMessage | bytes, sender: str = ADA) -> tuple[int, str]:
        """(code, sentence) of the last answer."""
        with self.client() as client:
            client.ehlo()
            client.mail(sender)
            code, said = client.rcpt(to)
            if code == 250:
                raw = message if isinstance(message, bytes) else message.as_bytes(policy=SMTP)
                code, said = client.data(raw)
            return code, said.decode()


def letter(
    *files: tuple[str, bytes], message_id: str | None = "<one@example.org>", sender: str = ADA
) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, "somebody@example.org", "Work"
    if message_id is not None:
        message["Message-ID"] = message_id
    message.set_content("Dear server, here is some work.")
    for name, content in files:
        message.add_attachment(content, maintype="application", subtype="octet-stream", filename=name)
    return message


class SelfMade:
    """A certificate that nobody else vouches for, made for `localhost`, and its key: two PEM files."""

    def __init__(self, folder: Path, *, passphrase: bytes | None = None) -> None:
        self.certificate, self.key = folder / "mail.pem", folder / "mail.key"
        key = ec.generate_private_key(ec.SECP256R1())
        locked = serialization.BestAvailableEncryption(passphrase) if passphrase else None
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                locked or serialization.NoEncryption(),
            )
        )
        made = _certificate(key)
        self.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        self.der = made.public_bytes(serialization.Encoding.DER)


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
