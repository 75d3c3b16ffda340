"""Charts as SVG: a few primitives on two axes, coloured by the page's CSS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from runner.report import palette
from runner.report.html import Html, clean, el, join
from runner.report.palette import Mark
from runner.report.scales import Scale, tick_text

Values = Sequence[float] | np.ndarray
# Of what is drawn, on the page (where var() gives the colours) and in a file of its own (where INKS do).
RULES = (
    ".chart{font:11px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
    ".chart text{fill:INK(soft)}.chart .strong{fill:INK(ink)}"
    ".grid{stroke:INK(rule);stroke-width:1}.axis{stroke:INK(soft);stroke-width:1}"
    ".l{fill:none;stroke:currentColor;stroke-width:1.8;stroke-linejoin:round}"
    ".cx.l{stroke-width:1}.b{fill:currentColor;fill-opacity:.11}.f{fill:currentColor}"
    ".chart .n{fill:currentColor;font-weight:700;stroke:INK(paper);stroke-width:3px;paint-order:stroke;"
    "stroke-dasharray:none}"
    ".goal{stroke:INK(ink);stroke-width:1.2;stroke-dasharray:4 3}.whisker{stroke:INK(ink);stroke-width:1.4}"
    ".chart .miss{fill:INK(miss);font-weight:600}.x{stroke:INK(miss);stroke-width:1.6;fill:none}"
    ".q{fill:INK(ramp);stroke:INK(paper);stroke-width:.6}.bar{fill:currentColor;fill-opacity:.75}"
    ".half{text-anchor:middle}.end{text-anchor:end}"
)


class Chart:
    """A drawing on two axes.

    Args:
        x: horizontal axis.
        y: vertical axis.
        width, height: in units of the drawing, which the page scales.
        left, right, top, bottom: margins.
    """

    def __init__(
        self, x: Scale, y: Scale, width: float = 380, height: float = 240,
        left: float = 56, right: float = 24, top: float = 14, bottom: float = 36,
    ) -> None:  # fmt: skip
        self.x, self.y = x, y
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = left, width - right, top, height - bottom
        self.under: list[Html] = []
        self.inside: list[Html] = []
        self.over: list[Html] = []

    def px(self, values: Values | float) -> np.ndarray:
        """Horizontal places."""
        return self.left + self.x.unit(np.asarray(values)) * (self.right - self.left)

    def py(self, values: Values | float) -> np.ndarray:
        """Vertical places."""
        return self.bottom - self.y.unit(np.asarray(values)) * (self.bottom - self.top)

    # -- what is drawn ---------------------------------------------------------------------------------

    def line(self, xs: Values, ys: Values, mark: Mark, title: str = "", shift: float = 0.0) -> None:
        """A line through points; it is broken where one has no place."""
        path = path_of(self.px(xs), self.py(ys) + shift)
        if path:
            self.inside.append(el("path", *_title(title), class_=f"l {mark.css}", d=path))

    def steps(self, xs: Values, ys: Values, mark: Mark, title: str = "", shift: float = 0.0) -> None:
        """A line that holds each value until the next one."""
        xs, ys = np.repeat(xs, 2)[1:], np.repeat(ys, 2)[:-1]
        self.line(xs, ys, mark, title, shift)

    def band(self, xs: Values, low: Values, high: Values, mark: Mark) -> None:
        """The area between two lines."""
        px, bottom, top = self.px(xs), self.py(low), self.py(high)
        sound = np.isfinite(px) & np.isfinite(bottom) & np.isfinite(top)
        if sound.sum() > 1:
            edge = path_of(
                np.concatenate([px[sound], px[sound][::-1]]),
                np.concatenate([top[sound], bottom[sound][::-1]]),
            )
            self.inside.append(el("path", class_=f"b {mark.css.split()[0]}", d=f"{edge}Z"))

    def dot(self, x: float, y: float, mark: Mark, title: str = "", hollow: bool = False) -> None:
        """A point; hollow for one that is no hit."""
        px, py = float(self.px(x)), float(self.py(y))
        if np.isfinite(px) and np.isfinite(py):
            colour = mark.css.split()[0]
            kind = "l" if hollow else "f"
            self.over.append(
                el("circle", *_title(title), class_=f"{kind} {colour}", cx=short(px), cy=short(py), r=3)
            )

    def number(self, px: float, py: float, mark: Mark) -> None:
        """The rank of a line, at a place of the drawing."""
        if mark.number:
            colour = mark.css.split()[0]
            self.over.append(el("text", mark.number, class_=f"n half {colour}", x=short(px), y=short(py)))

    def end_numbers(self, ends: Mapping[Mark, float]) -> None:
        """The ranks of lines to the right of where they end, kept apart.

        Args:
            ends: the last value of each line.
        """
        marks = [mark for mark in ends if mark.number]
        heights = np.clip([float(self.py(ends[mark])) + 4 for mark in marks], self.top + 6, self.bottom + 4)
        for mark, height in zip(marks, apart(list(heights), 11, self.top + 6, self.bottom + 4), strict=True):
            self.number(self.right + 12, height, mark)

    def level(self, y: float, words: str = "") -> None:
        """A dashed line across, such as the target."""
        self.inside.append(
            el("path", class_="goal", d=f"M{short(self.left)},{short(float(self.py(y)))}H{short(self.right)}")
        )
        if words:
            place = float(self.py(y))
            place = place - 4 if place > self.top + 14 else place + 12
            self.words(self.left + 4, place, words, "strong")

    def upright(self, x: float, words: str = "") -> None:
        """A dashed line upwards."""
        place = float(self.px(x))
        self.inside.append(
            el("path", class_="goal", d=f"M{short(place)},{short(self.top)}V{short(self.bottom)}")
        )
        if words:
            self.words(place - 3, self.top + 9, words, "end")

    def words(self, px: float, py: float, words: str, css: str = "") -> None:
        """Text at a place of the drawing."""
        self.over.append(el("text", words, class_=css or None, x=short(px), y=short(py)))

    # -- the whole -------------------------------------------------------------------------------------

    def axes(self, x_name: str, y_name: str, x_ticks: Sequence[float] | None = None) -> None:
        """Grid, ticks and the names of the axes, with their units."""
        for tick in self.y.ticks(5):
            place = short(float(self.py(tick)))
            self.under.append(el("path", class_="grid", d=f"M{short(self.left)},{place}H{short(self.right)}"))
            self.under.append(
                el(
                    "text",
                    tick_text(tick),
                    class_="end",
                    x=short(self.left - 5),
                    y=short(float(self.py(tick)) + 3.5),
                )
            )
        for tick in self.x.ticks(5) if x_ticks is None else x_ticks:
            place = float(self.px(tick))
            self.under.append(el("path", class_="axis", d=f"M{short(place)},{short(self.bottom)}v4"))
            self.under.append(
                el("text", tick_text(tick), class_="half", x=short(place), y=short(self.bottom + 15))
            )
        self.under.append(
            el("path", class_="axis", d=f"M{short(self.left)},{short(self.bottom)}H{short(self.right)}")
        )
        middle = (self.left + self.right) / 2
        self.under.append(el("text", x_name, class_="half", x=short(middle), y=short(self.height - 4)))
        turn = f"translate(10 {short((self.top + self.bottom) / 2)}) rotate(-90)"
        self.under.append(el("text", y_name, class_="half", transform=turn))

    def svg(self, title: str, description: str) -> Html:
        """The drawing; what lies outside the axes is cut off."""
        wide, high = short(self.right - self.left), short(self.bottom - self.top)
        x, y = short(self.left), short(self.top)
        clipped = el("svg", self.inside, x=x, y=y, width=wide, height=high, viewBox=f"{x} {y} {wide} {high}")
        return drawing(self.width, self.height, title, description, [*self.under, clipped, *self.over])


def drawing(width: float, height: float, title: str, description: str, shapes: Sequence[Html]) -> Html:
    """An SVG element with its name and description."""
    return el(
        "svg", el("title", title), el("desc", description), *shapes,
        class_="chart", role="img", viewBox=f"0 0 {short(width)} {short(height)}",
        width=short(width), height=short(height),
    )  # fmt: skip


def standalone(svg: Html) -> str:
    """The drawing as a file: with its own, light styles."""
    rules = RULES
    for name, colour in palette.INKS.items():
        rules = rules.replace(f"INK({name})", colour)
    style = el("style", Html(rules + palette.css(palette.LIGHT, palette.GREY[0])))
    head, _, rest = svg.partition(">")
    ground = el("rect", width="100%", height="100%", fill=palette.INKS["paper"])
    return f'<svg xmlns="http://www.w3.org/2000/svg"{head.removeprefix("<svg")}>{style}{ground}{rest}\n'


def page_rules() -> str:
    """The styles of drawings on the page."""
    rules = RULES
    for name in palette.INKS:
        rules = rules.replace(f"INK({name})", f"var(--{name})")
    return rules


def path_of(xs: np.ndarray, ys: np.ndarray) -> str:
    """A path through points, to a tenth of a unit; it is broken where one has no place."""
    pieces, pen = [], "M"
    for x, y in zip(np.round(xs, 1).tolist(), np.round(ys, 1).tolist(), strict=True):
        if x != x or y != y or abs(x) > 1e6 or abs(y) > 1e6:
            pen = "M"
            continue
        pieces.append(f"{pen}{x:g},{y:g}")
        pen = "L"
    return "".join(pieces)


def short(value: float) -> str:
    """A length to a tenth of a unit."""
    return f"{round(float(value), 1):g}"


def cut(words: str, limit: int) -> str:
    """The words on one line of at most so many characters."""
    flat = " ".join(clean(words).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places moved to lie ``gap`` apart, in their order, from ``low`` to ``high``."""
    if not len(places):
        return []
    order = np.argsort(np.asarray(places), kind="stable")
    gap = min(gap, (high - low) / max(1, len(places) - 1))
    moved = np.clip(np.asarray(places, dtype="float64")[order], low, high)
    for k in range(1, len(moved)):
        moved[k] = max(moved[k], moved[k - 1] + gap)
    moved[-1] = min(moved[-1], high)
    for k in range(len(moved) - 2, -1, -1):
        moved[k] = min(moved[k], moved[k + 1] - gap)
    back = np.empty_like(moved)
    back[order] = moved
    return [float(place) for place in back]


def legend(marks: Sequence[Mark], limit: int = palette.COLOURED) -> Html:
    """The algorithms in the order of the board, each with its line."""
    items = [
        el("li", _sample(mark), el("span", f"{mark.number} {mark.label}".strip())) for mark in marks[:limit]
    ]
    if len(marks) > limit:
        items.append(
            el(
                "li",
                _sample(marks[limit]),
                f"{len(marks) - limit} more, in grey: point at a line for its name",
            )
        )
    return el("ul", items, class_="legend")


def _sample(mark: Mark) -> Html:
    path = el("path", class_=f"l {mark.css}", d="M1,6H27")
    return el("svg", path, width=28, height=12, viewBox="0 0 28 12", aria_hidden="true")


def _title(words: str) -> list[Html]:
    return [el("title", words)] if words else []


__all__ = [
    "Chart",
    "apart",
    "cut",
    "drawing",
    "join",
    "legend",
    "page_rules",
    "path_of",
    "short",
    "standalone",
]
