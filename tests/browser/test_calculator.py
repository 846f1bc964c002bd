"""The calculator in a real browser: sign in, type, watch it being computed, see errors; on a phone; with a keyboard."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calculating import NAMES, compute, enable
from people import Volunteer
from product import until

pytestmark = [pytest.mark.mongo, pytest.mark.timeout(300)]

MARKUP = "<img src=x onerror=document.title='hacked'>"


@pytest.fixture
def computer(volunteer: Callable[..., Volunteer]) -> Volunteer:
    return volunteer(runtimes=["sandbox"])


@pytest.fixture
def calculator(stores: Any, served: str, page: Any, new_key: Callable[[str], str]) -> Any:
    """The page, signed in."""
    enable(stores, 3)
    page.goto(f"{served}/calculator")
    page.get_by_label("Account key").fill(new_key("volunteer"))
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/calculator")
    return page


def ask(page: Any, text: str) -> Any:
    """Type a calculation and send it with the Enter key; its item in the list."""
    before = page.locator(".item").count()
    page.get_by_label("Calculation", exact=True).fill(text)
    page.keyboard.press("Enter")
    page.wait_for_function("count => document.querySelectorAll('.item').length > count", arg=before)
    return page.locator(".item").first


def state(item: Any, name: str) -> None:
    item.and_(item.page.locator(f".{name}")).wait_for()


def is_done(item: Any) -> bool:
    """Whether the page shows an answer, or an error."""
    return bool(item.and_(item.page.locator(".answered, .error")).count())


def picture(page: Any, name: str) -> None:
    """Keep a picture for people, where they say so."""
    if folder := os.environ.get("PICTURES"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def test_a_calculation_appears_is_computed_somewhere_and_is_answered(
    calculator: Any, computer: Volunteer
) -> None:
    item = ask(calculator, "1.21 / -32.33")

    assert "1.21 / -32.33" in item.inner_text() and "any environment" in item.inner_text()
    chunk = computer.claim(1)[0]
    state(item, "computing")
    assert re.search(r"in \w+ 1\.2 on ", item.inner_text())
    picture(calculator, "computing")
    computer.ok("POST", "/add", {"results": [computer.attempt(chunk, "-0.037426538818434892\n")]})
    state(item, "answered")
    assert "= -0.037426538818434892" in item.inner_text()
    assert re.search(r"by \w+ 1\.2 on .*, at volunteer-", item.inner_text())
    calculator.locator("#news").get_by_text("1.21 / -32.33 is -0.0374").wait_for(state="attached")
    calculator.reload()
    state(calculator.locator(".item").first, "answered")
    picture(calculator, "answered")


def test_errors_appear_too(calculator: Any, computer: Volunteer) -> None:
    item = ask(calculator, "1 / 0")
    compute(computer)

    state(item, "error")
    assert "Division by zero." in item.inner_text()
    for text, word in (
        ("1/3/4", "more than two numbers"),
        ("(1+2)*3", "Parentheses"),
        ("", "Write two numbers"),
    ):
        calculator.get_by_label("Calculation", exact=True).fill(text)
        calculator.get_by_role("button", name="Calculate").click()
        calculator.get_by_role("alert").get_by_text(word).wait_for()
    picture(calculator, "errors")
    calculator.get_by_label("Calculation", exact=True).fill("1 + 1")
    calculator.get_by_role("alert").wait_for(state="hidden")
    assert calculator.locator(".item").count() == 1


def test_a_language_can_be_chosen_and_answers_be_compared(calculator: Any, computer: Volunteer) -> None:
    calculator.get_by_label("Language").select_option("perl")
    chosen = ask(calculator, "2 * 3")
    compute(computer)
    state(chosen, "answered")
    assert "by Perl 1.2 on Debian 1" in chosen.inner_text()

    calculator.get_by_label("Language").select_option("any")
    calculator.get_by_label("Ask 3 environments").check()
    checked = ask(calculator, "2 / 3")
    until(
        lambda: compute(computer, wrong=lambda variant: variant == "lua-bookworm") == [] and is_done(checked),
        seconds=60,
        what="three environments have agreed",
    )
    assert "= 0.66666666666666663" in checked.inner_text()
    assert len([name for name in NAMES if name in checked.inner_text()]) >= 3
    if "lua-bookworm" in checked.inner_text():
        assert "lua-bookworm: disagrees" in checked.inner_text()
    picture(calculator, "compared")


def test_markup_in_what_programs_say_stays_text(calculator: Any, computer: Volunteer) -> None:
    first = ask(calculator, "1 / 0")
    chunk = computer.claim(1)[0]
    said = computer.failure(chunk, exit_code=65, stderr_tail=f"{MARKUP}\n")
    computer.ok("POST", "/add", {"results": [said]})

    state(first, "error")

    assert MARKUP in first.inner_text() and first.locator("img").count() == 0
    assert calculator.title() == "Calculator · dockercomp"
    calculator.get_by_label("Calculation", exact=True).fill(MARKUP)
    calculator.keyboard.press("Enter")
    calculator.get_by_role("alert").wait_for()
    assert calculator.locator("main img").count() == 0


def test_a_wrong_key_is_told_and_a_session_ends(served: str, calculator: Any) -> None:
    calculator.get_by_role("button", name="Sign out").click()
    calculator.wait_for_url("**/sign-in")
    calculator.get_by_label("Account key").fill("dca_wrong")
    calculator.get_by_role("button", name="Sign in").click()

    calculator.get_by_role("alert").get_by_text("not known here").wait_for()

    picture(calculator, "sign-in")
    calculator.goto(f"{served}/calculator")
    assert calculator.url.endswith("/sign-in")


def test_two_windows_show_the_same_and_a_lost_session_leads_to_the_form(
    calculator: Any, computer: Volunteer
) -> None:
    other = calculator.context.new_page()
    other.goto(calculator.url)
    ask(calculator, "3 + 4")

    other.bring_to_front()
    other.get_by_text("3 + 4").wait_for()
    compute(computer)
    other.get_by_text("= 7").wait_for()

    calculator.context.clear_cookies()
    calculator.get_by_label("Calculation", exact=True).fill("1 + 1")
    calculator.keyboard.press("Enter")
    calculator.wait_for_url("**/sign-in")


def test_it_fits_a_phone_and_every_control_has_a_name(
    stores: Any, chromium: Any, served: str, computer: Volunteer, new_key: Callable[[str], str]
) -> None:
    enable(stores, 3)
    context = chromium.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{served}/sign-in")
    page.get_by_label("Account key").fill(new_key("volunteer"))
    page.get_by_role("button", name="Sign in").tap()
    page.wait_for_url("**/calculator")
    item = ask(page, "123456789012345678901234567890 * 98765432109876543210.123456789")
    compute(computer)
    state(item, "answered")

    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    nameless = page.evaluate(
        "[...document.querySelectorAll('input:not([type=hidden]), select, button')]"
        ".filter(e => !(e.labels && e.labels.length) && !e.textContent.trim()).length"
    )
    small = page.evaluate(
        "[...document.querySelectorAll('button, select, input:not([type=hidden]):not([type=checkbox])')]"
        ".filter(e => e.getBoundingClientRect().height < 40).length"
    )

    picture(page, "phone")
    context.close()
    assert (wide, nameless, small) == (0, 0, 0)


def test_an_idle_page_asks_seldom(calculator: Any) -> None:
    asked: list[str] = []
    calculator.on("request", lambda request: asked.append(request.url))
    calculator.wait_for_timeout(6000)

    assert 0 < len(asked) <= 7
