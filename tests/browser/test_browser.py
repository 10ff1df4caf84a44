"""The page in a real Chromium: nothing is fetched, nothing goes wrong, hand and keyboard work."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from contrast import low_contrast

from altmap.cli.main import main
from altmap.compare import compare
from altmap.model.machine import predict
from altmap.report.page import page
from altmap.scenario import load_scenario

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


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
    opened, wrong, requests, pages = [], [], [], set()

    def open_it(width=1200, height=900, path=file, **kwargs):
        context = browser.new_context(viewport={"width": width, "height": height}, **kwargs)
        tab = context.new_page()
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri())
        opened.append(context)
        pages.add(path.as_uri())
        return tab

    yield open_it
    for context in opened:
        context.close()
    assert wrong == []
    assert set(requests) == pages


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_of_wcag_aa(open_page, file, large, huge, snapshot, scheme):
    for each in (file, large, huge, snapshot):
        tab = open_page(color_scheme=scheme, path=each)
        for details in tab.locator("summary").all():
            details.click()
        assert low_contrast(tab) == []


def test_the_measure_of_contrast_finds_grey_on_white_and_what_lies_on_a_colour(open_page):
    tab = open_page()
    tab.evaluate(
        """() => {
          const style = new CSSStyleSheet();
          style.replaceSync("h1 { color: #999; } .verdict b { color: #fff; background: #ccc; }");
          document.adoptedStyleSheets = [style];
        }"""
    )
    found = {text for _, text in low_contrast(tab)}
    assert "Hyper-V adds 64 MiB" in found
    assert any("the kernel crashes" in text for text in found)


# --- a large machine, a snapshot -----------------------------------------------------------

LARGE = """
[machine]
memmap_on_memory = "on"
auto_online_blocks = "online_movable"
nodes = [{ memory = "32GiB" }, { memory = "32GiB" }]
[[steps]]
do = "set"
auto_online_blocks = "online_movable"
[[steps]]
do = "plug"
id = "a-device-with-a-long-name"
size = "192GiB"
node = 1
"""
#: Five levels of page tables, for more than 64 TiB of addresses.
HUGE = '[machine]\narch = "x86_64-la57"'


def page_of(folder, title, scenario):
    """Return the file of a scenario's page."""
    (folder / "scenario.toml").write_text(scenario)
    trace = predict(load_scenario(folder / "scenario.toml"))
    (folder / "page.html").write_text(page([trace], title, "1.0"), encoding="utf-8")
    return folder / "page.html"


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The page of 256 GiB on two nodes."""
    return page_of(tmp_path_factory.mktemp("large"), "256 GiB", LARGE)


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """The page of 64 TiB."""
    scenario = LARGE.replace('size = "192GiB"', 'size = "64TiB"').replace("[machine]", HUGE)
    return page_of(tmp_path_factory.mktemp("huge"), "64 TiB", scenario)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """The page of a machine at one moment."""
    trace = predict(load_scenario(ROOT / "scenarios/dimm-1GiB.toml"))
    trace = replace(trace, steps=trace.steps[:1], scenario="now", policy="", target="sysroot")
    made = tmp_path_factory.mktemp("snapshot") / "page.html"
    made.write_text(page([trace], "now", "1.0"), encoding="utf-8")
    return made


#: Of each map: its frame, its first row of tiles and its labels, all of one layout of the page.
BOXES = """() => Array.from(document.querySelectorAll(".map svg"), (map) => {
  const box = (part) => {
    const { left, right } = part.getBoundingClientRect();
    return { left, right, text: part.textContent };
  };
  const tiles = map.querySelector('rect[fill="none"][stroke="var(--line)"]');
  const labels = Array.from(map.querySelectorAll("text:not(.letter)"), box);
  return { frame: box(map), tiles: box(tiles), labels };
})"""


@pytest.mark.parametrize("width", [390, 1280])
def test_no_label_of_a_map_is_cut_or_lies_on_its_tiles(open_page, file, large, huge, width):
    for each in (file, large, huge):
        maps = open_page(width, path=each).evaluate(BOXES)
        assert maps
        assert all(found["labels"] for found in maps)
        for found in maps:
            frame, tiles = found["frame"], found["tiles"]
            for label in found["labels"]:
                assert label["left"] >= frame["left"] - 0.5, label["text"]
                assert label["right"] <= frame["right"] + 0.5, label["text"]
                if label["left"] < tiles["left"] - 20:
                    assert label["right"] <= tiles["left"] + 20, label["text"]


def test_256_gib_are_few_rows_with_stripes_of_zones_and_nodes(open_page, large):
    tab = open_page(path=large)
    assert tab.locator("output").inner_text() == "Step 2 of 2: plug-a-device-with-a-long-name"
    rows = tab.locator('.map svg rect[fill="none"][stroke="var(--line)"]').count()
    assert rows <= 10
    assert tab.locator('.map rect[fill="url(#slant)"]').count() == 1  # the device, movable
    legend = tab.locator(".legend li:visible").all_inner_texts()
    for name in ("kernel zones", "ZONE_MOVABLE", "node 0", "node 1", "memmap"):
        assert any(name in text for text in legend), name
    tab.locator("input[type=range]").fill("0")
    legend = tab.locator(".legend li:visible").all_inner_texts()
    assert not any("ZONE_MOVABLE" in text or "memmap" in text for text in legend)


def test_bars_of_zones_have_their_sizes_to_scale(open_page, large):
    tab = open_page(path=large)
    assert (
        "kernel : movable 64 GiB : 192 GiB (1 : 3.0)" in tab.locator(".zones:visible").inner_text()
    )
    kernel, movable = (
        bar.bounding_box()["width"] for bar in tab.locator(".zones:visible rect").all()
    )
    assert movable == pytest.approx(3 * kernel, rel=0.01)


def test_bars_of_accounting_of_two_policies_share_a_scale(open_page):
    tab = open_page()
    crashed, running = tab.locator(".chart:visible").all()
    assert crashed.locator("li").count() == 2
    ours, theirs = (
        chart.locator("li.level rect").first.bounding_box()["width"] for chart in (crashed, running)
    )
    assert ours == pytest.approx(theirs, rel=0.01)  # both requested 1,088 MiB
    assert "not requested" in running.inner_text()


def test_a_snapshot_has_no_slider_and_one_title(open_page, snapshot):
    tab = open_page(path=snapshot)
    assert tab.locator(".control:visible").count() == 0
    assert tab.locator("h1, h2, h3").all_inner_texts() == ["now", "Memory accounting", "Provenance"]
    assert tab.locator(".chart:visible").count() == 1
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.getAttribute('role')") == "application"


def test_the_keyboard_alone_reaches_everything_and_shows_where_it_is(open_page, large):
    """Slider, maps, steps of the event log and folded parts, in the order of the page."""
    tab = open_page(path=large)
    expected = tab.locator("button:visible, input:visible, .map svg, summary:visible").count()
    places = []
    for _ in range(expected):
        tab.keyboard.press("Tab")
        places.append(tab.evaluate("document.activeElement.getBoundingClientRect().top + scrollY"))
        outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
    first = places[3:]  # after the three of the control, which stays at the top
    assert first == sorted(first)
    tab.locator("input[type=range]").focus()
    tab.keyboard.press("Home")
    assert tab.locator("output").inner_text().startswith("Step 0 of 2")
    tab.keyboard.press("End")
    assert tab.locator("output").inner_text().startswith("Step 2 of 2")


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """The page of a virtual machine's definition."""
    made = tmp_path_factory.mktemp("vm") / "page.html"
    assert main(["vm", str(ROOT / "examples/vm/web.xml"), "-o", str(made)]) == 0
    return made


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_of_a_definition_breaks_no_word_and_scrolls_its_tables(
    open_page, machine, width, scheme
):
    tab = open_page(width, path=machine, color_scheme=scheme)
    for details in tab.locator("summary").all():
        details.click()
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert low_contrast(tab) == []
    heights = "Array.from(document.querySelectorAll('.wide td, h3'), (e) => e.offsetHeight)"
    assert max(tab.evaluate(heights)) < 45  # a line each
    table = tab.locator(".wide").first
    first = table.locator("td").first
    before = first.bounding_box()
    table.evaluate("(part) => part.scrollBy(500, 0)")
    assert (table.evaluate("(part) => part.scrollLeft") > 0) == (width == 390)
    assert first.bounding_box() == before
    table.focus()
    assert tab.evaluate("document.activeElement.className") == "scroll wide"


@pytest.mark.parametrize("width", [390, 1280])
def test_a_number_in_a_table_of_differences_is_on_one_line(differing, width):
    tab = differing(width)
    shown = tab.locator(".differs code").filter(has_text=re.compile("^1954444$")).first
    assert shown.bounding_box()["height"] < 30


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
