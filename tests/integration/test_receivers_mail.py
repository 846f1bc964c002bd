"""Work by e-mail, over a real SMTP listener: what is stored before 250, what is refused and how, who gets in."""

from __future__ import annotations

import datetime
import json
import socket
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest
from mailing import ADA, NAMES, Post, letter
from people import Scientist

ECHO = {"action": ["/bin/echo", "{name}"]}


@pytest.fixture
def keeper(stores: Any) -> Any:
    """A housekeeper, whose steps a test calls."""
    from source_server.housekeeping import Housekeeper

    return Housekeeper(stores, beat_s=20.0)


@pytest.fixture
def post(stores: Any) -> Iterator[Post]:
    opened = Post(stores)
    yield opened
    opened.close()


@pytest.fixture
def receiver(scientist: Scientist) -> Callable[..., dict[str, Any]]:
    """Opens a way into the project `letters`."""
    scientist.ok("POST", "/projects", {"name": "letters"})

    def make(**settings: Any) -> dict[str, Any]:
        body = {"kind": "mail", "template": ECHO, **settings}
        whole = {name: value for name, value in body.items() if value is not None}
        return dict(scientist.ok("POST", "/projects/letters/receivers", whole))

    return make


def events(scientist: Scientist) -> list[dict[str, Any]]:
    return list(scientist.ok("GET", "/projects/letters/events")["events"])


# --- in


def test_a_table_by_mail_is_a_task_of_the_template_that_runs(
    post: Post, scientist: Scientist, keeper: Any, receiver: Any, volunteer: Any
) -> None:
    way = receiver()
    assert way["address"] == f"run+{way['secret']}@HOST"

    code, said = post.send(f"run+{way['secret']}@any.example", letter(NAMES))

    assert code == 250
    [event] = events(scientist)
    assert event["id"] in said
    assert (event["state"], event["key"], event["about"]["sender"]) == ("new", "<one@example.org>", ADA)
    keeper.events()
    assert events(scientist)[0]["state"] == "done"
    assert {json.loads(one["input"])["name"] for one in volunteer().claim(5)} == {"Ada", "Grace"}


def test_the_same_message_again_is_acknowledged_and_makes_no_second_task(
    post: Post, scientist: Scientist, keeper: Any, receiver: Any
) -> None:
    to = f"run+{receiver()['secret']}@any.example"

    assert post.send(to, letter(NAMES))[0] == 250
    keeper.events()
    assert post.send(to, letter(NAMES))[0] == 250
    keeper.events()

    assert len(events(scientist)) == len(scientist.ok("GET", "/tasks")["tasks"]) == 1


def test_another_message_under_the_same_id_is_refused(
    post: Post, scientist: Scientist, receiver: Any
) -> None:
    to = f"run+{receiver()['secret']}@any.example"
    post.send(to, letter(NAMES))

    code, said = post.send(to, letter(("names.csv", b"name\nEve\n")))

    assert code == 554
    assert "other contents" in said
    assert len(events(scientist)) == 1


def test_an_address_whose_case_was_changed_on_the_way_is_the_same(post: Post, receiver: Any) -> None:
    secret = receiver()["secret"]

    assert post.send(f"run+{secret.upper()}@ANY.example", letter(NAMES))[0] == 250


def test_a_job_file_by_mail_is_a_task(
    post: Post, scientist: Scientist, keeper: Any, receiver: Any, volunteer: Any
) -> None:
    to = f"run+{receiver(template=None)['secret']}@any.example"
    job = "dockercomp: 1\nname: By mail\nmain:\n  action: [/bin/echo, '{name}']\ndata:\n  file: names.csv\n"

    code, said = post.send(to, letter(("dockercomp.yml", job.encode()), NAMES))
    keeper.events()

    assert code == 250, said
    [event] = events(scientist)
    assert event["state"] == "done", event["why"]
    assert scientist.ok("GET", f"/tasks/{event['task']}")["name"] == "By mail"
    assert len(volunteer().claim(5)) == 2


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b'filename="=?utf-8?B?TmFtZW4gZsO8ciBBZGEuY3N2?="', "Namen für Ada.csv"),
        (b"filename*=utf-8''na%C3%AFve.csv", "naïve.csv"),
        (b'filename="=?iso-8859-1?Q?na=EFve.csv?="', "naïve.csv"),
        (b'filename="=?utf-8?B?TmFtZW4g?= =?utf-8?B?ZsO8ci5jc3Y=?="', "Namen für.csv"),
        (b'filename="=?utf-8?Q?=2E=2E=2Fetc=2Fjob=2Ecsv?="', "job.csv"),
        (b'filename="NAMES.CSV"', "NAMES.CSV"),
    ],
)
def test_a_name_in_other_letters_is_read_however_a_mail_program_writes_it(
    post: Post, scientist: Scientist, receiver: Any, header: bytes, name: str
) -> None:
    to = f"run+{receiver()['secret']}@x.org"
    raw = letter(("X", NAMES[1])).as_bytes(policy=SMTP).replace(b'filename="X"', header)

    code, said = post.send(to, raw)

    assert code == 250, said
    assert events(scientist)[0]["about"]["name"] == name


