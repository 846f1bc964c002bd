"""Limits, matching and addresses, as pure rules."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from source_server.config import BadSetting, MailSecurity, from_env
from source_server.domain.limits import Limits, StopWhen, Used, enough, over
from source_server.domain.matching import Match, matches, matching
from source_server.domain.notice import PAUSES_S, next_try
from source_server.domain.public_address import may_call
from source_server.domain.refusal import BadInput
from source_server.web import wire
from source_server.web.answers.limits import shown_limits
from source_server.web.bodies.limits import LimitsBody, TargetBody, limits

NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


def kind(**said: Any) -> Match:
    body = wire.read(LimitsBody, {"stop_when": {"answers": 1, "match": said}})
    found = limits(body)
    assert found is not None and found.stop_when is not None and found.stop_when.match is not None
    return found.stop_when.match


@pytest.mark.parametrize(
    ("said", "answer", "fits"),
    [
        ({"equals": "prime"}, "prime\n", True),
        ({"equals": "prime"}, "primes", False),
        ({"equals": 4}, "4.0\n", True),
        ({"equals": 4}, "four", False),
        ({"equals": "4"}, "4.0", False),
        ({"at_least": 0.95}, "0.951\n", True),
        ({"at_least": 0.95}, "0.94", False),
        ({"at_least": 1, "at_most": 2}, "3", False),
        ({"at_least": 0}, "nan", False),
        ({"at_least": 0}, "inf", False),
        ({"at_least": 0}, "1" * 500, False),
        ({"field": "loss", "at_most": 0.1}, '{"loss": 0.05}', True),
        ({"field": "loss", "at_most": 0.1}, '{"loss": true}', False),
        ({"field": "loss", "at_most": 0.1}, '{"loss": "0.05"}', False),
        ({"field": "loss", "at_most": 0.1}, "no JSON", False),
        ({"field": "found.1.name", "equals": "x"}, '{"found": [{}, {"name": "x"}]}', True),
        ({"field": "found.9.name", "equals": "x"}, '{"found": [{}]}', False),
        ({"field": "ok", "equals": True}, '{"ok": true}', True),
        ({"field": "ok", "equals": True}, '{"ok": 1}', False),
        ({"field": "ok", "equals": 1}, '{"ok": true}', False),
        ({"field": "ok", "equals": None}, '{"ok": null}', True),
        ({"field": "ok", "equals": None}, "{}", False),
        ({"field": "a", "at_least": 0}, '{"a": ' + "9" * 100_000 + "}", False),
        ({"field": "a", "at_least": 0}, "[" * 200_000, False),
    ],
)
def test_an_answer_matches_by_all_that_is_said(said: dict[str, Any], answer: str, fits: bool) -> None:
    assert matches(kind(**said), answer) is fits


def test_each_line_of_a_chunk_of_many_rows_is_an_answer() -> None:
    assert matching(Match(at_least=2.0), "1\n2\n3\n", lines=True) == 2
    assert matching(None, "1\n2\n3\n", lines=True) == 3
    assert matching(None, "1\n2\n3\n", lines=False) == 1


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"cpu_hours": 0},
        {"cpu_hours": True},
        {"until": "tomorrow"},
        {"stop_when": {"answers": 0}},
        {"stop_when": {"answers": 1, "match": {}}},
        {"stop_when": {"answers": 1, "match": {"regex": ".*"}}},
        {"stop_when": {"answers": 1, "match": {"field": "a..b", "equals": 1}}},
        {"stop_when": {"answers": 1, "match": {"field": "a.b.c.d.e.f.g.h.i", "equals": 1}}},
        {"cpu_hours": 1, "then": "explode"},
    ],
)
def test_limits_that_cannot_be_meant_are_refused_with_a_sentence(said: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"\.$"):
        wire.read(LimitsBody, said)


def test_limits_are_shown_in_the_words_in_which_they_were_said() -> None:
    said = {
        "cpu_hours": 2.5,
        "until": "2026-12-01T00:00:00.000Z",
        "stop_when": {"answers": 3, "match": {"field": "a.b", "equals": None}},
        "then": "end",
    }

    assert shown_limits(limits(wire.read(LimitsBody, said))) == said


def test_what_is_used_up_is_said_in_a_sentence() -> None:
    wanted = Limits(cpu_hours=1.0, until=NOON, stop_when=StopWhen(answers=2, match=Match(at_least=5.0)))

    assert over(wanted, Used(cpu_s=3599), NOON - timedelta(seconds=1)) is None
    assert over(wanted, Used(cpu_s=3600), NOON - timedelta(seconds=1)) == (
        "It has used 1 of 1 processor hours."
    )
    assert over(wanted, Used(), NOON) == "Its time was over at 2026-11-22 12:00:00 UTC."
    assert enough(wanted, Used(answers=1)) is None
    assert (
        enough(wanted, Used(answers=2)) == "It has 2 accepted answers with a value at least 5; 2 were wanted."
    )


def test_pauses_between_tries_grow_and_end() -> None:
    pauses = [next_try(n, NOON) for n in range(1, len(PAUSES_S) + 2)]

    assert pauses[-1] is None and None not in pauses[:-1]
    assert pauses[:-1] == sorted(p for p in pauses if p is not None)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.31.255.255",
        "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "255.255.255.255", "::", "::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::", "2001:0:1::", "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1", "2001:db8::1",
        "::ffff:0:127.0.0.1", "64:ff9b:1::1", "100::1", "3fff::1", "5f00::1", "4000::1", "fe00::1",
    ],
)  # fmt: skip
def test_private_addresses_in_every_dress_are_not_called(address: str) -> None:
    assert not may_call(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"]
)
def test_public_addresses_are_called(address: str) -> None:
    assert may_call(ipaddress.ip_address(address))


def test_the_operator_may_name_networks_of_the_own() -> None:
    own = [ipaddress.ip_network("10.1.0.0/16")]

    assert may_call(ipaddress.ip_address("10.1.2.3"), own)
    assert may_call(ipaddress.ip_address("::ffff:10.1.2.3"), own)
    assert not may_call(ipaddress.ip_address("10.2.0.1"), own)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"webhook": "https://a.example/", "email": "a@b.example"},
        {"webhook": "ftp://a.example/"},
        {"webhook": "https://user:secret@a.example/"},
        {"webhook": "https:///x"},
        {"webhook": "https://a.example/\r\nX: y"},
        {"webhook": "https://a.example:0/"},
        {"webhook": "https://a.example:99999/"},
        {"webhook": "file:///etc/passwd"},
        {"email": "a@b.example\r\nBcc: c@d.example"},
        {"email": "a@b.example, c@d.example"},
        {"email": "A <a@b.example>"},
        {"email": "nobody"},
        {"email": "-@" + "x" * 250},
    ],
)
def test_addresses_that_are_more_than_one_address_are_refused(said: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        wire.read(TargetBody, said)


def test_mail_settings_are_read_strictly(tmp_path: Any) -> None:
    host = {"DOCKERCOMP_SMTP_HOST": "mail.example", "DOCKERCOMP_SMTP_FROM": "no-reply@a.example"}

    plain = from_env(host).mail
    assert plain is not None and (plain.port, plain.security) == (587, MailSecurity.STARTTLS)
    for wrong in (
        {"DOCKERCOMP_SMTP_FROM": ""},
        {"DOCKERCOMP_SMTP_FROM": "a@b.example\nBcc: x@y.example"},
        {"DOCKERCOMP_SMTP_SECURITY": "maybe"},
        {"DOCKERCOMP_SMTP_PORT": "0"},
        {"DOCKERCOMP_SMTP_USER": "me"},
        {"DOCKERCOMP_WEBHOOK_NETWORKS": "10.0.0.1/8"},
    ):
        with pytest.raises(BadSetting, match=r"DOCKERCOMP_"):
            from_env({**host, **wrong})
