"""Tables and colours on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

from rich import console
from rich.segment import Segment

from runner.base.plain import plain


class Console(console.Console):
    """rich's; its own colours and movements are the only ones, whatever the text holds."""

    @property
    def file(self) -> IO[str]:
        """Where to write as it is: a progress bar puts a proxy of its own before the stream."""
        found = super().file
        return getattr(found, "rich_proxied_file", found)

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        """As rich's."""
        for text, style, control in super().render(*args, **kwargs):
            yield Segment(text if control else plain(text), style, control)
