"""Messages about tasks: written once, signed, tried again, and never sent where they must not go. Real listeners."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from product import free_port
from web_servers import Quiet, WebServer

from source_server.config import MailSecurity, MailServer
from source_server.domain.notice import MAILS_AN_HOUR, MAILS_TO_ONE_AN_HOUR, PAUSES_S, Channel
from source_server.domain.rounds import Round, Which
from source_server.housekeeping import Housekeeper
from source_server.services.accounts.projects import MOST_PROJECTS
from source_server.services.messages.deliver import Deliver
from source_server.services.messages.send_mail import SendMail
from source_server.services.messages.send_webhook import SendWebhook
from source_server.stores.outbox import FAIR

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


class Listener:
    """Somebody's webhook on loopback; answers each call with the next of `statuses`, then 200."""

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        self.calls: list[tuple[dict[str, str], bytes, str]] = []
        self.statuses: list[int] = []
        listener = self

        class Handler(Quiet):
            def do_POST(self) -> None:
                body = self.body()
                listener.calls.append(({k.lower(): v for k, v in self.headers.items()}, body, self.path))
                status = listener.statuses.pop(0) if listener.statuses else 200
                self.answer(status, headers={"Location": f"http://127.0.0.1:{listener.port}/elsewhere"})

            do_GET = do_POST

        server = WebServer(Handler, certificate=certificate, key=key)
        self.port, self.close = server.port, server.close
        self.url = f"http://127.0.0.1:{self.port}/hook?a=1"


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


class Mailbox:
    """A real mail server on loopback that keeps what it is given; refuses while `refuse` is set."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.refuse: str | None = None

    async def handle_RCPT(self, _: Any, __: Any, envelope: Any, address: str, ___: Any) -> str:
        if self.refuse is not None:
            return self.refuse
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: Any, __: Any, envelope: Any) -> str:
        self.mails.append(
            (envelope.mail_from, envelope.rcpt_tos, message_from_bytes(envelope.content, policy=default))
        )
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, MailServer]]:
    box = Mailbox()
    port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    yield (
        box,
        MailServer(host="127.0.0.1", port=port, sender="no-reply@lab.example", security=MailSecurity.NONE),
    )
    controller.stop()


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


@pytest.fixture
def deliver(stores: Any, mailbox: tuple[Mailbox, MailServer]) -> Deliver:
    return Deliver(
        stores,
        {
            Channel.WEBHOOK: SendWebhook(stores, networks=LOOPBACK),
            Channel.EMAIL: SendMail(mailbox[1]),
        },
    )


def finish(scientist: Any, volunteer: Callable[..., Any], keeper: Housekeeper, **task: Any) -> str:
    """A task of one chunk that is complete, its messages in the outbox."""
    made = scientist.running(1, **task)
    who = volunteer()
    (chunk,) = who.claim()
    assert who.add(who.attempt(chunk)).status_code == 200
    keeper.notices()
    return str(made)


def make_due(raw: Any) -> None:
    for one in raw.outbox.find({"state": "waiting"}):
        raw.outbox.update_one({"_id": one["_id"]}, {"$set": {"due": one["created"]}})


def sign(secret: str, headers: dict[str, str], body: bytes) -> str:
    """As anybody can do it who has read the documentation."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    told = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, told, hashlib.sha256).digest()).decode()


