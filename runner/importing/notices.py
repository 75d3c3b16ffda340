"""What was odd in a folder of logs: collected, counted, said once."""

from __future__ import annotations

from typing import Any

EXAMPLES = 3  # places named in a notice


class Notices:
    """Oddities by kind, each with the places where it was met."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}

    def add(self, kind: str, place: str) -> None:
        """One more case of ``kind``."""
        self._places.setdefault(kind, []).append(place)

    def lines(self) -> list[str]:
        """One line per kind: how often, and where first."""
        return [self._line(kind, places) for kind, places in self._places.items()]

    def records(self) -> list[dict[str, Any]]:
        """For ``imported.json``: ``kind``, ``count``, and every place."""
        return [{"kind": k, "count": len(p), "places": p} for k, p in self._places.items()]

    @staticmethod
    def _line(kind: str, places: list[str]) -> str:
        more = f", and {len(places) - EXAMPLES} more" if len(places) > EXAMPLES else ""
        return f"{len(places)} × {kind}: {', '.join(places[:EXAMPLES])}{more}"
