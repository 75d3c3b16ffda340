"""What a person sees, a table on a terminal and plain lines elsewhere; and what a program reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.live import Live
from rich.table import Table
from rich.text import Text

from runner.base.cli import print_json
from runner.base.terminal import Console
from runner.check.result import Result

WORDS = {"ok": "ok", "failed": "FAILED", "skipped": "n/a"}
STYLES = {"ok": "green", "failed": "bold red", "skipped": "dim"}


class Report:
    """Prints results as they come, and counts them."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.counts: Counter[str] = Counter()

    def add(self, title: str, results: Iterable[tuple[str, Result]]) -> None:
        """Print the results of one subject under its ``title``, one line per check."""
        if self.console.is_terminal:
            self._live(title, results)
            return
        for name, result in results:
            self.counts[result.status] += 1
            line = f"{WORDS[result.status]:<6}  {title}  {name:<10}  {result.message}"
            self.console.print(Text(line.rstrip()), soft_wrap=True)

    def close(self) -> int:
        """Print the sum; returns the exit code."""
        counts = self.counts
        line = f"{counts['ok']} ok, {counts['failed']} failed, {counts['skipped']} not applicable"
        self.console.print(Text(line, style="bold red" if counts["failed"] else "bold green"))
        return 1 if counts["failed"] else 0

    def _live(self, title: str, results: Iterable[tuple[str, Result]]) -> None:
        self.console.print(Text(title, style="bold"))
        table = Table(show_header=False, box=None, pad_edge=False)
        with Live(table, console=self.console, auto_refresh=False) as live:
            for name, result in results:
                self.counts[result.status] += 1
                table.add_row(
                    Text(WORDS[result.status], style=STYLES[result.status]), name, Text(result.message)
                )
                live.refresh()


class Collected:
    """Keeps results for a program, and prints them in one document."""

    def __init__(self) -> None:
        self.results: list[dict[str, str]] = []

    def add(self, title: str, results: Iterable[tuple[str, Result]]) -> None:
        """Keep the results of one subject."""
        for name, one in results:
            result = {"check": name, "status": one.status, "message": one.message}
            self.results.append({"subject": title, **result})

    def close(self) -> int:
        """Print them and their counts; returns the exit code."""
        counts = Counter(result["status"] for result in self.results)
        print_json({"counts": {status: counts[status] for status in WORDS}, "results": self.results})
        return 1 if counts["failed"] else 0