@pytest.mark.parametrize("encoded", ["quoted-printable", "base64", "8bit"])
def test_a_table_in_a_letter_with_two_versions_of_its_text_arrives_letter_by_letter(
    post: Post, scientist: Scientist, keeper: Any, receiver: Any, volunteer: Any, encoded: str
) -> None:
    to = f"run+{receiver()['secret']}@x.org"
    message = letter()
    message.add_alternative("<p>Dear <b>server</b></p>", subtype="html")
    message.add_attachment("name\nÄda ✓ = 1\n.\n", subtype="csv", filename="names.csv", cte=encoded)

    code, said = post.send(to, message)
    keeper.events()

    assert code == 250, said
    assert events(scientist)[0]["state"] == "done"
    assert {json.loads(one["input"])["name"] for one in volunteer().claim(5)} == {"Äda ✓ = 1", "."}


def test_pieces_of_text_that_a_mail_server_adds_do_not_stand_in_the_way(post: Post, receiver: Any) -> None:
    message = letter(NAMES)
    message.add_attachment("<html></html>", subtype="html", filename="ATT00001.htm")

    code, said = post.send(f"run+{receiver()['secret']}@x.org", message)

    assert code == 250, said


# --- not in


def automatic(said: str) -> EmailMessage:
    message = letter(NAMES)
    message["Auto-Submitted"] = said
    return message


def report_of(message: EmailMessage) -> bytes:
    """What a mail server sends back, with the message that it could not deliver."""
    return (
        b"From: MAILER-DAEMON@x.org\r\nMessage-ID: <report@x.org>\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=R\r\n\r\n--R\r\n\r\n"
        b"It could not be delivered.\r\n--R\r\nContent-Type: message/delivery-status\r\n\r\n"
        b"Reporting-MTA: dns; x.org\r\n\r\n--R\r\nContent-Type: message/rfc822\r\n\r\n"
        + message.as_bytes(policy=SMTP)
        + b"\r\n--R--\r\n"
    )


@pytest.mark.parametrize(
    ("message", "sender"),
    [
        (letter(NAMES), ""),
        (automatic("auto-replied"), ADA),
        (automatic("Auto-Replied; type=vacation"), ADA),
        (report_of(letter(NAMES)), ""),
        (report_of(letter(NAMES)), ADA),
    ],
)
def test_reports_and_automatic_replies_are_no_work_whatever_they_bring_along(
    post: Post, scientist: Scientist, receiver: Any, message: Any, sender: str
) -> None:
    to = f"run+{receiver()['secret']}@x.org"

    code, said = post.send(to, message, sender=sender)

    assert (code, "Automatic replies" in said) == (550, True), said
    assert events(scientist) == []


def test_a_program_that_says_what_it_is_may_send_work(post: Post, receiver: Any) -> None:
    assert post.send(f"run+{receiver()['secret']}@x.org", automatic("auto-generated"))[0] == 250


def test_a_message_about_a_task_that_is_sent_to_a_receiver_is_refused_and_makes_nothing_new(
    post: Post, scientist: Scientist, receiver: Any
) -> None:
    from source_server.domain.notice import Channel, Event, Notice, Target
    from source_server.services.messages.send_mail import message

    to = f"run+{receiver()['secret']}@x.org"
    instant = datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc)
    said = {"task": "a", "name": "n", "project": "p", "outcome": "succeeded", "why": None}
    data = {**said, "chunks": {"total": 1}, "started": None, "ended": None}
    notice = Notice(
        id="a.1",
        task="a",
        project="p",
        event=Event.COMPLETED,
        target=Target(channel=Channel.EMAIL, address=to),
        body=json.dumps({"data": data}),
        created=instant,
        due=instant,
    )

    code, _ = post.send(to, message(notice, "dockercomp@lab.example"))

    assert 500 <= code < 560
    assert events(scientist) == []


def test_others_in_the_same_message_are_refused_for_good_and_do_not_keep_it_out(
    post: Post, scientist: Scientist, receiver: Any
) -> None:
    to = f"run+{receiver()['secret']}@x.org"
    with post.client() as client:
        client.ehlo()
        client.mail(ADA)
        codes = [client.rcpt(one)[0] for one in ("friend@x.org", to, "other@x.org")]

        assert codes == [550, 250, 550]
        assert client.data(letter(NAMES).as_bytes(policy=SMTP))[0] == 250
    assert len(events(scientist)) == 1


