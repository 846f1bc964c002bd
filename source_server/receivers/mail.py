"""Work by e-mail, to an address that carries a receiver's secret: a table for its template, or a job file."""

from __future__ import annotations

import base64
import email.utils
import io
import itertools
import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.policy import Compat32, Policy
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from source_server.domain.receiver import MAX_PAYLOAD, Event, Offer, Receiver, task_id
from source_server.domain.refusal import BadInput, NotAllowed, Refusal, TooLarge
from source_server.domain.table import Lines, csv_rows, cut, jsonl_rows
from source_server.domain.wish import needed_fields
from source_server.receivers.fill import Data, Fill
from source_server.receivers.http import JSONL
from source_server.receivers.plug import Plug, Template, template_body
from source_server.web import wire
from source_server.web.bodies.job import job
from source_server.web.job_files.job_file import NAME, read_job_file, task_body
from source_server.web.job_files.rows import kind_of, lines_of

log = logging.getLogger(__name__)

CSV = "text/csv"
TABLES = {".csv": CSV, ".jsonl": JSONL}
READERS = {CSV: csv_rows, JSONL: jsonl_rows}
LONGEST_NAME = 2000  #: letters of a file's name that is decoded
REPLIES = (
    "auto-replied",
    "auto-notified",
)  #: of RFC 3834; `auto-generated` may well be a program that sends work
MOST_PARTS = 100  #: of a message: one within the other costs its reader the square of them
LONGEST_HEADER = 2000  #: letters of a header that says who sends, or what is in a part
_PIECE = re.compile(r"ATT\d+\.(txt|html?)")  #: of a text that a mail server took apart: nobody attached it
_ADDRESS = re.compile(r"run\+([A-Za-z2-7]{32})@\S*")
_SENDER = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{0,64}@[A-Za-z0-9.-]{1,255}"


def secret_of(address: str) -> str | None:
    """The secret in an address run+SECRET@anything, or None. Mail servers may change the case of its letters."""
    found = _ADDRESS.fullmatch(address)
    return None if found is None else found[1].lower()


Sender = Annotated[str, AfterValidator(wire.matching(_SENDER, "must be an address, or @ and a domain"))]


class MailSettings(wire.Strict):
    """Of a receiver of the kind `mail`."""

    template: Template | None = None  #: None: each message brings a job file
    senders: Annotated[list[Sender], Field(min_length=1, max_length=1000)] | None = None
    """Addresses, or @domain, that messages must come from; in addition to the secret, for `From` can be forged."""


@dataclass(frozen=True)
class Attachment:
    """A file in a message."""

    name: str
    content: bytes


class Mail(Plug[MailSettings]):
    """Messages to run+SECRET@anything, which the SMTP listener hands over."""

    name = "mail"
    settings_model = MailSettings

    def __init__(self, fill: Fill) -> None:
        self._fill = fill

    def new_secret(self) -> str:
        """160 random bits in small letters and digits, short enough for an address."""
        return base64.b32encode(secrets.token_bytes(20)).decode("ascii").lower()

    def where(self, receiver: Receiver, secret: str | None) -> str:
        """The address; any domain does whose mail comes to this server."""
        return f"run+{secret or 'SECRET'}@HOST"

    def handle(self, receiver: Receiver, event: Event) -> str:
        """The task of a message."""
        size, name = int(event.about["job_file"]), event.about["name"]
        job_file = Attachment(NAME, event.payload[:size]) if size else None
        table = Attachment(name, event.payload[size:]) if name else None
        template, data = self._wanted(receiver, job_file, table)
        return self._fill(receiver, template, task_id(receiver.id, event.key), data)

    def read_message(self, receiver: Receiver, raw: bytes, *, sent_by: str) -> Offer:
        """What a message to this receiver brings; raises a Refusal whose sentence its sender is to read.

        `sent_by` is the envelope's sender, to whom mail servers report; empty for reports themselves.
        """
        try:
            message = _parsed(raw)
            _require_meant(message, sent_by)
            key = _message_id(message)
            sender = self._require_sender(receiver, message)
            job_file, table = _attached(message)
        except Refusal:
            raise
        except Exception as error:  # the library's reader raises what it likes at what people send
            log.exception("message cannot be read", extra={"receiver": receiver.id})
            raise BadInput(
                "The message cannot be read: send it as a plain one with an attachment."
            ) from error
        first, rest = job_file.content if job_file else b"", table.content if table else b""
        if len(first) + len(rest) > MAX_PAYLOAD:
            raise TooLarge(
                f"The attachments have more than {MAX_PAYLOAD} bytes: use a receiver of the kind upload."
            )
        template, data = self._wanted(receiver, job_file, table)
        require_fitting_table(template, data)
        about = {"sender": sender, "name": table.name if table else "", "job_file": str(len(first))}
        return Offer(key=key, payload=first + rest, about=about)

    def _require_sender(self, receiver: Receiver, message: Message) -> str:
        addresses = [
            one for _, one in email.utils.getaddresses([str(one) for one in message.get_all("from", [])])
        ]
        if len(addresses) != 1 or not re.fullmatch(_SENDER, addresses[0]):
            raise BadInput("The message needs one 'From' with one plain address.")
        sender = addresses[0].lower()
        senders = self.settings_of(receiver).senders
        allowed = [one.lower() for one in senders or ()]
        if senders is not None and sender not in allowed and sender[sender.index("@") :] not in allowed:
            raise NotAllowed(f"{sender} is not among the senders that this receiver takes mail from.")
        return sender

    def _wanted(
        self, receiver: Receiver, job_file: Attachment | None, table: Attachment | None
    ) -> tuple[Mapping[str, Any], Data]:
        """The body of the task, without its id, and its rows."""
        own = self.settings_of(receiver).template
        if job_file is None:
            if own is None:
                raise BadInput(f"This receiver has no job of its own: attach a {NAME}.")
            if table is None:
                raise BadInput("Attach the data as a file that ends in .csv or .jsonl.")
            kind, content = TABLES["." + table.name.rpartition(".")[2].lower()], table.content
            return own, Data(kind=kind, lines=lambda: io.BytesIO(content))
        if own is not None:
            raise BadInput(f"This receiver has a job of its own: send the data without {NAME}.")
        return _of_job_file(job_file.content, table)


