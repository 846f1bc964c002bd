"""One e-mail through the operator's mail server."""

from __future__ import annotations

import json
import smtplib
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

from source_server.config import MailSecurity, MailServer
from source_server.domain.notice import Event, Notice
from source_server.domain.one_line import one_line
from source_server.services.messages.deliver import NotDelivered

WITHIN_S = 20.0  #: for each step of the conversation
SUBJECT = 150  #: letters


class SendMail:
    """Without a mail server every message fails, and says why."""

    def __init__(self, server: MailServer | None, trust: ssl.SSLContext | None = None) -> None:
        self._server = server
        self._trust = trust

    def __call__(self, notice: Notice) -> str:
        """Deliver it; raises NotDelivered."""
        if self._server is None:
            raise NotDelivered("The operator has set up no mail server (DOCKERCOMP_SMTP_HOST).")
        try:
            self._send(self._server, message(notice, self._server.sender))
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            refused = all(code >= 500 for code in codes)
            raise NotDelivered("The mail server refused the address.", for_good=refused) from error
        except (OSError, smtplib.SMTPException) as error:
            # What it says may name accounts of the operator's: it is for the log.
            raise NotDelivered(
                f"The mail server did not take the message ({type(error).__name__})."
            ) from error
        return "The mail server took the message."

    def _send(self, server: MailServer, mail: EmailMessage) -> None:
        tls = self._trust or ssl.create_default_context()
        if server.security is MailSecurity.TLS:
            link: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, timeout=WITHIN_S, context=tls)
        else:
            link = smtplib.SMTP(server.host, server.port, timeout=WITHIN_S)
        with link:
            if server.security is MailSecurity.STARTTLS:
                link.starttls(context=tls)  # raises where the server does not offer it: never in the clear
            if server.user is not None and server.password_file is not None:
                link.login(server.user, server.password_file.read_text().strip())
            link.send_message(mail)


def message(notice: Notice, sender: str) -> EmailMessage:
    """The e-mail; what a scientist chose is in headers only without line breaks, which would be headers of its own."""
    said = json.loads(notice.body)["data"]
    mail = EmailMessage(policy=SMTP)
    mail["From"] = Address("dockercomp", addr_spec=sender)
    mail["To"] = Address(addr_spec=notice.target.address)
    mail["Subject"] = one_line(f"{_headline(notice.event, said)}: {said['name']}")[:SUBJECT]
    mail["Date"] = format_datetime(notice.created)
    # The same at every try: who gets it twice sees it once.
    mail["Message-ID"] = f"<{notice.id}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("\n".join(_lines(notice.event, said)) + "\n")
    return mail


def _headline(event: Event, said: dict[str, Any]) -> str:
    return f"Task {said['outcome']}" if event is Event.COMPLETED else "Task paused itself"


def _lines(event: Event, said: dict[str, Any]) -> list[str]:
    counts = ", ".join(f"{count} {state}" for state, count in said["chunks"].items() if count)
    # fmt: off
    return [
        f"{_headline(event, said)}.", "",
        f"Task:    {said['task']} ({one_line(said['name'])})",
        f"Project: {said['project']}",
        *([f"Why:     {one_line(said['why'])}"] if said["why"] else []),
        f"Chunks:  {counts or 'none'}",
        f"Started: {said['started'] or 'not yet'}",
        *([f"Ended:   {said['ended']}"] if said["ended"] else []),
        "", f"More: dockercomp task show {said['task']}",
    ]
    # fmt: on
