"""The door for mail: an SMTP listener that stores each message as an event before it says 250.

What it refuses for good it refuses with 5xx and a sentence that the sender gets back; when the database is away it says
4xx, and the sender's mail server brings the message again: nothing is lost either way.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session, TLSSetupException, syntax

from source_server.domain import refusal
from source_server.domain.receiver import Event, Receiver
from source_server.domain.refusal import Refusal
from source_server.receivers.mail import Mail, secret_of
from source_server.services.intake.intake import Intake

log = logging.getLogger(__name__)

MOST_BYTES = 10 * 1024 * 1024  #: of a message, as it comes
COMMAND_S = 120.0  #: for one command; DATA is one, with the message and its storing
CONNECTION_S = 600.0  #: for a connection, whatever it says meanwhile
MOST_CONNECTIONS = 100
EACH = 10  #: of them from one address
THREADS = 8  #: that speak to the database
MOST_LINE = 400  #: letters of an answer

#: What the sender's server is told: 5xx is for ever, 4xx is "bring it again".
CODE_OF: dict[type[Refusal], str] = {
    refusal.BadInput: "554 5.6.0",
    refusal.NotAllowed: "550 5.7.1",
    refusal.NotFound: "550 5.1.1",
    refusal.TooLarge: "552 5.3.4",
    refusal.TooMany: "452 4.3.1",
    refusal.Unavailable: "451 4.3.0",
    refusal.Refusal: "554 5.6.0",
}
NO_RECEIVER = (
    "No receiver has this address: mail comes to run+SECRET@HOST, as `dockercomp receiver add` showed it."
)
ONE_EACH = "452 4.5.3 One receiver a message: the others come in messages of their own."
LATER = "451 4.3.0 The server cannot store it just now; bring it again."


class CertificateUnusable(ValueError):
    """The certificate or its key cannot be used; the message is one sentence for the operator."""


class Certificate:
    """What the door shows to whoever encrypts; read again when its files change, as certificates are renewed."""

    def __init__(self, path: Path, key: Path | None = None) -> None:
        """Raises CertificateUnusable."""
        self._path, self._key = path, key
        self._seen = self._state()
        self._context = self._read()

    def context(self) -> ssl.SSLContext:
        """For the next connection. A renewed certificate that cannot be used leaves the one before in its place."""
        state = self._state()
        if state != self._seen:
            self._seen = state
            try:
                self._context = self._read()
                log.info("mail certificate read again", extra={"path": str(self._path)})
            except CertificateUnusable as error:
                log.error("mail certificate not renewed", extra={"reason": str(error)})
        return self._context

    def _read(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            # A key with a passphrase would make OpenSSL ask for it on the terminal.
            context.load_cert_chain(self._path, self._key, password=lambda: "")
        except (OSError, ValueError) as error:  # OSError: ssl.SSLError, too
            files = f"{self._path}{f' with the key {self._key}' if self._key else ''}"
            reason = getattr(error, "strerror", None) or error
            raise CertificateUnusable(
                f"The certificate {files} cannot be used (PEM, and a key without a passphrase that belongs to it): "
                f"{reason}."
            ) from error
        return context

    def _state(self) -> tuple[object, ...]:
        return tuple(_stamp(one) for one in (self._path, self._key) if one is not None)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


class Door:
    """What aiosmtpd asks: who is meant, and what becomes of a message."""

    def __init__(self, intake: Intake, mail: Mail) -> None:
        self._intake, self._mail = intake, mail
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="mail")

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Whether a receiver has this address."""
        answer = await self._answer(lambda: self._found(address))
        if not answer.startswith("250"):
            return answer
        if envelope.rcpt_tos:
            return ONE_EACH
        envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Store the message with a majority; only then 250."""
        raw, address = envelope.original_content or b"", envelope.rcpt_tos[0]
        sent_by = (envelope.mail_from or "").removeprefix("<>")
        return await self._answer(lambda: self._stored(address, raw, sent_by))

    async def handle_exception(self, error: Exception) -> str:
        """A mistake of ours must not lose a message."""
        log.error("mail session failed", exc_info=error)
        return LATER

    def _found(self, address: str) -> str:
        self._receiver(address)
        return "250 2.1.5 OK"

    def _stored(self, address: str, raw: bytes, sent_by: str) -> str:
        receiver = self._receiver(address)
        offer = self._mail.read_message(receiver, raw, sent_by=sent_by)
        event: Event = self._intake.store(receiver, offer)
        log.info("mail stored", extra={"receiver": receiver.id, "event": event.id})
        return f"250 2.0.0 Stored as {event.id}"

    def _receiver(self, address: str) -> Receiver:
        secret = secret_of(address)
        receiver = None if secret is None else self._intake.find_by_secret(secret, self._mail.name)
        if receiver is None:
            raise refusal.NotFound(NO_RECEIVER)
        return receiver

    async def _answer(self, step: Callable[[], str]) -> str:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, step)
        except Refusal as error:
            log.info("mail refused", extra={"reason": str(error)})
            return _line(error)


def _line(error: Refusal) -> str:
    code = next(CODE_OF[ancestor] for ancestor in type(error).__mro__ if ancestor in CODE_OF)
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in str(error))
    return f"{code} {text[:MOST_LINE]}"


class Connections:
    """How many there are, in all and from each address."""

    def __init__(self) -> None:
        self._from = Counter[str]()

    def enter(self, peer: str) -> bool:
        """One more; False when there are too many."""
        self._from[peer] += 1
        return self._from.total() <= MOST_CONNECTIONS and self._from[peer] <= EACH

    def leave(self, peer: str) -> None:
        """One less."""
        self._from[peer] -= 1
        if not self._from[peer]:
            del self._from[peer]


class Connection(SMTP):
    """One connection, which ends after a time whatever it does."""

    def __init__(self, door: Door, connections: Connections, **options: Any) -> None:
        super().__init__(
            door,
            data_size_limit=MOST_BYTES,
            timeout=COMMAND_S,
            ident="dockercomp",
            command_call_limit={"*": 100},
            **options,
        )
        self._connections = connections
        self._peer: str | None = None
        self._link: asyncio.Transport | None = None  #: without TLS around it
        self._end: asyncio.TimerHandle | None = None  #: None: it is over, or has not begun

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection begins, or goes on within TLS."""
        super().connection_made(transport)
        if self._peer is not None:
            return
        assert isinstance(transport, asyncio.Transport)
        self._link = transport
        self._peer = str((transport.get_extra_info("peername") or ("?",))[0])
        self._end = self.loop.call_later(CONNECTION_S, self._cut)
        if not self._connections.enter(self._peer):
            transport.write(b"421 4.7.0 Too many connections; come again later.\r\n")
            transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """It is over."""
        self._leave()
        super().connection_lost(error)

    @syntax("STARTTLS", when="tls_context")
    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: N802  # aiosmtpd's name
        """Encrypt from here on; whoever does not come through with it is cut off."""
        try:
            await super().smtp_STARTTLS(arg)
        except TLSSetupException as error:
            log.info("mail handshake failed", extra={"reason": str(error.__cause__)})
        if self._tls_protocol is not None and (self.session is None or self.session.ssl is None):
            self._cut()

    def _cut(self) -> None:
        """End it at once, in whatever state it is: of a handshake that never ends nobody else says that it is over."""
        self._leave()
        if self._link is not None:
            self._link.abort()
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()

    def _leave(self) -> None:
        if self._end is not None and self._peer is not None:
            self._end.cancel()
            self._end = None
            self._connections.leave(self._peer)


async def listen(
    door: Door, host: str, port: int, *, tls: Certificate | None = None
) -> asyncio.AbstractServer:
    """A listener that takes connections from now on; with `tls`, whoever wants may encrypt (STARTTLS)."""
    # It logs every command, and RCPT has the secret.
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    loop, connections = asyncio.get_running_loop(), Connections()
    return await loop.create_server(
        lambda: Connection(door, connections, tls_context=tls and tls.context(), loop=loop), host, port
    )


async def serve(door: Door, host: str, port: int, *, tls: Certificate | None = None) -> None:
    """Take mail in until cancelled."""
    server = await listen(door, host, port, tls=tls)
    log.info("mail is taken in", extra={"host": host, "port": port, "starttls": tls is not None})
    async with server:
        await server.serve_forever()
