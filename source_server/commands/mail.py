"""`dockercomp-server mail`: the door for mail by itself."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, NoReturn

import click

from source_server.commands.refused import Refused, read_settings
from source_server.commands.tend import opened

if TYPE_CHECKING:
    from source_server.config import Settings
    from source_server.smtp_listener import Certificate


@click.command(
    epilog="""\b
Examples:
  dockercomp-server mail --listen 0.0.0.0:25
  DOCKERCOMP_MONGO_URI=mongodb://... dockercomp-server mail --listen 127.0.0.1:2525
"""
)
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where to take SMTP connections.")
def mail(listen: str) -> None:
    """Take in mail for receivers of the kind `mail`, until stopped. `up --mail` runs this; more of them may run."""
    from source_server.app import build_services
    from source_server.event_log import log_events
    from source_server.receivers.mail import Mail
    from source_server.server_home import Address, BadAddress
    from source_server.smtp_listener import Door, serve

    try:
        address = Address.parse(listen)
    except BadAddress as error:
        raise Refused(str(error)) from error
    log_events()
    tls = certificate(read_settings())
    settings, stores = opened("dockercomp-mail")
    intake = build_services(stores, beat_s=settings.beat_s).intake
    kind = intake.kind(Mail.name)
    assert isinstance(kind, Mail)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        asyncio.run(serve(Door(intake, kind), address.host, address.port, tls=tls))
    except OSError as error:
        raise Refused(f"The server cannot take mail on {address}: {error.strerror or error}.") from error


def certificate(settings: Settings) -> Certificate | None:
    """What mail is encrypted with, or None; raises Refused for one that cannot be used."""
    from source_server.smtp_listener import Certificate, CertificateUnusable

    if settings.mail_cert is None:
        return None
    try:
        return Certificate(settings.mail_cert, settings.mail_cert_key)
    except CertificateUnusable as error:
        raise Refused(f"DOCKERCOMP_MAIL_CERT: {error}") from error


def _leave(signum: int, frame: object) -> NoReturn:
    # A message that was not acknowledged comes again: this may end anywhere.
    os._exit(0)
