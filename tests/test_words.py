"""Phrases that readers stumbled over occur nowhere any more, and the tables' headers are whole words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner.base.paths import ROOT

PLACES = ("runner", "conf", "docs", "scripts", "algorithms", "workloads", "README.md")
SUFFIXES = {".py", ".yaml", ".md", ".js", ".txt", ".html"}
PHRASES = (
    r"how (it|an experiment) does",
    r"an? row an? (cell|algorithm|evaluation)",
    r"hit by nobody",
    r"credits? nobody",
    r"gives nobody",
    r"nobody (comes|credit)",
    r"n too small",
    r"every number again",
    r"left behind, and",
    r"[“\"'`](kept|loo)[”\"'`](?=[,:; ])",
    r"[^-]\bloo\b",
    r"everyone against everyone",
    r"who is separable from whom",
    r"what all its cells cost",
)


def texts() -> list[Path]:
    """All files of prose and source that a reader may open."""
    return [
        path
        for place in PLACES
        for path in ([ROOT / place] if (ROOT / place).is_file() else sorted((ROOT / place).rglob("*")))
        if path.suffix in SUFFIXES
    ]


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_that_has_to_be_read_twice_occurs_nowhere(phrase: str) -> None:
    pattern = re.compile(phrase.replace(" ", r"\s+"), re.IGNORECASE)
    found = {str(path.relative_to(ROOT)): pattern.findall(path.read_text("utf-8")) for path in texts()}
    assert {name: hits for name, hits in found.items() if hits} == {}


def test_there_are_texts_to_search() -> None:
    assert len(texts()) > 500


@pytest.mark.parametrize(
    ("file", "headers"),
    [
        ("runner/boards/sheets.py", ("rank stability", "leave-one-out")),
        ("runner/report/ranking.py", ("rank stability", "leave-one-out")),
        ("runner/compare.py", ("studies\\nneeded",)),
        ("runner/report/evidence.py", ("studies needed",)),
    ],
)
def test_headers_are_whole_words(file: str, headers: tuple[str, ...]) -> None:
    text = (ROOT / file).read_text("utf-8")
    assert all(f'"{header}"' in text for header in headers)
    assert not re.search(r'"(kept|loo|more)"', text)
