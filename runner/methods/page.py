"""``docs/methods.md``: all methods in tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from runner.methods.catalogue import KINDS, Method, from_home

COMMAND = "python -m runner.methods --markdown > docs/methods.md"
HEAD = """\
# Methods

{count} methods. A name leads to its file, whose docstring is its card: update rule, defaults and where they
come from, pitfalls, deviations from the paper. `python -m runner.methods lion` prints one, with its settings;
`python -m runner algorithm=lion workload=digits` trains it; [adding_a_method.md](adding_a_method.md) says how
to add one.

*Cost*: rows passed forward + backward (+ through Hessian products) for each row drawn. *Searched*: what
`trial=1`, `2`, … draw; a method that searches nothing has its defaults alone. †: from memory, in part.

This page is written by `{command}`.

{contents}
"""


def markdown(found: Sequence[Method]) -> str:
    """The page; the same for the same files."""
    groups = [(kind, list(group)) for kind, group in groupby(found, key=lambda method: method.kind)]
    contents = " · ".join(f"[{kind}](#{kind}) {len(group)}" for kind, group in groups)
    count = sum(len(group) for kind, group in groups if kind != "preset")
    parts = [HEAD.format(count=count, command=COMMAND, contents=contents)]
    for kind, group in groups:
        parts.append(f"## {kind}\n\n{KINDS.get(kind, kind).capitalize()}.\n")
        parts.append("\n".join(_preset_table(group) if kind == "preset" else _table(group)) + "\n")
    return "\n".join(parts)


def _table(group: Sequence[Method]) -> Iterator[str]:
    yield "| method | what it does | paper | cost | state | searched |"
    yield "|---|---|---|---|---|---|"
    for method in group:
        card = method.card
        searched = ", ".join(f"`{name}`" for name, setting in method.settings.items() if setting.search)
        yield _row(_link(method), method.summary, _paper(method), card.cost, card.state, searched)


def _preset_table(group: Sequence[Method]) -> Iterator[str]:
    yield "| preset | what it does | parts, beside the default algorithm's | sets |"
    yield "|---|---|---|---|"
    for method in group:
        parts = ", ".join(f"{kind} {_part(part)}" for kind, part in method.parts.items())
        settings = [f"`{name}={s.default}`" for name, s in method.settings.items() if s.default is not None]
        yield _row(_link(method), method.summary, parts, ", ".join(settings))


def _part(name: str) -> str:
    return "none" if name == "null" else f"`{name}`"


def _paper(method: Method) -> str:
    paper = method.card.paper
    text = paper.cited
    if paper.arxiv:
        text = f"[{text or paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})"
    return text + ("†" if paper.memory else "")


def _link(method: Method) -> str:
    return f"[{method.name}](../{from_home(method.source or method.yaml)})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('``', '`').replace('|', chr(92) + '|') for cell in cells)} |"
