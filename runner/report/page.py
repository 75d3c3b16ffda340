"""The page: its sections, one at a time, with styles and script inside."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from runner.report import (
    algorithms,
    curves,
    diagnostics,
    evidence,
    headline,
    origin,
    palette,
    profiles,
    ranking,
    search,
    sensitivity,
    svg,
    tuning,
    workloads,
)
from runner.report.html import Html, el, join
from runner.report.material import Material
from runner.report.tables import none

HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


class Section(NamedTuple):
    """A part of the page."""

    name: str
    title: str
    make: Callable[[Material], Sequence[Html]]


SHORT = Section("answers", "Summary", headline.section)
SECTIONS = (
    Section("board", "Leaderboard", ranking.section),
    Section("profiles", "Performance profiles", profiles.profile_section),
    Section("times", "Time to target", profiles.bars_section),
    Section("curves", "Validation curves", curves.section),
    Section("crossings", "Certified crossings", evidence.crossing_section),
    Section("versus", "Pairwise comparisons", evidence.versus_section),
    Section("tuning", "Tuning curves", tuning.section),
    Section("sensitivity", "Sensitivity", sensitivity.section),
    Section("edges", "Was the search wide enough?", search.edges_section),
    Section("one", "One setting for all workloads", search.one_section),
    Section("diagnostics", "Diagnostics", diagnostics.section),
    Section("algorithms", "Algorithms", algorithms.section),
    Section("workloads", "Workloads", workloads.section),
    Section("manifest", "Provenance", origin.manifest_section),
    Section("missing", "Missing cells", origin.missing_section),
    Section("reading", "How to read this", origin.reading_section),
)  # fmt: skip


def page(material: Material) -> Html:
    """The whole report as one document."""
    title = f"{material.inputs.name}: report"
    head = el(
        "head", el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("title", title), el("style", styles()),
    )  # fmt: skip
    body = el(
        "body", el("a", "Skip to the leaderboard", href="#board", class_="skip"), _header(material),
        el("main", [_made(section, material) for section in (SHORT, *SECTIONS)]),
        el("footer", f"Made {_now()} by python -m runner.report."),
        el("script", Html((HERE / "script.js").read_text(encoding="utf-8"))),
    )  # fmt: skip
    return Html("<!doctype html>\n" + el("html", head, body, lang="en") + "\n")


def styles() -> Html:
    """The style sheet, with the colours of the marks in both schemes."""
    text = (HERE / "style.css").read_text(encoding="utf-8")
    light, dark = (
        palette.css(palette.LIGHT, palette.GREY[0]),
        _dark(palette.css(palette.DARK, palette.GREY[1])),
    )
    return Html(text + svg.page_rules() + light + dark)


def _dark(rules: str) -> str:
    """The rules once for the dark theme when chosen, once where the system prefers it."""
    chosen, preferred = (
        rules.replace(".c", f"{root} .c")
        for root in ('[data-theme="dark"]', ':root:not([data-theme="light"])')
    )
    return f"@media screen{{{chosen}}}@media screen and (prefers-color-scheme:dark){{{preferred}}}"


def _header(material: Material) -> Html:
    cells = material.inputs.cells
    words = (
        f"{len(cells):,} cells · {cells['label'].nunique()} algorithms · {cells['workload'].nunique()} "
        "workloads · "
        f"{material.rules}"
    )
    links = [el("a", section.title, href=f"#{section.name}") for section in SECTIONS]
    toggle = el("button", "Dark/light", type="button", id="theme", aria_label="Switch between dark and light")
    return el(
        "header", el("div", el("h1", material.inputs.name), toggle, class_="top"),
        el("p", words, class_="lead"), headline.notices(material), el("nav", links, aria_label="Sections"),
    )  # fmt: skip


def _made(section: Section, material: Material) -> Html:
    """The section; a fault in one does not cost the reader the others."""
    try:
        parts = list(section.make(material))
    except Exception as error:  # the reader is told, and so is whoever runs this
        warnings.warn(f"report, {section.title}: {type(error).__name__}: {error}", stacklevel=2)
        parts = [none(f"this section failed ({type(error).__name__}: {error}); please report it")]
    return el("section", el("h2", section.title), join(parts or [none("nothing to show")]), id=section.name)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