def _of_job_file(text: bytes, table: Attachment | None) -> tuple[Mapping[str, Any], Data]:
    file = read_job_file(text)
    if file.data_file is not None and table is None:
        raise BadInput(f"{NAME} takes its rows from {file.data_file}: attach that, too.")
    if file.data_file is None and table is not None:
        raise BadInput(f"{NAME} has rows of its own: send it without {table.name}.")
    body = task_body(file, files={}, tree=None)
    body.pop("id", None)

    def lines() -> Iterable[bytes]:
        return lines_of(file, io.BytesIO(table.content) if table else None)

    return body, Data(kind=kind_of(file), lines=lines)


def require_fitting_table(template: Mapping[str, Any], data: Data) -> None:
    """Raises BadInput when this table could not become chunks of such a task."""
    body = template_body(template, "a")
    rows = READERS[data.kind](Lines(data.lines()))
    needed, chunks = needed_fields(job(body)), 0
    for _ in cut(rows, rows_per_chunk=body.rows_per_chunk, needed=needed):
        chunks += 1
    if not chunks:
        raise BadInput("The table has no rows.")


# --- messages


def _parsed(raw: bytes) -> Message:
    if raw.lower().count(b"boundary") > MOST_PARTS:
        raise BadInput(f"The message has more than {MOST_PARTS} parts.")
    parts = itertools.count()

    def part(policy: Policy) -> Message:
        if next(parts) > MOST_PARTS:
            raise BadInput(f"The message has more than {MOST_PARTS} parts.")
        return Message(policy)

    return message_from_bytes(raw, policy=_Cautious(message_factory=part))


class _Cautious(Compat32):
    """Reads headers as ever, but no long ones: of some the library needs the square of their length."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        if name.lower().startswith(("content-", "from")) and len(value) > LONGEST_HEADER:
            raise BadInput(f"The message's header {name[:50]!r} has more than {LONGEST_HEADER} letters.")
        return name, value


def _require_meant(message: Message, sent_by: str) -> None:
    """Raises NotAllowed for what no person and no program of theirs meant as work: reports, and automatic replies.

    A report brings the message that it is about along, with its attachments: it would be taken for that once more.
    """
    said = str(message.get("auto-submitted", "no")).partition(";")[0].strip().lower()
    if not sent_by or said in REPLIES or message.get_content_type() == "multipart/report":
        raise NotAllowed("Automatic replies and reports of mail servers are not taken for work.")


def _message_id(message: Message) -> str:
    found = [" ".join(str(one).split()) for one in message.get_all("message-id", [])]
    if len(found) != 1 or not 0 < len(found[0]) <= 900:
        raise BadInput("The message needs one Message-ID, by which its repetition is known.")
    return found[0]


def _attached(message: Message) -> tuple[Attachment | None, Attachment | None]:
    """(the job file, the table) in a message; raises BadInput for what could be meant and is not understood."""
    files = [one for part in message.walk() if (one := _attachment(part)) is not None]
    if len(files) > MOST_PARTS:
        raise BadInput(f"The message has more than {MOST_PARTS} parts.")
    job_files = [one for one in files if one.name == NAME]
    tables = [one for one in files if one.name.lower().endswith(tuple(TABLES))]
    strange = [one for one in files if one not in job_files and one not in tables]
    if strange:
        raise BadInput(
            f"The attachment {strange[0].name[:100]!r} is none of .csv, .jsonl and {NAME}: leave it out."
        )
    if len(tables) > 1 or len(job_files) > 1:
        raise BadInput("The message has several tables or job files: send one in each message.")
    return job_files[0] if job_files else None, tables[0] if tables else None


def _attachment(part: Message) -> Attachment | None:
    """The file in a part; None for texts, pictures within them, and signatures."""
    if part.is_multipart():
        return None
    name, attached = _decoded(part.get_filename()), part.get_content_disposition() == "attachment"
    if part.get_content_type() in ("application/pgp-signature", "application/pkcs7-signature"):
        return None
    if not attached and (name is None or part.get_content_maintype() == "image"):
        return None
    if part.get_content_maintype() == "text" and _PIECE.fullmatch(name or ""):
        return None
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        raise BadInput("An attachment cannot be decoded.")
    return Attachment(_file_name(name or "without a name"), _in_utf8(part, content))


def _decoded(name: str | None) -> str | None:
    """A file's name in words, where a mail program wrote it as an encoded word (RFC 2047), as many do."""
    if name is None or "=?" not in name or len(name) > LONGEST_NAME:
        return name
    try:
        return str(make_header(decode_header(name)))
    except (ValueError, LookupError, HeaderParseError):
        return name


def _file_name(name: str) -> str:
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[-200:]


def _in_utf8(part: Message, content: bytes) -> bytes:
    charset = part.get_content_charset("utf-8")
    if charset in ("utf-8", "us-ascii") or part.get_content_maintype() != "text":
        return content
    try:
        return content.decode(charset).encode()
    except (LookupError, UnicodeError) as error:
        raise BadInput(
            f"An attachment is not in the charset {charset[:50]!r} that it says: use UTF-8."
        ) from error
