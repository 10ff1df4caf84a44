"""The page in a real Chromium: nothing is fetched, nothing goes wrong, hand and keyboard work."""

from pathlib import Path

import pytest

from altmap.compare import compare
from altmap.model.machine import predict
from altmap.report.page import page
from altmap.scenario import load_scenario

ROOT = Path(__file__).parents[2]
CHROMIUM = "/usr/bin/chromium"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The page of 2018's case, as a file."""
    path = ROOT / "scenarios/hyperv-64MiB-second-half.toml"
    traces = [predict(load_scenario(path, [f"policy={p}"])) for p in ("rfc-2018", "opt-in")]
    made = tmp_path_factory.mktemp("page") / "page.html"
    made.write_text(page(traces, "Hyper-V adds 64 MiB", "1.0"), encoding="utf-8")
    return made


@pytest.fixture
def open_page(browser, file):
    """Return a function that opens the page; whatever goes wrong in it fails the test."""
    opened, wrong, requests = [], [], []

    def open_it(width=1200, height=900, **kwargs):
        context = browser.new_context(viewport={"width": width, "height": height}, **kwargs)
        tab = context.new_page()
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(file.as_uri())
        opened.append(context)
        return tab

    yield open_it
    for context in opened:
        context.close()
    assert wrong == []
    assert set(requests) == {file.as_uri()}


def tip(tab):
    return tab.locator(".tip:visible").inner_text()


def point_at(tab, number, column, row=-1):
    """Move the mouse onto a tile of a map, by the map's own geometry; return where it is."""
    box = tab.locator(".map svg").nth(number)
    box.scroll_into_view_if_needed()
    frame = box.locator('rect[fill="none"][stroke="var(--line)"]').nth(row).bounding_box()
    x = frame["x"] + (column + 0.5) * frame["width"] / 64
    y = frame["y"] + frame["height"] / 2
    tab.mouse.move(x, y)
    return x, y


def test_it_opens_at_the_step_that_matters(open_page):
    tab = open_page()
    assert tab.locator("output").inner_text() == "Step 1 of 2: plug-hv1"
    shown = tab.locator(".verdict:visible").all_inner_texts()
    assert "the kernel crashes" in shown[0]
    assert "the kernel keeps running" in shown[1]
    assert tab.locator(".chart:visible").count() == 2


def test_the_slider_and_the_buttons_move_through_the_steps(open_page):
    tab = open_page()
    slider = tab.locator("input[type=range]")
    before = tab.locator(".map svg").nth(1).inner_html()
    slider.fill("0")
    assert tab.locator("output").inner_text() == "Step 0 of 2: start"
    assert tab.locator(".map svg").nth(1).inner_html() != before
    assert tab.locator("li.now button").all_inner_texts() == ["0 start", "0 start"]
    tab.locator("button.on").click()
    assert tab.locator("output").inner_text() == "Step 1 of 2: plug-hv1"
    assert tab.locator(".map svg").nth(1).inner_html() == before
    tab.locator("button[data-goto='2']").first.click()
    assert slider.input_value() == "2"


def test_the_mouse_on_a_tile_names_block_pages_state_zone_and_owner(open_page):
    tab = open_page()
    point_at(tab, 0, 0)
    said = tip(tab)
    assert "memory32 (absent)" in said
    assert "pfn [0x100000, 0x100200), from 0x100000000" in said
    assert "memmap: 504 pages" in said
    assert "fault: 8 pages" in said
    assert "512 of these pages are not backed" in said
    assert "owner hv1" in said
    point_at(tab, 1, 63)
    said = tip(tab)
    assert "memory32 (online)" in said
    assert "free: 512 pages" in said
    assert "zone Normal, node 0, owner hv1" in said


def test_a_click_leads_to_the_event(open_page):
    tab = open_page()
    tab.mouse.click(*point_at(tab, 0, 0))
    focused = tab.evaluate("document.activeElement.className + document.activeElement.innerText")
    assert focused.startswith("fault")
    assert "mark_vmemmap_pages writes pfn 0x100000" in focused
    tab.mouse.click(*point_at(tab, 1, 0))
    text = tab.evaluate("document.activeElement.innerText")
    assert "memory32 online in zone Normal" in text


def test_everything_is_reached_by_the_keyboard(open_page):
    tab = open_page()
    reached = []
    for _ in range(12):
        tab.keyboard.press("Tab")
        reached.append(
            tab.evaluate(
                "(e => e.className.baseVal === undefined ? e.type || e.localName : 'map')"
                "(document.activeElement)"
            )
        )
    assert reached[:5] == ["submit", "range", "submit", "map", "map"]
    assert "submit" in reached[5:]  # the steps of the event log


def test_arrows_move_over_the_map_and_enter_leads_to_the_event(open_page):
    tab = open_page()
    tab.locator("input[type=range]").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("output").inner_text() == "Step 2 of 2: plug-hv2"
    tab.keyboard.press("ArrowLeft")
    tab.locator(".map svg").first.focus()
    tab.keyboard.press("ArrowDown")
    assert "pfn [0x100000, 0x100200)" in tip(tab)
    tab.keyboard.press("ArrowRight")
    assert "pfn [0x100200, 0x100400)" in tip(tab)
    assert "unbacked: 512 pages" in tip(tab)
    tab.keyboard.press("ArrowUp")
    assert "memory7 (online)" in tip(tab)
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.className").startswith("fault")
    tab.locator(".map svg").first.focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Escape")
    assert tab.locator(".tip:visible").count() == 0


@pytest.mark.parametrize("width", [320, 390, 768])
def test_it_fits_the_width_of_a_phone(open_page, width):
    tab = open_page(width, 800, has_touch=True)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    for box in tab.locator(".map svg, .chart:visible svg, .zones:visible svg").all():
        frame = box.bounding_box()
        assert frame["x"] >= 0
        assert frame["x"] + frame["width"] <= width
    point_at(tab, 0, 63)
    frame = tab.locator(".tip:visible").bounding_box()
    assert frame["x"] >= 0
    assert frame["x"] + frame["width"] <= width


def test_words_can_be_read_in_the_dark(open_page):
    tab = open_page(color_scheme="dark")
    back, text = tab.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert contrast(back, text) >= 7
    label = tab.locator(".map svg text").first.evaluate("e => getComputedStyle(e).fill")
    assert contrast(back, label) >= 7


def contrast(one, other):
    """Return the ratio of WCAG 2 of two colours ``rgb(r, g, b)``."""

    def luminance(colour):
        parts = [int(p) / 255 for p in colour.strip("rgba()").split(",")[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_page_of_a_comparison_opens_without_a_complaint(browser, tmp_path):
    path = ROOT / "scenarios/dimm-1GiB.toml"
    one, two = (predict(load_scenario(path, [f"policy={p}"])) for p in ("opt-in", "existing"))
    made = tmp_path / "c.html"
    comparison = compare(one, two)
    made.write_text(page([one, two], "dimm", "1.0", [("dimm", comparison)]), encoding="utf-8")
    wrong = []
    context = browser.new_context(viewport={"width": 390, "height": 800})
    tab = context.new_page()
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto(made.as_uri())
    assert tab.locator(".differs").is_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    context.close()
    assert wrong == []
