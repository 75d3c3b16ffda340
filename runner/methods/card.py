"""What a card says: a summary, then the fields that every method has."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from runner.provenance.definitions import docstring, docstring_of_module

# The same as in runner.check.cards, which imports torch; a test holds them together.
FIELDS = ("Paper", "Update", "Defaults", "State", "Cost", "Pitfalls", "Deviations")
COST = re.compile(r"Cost:\s+([\d.]*\d) forward, ([\d.]*\d) backward(?:, ([\d.]*\d) hvp)?\.(?!\d)")

SHORT = 31  # characters of a title that stands for its authors
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
NAME = r"(?:de |van |von )?[A-ZÀ-Þ][\w’'-]+"
YEAR = r"((?:19|20)\d\d)(?![.\w])"  # no id of arXiv
CITED = re.compile(rf"(?<!\w)((?:{NAME}, )*{NAME} & {NAME}|{NAME} et al\.|(?:[A-Z]{{2,}} )?{NAME}) {YEAR}")
DATED = re.compile(rf"\({YEAR}")
NO_SOURCE = re.compile(r"^none\b|no source of its own")


def words(target: str, comments: str) -> str:
    """The text of a method's card.

    Args:
        target: dotted path of its class.
        comments: those that its YAML begins with. They are the card where they have its fields, as for a
            class of a library; else the class's docstring is, or its module's where that one has them.
    """
    own = docstring(target)
    texts = comments, own, docstring_of_module(target)
    return next((text for text in texts if Card.parse(text).fields), own or comments)


class Paper(NamedTuple):
    """Where a method comes from, in short.

    Attributes:
        cited: "Chen et al. 2023"; the beginning of a title where the card names no authors; or empty.
        arxiv: its id, or empty.
        memory: whether the card says that part of this is from memory.
    """

    cited: str
    arxiv: str
    memory: bool


@dataclass(frozen=True)
class Card:
    """A docstring, taken apart.

    Attributes:
        text: all of it.
        fields: name -> what it says, on one line; those of :data:`FIELDS` that are there.
    """

    text: str
    fields: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Card:
        """Of a docstring or of comments. A field goes on to the next one, or to an empty line."""
        found: dict[str, str] = {}
        current = ""
        for line in text.splitlines():
            name, colon, rest = line.partition(":")
            if colon and name in FIELDS:
                current, found[name] = name, rest.strip()
            elif not line.strip():
                current = ""
            elif current:
                found[current] = f"{found[current]} {line.strip()}".strip()
        return cls(text, found)

    @property
    def missing(self) -> list[str]:
        """Fields that are not there or empty; ``Cost`` too where it is not in numbers."""
        lacking = [name for name in FIELDS if not self.fields.get(name)]
        return lacking if "Cost" in lacking or self.cost else [*lacking, "Cost"]

    @property
    def cost(self) -> str:
        """Rows forward + backward (+ Hessian products) for each row drawn: ``2+2``; or empty."""
        found = COST.match(f"Cost: {self.fields.get('Cost', '')}")
        return "+".join(n for n in found.groups() if n) if found else ""

    @property
    def state(self) -> str:
        """The first sentence on what it keeps."""
        return re.split(r"\.(?:\s|$)", self.fields.get("State", ""), maxsplit=1)[0]

    @property
    def paper(self) -> Paper:
        """Of the first paper that it names."""
        text = self.fields.get("Paper", "")
        memory = "from memory" in text
        if (found := CITED.search(text)) is None:
            return Paper(_titled(text), _first(ARXIV.findall(text)), memory)
        rest = text[found.end() :]
        following = [m.start() for pattern in (CITED, DATED) if (m := pattern.search(rest))]
        ids = ARXIV.findall(rest[: min(following, default=len(rest))])
        return Paper(f"{_authors(found[1])} {found[2]}", _first(ids), memory)


def _first(ids: list[str]) -> str:
    return ids[0] if ids else ""


def _authors(names: str) -> str:
    """Of three and more, the first."""
    return f"{names.partition(',')[0]} et al." if "," in names else names


def _titled(text: str) -> str:
    """The beginning of a title, and the year, of a paper without authors."""
    if not text or NO_SOURCE.search(text):
        return ""
    title = re.split(r"[:(]|, |\.(?:\s|$)", text, maxsplit=1)[0].strip()
    year = DATED.search(text)
    room = SHORT - (5 if year else 0)
    cut = title if len(title) <= room else f"{title[:room].rpartition(' ')[0]}…"
    return f"{cut} {year[1]}" if year else cut
