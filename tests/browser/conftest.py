"""One Chromium for all tests here."""

from pathlib import Path

import pytest

from altmap.compare import compare
from altmap.model.machine import predict
from altmap.report.page import page
from altmap.scenario import load_scenario

DIMM = Path(__file__).parents[2] / "scenarios/dimm-1GiB.toml"
CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def differing(browser, tmp_path):
    """Return a function that opens, at a width, the page of two policies that differ."""
    one, two = (predict(load_scenario(DIMM, [f"policy={p}"])) for p in ("opt-in", "existing"))
    made = tmp_path / "differ.html"
    made.write_text(page([one, two], "dimm", "1.0", [("dimm", compare(one, two))]))
    contexts = []

    def open_it(width):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}))
        tab = contexts[-1].new_page()
        tab.goto(made.as_uri())
        return tab

    yield open_it
    for context in contexts:
        context.close()
