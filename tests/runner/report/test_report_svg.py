"""Markup and drawing: what is escaped, where ticks lie, what a path is."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from report_tables import EVIL

from runner.report.html import Html, clean, el, json_in_script, number, text
from runner.report.palette import Mark
from runner.report.scales import Scale, covering, tick_text
from runner.report.svg import Chart, apart, cut, path_of, standalone

# -- markup ------------------------------------------------------------------------------------------


def test_text_is_escaped_and_markup_is_not() -> None:
    assert el("p", "<b>&\"'", el("b", "x")) == "<p>&lt;b&gt;&amp;&quot;&#x27;<b>x</b></p>"


def test_attributes_are_escaped_even_where_they_are_markup() -> None:
    assert el("p", title='"><script>') == '<p title="&quot;&gt;&lt;script&gt;"></p>'
    assert (
        el("p", class_="a", data_v="1", hidden=True, title=None, open=False)
        == '<p class="a" data-v="1" hidden></p>'
    )


def test_a_string_made_from_markup_is_no_markup() -> None:
    assert text(Html("<b>") + "<i>") == "&lt;b&gt;&lt;i&gt;"  # what + gives is a plain str


def test_what_xml_cannot_hold_is_replaced() -> None:
    assert clean("a\x00b\ud800c\x1b[31m\ufffe") == "a\ufffdb\ufffdc\ufffd[31m\ufffd"
    assert clean("kept: \t\nä中😀") == "kept: \t\nä中😀"


def test_json_cannot_end_its_script() -> None:
    assert json_in_script({"a": "</script><!--&"}) == '{"a":"\\u003c/script\\u003e\\u003c!--\\u0026"}'


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1, "1"), (1.0, "1"), (0.1, "0.1"), (np.float64(1 / 3), repr(1 / 3)), (1e300, "1e+300"),
        (np.inf, "inf"), (np.nan, ""), (None, ""), ("x", "x"), (True, "True"),
    ],
)  # fmt: skip
def test_numbers_for_machines(value: object, said: str) -> None:
    assert number(value) == said


# -- axes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0.93, 0.99, [0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99]),
    ],
)  # fmt: skip
def test_linear_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low, high).ticks() == ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e-4, 1e-1, [1e-4, 1e-3, 1e-2, 1e-1]), (100, 900, [100, 200, 500]),
        (1, 4, [1, 1.5, 2, 2.5, 3, 3.5, 4]),
        (1e-10, 1e10, [1e-8, 1e-4, 1, 1e4, 1e8]), (1.1, 1.4, [1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4]),
    ],
)  # fmt: skip
def test_log_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low, high, log=True).ticks() == pytest.approx(ticks)


@pytest.mark.parametrize("seed", range(20))
def test_ticks_lie_inside_and_are_few(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = 10 ** rng.uniform(-12, 12)
    high = low * (1 + 10 ** rng.uniform(-3, 8))
    for log in (False, True):
        ticks = Scale(low, high, log).ticks()
        assert 2 <= len(ticks) <= 12, (low, high, log, ticks)
        assert all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in ticks)
        assert ticks == sorted(set(ticks))


def test_places_on_a_logarithmic_axis() -> None:
    assert Scale(1, 100, log=True).unit([1, 10, 100]) == pytest.approx([0, 0.5, 1])
    assert np.isnan(Scale(1, 100, log=True).unit([0, -1, np.nan])).all()


@pytest.mark.parametrize(
    "values", [[], [np.nan], [np.inf, -np.inf], [0], [5], [-3], [0, 0], [1e-320, 1], [1e308, -1e308]]
)
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("zero", [False, True])
def test_an_axis_for_whatever_is_drawn(values: list[float], log: bool, zero: bool) -> None:
    scale = covering(values, log, zero, margin=0.05)
    assert scale.low < scale.high
    assert np.isfinite([scale.low, scale.high]).all()
    assert len(scale.ticks()) >= 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.98, "0.98"),
        (25_000, "25k"),
        (1.5e6, "1.5M"),
        (1e-5, "1e-05"),
        (-2000, "-2k"),
        (1e15, "1e+15"),
    ],
)
def test_tick_texts(value: float, said: str) -> None:
    assert tick_text(value) == said


# -- drawing -----------------------------------------------------------------------------------------


def test_a_path_is_broken_where_a_point_has_no_place() -> None:
    nan = np.nan
    assert path_of(np.array([0, 1, 2, 3, 4]), np.array([0, 1, nan, 3, 4])) == "M0,0L1,1M3,3L4,4"
    assert path_of(np.array([nan]), np.array([1.0])) == ""


def test_steps_hold_their_value_until_the_next() -> None:
    chart = Chart(Scale(0, 2), Scale(0, 1), width=100, height=100, left=0, right=0, top=0, bottom=0)
    chart.steps([0, 1, 2], [0, 0.5, 1], Mark("a", 0))
    assert 'd="M0,100L50,100L50,50L100,50L100,0"' in chart.inside[0]


def test_bands_go_there_and_back() -> None:
    chart = Chart(Scale(0, 1), Scale(0, 1), width=10, height=10, left=0, right=0, top=0, bottom=0)
    chart.band([0, 1], [0, 0], [1, 0.5], Mark("a", 0))
    assert 'd="M0,0L10,5L10,10L0,10Z"' in chart.inside[0]


@pytest.mark.parametrize("seed", range(10))
def test_numbers_are_kept_apart_in_their_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = list(rng.uniform(0, 100, rng.integers(1, 12)))
    moved = apart(places, 8, 0, 100)
    assert np.argsort(moved).tolist() == np.argsort(places).tolist()
    assert np.diff(np.sort(moved)).min(initial=9) >= 8 - 1e-9
    assert min(moved) >= -1e-9 and max(moved) <= 100 + 1e-9


def test_places_that_are_apart_stay() -> None:
    assert apart([10, 50, 90], 8, 0, 100) == [10, 50, 90]


def test_a_file_is_sound_xml_whatever_the_names() -> None:
    chart = Chart(Scale(0, 1), Scale(0, 1))
    chart.axes(EVIL, EVIL)
    chart.line([0, 1], [0, 1], Mark(EVIL, 0), EVIL)
    chart.words(1, 1, EVIL)
    root = ET.fromstring(standalone(chart.svg(EVIL, EVIL)))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "path", "text"}
    assert "var(" not in standalone(chart.svg("a", "b")) and "INK(" not in standalone(chart.svg("a", "b"))


def test_words_are_cut_to_one_line() -> None:
    assert cut("a\n b" + "c" * 50, 10) == "a bcccccc…"


def test_eleventh_algorithm_is_grey_and_has_no_number() -> None:
    assert (Mark("a", 10).css, Mark("a", 10).number) == ("cx", "")
    looks = {(Mark("a", place).css) for place in range(10)}
    assert len(looks) == 10  # colour and dash together
