"""Calculations through the app: taken in, computed in an environment, compared, listed; and who may ask."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from calculating import NAMES, compute, enable, enabling, environments
from people import Person, Scientist, Volunteer

pytestmark = pytest.mark.mongo


@pytest.fixture
def computer(stores: Any, volunteer: Callable[..., Volunteer]) -> Volunteer:
    """A volunteer's container with a sandbox."""
    return volunteer(runtimes=["sandbox"])


@pytest.fixture
def asker(app: Any, new_key: Callable[[str], str]) -> Person:
    return Person(app, new_key("volunteer"))


def ask(person: Person, text: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = person.ok("POST", "/calculations", {"calculation": text, **more})
    return found


def again(person: Person, row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = person.ok("GET", f"/calculations/{row['id']}")
    return found


def test_a_calculation_waits_is_computed_somewhere_and_is_answered(
    stores: Any, asker: Person, computer: Volunteer
) -> None:
    enable(stores)
    asked = ask(asker, "1.21 / -32.33")

    assert (asked["state"], asked["where"], asked["answer"]) == ("waiting", [], None)
    chunk = computer.claim(1)[0]
    computing = again(asker, asked)
    assert computing["state"] == "computing" and computing["where"][0]["name"] in NAMES
    computer.ok("POST", "/add", {"results": [computer.attempt(chunk, "-0.037426538818434892\n")]})
    answered = again(asker, asked)
    assert (answered["state"], answered["answer"]) == ("answered", "-0.037426538818434892")
    assert answered["where"] == computing["where"]
    assert answered["account"].startswith("volunteer-")
    assert asker.ok("GET", "/calculations")["calculations"] == [answered]


def test_a_chosen_language_and_system_compute_it_and_no_other(
    stores: Any, asker: Person, computer: Volunteer
) -> None:
    enable(stores)
    for _ in range(4):
        ask(asker, "1 + 1", language="perl")
        ask(asker, "1 + 1", os="debian-13", language="python")

    variants = set(compute(computer))

    assert "python-trixie" in variants and variants <= {"perl-bookworm", "perl-trixie", "python-trixie"}
    rows = asker.ok("GET", "/calculations")["calculations"]
    assert {row["state"] for row in rows} == {"answered"}
    assert all(row["where"][0]["language"].lower() == row["wanted"]["language"] for row in rows)


def test_any_environment_computes_what_names_none(stores: Any, asker: Person, computer: Volunteer) -> None:
    enable(stores)
    for number in range(60):
        ask(asker, f"{number} * 2", os="any", language="any")

    variants = set(compute(computer)) | set(compute(computer))

    assert variants == set(NAMES)


def test_division_by_zero_is_a_stored_error(stores: Any, asker: Person, computer: Volunteer) -> None:
    enable(stores)
    row = ask(asker, "1 / 0")

    compute(computer)

    found = again(asker, row)
    assert (found["state"], found["error"], found["answer"]) == ("error", "Division by zero.", None)
    assert found["where"][0]["name"] in NAMES


def test_many_errors_do_not_stop_the_calculators(stores: Any, asker: Person, computer: Volunteer) -> None:
    enable(stores)
    for _ in range(25):
        ask(asker, "1 / 0")
    compute(computer)
    housekeep(stores)

    row = ask(asker, "1 / 1")
    until_settled(asker, row, lambda: compute(computer))

    assert again(asker, row)["state"] == "answered"


@pytest.mark.parametrize(
    "text", ["1/3/4", "(1+2)*3", "1 2", "2**3", "1 − 2", "0x10 + 1", "1e999 + 1", "inf + 1"]
)
def test_what_is_ambiguous_is_refused_and_not_stored(stores: Any, asker: Person, text: str) -> None:
    enable(stores)

    answer = asker.call("POST", "/calculations", {"calculation": text})

    assert answer.status_code == 400 and answer.get_json()["error"].endswith(".")
    assert asker.ok("GET", "/calculations")["calculations"] == []


def test_several_environments_agree_on_a_checked_calculation(
    stores: Any, asker: Person, computer: Volunteer
) -> None:
    enable(stores, 3)
    row = ask(asker, "2 / 3", check=True)

    until_settled(asker, row, lambda: compute(computer))

    found = again(asker, row)
    assert found["state"] == "answered" and found["answer"] == "0.66666666666666663"
    assert len({one["environment"] for one in found["opinions"]}) == 3 and found["disagreed"] == []
    assert {one["answer"] for one in found["opinions"]} == {found["answer"]}


def test_a_wrong_calculator_is_found_and_named(stores: Any, asker: Person, computer: Volunteer) -> None:
    enable(stores, 3)

    rows = [ask(asker, f"{number} / 7", check=True) for number in range(1, 13)]
    for row in rows:
        until_settled(asker, row, lambda: compute(computer, wrong=lambda variant: variant == "lua-bookworm"))

    found = [again(asker, row) for row in rows]
    assert {row["state"] for row in found} == {"answered"}
    assert {name for row in found for name in row["disagreed"]} == {"lua-bookworm"}
    for number, row in enumerate(found, 1):
        assert float(row["answer"]) == pytest.approx(number / 7, rel=1e-9)
    shown = {one["name"]: one for one in asker.ok("GET", "/calculators")["calculators"]}
    assert shown["lua-bookworm"]["disagreed"] > 0
    assert all(one["disagreed"] == 0 for name, one in shown.items() if name != "lua-bookworm")


def test_the_machine_on_which_a_wrong_calculator_ran_is_not_blamed(
    stores: Any, asker: Person, computer: Volunteer
) -> None:
    enable(stores, 2, names=("c-scratch", "lua-bookworm", "perl-trixie"))
    named: list[str] = []
    for number in range(1, 100):
        row = ask(asker, f"{number} / 7", check=True)
        until_settled(asker, row, lambda: compute(computer, wrong=lambda variant: variant == "lua-bookworm"))
        named += again(asker, row)["disagreed"]
        if len(named) > 3:
            break

    record = stores.hosts.find(stores.containers.find(computer.id).account, computer.host)

    assert set(named) == {"lua-bookworm"}
    assert (record.disagreed, record.quarantined) == (0, None)


def test_environments_that_do_not_agree_at_all_are_an_error(
    stores: Any, asker: Person, computer: Volunteer
) -> None:
    enable(stores, 2, names=("c-scratch", "lua-bookworm"))
    row = ask(asker, "2 / 3", check=True)

    for _ in range(6):
        compute(computer, wrong=lambda variant: variant == "lua-bookworm")

    found = again(asker, row)
    assert len({one["answer"] for one in found["opinions"]}) == 2
    assert found["state"] in ("waiting", "error") and found["answer"] is None


def test_a_choice_that_cannot_be_met_says_what_there_is(stores: Any, asker: Person) -> None:
    enable(stores, None)

    said = asker.call("POST", "/calculations", {"calculation": "1+1", "language": "cobol"})
    assert said.status_code == 400 and "c, lua, perl, python" in said.get_json()["error"]
    said = asker.call("POST", "/calculations", {"calculation": "1+1", "language": "c", "os": "debian-12"})
    assert said.status_code == 400 and "no calculator for c on debian-12" in said.get_json()["error"]
    said = asker.call("POST", "/calculations", {"calculation": "1+1", "check": True})
    assert said.status_code == 400 and "--cross-check" in said.get_json()["error"]


def test_without_calculators_the_caller_is_told_what_is_missing(asker: Person) -> None:
    said = asker.call("POST", "/calculations", {"calculation": "1+1"})

    assert said.status_code == 404 and "calculator enable" in said.get_json()["error"]


def test_the_same_request_sent_again_is_the_same_calculation(stores: Any, asker: Person) -> None:
    enable(stores)
    mine = uuid.uuid4().hex

    first = asker.call("POST", "/calculations", {"calculation": "1+1", "id": mine})
    second = asker.call("POST", "/calculations", {"calculation": "1+1", "id": mine})
    other = asker.call("POST", "/calculations", {"calculation": "1+2", "id": mine})

    assert (first.status_code, second.status_code, other.status_code) == (201, 200, 409)
    assert first.get_json() == second.get_json()
    assert len(asker.ok("GET", "/calculations")["calculations"]) == 1


def test_the_list_is_newest_first_and_goes_on_behind_one(stores: Any, asker: Person) -> None:
    enable(stores)
    rows = [ask(asker, f"{number} + 0") for number in range(5)]

    listed = asker.ok("GET", "/calculations")["calculations"]
    later = asker.ok("GET", f"/calculations?after={rows[3]['id']}&open={rows[0]['id']}")["calculations"]

    assert [row["id"] for row in listed] == [row["id"] for row in reversed(rows)]
    # Those of a few seconds before come again: clocks of web processes differ.
    assert {rows[4]["id"], rows[0]["id"]} <= {row["id"] for row in later}


def test_everybody_sees_their_own_and_an_admin_all(
    app: Any, stores: Any, asker: Person, scientist: Scientist, admin: Person
) -> None:
    enable(stores)
    row = ask(asker, "1 + 1")

    assert scientist.ok("GET", "/calculations")["calculations"] == []
    assert scientist.ok("GET", f"/calculations?open={row['id']}")["calculations"] == []
    assert scientist.call("GET", f"/calculations/{row['id']}").status_code == 404
    assert [one["id"] for one in admin.ok("GET", "/calculations")["calculations"]] == [row["id"]]
    assert app.test_client().get("/calculations").status_code == 401


def test_what_a_dead_process_left_is_handed_over_by_housekeeping(
    stores: Any, raw: Any, asker: Person, computer: Volunteer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from source_server.services.calculators import calculate
    from source_server.services.tasks.append import Append

    enable(stores)

    def die(*_: Any) -> None:
        raise SystemExit("killed between two database operations")

    with monkeypatch.context() as dying:
        dying.setattr(Append, "__call__", die)
        with pytest.raises(SystemExit):
            asker.call("POST", "/calculations", {"calculation": "2 * 3"})
    row = asker.ok("GET", "/calculations")["calculations"][0]
    assert (row["state"], row["chunk"]) == ("waiting", None)

    monkeypatch.setattr(calculate, "SENT_WITHIN", -calculate.SENT_WITHIN)
    housekeep(stores)
    housekeep(stores)
    compute(computer)

    assert again(asker, row)["answer"] == "6"
    assert raw["chunks"].count_documents({}) == 1


def test_enabling_again_is_the_same_and_others_take_its_place(
    stores: Any, asker: Person, computer: Volunteer
) -> None:
    first = enable(stores, 2)
    assert enable(stores, 2) == first
    waiting = ask(asker, "1 + 1")

    second = enable(stores, 3, names=NAMES[:3])
    third = enable(stores, 2)

    assert len({first.anywhere, second.anywhere, third.anywhere}) == 3
    assert stores.calculations.setting() == third
    compute(computer)
    assert again(asker, waiting)["state"] == "answered"
    assert ask(asker, "1 + 2")["chunk"].startswith((first.anywhere, second.anywhere, third.anywhere))


def test_a_calculation_that_was_taken_in_before_the_change_goes_to_the_successor(
    stores: Any, asker: Person
) -> None:
    from source_server.app import build_services
    from source_server.services.calculators.calculate import Wished

    enable(stores, 2)
    calculate = build_services(stores, beat_s=20.0).calculate
    account = stores.accounts.find_by_name("calculators")
    calculate.enabled()  # remembered for two seconds

    after = enable(stores, 3, names=NAMES[:3])
    reading, new = calculate.ask(account, Wished(text="1 + 1"))

    assert new and (reading.asked.task, reading.asked.n) == (after.anywhere, 0)


def test_what_cannot_be_enabled_is_refused(stores: Any) -> None:
    from source_server.domain.refusal import BadInput

    service = enabling(stores)

    with pytest.raises(BadInput, match="no calculator"):
        service([], None)
    with pytest.raises(BadInput, match="2 to 5"):
        service(environments(), 6)
    with pytest.raises(BadInput, match="same name"):
        service(environments(["c-scratch", "c-scratch"]), None)


def test_disabled_calculators_take_nothing_more(stores: Any, app: Any, asker: Person) -> None:
    enable(stores)
    assert enabling(stores).disable() and not enabling(stores).disable()

    assert asker.call("POST", "/calculations", {"calculation": "1+1"}).status_code == 404


def test_markup_in_answers_and_errors_stays_text(stores: Any, asker: Person, computer: Volunteer) -> None:
    enable(stores)
    row = ask(asker, "1 / 0")
    chunk = computer.claim(1)[0]

    markup = "<img src=x onerror=alert(1)>"
    said = computer.failure(chunk, exit_code=65, stderr_tail=f"{markup}\n")
    computer.ok("POST", "/add", {"results": [said]})

    answer = asker.call("GET", f"/calculations/{row['id']}")
    assert answer.get_json()["error"] == markup
    assert answer.mimetype == "application/json"


# --- pages and sessions


class Browser:
    """A browser, as far as cookies and headers go."""

    def __init__(self, app: Any) -> None:
        self.http = app.test_client()

    def sign_in(self, key: str, **headers: str) -> Any:
        return self.http.post("/sign-in", data={"key": key}, headers=headers)

    def token(self) -> str:
        found = re.search(r'name="csrf" content="([^"]+)"', self.http.get("/calculator").text)
        assert found is not None
        return found[1]

    def post(self, token: str | None, **headers: str) -> Any:
        shown = {} if token is None else {"Dockercomp-Csrf": token}
        return self.http.post("/calculations", json={"calculation": "1+1"}, headers={**shown, **headers})


@pytest.fixture
def browser(app: Any) -> Browser:
    return Browser(app)


def test_a_key_is_exchanged_for_a_session(
    stores: Any, browser: Browser, new_key: Callable[[str], str]
) -> None:
    enable(stores)
    assert browser.http.get("/calculator").headers["Location"] == "/sign-in"

    answer = browser.sign_in(new_key("volunteer"))

    cookie = answer.headers["Set-Cookie"]
    assert answer.status_code == 303 and answer.headers["Location"] == "/calculator"
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Max-Age=43200" in cookie
    page = browser.http.get("/calculator")
    assert page.status_code == 200 and "script-src 'self'" in page.headers["Content-Security-Policy"]
    listed = browser.http.get("/calculations")
    assert (listed.status_code, listed.headers["Cache-Control"]) == (200, "no-store")
    assert browser.post(browser.token()).status_code == 201


def test_a_wrong_key_opens_nothing(stores: Any, browser: Browser) -> None:
    answer = browser.sign_in("dca_wrong")

    assert answer.status_code == 401 and "not known here" in answer.text
    assert "Set-Cookie" not in answer.headers
    assert browser.http.get("/calculations").status_code == 401


def test_a_session_without_its_pages_token_changes_nothing(
    app: Any, stores: Any, browser: Browser, new_key: Callable[[str], str]
) -> None:
    enable(stores)
    browser.sign_in(new_key("volunteer"))
    other = Browser(app)
    other.sign_in(new_key("volunteer"))

    for token in (None, "", "wrong", other.token(), "ä"):
        assert browser.post(token).status_code == 403
    assert browser.post(browser.token(), Origin="https://evil.example").status_code == 403
    assert browser.post(browser.token(), **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert browser.http.get("/calculations").get_json()["calculations"] == []
    assert browser.http.post("/sign-out", data={"csrf": "wrong"}).status_code == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "http://[", "http://localhost:1"])
def test_other_sites_cannot_sign_anybody_in(
    browser: Browser, new_key: Callable[[str], str], origin: str
) -> None:
    answer = browser.sign_in(new_key("volunteer"), Origin=origin)

    assert answer.status_code == 403 and "Set-Cookie" not in answer.headers


def test_a_new_key_ends_the_sessions_of_the_old_one(stores: Any, app: Any, browser: Browser) -> None:
    from source_server.domain.account import Role
    from source_server.services.accounts.people import People

    people = People(stores)
    browser.sign_in(people.add("ada", Role.VOLUNTEER))
    assert browser.http.get("/calculations").status_code == 200

    people.new_key("ada")

    assert browser.http.get("/calculations").status_code == 401
    assert browser.http.get("/calculator").headers["Location"] == "/sign-in"


def test_signing_out_ends_the_session_in_this_browser(
    stores: Any, browser: Browser, new_key: Callable[[str], str]
) -> None:
    enable(stores)
    browser.sign_in(new_key("volunteer"))

    answer = browser.http.post("/sign-out", data={"csrf": browser.token()})

    assert answer.status_code == 303
    assert browser.http.get("/calculations").status_code == 401


def test_pages_are_in_nobodys_frame_and_bring_their_own_files(
    stores: Any, browser: Browser, new_key: Callable[[str], str]
) -> None:
    page = browser.http.get("/sign-in")

    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    assert browser.http.get("/pages/page.css").mimetype == "text/css"
    assert "javascript" in browser.http.get("/pages/calculator.js").mimetype
    assert browser.http.get("/pages/..%2f..%2fapp.py").status_code == 404


def housekeep(stores: Any) -> None:
    from source_server.housekeeping import Housekeeper

    keeper = Housekeeper(stores, beat_s=20.0)
    keeper.tasks()
    keeper.calculations()


def until_settled(asker: Person, row: dict[str, Any], step: Callable[[], Any]) -> None:
    for _ in range(12):
        step()
        if again(asker, row)["state"] in ("answered", "error"):
            return
    raise AssertionError(again(asker, row))
