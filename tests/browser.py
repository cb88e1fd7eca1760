"""One page in headless Chromium: what it asked for, what it complained of, and what axe-core finds in it."""

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SERIOUS = ("serious", "critical")

needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium on this machine; CI installs it")


@contextmanager
def chromium():
    """The system's Chromium. Nothing is downloaded, and the network is off."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), env=dict(os.environ))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Opened:
    """A page of Playwright, the addresses that it asked for besides its own, and its complaints."""

    page: object
    requests: list = field(default_factory=list)
    complaints: list = field(default_factory=list)

    def accessibility_violations(self):
        """What axe-core finds serious or critical, by rule, with the elements."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return {v["id"]: [n["html"][:200] for n in v["nodes"]] for v in found if v["impact"] in SERIOUS}


@contextmanager
def opened(browser, path, **context):
    """The file at `path` in a context of its own (viewport, color_scheme, reduced_motion ...), offline.

    Fails in the end if the page asked for anything besides itself, or wrote an error or a warning to the console.
    """
    surroundings = browser.new_context(offline=True, **context)
    try:
        surroundings.set_default_timeout(15_000)
        page = surroundings.new_page()
        seen = Opened(page)
        address = Path(path).as_uri()
        page.on("request", lambda request: seen.requests.append(request.url) if request.url != address else None)
        page.on(
            "console", lambda said: seen.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.goto(address)
        yield seen
        page.wait_for_timeout(50)
    finally:
        surroundings.close()
    assert not seen.requests, f"the page asked for {seen.requests}"
    assert not seen.complaints, f"the page complained: {seen.complaints}"