def test_a_complete_task_is_told_once_with_a_signature_that_the_receiver_can_check(
    scientist: Any, volunteer: Any, keeper: Housekeeper, deliver: Deliver, listener: Listener
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    secret = scientist.ok("POST", "/projects/sums/webhook-secret")["secret"]
    task = finish(scientist, volunteer, keeper, notify=[{"webhook": listener.url}])

    deliver.step()
    keeper.notices()
    deliver.step()

    ((headers, body, path),) = listener.calls
    told = json.loads(body)
    (notice,) = scientist.ok("GET", f"/tasks/{task}")["notices"]
    assert path == "/hook?a=1" and headers["host"] == f"127.0.0.1:{listener.port}"
    assert headers["webhook-signature"] == sign(secret, headers, body)
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 3600
    assert told["type"] == "task.completed"
    assert (told["data"]["task"], told["data"]["outcome"]) == (task, "succeeded")
    assert told["data"]["chunks"] == {"total": 1, "done": 1}
    assert notice["id"] == headers["webhook-id"] and notice["state"] == "delivered"
    assert notice["tries"] == 1 and notice["last"] == "127.0.0.1 answered 200."


def test_after_a_change_of_the_key_both_sign_for_a_day(
    scientist: Any, volunteer: Any, keeper: Housekeeper, deliver: Deliver, listener: Listener, raw: Any
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    old = scientist.ok("POST", "/projects/sums/webhook-secret")["secret"]
    new = scientist.ok("POST", "/projects/sums/webhook-secret")["secret"]

    finish(scientist, volunteer, keeper, notify=[{"webhook": listener.url}])
    deliver.step()
    since = raw.webhook_keys.find_one()["since"]
    raw.webhook_keys.update_one({}, {"$set": {"since": since - timedelta(days=2)}})
    finish(scientist, volunteer, keeper, notify=[{"webhook": listener.url}])
    deliver.step()

    (first, body, _), (second, later, _) = listener.calls
    assert first["webhook-signature"].split() == [sign(new, first, body), sign(old, first, body)]
    assert second["webhook-signature"] == sign(new, second, later)


def test_a_stranger_gets_no_key_of_a_project(app: Any, scientist: Any, new_key: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    stranger = type(scientist)(app, new_key("scientist"))

    assert stranger.call("POST", "/projects/sums/webhook-secret").status_code == 404


def test_a_failed_try_is_made_again_with_growing_pauses_under_the_same_id_until_it_is_given_up(
    scientist: Any, volunteer: Any, keeper: Housekeeper, deliver: Deliver, listener: Listener, raw: Any
) -> None:
    listener.statuses = [500] * 100
    task = finish(scientist, volunteer, keeper, notify=[{"webhook": listener.url}])

    pauses = []
    while raw.outbox.find_one()["state"] == "waiting":
        deliver.step()
        assert deliver.step() == 0
        found = raw.outbox.find_one()
        if found["due"] is not None:
            pauses.append(round((found["due"] - found["tried"]).total_seconds()))
        make_due(raw)
    (notice,) = scientist.ok("GET", f"/tasks/{task}")["notices"]

    assert len({headers["webhook-id"] for headers, _, _ in listener.calls}) == 1
    assert len(listener.calls) == len(PAUSES_S) + 1
    # From the end of a try, which takes a moment.
    assert all(-1 <= got - wanted <= 30 for got, wanted in zip(pauses, PAUSES_S, strict=True))
    assert pauses == sorted(pauses)
    assert notice["state"] == "given_up" and notice["last"] == "127.0.0.1 answered 500."


def test_redirects_are_not_followed_and_gone_is_gone(
    scientist: Any, volunteer: Any, keeper: Housekeeper, deliver: Deliver, listener: Listener, raw: Any
) -> None:
    listener.statuses = [307, 410]
    task = finish(scientist, volunteer, keeper, notify=[{"webhook": listener.url}])

    deliver.step()
    after_redirect = scientist.ok("GET", f"/tasks/{task}")["notices"][0]
    make_due(raw)
    deliver.step()
    after_gone = scientist.ok("GET", f"/tasks/{task}")["notices"][0]

    assert [path for _, _, path in listener.calls] == ["/hook?a=1"] * 2
    assert after_redirect["last"].endswith("Redirects are not followed.")
    assert after_gone["state"] == "given_up" and after_gone["tries"] == 2


def test_private_addresses_are_refused_after_resolving_and_nobody_there_is_called(
    scientist: Any, volunteer: Any, keeper: Housekeeper, listener: Listener, stores: Any
) -> None:
    # A name with a public address and a private one is refused as a whole, whichever comes first.
    known = {
        "inside.example": ["127.0.0.1"],
        "both.example": ["8.8.8.8", "127.0.0.1"],
        "dressed.example": ["::ffff:127.0.0.1"],
        "127.0.0.1": ["127.0.0.1"],
    }
    send = SendWebhook(stores, resolve=lambda host, port: known[host])
    deliver = Deliver(stores, {Channel.WEBHOOK: send, Channel.EMAIL: SendMail(None)})
    hooks = [f"https://{host}:{listener.port}/" for host in known]
    task = finish(scientist, volunteer, keeper, notify=[{"webhook": hook} for hook in hooks])

    deliver.step()

    notices = scientist.ok("GET", f"/tasks/{task}")["notices"]
    assert not listener.calls and len(notices) == 4
    assert {one["state"] for one in notices} == {"given_up"}
    assert all(one["last"].endswith("has an address that the server does not call.") for one in notices)


def test_without_https_only_the_operators_networks_are_called(
    scientist: Any, volunteer: Any, keeper: Housekeeper, stores: Any
) -> None:
    send = SendWebhook(stores, networks=LOOPBACK, resolve=lambda host, port: ["8.8.8.8"])
    deliver = Deliver(stores, {Channel.WEBHOOK: send, Channel.EMAIL: SendMail(None)})
    task = finish(scientist, volunteer, keeper, notify=[{"webhook": "http://plain.example/"}])

    deliver.step()

    (notice,) = scientist.ok("GET", f"/tasks/{task}")["notices"]
    assert notice["state"] == "given_up" and notice["last"].startswith("Without https ")


def test_the_connection_goes_to_the_address_that_was_checked(
    scientist: Any, volunteer: Any, keeper: Housekeeper, listener: Listener, stores: Any
) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    send = SendWebhook(stores, networks=LOOPBACK, resolve=resolve)
    deliver = Deliver(stores, {Channel.WEBHOOK: send, Channel.EMAIL: SendMail(None)})
    # Nothing but this resolver knows the name: a second look-up could not find it.
    url = f"http://no-such-name.invalid:{listener.port}/x"
    finish(scientist, volunteer, keeper, notify=[{"webhook": url}])

    deliver.step()

    assert asked == ["no-such-name.invalid"]
    ((headers, _, _),) = listener.calls
    assert headers["host"] == f"no-such-name.invalid:{listener.port}"


def test_a_certificate_has_to_be_the_names_own(
    scientist: Any, volunteer: Any, keeper: Housekeeper, stores: Any, tmp_path: Path
) -> None:
    certificate = tmp_path / "hook.pem"
    made = subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=hook.example",
            "-addext",
            "subjectAltName=DNS:hook.example",
            "-keyout",
            tmp_path / "key.pem",
            "-out",
            certificate,
        ],
        capture_output=True,
    )
    assert made.returncode == 0, made.stderr
    listener = Listener(certificate, tmp_path / "key.pem")
    send = SendWebhook(
        stores,
        networks=LOOPBACK,
        trust=ssl.create_default_context(cafile=str(certificate)),
        resolve=lambda host, port: ["127.0.0.1"],
    )
    deliver = Deliver(stores, {Channel.WEBHOOK: send, Channel.EMAIL: SendMail(None)})
    hooks = [f"https://{name}.example:{listener.port}/" for name in ("hook", "other")]
    task = finish(scientist, volunteer, keeper, notify=[{"webhook": hook} for hook in hooks])

    deliver.step()
    listener.close()

    by_state = {one["state"]: one for one in scientist.ok("GET", f"/tasks/{task}")["notices"]}
    assert len(listener.calls) == 1
    assert by_state["delivered"]["webhook"] == hooks[0]
    assert by_state["waiting"]["webhook"] == hooks[1] and "certificate" in by_state["waiting"]["last"].lower()


def test_an_answer_that_drips_is_cut_off(
    scientist: Any, volunteer: Any, keeper: Housekeeper, stores: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("source_server.services.messages.send_webhook.WITHIN_S", 1.0)
    door = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip() -> None:
        link, _ = door.accept()
        with link:
            while not over.wait(0.1):
                try:
                    link.sendall(b"H")
                except OSError:
                    return

    threading.Thread(target=drip, daemon=True).start()
    send = SendWebhook(stores, networks=LOOPBACK)
    deliver = Deliver(stores, {Channel.WEBHOOK: send, Channel.EMAIL: SendMail(None)})
    url = f"http://127.0.0.1:{door.getsockname()[1]}/"
    task = finish(scientist, volunteer, keeper, notify=[{"webhook": url}])

    began = time.monotonic()
    deliver.step()
    took = time.monotonic() - began
    over.set()
    door.close()

    assert took < 30
    assert scientist.ok("GET", f"/tasks/{task}")["notices"][0]["state"] == "waiting"


def test_an_unreachable_one_does_not_hold_the_others_up(
    scientist: Any, volunteer: Any, keeper: Housekeeper, deliver: Deliver, listener: Listener
) -> None:
    hooks = [f"http://127.0.0.1:{free_port()}/", listener.url]
    task = finish(scientist, volunteer, keeper, notify=[{"webhook": hook} for hook in hooks])

    deliver.step()

    by_state = {one["state"]: one for one in scientist.ok("GET", f"/tasks/{task}")["notices"]}
    assert len(listener.calls) == 1
    assert by_state["waiting"]["last"] == "127.0.0.1 was not reached: Connection refused."
    assert by_state["waiting"]["due"] is not None


def test_a_message_is_written_by_housekeeping_when_who_decided_died_and_only_once(
    scientist: Any, volunteer: Any, stores: Any, raw: Any, listener: Listener
) -> None:
    notify = [{"webhook": listener.url}, {"email": "ada@lab.example"}]
    task = scientist.running(1, notify=notify)
    who = volunteer()
    (chunk,) = who.claim()
    who.add(who.attempt(chunk))
    told_before = raw.outbox.count_documents({})
    keepers = [Housekeeper(stores, beat_s=20.0) for _ in range(3)]

    together = [threading.Thread(target=one.notices) for one in keepers]
    for one in together:
        one.start()
    for one in together:
        one.join()
    # As if the one that wrote them had died before it said so.
    raw.tasks.update_one({"_id": task}, {"$set": {"told": False}})
    keepers[0].notices()

    assert told_before == 0 and stores.tasks.find(task).told
    made = round(stores.tasks.find(task).created.timestamp() * 1000)
    assert sorted(one["_id"] for one in raw.outbox.find()) == [
        f"{task}.{made}.completed.0.0.webhook",
        f"{task}.{made}.completed.0.1.email",
    ]


def test_two_housekeepers_try_a_message_once(
    scientist: Any, volunteer: Any, keeper: Housekeeper, stores: Any, listener: Listener
) -> None:
    for _ in range(8):
        finish(scientist, volunteer, keeper, notify=[{"webhook": listener.url}])
    senders = {Channel.WEBHOOK: SendWebhook(stores, networks=LOOPBACK), Channel.EMAIL: SendMail(None)}
    together = [threading.Thread(target=Deliver(stores, senders).step) for _ in range(4)]

    for one in together:
        one.start()
    for one in together:
        one.join()

    assert len(listener.calls) == len({headers["webhook-id"] for headers, _, _ in listener.calls}) == 8


def test_a_message_whose_try_died_is_due_again(
    scientist: Any,
    volunteer: Any,
    keeper: Housekeeper,
    stores: Any,
    deliver: Deliver,
    listener: Listener,
    raw: Any,
) -> None:
    finish(scientist, volunteer, keeper, notify=[{"webhook": listener.url}])
    now = stores.clock.now()
    (notice,) = stores.outbox.due(now, limit=10)
    stores.outbox.take(notice, now + timedelta(minutes=2), now)

    nothing = deliver.step()
    make_due(raw)
    deliver.step()

    assert nothing == 0 and len(listener.calls) == 1


def test_a_task_that_pauses_itself_tells_so_and_one_that_a_person_pauses_does_not(
    scientist: Any, keeper: Housekeeper, deliver: Deliver, listener: Listener, raw: Any
) -> None:
    limits = {"until": "2020-01-01T00:00:00Z"}
    by_itself = scientist.running(1, notify=[{"webhook": listener.url}], limits=limits)
    by_hand = scientist.running(1, notify=[{"webhook": listener.url}])

    scientist.ok("POST", f"/tasks/{by_hand}/pause")
    for _ in range(2):
        keeper.limits()
        keeper.notices()
        deliver.step()
        scientist.ok("POST", f"/tasks/{by_itself}/resume")

    told = [json.loads(body) for _, body, _ in listener.calls]
    assert [(one["type"], one["data"]["task"]) for one in told] == [("task.paused", by_itself)] * 2
    assert told[0]["data"]["why"] == "Its time was over at 2020-01-01 00:00:00 UTC."


def test_an_end_is_told_though_the_task_was_run_again_before_housekeeping_came_by(
    scientist: Any, volunteer: Any, keeper: Housekeeper, deliver: Deliver, listener: Listener
) -> None:
    task = scientist.running(1, notify=[{"webhook": listener.url}])
    who = volunteer()
    for _ in range(2):
        (chunk,) = who.claim()
        assert who.add(who.attempt(chunk)).status_code == 200
        scientist.ok("POST", f"/tasks/{task}/rerun", {"which": "all"})

    keeper.notices()
    deliver.step()

    told = [json.loads(body)["data"] for _, body, _ in listener.calls]
    assert [(one["task"], one["outcome"]) for one in told] == [(task, "succeeded")] * 2


def test_that_a_task_paused_itself_is_told_though_it_was_resumed_before_housekeeping_came_by(
    scientist: Any, keeper: Housekeeper, deliver: Deliver, listener: Listener
) -> None:
    limits = {"until": "2020-01-01T00:00:00Z"}
    task = scientist.running(1, notify=[{"webhook": listener.url}], limits=limits)

    for _ in range(2):
        keeper.limits()
        scientist.ok("POST", f"/tasks/{task}/resume")
    keeper.notices()
    deliver.step()

    assert [json.loads(body)["type"] for _, body, _ in listener.calls] == ["task.paused"] * 2


def test_nothing_undoes_what_is_still_to_be_told(
    scientist: Any, volunteer: Any, stores: Any, raw: Any
) -> None:
    task = scientist.running(1, notify=[{"email": "ada@lab.example"}])
    who = volunteer()
    (chunk,) = who.claim()
    assert who.add(who.attempt(chunk)).status_code == 200
    again = Round(
        number=1, which=Which.ALL, anew=True, signature=None, chunks=(), hand="h", touched=stores.clock.now()
    )

    undone = [
        stores.rounds.begin(stores.tasks.find(task), again),
        stores.tasks.resume(task),
        stores.removals.mark(task, stores.clock.now()),
    ]

    assert undone == [False, False, False] and raw.tasks.find_one({"_id": task})["told"] is False


def test_messages_of_a_deleted_task_that_wait_go_out_and_are_nobody_elses(
    scientist: Any,
    volunteer: Any,
    keeper: Housekeeper,
    deliver: Deliver,
    listener: Listener,
    raw: Any,
    stores: Any,
) -> None:
    def ended() -> None:
        """A task of the same id each time that is complete and deleted, and whose id is free again."""
        made = scientist.running(1, id="mine", notify=[{"webhook": listener.url}])
        shown.append(scientist.ok("GET", f"/tasks/{made}")["notices"])
        (chunk,) = who.claim()
        assert who.add(who.attempt(chunk)).status_code == 200
        assert scientist.call("DELETE", f"/tasks/{made}").status_code == 202
        for _ in range(12):
            keeper.removals()
        raw.tasks.update_one({"_id": made}, {"$set": {"deleting": stores.clock.now() - timedelta(minutes=5)}})
        keeper.removals()
        assert raw.tasks.find_one({"_id": made}) is None

    who, shown = volunteer(), list[Any]()
    ended()
    listener.statuses = [503]
    deliver.step()
    ended()
    make_due(raw)
    deliver.step()

    ids = [headers["webhook-id"] for headers, _, _ in listener.calls]
    assert len(ids) == 3 and len(set(ids)) == 2 and ids.count(ids[0]) == 2
    assert shown == [[], []]


def test_a_project_names_who_is_told_of_tasks_that_name_nobody(
    scientist: Any, volunteer: Any, keeper: Housekeeper
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    project = scientist.ok("PATCH", "/projects/sums", {"notify": [{"email": "lab@lab.example"}]})

    by_default = scientist.running(1)
    silent = scientist.running(1, notify=[])
    changed = scientist.ok("PATCH", f"/tasks/{silent}", {"notify": [{"email": "me@lab.example"}]})

    assert project["notify"] == [{"email": "lab@lab.example"}]
    assert scientist.ok("GET", f"/tasks/{by_default}")["notify"] == [{"email": "lab@lab.example"}]
    assert changed["notify"] == [{"email": "me@lab.example"}]


# --- e-mail


def test_a_mail_says_what_became_of_the_task_and_nobody_can_add_a_header(
    scientist: Any,
    volunteer: Any,
    keeper: Housekeeper,
    deliver: Deliver,
    mailbox: tuple[Mailbox, MailServer],
) -> None:
    name = "sum\r\nBcc: everybody@lab.example\r\n\r\nHello \u2028 \u00fc"
    task = finish(scientist, volunteer, keeper, name=name, notify=[{"email": "ada@lab.example"}])

    deliver.step()

    ((sender, recipients, mail),) = mailbox[0].mails
    assert (sender, recipients) == ("no-reply@lab.example", ["ada@lab.example"])
    assert mail["Bcc"] is None and mail["To"] == "ada@lab.example"
    assert mail["Subject"] == "Task succeeded: sum Bcc: everybody@lab.example Hello \u00fc"
    notice = scientist.ok("GET", f"/tasks/{task}")["notices"][0]["id"]
    assert mail["Message-ID"] == f"<{notice}@lab.example>" and notice.endswith(".completed.0.0.email")
    assert f"Task:    {task} (sum Bcc:" in mail.get_content()
    assert "Chunks:  1 total, 1 done" in mail.get_content()


def test_an_address_that_the_mail_server_refuses_is_given_up(
    scientist: Any,
    volunteer: Any,
    keeper: Housekeeper,
    deliver: Deliver,
    mailbox: tuple[Mailbox, MailServer],
    raw: Any,
) -> None:
    task = finish(scientist, volunteer, keeper, notify=[{"email": "nobody@lab.example"}])

    mailbox[0].refuse = "451 come back later"
    deliver.step()
    later = scientist.ok("GET", f"/tasks/{task}")["notices"][0]
    mailbox[0].refuse = "550 no such user"
    make_due(raw)
    deliver.step()
    never = scientist.ok("GET", f"/tasks/{task}")["notices"][0]

    assert later["state"] == "waiting" and never["state"] == "given_up"
    assert never["last"] == "The mail server refused the address."


def test_without_a_mail_server_the_report_says_so(
    scientist: Any, volunteer: Any, keeper: Housekeeper, stores: Any
) -> None:
    task = finish(scientist, volunteer, keeper, notify=[{"email": "ada@lab.example"}])

    Deliver(stores, {Channel.WEBHOOK: SendWebhook(stores), Channel.EMAIL: SendMail(None)}).step()

    assert "DOCKERCOMP_SMTP_HOST" in scientist.ok("GET", f"/tasks/{task}")["notices"][0]["last"]


def test_nothing_goes_out_in_the_clear_where_tls_is_wanted(
    scientist: Any, volunteer: Any, keeper: Housekeeper, stores: Any, mailbox: tuple[Mailbox, MailServer]
) -> None:
    box, plain = mailbox
    secured = MailServer(host=plain.host, port=plain.port, sender=plain.sender)
    finish(scientist, volunteer, keeper, notify=[{"email": "ada@lab.example"}])

    Deliver(stores, {Channel.WEBHOOK: SendWebhook(stores), Channel.EMAIL: SendMail(secured)}).step()

    assert not box.mails


def test_a_project_sends_so_many_mails_an_hour_and_the_rest_waits(
    scientist: Any,
    volunteer: Any,
    keeper: Housekeeper,
    deliver: Deliver,
    mailbox: tuple[Mailbox, MailServer],
    raw: Any,
    stores: Any,
) -> None:
    task = finish(scientist, volunteer, keeper, notify=[{"email": "ada@lab.example"}])
    one = raw.outbox.find_one()
    raw.outbox.insert_many({**one, "_id": f"x{n}"} for n in range(MAILS_AN_HOUR + 9))

    for _ in range(10):
        deliver.step()

    waiting = [one for one in scientist.ok("GET", f"/tasks/{task}")["notices"] if one["state"] == "waiting"]
    assert len(mailbox[0].mails) == MAILS_AN_HOUR
    assert len(waiting) == 10 and "this one waits" in waiting[0]["last"] and waiting[0]["tries"] == 0
    raw.outbox.update_many({}, {"$set": {"tried": stores.clock.now() - timedelta(hours=2)}})
    make_due(raw)
    for _ in range(5):
        deliver.step()
    assert len(mailbox[0].mails) == MAILS_AN_HOUR + 10


def test_more_projects_are_no_way_to_more_mails(
    scientist: Any, volunteer: Any, keeper: Housekeeper, deliver: Deliver, mailbox: Any, raw: Any
) -> None:
    finish(scientist, volunteer, keeper, notify=[{"email": "ada@lab.example"}])
    one = raw.outbox.find_one()
    raw.outbox.insert_many(
        {**one, "_id": f"x{n}", "project": f"p{n}", "to": f"{n}@lab.example"}
        for n in range(MAILS_AN_HOUR + 9)
    )

    for _ in range(10):
        deliver.step()

    assert len(mailbox[0].mails) == MAILS_AN_HOUR


def test_more_accounts_are_no_way_to_more_mails_to_one_address(
    scientist: Any, volunteer: Any, keeper: Housekeeper, deliver: Deliver, mailbox: Any, raw: Any
) -> None:
    finish(scientist, volunteer, keeper, notify=[{"email": "Ada@lab.example"}])
    one = raw.outbox.find_one()
    raw.outbox.insert_many({**one, "_id": f"x{n}", "owner": f"o{n}"} for n in range(MAILS_TO_ONE_AN_HOUR + 9))

    for _ in range(10):
        deliver.step()

    waiting = list(raw.outbox.find({"state": "waiting"}))
    assert len(mailbox[0].mails) == MAILS_TO_ONE_AN_HOUR
    assert len(waiting) == 10 and "to this address" in waiting[0]["last"]


def test_the_many_messages_of_one_account_do_not_hold_up_anothers(
    scientist: Any, volunteer: Any, keeper: Housekeeper, stores: Any, raw: Any
) -> None:
    finish(scientist, volunteer, keeper, notify=[{"email": "ada@lab.example"}])
    one = raw.outbox.find_one()
    raw.outbox.insert_many({**one, "_id": f"x{n}", "project": f"p{n}"} for n in range(100))
    raw.outbox.insert_one({**one, "_id": "other", "owner": "other", "due": stores.clock.now()})

    tried = [notice.id for notice in stores.outbox.due(stores.clock.now(), limit=64)]

    assert "other" in tried and len(tried) == FAIR + 1


def test_an_account_has_so_many_projects_and_an_admin_more(
    scientist: Any, admin: Any, stores: Any, raw: Any
) -> None:
    scientist.ok("POST", "/projects", {"name": "mine"})
    admin.ok("POST", "/projects", {"name": "ours"})
    for name in ("mine", "ours"):
        one = raw.projects.find_one({"_id": name})
        raw.projects.insert_many({**one, "_id": f"{name}-{n}"} for n in range(MOST_PROJECTS - 1))

    refused = scientist.call("POST", "/projects", {"name": "more"})

    assert refused.status_code == 409 and str(MOST_PROJECTS) in refused.text
    assert scientist.call("POST", "/projects", {"name": "mine-7", "share": 2}).status_code == 200
    assert admin.call("POST", "/projects", {"name": "more"}).status_code == 201
