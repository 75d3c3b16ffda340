"""The report in headless Chromium: nothing on the console, tables sort by a click, no sideways scrolling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from report_browser import Browser, find
from report_tables import degenerate, inputs, tables

from runner.boards.board import boards
from runner.boards.rules import Rules
from runner.report import write

pytestmark = pytest.mark.skipif(find() is None, reason="no Chromium here (apt-get install chromium)")
COLUMN = "[...document.querySelectorAll('table.board tbody tr')].map(row => row.cells[{}].dataset.v)"
HEADING = "table.board th[data-key='{}']"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells, evals = tables(("adamw", "lion", "sgd", "muon"), studies=5, trials=3)
    return write(inputs(tmp_path_factory.mktemp("page"), cells, evals), boards(cells, Rules()))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture
def shown(browser: Browser, page: Path) -> Iterator[Browser]:
    """The page, of which nothing may be said on the console."""
    browser.problems.clear()
    browser.open(page)
    yield browser
    assert browser.problems == []


def test_a_click_sorts_and_another_turns_it_round(shown: Browser) -> None:
    before = shown.run(COLUMN.format(6))
    for direction in ("ascending", "descending", "ascending"):
        shown.click(f"{HEADING.format('hit_rate')} button")
        values = [float(value) for value in shown.run(COLUMN.format(6))]
        assert values == sorted(values, reverse=direction == "descending")
        assert shown.run(f'document.querySelector("{HEADING.format("hit_rate")}").ariaSort') == direction
    assert sorted(before) == sorted(shown.run(COLUMN.format(6)))
    shown.click(f"{HEADING.format('rank')} button")
    assert shown.run(COLUMN.format(0)) == ["1", "2", "3", "4"]
    assert shown.run("document.querySelectorAll('table.board [aria-sort=ascending]').length") == 1


def test_the_keyboard_sorts(shown: Browser) -> None:
    shown.run(f'document.querySelector("{HEADING.format("label")} button").focus()')
    shown.press("Enter", 13, "\r")
    assert shown.run(COLUMN.format(1)) == ["adamw", "lion", "muon", "sgd"]
    shown.press(" ", 32, " ")
    assert shown.run(COLUMN.format(1)) == ["sgd", "muon", "lion", "adamw"]


def test_numbers_sort_as_numbers_and_what_is_absent_last(shown: Browser) -> None:
    rows = "[...document.querySelectorAll('table.medians tbody tr')]"
    shown.run(f"{rows}.forEach((row, k) => row.cells[2].dataset.v = ['inf', '1000', '9', ''][k])")
    for expected in (["9", "1000", "inf", ""], ["inf", "1000", "9", ""]):
        shown.click("table.medians th[data-key='digits/median'] button")
        assert shown.run(f"{rows}.map(row => row.cells[2].dataset.v)") == expected


def test_tabs_show_one_unit_at_a_time(shown: Browser) -> None:
    visible = (
        "[...document.querySelectorAll('#curves [role=tabpanel]')].map(panel => panel.offsetParent !== null)"
    )
    assert shown.run(visible) == [True, False, False]
    shown.click("#curves [role=tab]:nth-child(2)")
    assert shown.run(visible) == [False, True, False]
    shown.press("ArrowRight", 39)
    assert shown.run(visible) == [False, False, True]
    assert shown.run("document.querySelector('#curves [aria-selected=true]').textContent") == "steps"


def test_dark_and_light_by_the_system_and_by_the_button(browser: Browser, page: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    line = "getComputedStyle(document.querySelector('.l.c0')).stroke"
    browser.problems.clear()
    browser.open(page, dark=False)
    light = browser.run(ground), browser.run(line)
    browser.click("#theme")
    dark = browser.run(ground), browser.run(line)
    assert light[0] == "rgb(255, 255, 255)" and all(a != b for a, b in zip(light, dark, strict=True))
    browser.run("localStorage.clear()")
    browser.open(page, dark=True)
    assert (browser.run(ground), browser.run(line)) == dark
    browser.click("#theme")
    assert (browser.run(ground), browser.run(line)) == light
    browser.run("localStorage.clear()")
    browser.open(page, dark=True, media="print")
    assert browser.run(ground) == "rgb(255, 255, 255)"  # paper is white
    assert browser.problems == []


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_scrolls_sideways(browser: Browser, page: Path, width: int) -> None:
    browser.problems.clear()
    browser.open(page, width)
    browser.run("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert browser.problems == []


def test_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    cells, evals = degenerate()["hostile names"]
    found = write(inputs(tmp_path, cells, evals), boards(cells, Rules()))
    for width in (360, 1280):
        browser.problems.clear()
        browser.open(found, width)
        browser.run("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        assert browser.run("document.scripts.length") == 1
        assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert browser.problems == []


def test_a_script_that_fails_is_noticed(browser: Browser, page: Path, tmp_path: Path) -> None:
    """The checks above can fail."""
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace('"use strict";', '"use strict"; nobody();'))
    browser.problems.clear()
    browser.open(broken)
    assert any("nobody is not defined" in problem for problem in browser.problems)
    fetching = tmp_path / "fetching.html"
    fetching.write_text(page.read_text().replace("</body>", "<img src='https://example.org/x.png'></body>"))
    browser.problems.clear()
    browser.open(fetching)
    assert browser.problems  # the page's own policy refuses it


def test_it_prints_with_every_fold_open(shown: Browser, tmp_path: Path) -> None:
    closed = "document.querySelectorAll('details:not([open])').length"
    shown.run(f"addEventListener('beforeprint', () => window.opened = {closed})")
    shown.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert shown.run("window.opened") == 0
    assert shown.run(closed) > 0  # and closed again
