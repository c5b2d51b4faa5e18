"""The HTML page in a headless Chromium: requests, keyboard, pointer, widths, overlapping words."""

import pytest
from headless import PROGRAM, Browser
from made_up_runs import write_seeds

from cider_platform.report.data import build
from cider_platform.report.gather import gather
from cider_platform.report.page import page
from cider_platform.report.published import published_beside

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")

OVERLAPPING = """
[...document.querySelectorAll('svg.curves')].flatMap((figure) => {
  const all = [...figure.querySelectorAll('text')].map((t) => [t.textContent,
    t.getBoundingClientRect()]);
  const page = figure.getBoundingClientRect();
  const outside = all.filter(([, b]) => b.left < page.left - 1 || b.right > page.right + 1
    || b.top < page.top - 1 || b.bottom > page.bottom + 1).map(([t]) => 'outside: ' + t);
  return outside.concat(all.flatMap(([text, a], i) => all.slice(i + 1).filter(([, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1).map(([o]) => text + ' / ' + o)));
})
"""
COLUMN = "[...document.querySelector('tbody').rows].map((row) => row.cells[1].textContent)"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    rates = [step / 10 for step in range(11)]
    for layers, bases in ((2, (0.8, 0.82, 0.78)), (3, (0.6, 0.63, 0.62)), (4, (0.7, 0.72, 0.69))):
        write_seeds(root, bases, rates=rates, kept=("L", "AV"), model__layers=layers)
    found = gather(root, ())
    records = [record for group in found.groups for record in group.records]
    made = build(
        found.subject, found.groups, against="model.layers=2", published=published_beside(records)
    )
    assert [each.table for each in made.published] == ["IV", "IX", "X", "XIII"]
    target = root / "report.html"
    target.write_text(page(made), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def browser():
    with Browser() as found:
        yield found


def named(browser, method):
    return [event["params"] for event in browser.events if event.get("method") == method]


def test_page_requests_itself_alone_and_logs_no_error(browser, path):
    browser.open(path)
    asked = [each["request"]["url"] for each in named(browser, "Network.requestWillBeSent")]
    assert asked == [path.as_uri()]
    assert named(browser, "Runtime.exceptionThrown") == named(browser, "Log.entryAdded") == []


def test_columns_sort_by_keyboard(browser, path):
    browser.open(path)
    heading = "document.querySelectorAll('thead th')[1]"
    browser.ask(f"{heading}.querySelector('button').focus()")
    browser.press()
    assert browser.ask(f"{heading}.getAttribute('aria-sort')") == "ascending"
    rising = browser.ask("[...document.querySelector('tbody').rows].map("
                         "(row) => Number(row.cells[1].dataset.sort))")  # fmt: skip
    assert rising == sorted(rising)
    texts = browser.ask(COLUMN)
    browser.press()
    assert browser.ask(f"{heading}.getAttribute('aria-sort')") == "descending"
    assert browser.ask(COLUMN) == texts[::-1]


def test_number_opens_by_keyboard_to_its_runs(browser, path):
    browser.open(path)
    browser.ask("document.querySelector('td summary').focus()")
    browser.press()
    assert browser.ask("document.querySelector('td details').open") is True
    assert browser.ask("document.querySelectorAll('td details')[0].querySelectorAll('a').length")


def test_point_says_its_values_and_its_row_lights_up(browser, path):
    browser.open(path)
    browser.point_at("circle.dot")
    said = browser.ask("document.querySelector('circle.dot').dataset.say")
    assert browser.ask("document.querySelector('.readout').textContent") == said
    assert "model.layers=2: acc2 80.00 at rmfm 0" in said
    lit = browser.ask("[...document.querySelectorAll('tr.on')].map((row) => row.dataset.c)")
    assert lit == [browser.ask("document.querySelector('circle.dot').parentElement.dataset.c")]


@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_its_width_and_no_words_overlap(browser, path, width):
    browser.open(path, width=width)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask(OVERLAPPING) == []
    aligned = browser.ask("[...new Set([...document.querySelectorAll('td.num')].map("
                          "(cell) => getComputedStyle(cell).textAlign))]")  # fmt: skip
    assert aligned == ["right"]


def test_dark_follows_the_system_and_the_button(browser, path):
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.open(path)
    light = browser.ask(paper)
    browser.open(path, dark=True)
    dark = browser.ask(paper)
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(22, 24, 27)")
    browser.ask("document.querySelector('.theme').focus()")
    browser.press()
    assert browser.ask(paper) == light
    browser.press()
    assert browser.ask(paper) == dark


def test_screenshot_is_a_picture(browser, path, tmp_path):
    browser.open(path, width=390)
    browser.screenshot(tmp_path / "phone.png")
    assert (tmp_path / "phone.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