@pytest.mark.parametrize(
    "address",
    [
        "run+aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@x.org",
        "run@x.org",
        "postmaster@x.org",
        "run+@x.org",
        "run+' or 1=1@x.org",
        "run+" + "a" * 500 + "@x.org",
    ],
)
def test_an_address_without_a_receiver_is_refused_before_any_message(
    post: Post, scientist: Scientist, receiver: Any, address: str
) -> None:
    receiver()

    code, _ = post.send(address, letter(NAMES))

    assert 500 <= code < 560
    assert events(scientist) == []


def test_a_secret_of_another_kind_of_receiver_opens_nothing(
    post: Post, scientist: Scientist, receiver: Any, raw: Any
) -> None:
    way = receiver()
    raw.receivers.update_one({"_id": way["id"]}, {"$set": {"kind": "http"}})

    assert post.send(f"run+{way['secret']}@x.org", letter(NAMES))[0] == 550


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (letter(), "Attach the data"),
        (letter(NAMES, message_id=None), "Message-ID"),
        (letter(NAMES, ("more.csv", b"name\nEve\n")), "several tables"),
        (letter(("names.xlsx", b"PK")), "names.xlsx"),
        (letter(("names.csv", b"who\nAda\n")), "no field 'name'"),
        (letter(("names.csv", b"name\n")), "no rows"),
        (letter(("names.csv", b"name\n\xff\n")), "UTF-8"),
        (letter(("dockercomp.yml", b"dockercomp: 1\n"), NAMES), "a job of its own"),
        (letter(NAMES, sender="not an address"), "From"),
        (letter(NAMES, sender="ada@x.org, eve@x.org"), "From"),
        (b"Message-ID: <a@b>\r\n\r\nno more\r\n", "From"),
        (b"\xff\xfe\x00garbage\r\n", "From"),
    ],
)
def test_what_is_not_understood_is_refused_for_good_with_a_sentence(
    post: Post, scientist: Scientist, receiver: Any, message: Any, says: str
) -> None:
    to = f"run+{receiver()['secret']}@x.org"

    code, said = post.send(to, message)

    assert code == 554, said
    assert says in said or "Message-ID" in said
    assert events(scientist) == []


@pytest.mark.parametrize(
    ("sender", "code"),
    [
        ("ada@example.org", 250),
        ("ADA@Example.ORG", 250),
        ("grace@lab.example", 250),
        ("eve@evil.example", 550),
        ('"ada@example.org" <eve@evil.example>', 550),
        ("ada@example.org.evil.example", 550),
        ("eve@notlab.example", 550),
        ("\N{CYRILLIC SMALL LETTER A}da@example.org", 554),
    ],
)
def test_senders_are_held_to_the_list_in_addition_to_the_secret(
    post: Post, receiver: Any, sender: str, code: int
) -> None:
    way = receiver(senders=["Ada@example.org", "@lab.example"])
    message = (
        letter(NAMES, sender=ADA)
        .as_bytes(policy=SMTP)
        .replace(b"From: ada@example.org", f"From: {sender}".encode())
    )

    assert post.send(f"run+{way['secret']}@x.org", message)[0] == code


def test_two_receivers_in_one_message_are_told_to_come_one_by_one(post: Post, receiver: Any) -> None:
    one, other = receiver(), receiver()
    with post.client() as client:
        client.ehlo()
        client.mail(ADA)

        assert client.rcpt(f"run+{one['secret']}@x.org")[0] == 250
        assert client.rcpt(f"run+{other['secret']}@x.org")[0] == 452


# --- attacks


def test_a_message_that_is_too_large_is_refused(post: Post, scientist: Scientist, receiver: Any) -> None:
    to = f"run+{receiver()['secret']}@x.org"

    beyond_a_receiver = post.send(to, letter(("names.csv", b"name\n" + b"Ada\n" * 1_200_000)))
    beyond_smtp = post.send(to, letter(("names.csv", b"name\n" + b"Ada\n" * 2_500_000)))

    assert beyond_a_receiver[0] == 552, beyond_a_receiver
    assert beyond_smtp[0] == 552, beyond_smtp
    assert "upload" in beyond_a_receiver[1]
    assert events(scientist) == []


