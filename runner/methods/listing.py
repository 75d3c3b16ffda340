"""What a person sees: the list of methods, or a card."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.base.paths import CONF, shown
from runner.compose.commands import command
from runner.methods.card import FIELDS
from runner.methods.catalogue import Method, from_home

WIDE = 120  # columns from which on the list has the summaries, too
BINARY = re.compile(r"needs a (binary|linear|model of few)")  # tasks that digits is not, but breast_cancer is
FOOT = """\
cost: rows passed forward + backward (+ through Hessian products) a row drawn
†: from memory, in part · python -m runner.methods lion: its card and settings
"""


def show_list(found: Sequence[Method], console: Console) -> None:
    """One line per method, by kind."""
    presets = [method for method in found if method.kind == "preset"]
    if others := [method for method in found if method.kind != "preset"]:
        console.print(_methods(others, console.width >= WIDE))
    if presets:
        console.print(_presets(presets))
    console.print(Text(f"\n{FOOT}", "dim"), end="", soft_wrap=True)


def _methods(found: Iterable[Method], wide: bool) -> Table:
    table = _plain()
    table.add_column("method", no_wrap=True, min_width=24)
    table.add_column("paper", overflow="fold", min_width=32)
    table.add_column("arXiv", no_wrap=True, min_width=10)
    table.add_column("cost", no_wrap=True, min_width=8)
    if wide:
        table.add_column("", no_wrap=True, overflow="ellipsis")
    for kind, group in groupby(found, key=lambda method: method.kind):
        table.add_row(Text(kind, "bold"))
        for method in group:
            paper = method.card.paper
            words = method.name, paper.cited + ("†" if paper.memory else ""), paper.arxiv, method.card.cost
            table.add_row(Text(f"  {words[0]}"), *words[1:], *([Text(method.summary, "dim")] if wide else []))
    return table


def _presets(found: Iterable[Method]) -> Table:
    table = _plain(show_header=False)
    table.add_column(no_wrap=True, min_width=24)
    table.add_column(overflow="fold")
    table.add_row(Text("preset", "bold"))
    for method in found:
        table.add_row(Text(f"  {method.name}"), Text(composition(method)))
    return table


def _plain(show_header: bool = True) -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=show_header)


def composition(method: Method) -> str:
    """The parts of a preset, in words."""
    named = [part if kind == "optimizer" else f"{kind} {part}" for kind, part in _put_in(method)]
    without = [kind for kind, part in method.parts.items() if part == "null"]
    return ", ".join(named) + (f"; no {', '.join(without)}" if without else "")


def _put_in(method: Method) -> list[tuple[str, str]]:
    return [(kind, part) for kind, part in method.parts.items() if part != "null"]


def show_card(method: Method, console: Console) -> None:
    """What it is, how to train it, its card, its settings."""

    def line(text: str | Text = "") -> None:
        console.print(text, soft_wrap=True)

    line(Text.assemble((method.name, "bold"), f" ({method.kind})", f": {method.summary}"))
    files = [path for path in (method.source, method.yaml) if path is not None]
    line(Text(f"  {', '.join(map(from_home, files))}", "dim"))
    for one in commands(method):
        line(Text(f"  {one}", "cyan"))
    if method.kind == "preset":
        line(f"\nParts: {composition(method)}; the others as in the default algorithm.")
    else:
        line()
        for text in _body(method).splitlines():
            line(_coloured(text))
    if method.settings:
        line()
        console.print(_settings(method))
    if method.time_factor:
        line(f"\nA step is expected to take {method.time_factor} times as long as a plain one.")


def commands(method: Method) -> Iterator[str]:
    """What trains it, and what tells where it fits."""
    name, kind = method.name, method.kind
    folders = [] if method.folder == CONF else [shown(method.folder.resolve())]
    train = functools.partial(command, "runner", config_dirs=folders)
    if kind == "diagnostic":
        chosen = ",".join(dict.fromkeys(["norms", name]))
        yield train("algorithm=adamw", "workload=digits", f"diagnostics=[{chosen}]")
        return
    workload = "breast_cancer" if BINARY.search(method.limits) else "digits"
    yield train(f"algorithm={name}", f"workload={workload}")
    if kind not in ("optimizer", "whole", "preset"):
        yield train("algorithm=lion", f"algorithm/{kind}={name}") + "    # in another algorithm"
    if method.limits:
        check = command("runner.check", f"algorithm={name}", config_dirs=folders)
        yield f"{check}    # not for every workload: says for which"


def _body(method: Method) -> str:
    """The card; the summary of one that is the YAML's has been shown."""
    text = method.card.text
    return text.partition("\n")[2] if text == method.comments else text


def _coloured(text: str) -> Text:
    name, colon, rest = text.partition(":")
    return Text.assemble((f"{name}:", "bold"), rest) if colon and name in FIELDS else Text(text)


def _settings(method: Method) -> Table:
    rows = [
        (name, setting.default or "", setting.search, setting.allowed, setting.note)
        for name, setting in method.settings.items()
    ]
    table = _plain()
    columns = list(
        zip(("setting", "default", "searched", "allowed", ""), zip(*rows, strict=True), strict=True)
    )
    kept = [words for title, words in columns if any(words)]
    for title, words in columns:
        if any(words):
            table.add_column(title, overflow="fold")
    for row in zip(*kept, strict=True):
        table.add_row(*map(Text, row))
    return table
