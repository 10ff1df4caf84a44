"""The documentation as a site, in a real Chromium: wide pages, tables, menu, search, contrast."""

import functools
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from contrast import low_contrast

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="missing: mkdocs"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of the site, served on loopback."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def open_site(browser, site):
    """Return a function that opens a page of the site; nothing else is fetched."""
    requests, contexts = [], []

    def open_it(name, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(f"{site}/{name}.html")
        return tab

    yield open_it
    for context in contexts:
        context.close()
    assert {url for url in requests if not url.startswith(("data:", "blob:", site))} == set()


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_window(open_site, width):
    for name in ("index", "conformance", "releases", "matrix"):
        tab = open_site(name, width)
        assert tab.evaluate("document.documentElement.scrollWidth") == width, name


def test_output_of_100_columns_fits_the_page(open_site):
    tab = open_site("index")
    wide = tab.evaluate(
        """() => {
          const code = document.querySelector("pre > code"), style = getComputedStyle(code);
          const pen = document.createElement("canvas").getContext("2d");
          pen.font = `${style.fontSize} ${style.fontFamily}`;
          const inside = code.clientWidth - parseFloat(style.paddingLeft) * 2;
          return inside / pen.measureText("m").width;
        }"""
    )
    assert wide >= 100


def test_a_wide_table_scrolls_and_its_first_column_stays(open_site):
    tab = open_site("conformance", 390)
    table = tab.locator(".md-typeset table").first
    table.scroll_into_view_if_needed()
    first, second = table.locator("tbody tr").first.locator("td").all()[:2]
    before = first.bounding_box()["x"], second.bounding_box()["x"]
    wrap = table.locator("xpath=ancestor::div[contains(@class, 'scrollwrap')]")
    wrap.evaluate("e => { e.scrollLeft = 200; }")
    assert wrap.evaluate("e => e.scrollLeft") == 200
    assert first.bounding_box()["x"] >= 0
    assert before[0] - first.bounding_box()["x"] < 50
    assert before[1] - second.bounding_box()["x"] > 150
    shown = first.evaluate("e => getComputedStyle(e).backgroundColor")
    assert shown not in ("rgba(0, 0, 0, 0)", "transparent")


def test_a_row_on_a_phone_is_no_taller_than_what_is_seen_of_it(open_site):
    """A verdict keeps its mark on its line; prose in a last column is wide."""
    rows = open_site("matrix", 390).locator("table").first.locator("tbody tr").all()
    assert max(row.bounding_box()["height"] for row in rows) < 60
    rows = open_site("conformance", 390).locator("table").first.locator("tbody tr").all()
    assert max(row.bounding_box()["height"] for row in rows) < 200


def test_a_first_column_that_stays_leaves_half_of_a_phone_to_the_others(open_site):
    for name in ("sysroots", "api", "live"):
        cells = open_site(name, 390).locator(".md-typeset td:first-child").all()
        assert max(cell.bounding_box()["width"] for cell in cells) <= 200, name


def test_code_in_a_table_is_broken_at_no_letter(open_site):
    code = open_site("json", 390).locator("td:first-child code", has_text="altmap-comparison").first
    assert code.bounding_box()["height"] < 45  # altmap- and comparison


def test_a_picture_on_a_phone_has_labels_that_are_read(open_site):
    tab = open_site("index", 390)
    assert tab.locator("article img").first.bounding_box()["width"] >= 600
    assert tab.evaluate("document.documentElement.scrollWidth") == 390


def test_a_number_of_a_console_line_has_the_colour_of_its_word(open_site):
    number = open_site("index", scheme="dark").locator("pre .m").first
    assert number.evaluate(
        "e => getComputedStyle(e).color === getComputedStyle(e.closest('code')).color"
    )


def test_the_menu_has_groups_and_every_page_is_in_one(open_site):
    tab = open_site("index")
    groups = tab.locator(".md-nav__item--section > .md-nav__link").all_inner_texts()
    assert groups[0] == "Start"
    assert len(groups) >= 5
    links = tab.locator(".md-nav--primary .md-nav__item--section .md-nav__link[href]")
    linked = {link.get_attribute("href") for link in links.all()}
    pages = {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    assert pages <= linked


def test_links_show_titles_and_not_names_of_files(open_site):
    texts = open_site("index").locator("article a").all_inner_texts()
    assert not [text for text in texts if re.search(r"\.md$", text)]
    assert "Memmap policies" in open_site("index").locator("nav").first.page.content()
    lab = open_site("matrix").locator("article a[href^='lab.html']").first
    assert lab.inner_text() == "Real kernels: the lab"


def test_search_finds_a_word(open_site):
    tab = open_site("index")
    tab.locator(".md-search__input").press_sequentially("auto-movable")  # it listens to keys
    tab.locator(".md-search-result__item").first.wait_for()
    assert tab.locator(".md-search-result__item").count() > 3


def test_what_crashes_is_marked_in_the_matrix_and_what_differs_is_first(open_site):
    row = open_site("matrix").locator("tr", has_text="hyperv").first.locator("td")
    assert row.nth(3).inner_text() == "✖\xa0add\xa0†"
    assert row.nth(3).locator("strong").count() == 1
    results = open_site("conformance").locator("table tbody tr td:nth-child(5)").all_inner_texts()
    differ = [text == "different" for text in results]
    assert differ == sorted(differ, reverse=True)


@pytest.mark.parametrize(("scheme", "back"), [("light", "fff"), ("dark", "16181a")])
def test_the_picture_of_the_first_page_has_the_colours_of_the_page(open_site, scheme, back):
    tab = open_site("index", scheme=scheme)
    picture = tab.locator("article img").first
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    shot = tab.screenshot(clip={"x": box["x"] + 3, "y": box["y"] + 3, "width": 1, "height": 1})
    shown = tab.evaluate(
        """async (bytes) => {
          const image = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
          const canvas = new OffscreenCanvas(1, 1), pen = canvas.getContext("2d");
          pen.drawImage(image, 0, 0);
          return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
        }""",
        list(shot),
    )
    expected = back if len(back) == 6 else "".join(2 * digit for digit in back)
    assert shown == list(bytes.fromhex(expected))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_text_of_the_site_has_the_contrast_of_wcag_aa(open_site, scheme):
    for name in ("index", "matrix", "report"):
        assert low_contrast(open_site(name, scheme=scheme)) == [], name
