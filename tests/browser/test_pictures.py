"""What was wrong in pages that were looked at as pictures: labels, tables, facts."""

import re
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.model.machine import predict
from altmap.scenario import load_scenario

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
RECORDED = ROOT / "tests/recordings"


@pytest.fixture
def look(browser, tmp_path):
    """Return a function that writes a page by a command and opens it, its folded parts too."""
    contexts = []

    def look_at(width, *words):
        made = tmp_path / "page.html"
        assert main([*words, str(made)]) == 0
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}))
        tab = contexts[-1].new_page()
        tab.goto(made.as_uri())
        for details in tab.locator("summary").all():
            details.click()
        return tab

    yield look_at
    for context in contexts:
        context.close()


@pytest.fixture(params=[390, 1280])
def width(request):
    return request.param


def compared(look, width):
    recording = RECORDED / "traces/x86_64-6.12-dimm-1GiB.tar.xz"
    return look(width, "compare", "--recording", str(recording), "--report")


def reported(look, width, source):
    return look(width, "report", str(ROOT / source), "-o")


def test_an_address_of_a_row_is_exact(look, width):
    tab = reported(look, width, "scenarios/ppc64-two-nodes.toml")
    labels = tab.locator(".map text.small").all_text_contents()
    starts = {text.removeprefix("at ").split(",")[0] for text in labels}
    assert {"0 B", "256 MiB", "1.25 GiB", "2.25 GiB"} <= starts


def test_two_zones_of_a_row_are_both_named(look, width):
    tab = reported(look, width, "scenarios/dimm-1GiB.toml")
    labels = tab.locator(".map text").all_text_contents()
    assert "DMA + DMA32" in labels
    assert not [label for label in labels if "…" in label]


def test_a_row_of_a_comparison_is_no_taller_than_what_is_seen_of_it(look, width):
    tab = compared(look, width)
    rows = tab.locator(".comparison tbody tr").all()
    assert len(rows) > 30
    assert max(row.bounding_box()["height"] for row in rows) < 120
    steps = tab.locator(".comparison tbody td:first-child", has_text=re.compile("^00-start$"))
    assert max(step.bounding_box()["height"] for step in steps.all()) < 35


def test_a_row_of_differences_is_no_taller_either_and_the_keyboard_scrolls_it(differing, width):
    tab = differing(width)
    rows = tab.locator(".differs tbody tr").all()
    assert max(row.bounding_box()["height"] for row in rows) < 120
    table = tab.locator(".differs .scroll")
    table.focus()
    assert tab.evaluate("document.activeElement.className") == "scroll"
    assert tab.evaluate("document.documentElement.scrollWidth") == width


def test_tables_and_folded_parts_keep_a_distance(look, width):
    gaps = """(selector) => Array.from(document.querySelectorAll(selector), (part) =>
      part.getBoundingClientRect().top - part.previousElementSibling.getBoundingClientRect().bottom)
    """
    tab = look(width, "vm", str(ROOT / "examples/vm/web.xml"), "-o")
    assert min(tab.evaluate(gaps, ".scroll + .scroll")) >= 12
    assert min(compared(look, width).evaluate(gaps, "details + details")) >= 5


def test_no_fact_of_a_page_is_empty_or_a_bare_number_of_bytes(look, width):
    pages = (
        reported(look, width, "tests/recordings/files/linux-6.12-dimm.tar.xz"),
        compared(look, width),
    )
    for tab in pages:
        facts = tab.locator("dd").all_inner_texts()
        assert facts
        assert all(facts)
        assert not [fact for fact in facts if re.search(r"\[\]|\bNone\b|\w 0,|^\d{9,}$", fact)]


def test_the_picture_of_a_notebook_scrolls_within_its_cell(browser, width):
    trace = predict(load_scenario(ROOT / "scenarios/dimm-1GiB.toml"))
    context = browser.new_context(viewport={"width": width, "height": 900})
    tab = context.new_page()
    tab.set_content(trace._repr_html_())
    assert tab.locator("svg").bounding_box()["width"] == 1000
    assert tab.evaluate("document.documentElement.scrollWidth") == width