def test_a_message_of_a_thousand_parts_in_one_another_is_refused_quickly(post: Post, receiver: Any) -> None:
    to = f"run+{receiver()['secret']}@x.org"
    nested = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (number, number)
        for number in range(1000)
    )
    begin = time.monotonic()

    code, said = post.send(to, b"From: a@b\r\nMessage-ID: <a@b>\r\n" + nested)

    assert (code, "parts" in said) == (554, True)
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(
    "odd",
    [
        b'Content-Type: text/csv; name="' + b'\\"' * 500_000,
        b'Content-Disposition: attachment; filename="' + b";" * 1_000_000,
        b"From: " + b"<" * 1_000_000,
    ],
    ids=["quotes", "semicolons", "senders"],
)
def test_no_header_of_a_message_keeps_the_server_busy(post: Post, receiver: Any, odd: bytes) -> None:
    to = f"run+{receiver()['secret']}@x.org"
    folded = b"\r\n ".join(odd[at : at + 900] for at in range(0, len(odd), 900))

    code, said = post.send(to, b"From: a@b.org\r\nMessage-ID: <a@b>\r\n" + folded + b"\r\n\r\nhello\r\n")

    assert (code, "letters" in said) == (554, True), said


def test_a_message_of_a_million_empty_parts_is_refused_before_they_are_made(
    post: Post, receiver: Any
) -> None:
    to = f"run+{receiver()['secret']}@x.org"
    head = b"From: a@b.org\r\nMessage-ID: <a@b>\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n"

    code, said = post.send(to, head + b"--a\r\n\r\n" * 1_000_000)

    assert (code, "parts" in said) == (554, True), said


def test_a_name_of_a_file_is_no_path(post: Post, scientist: Scientist, receiver: Any) -> None:
    to = f"run+{receiver()['secret']}@x.org"

    code, _ = post.send(to, letter(("../../etc/cron.d/\u202ejob.csv", NAMES[1])))

    assert code == 250
    assert events(scientist)[0]["about"]["name"] == "job.csv"


def test_who_sends_nothing_is_cut_off(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("source_server.smtp_listener.COMMAND_S", 0.5)
    with socket.create_connection(("127.0.0.1", post.port), timeout=20) as link:
        assert link.recv(1000).startswith(b"220")

        assert link.recv(1000) == b""


def test_who_sends_a_letter_at_a_time_is_cut_off_in_the_end(
    post: Post, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("source_server.smtp_listener.CONNECTION_S", 1.0)
    with socket.create_connection(("127.0.0.1", post.port), timeout=20) as link:
        assert link.recv(1000).startswith(b"220")
        begin = time.monotonic()

        with pytest.raises(OSError):
            while time.monotonic() - begin < 20:
                link.sendall(b"x")
                time.sleep(0.1)

    assert time.monotonic() - begin < 20


def test_one_address_has_few_connections_and_others_still_get_through(post: Post) -> None:
    links = [socket.create_connection(("127.0.0.1", post.port), timeout=20) for _ in range(11)]
    try:
        greetings = [link.recv(1000)[:3] for link in links]
    finally:
        for link in links:
            link.close()

    assert sorted(greetings) == [b"220"] * 10 + [b"421"]
    for _ in range(50):  # the places of those that are gone are free again
        with socket.create_connection(("127.0.0.1", post.port), timeout=20) as link:
            if link.recv(1000).startswith(b"220"):
                return
        time.sleep(0.1)
    raise AssertionError("no place became free")


def test_the_secret_is_not_logged(post: Post, receiver: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    way = receiver()

    post.send(f"run+{way['secret']}@x.org", letter(NAMES))

    assert "mail stored" in caplog.text
    assert way["secret"] not in caplog.text


# --- the database is away


def test_mail_is_put_off_while_the_database_is_away_and_nothing_is_lost(
    mongod_binary: Any, home: Any
) -> None:
    from source_server.app import create_app
    from source_server.domain.account import Role
    from source_server.housekeeping import Housekeeper
    from source_server.services.accounts.people import People
    from source_server.stores.connection import connect
    from source_server.stores.database import migrate, stores_of
    from source_server.stores.embedded import EmbeddedMongod

    mongod = EmbeddedMongod(home / "data", mongod_binary, cache_gb=0.25)
    mongod.start()
    stores = stores_of(connect(mongod.uri, "letters", application="tests"))
    migrate(stores)
    scientist = Scientist(create_app(stores, beat_s=20.0), People(stores).add("ada", Role.SCIENTIST))
    scientist.ok("POST", "/projects", {"name": "letters"})
    way = scientist.ok("POST", "/projects/letters/receivers", {"kind": "mail", "template": ECHO})
    post, to = Post(stores), f"run+{way['secret']}@x.org"
    try:
        with post.client() as client:
            client.ehlo()
            client.mail(ADA)
            assert client.rcpt(to)[0] == 250
            mongod.stop()
            code, said = client.data(letter(NAMES).as_bytes(policy=SMTP))
        at_the_door = post.send(to, letter(NAMES))

        assert code == at_the_door[0] == 451, said
        mongod.start()
        assert post.send(to, letter(NAMES))[0] == 250
        Housekeeper(stores, beat_s=20.0).events()
        assert events(scientist)[0]["state"] == "done"
    finally:
        post.close()
        mongod.stop()
