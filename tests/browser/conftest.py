"""A real browser before a real server, on this machine."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from parts import require

CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A running Chromium, the system's own; only while it is needed: it keeps other loops out of this thread."""
    found = CHROMIUM if shutil.which(CHROMIUM) else shutil.which("chromium")
    if found is None:
        require("there is no Chromium, in which pages are tried (Debian: chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        require(f"playwright is not installed ({error})")
        raise
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@pytest.fixture
def served(app: Any) -> Iterator[str]:
    """The address of the app, served over HTTP by threads."""
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A new window without a past; what the page's scripts complain about fails the test."""
    context = chromium.new_context(viewport={"width": 1100, "height": 900})
    made = context.new_page()
    complaints: list[str] = []
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
    made.set_default_timeout(30_000)
    yield made
    context.close()
    assert complaints == []
