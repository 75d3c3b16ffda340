"""Colours and dashes: Okabe and Ito's palette, told apart by colour-blind readers too.

Colour is never the only cue: lines differ in their dashes as well, and carry their rank as a number.
"""

from __future__ import annotations

from dataclasses import dataclass

# Okabe and Ito (2008), without yellow, which nobody sees on white; black is the ink of the page.
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#B5578F", "#C78500", "#3A9BD8", "#1B1E22")
DARK = ("#4FA8E8", "#F5854A", "#2FC79B", "#E59FC8", "#F0B53C", "#9BD7FF", "#F2F2F2")
GREY = ("#9AA0A6", "#6C737B")
COLOURED = 10  # algorithms with a colour of their own; the rest are grey
DASHES = ("", "7 3", "2 2.5", "9 3 2 3")
INKS = {  # what a standalone SVG needs of the page's colours
    "ink": "#1B1E22", "soft": "#5B636B", "rule": "#E3E6E9", "paper": "#FFFFFF", "ramp": "#0B5A8A",
    "miss": "#B4420B",
}  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """How an algorithm is drawn, by its place on the board.

    Attributes:
        label: the algorithm.
        place: 0 for the first.
        rank: its rank, told apart by letters where several share one: ``3``, ``4a``, ``4b``.
    """

    label: str
    place: int
    rank: str = ""

    @property
    def number(self) -> str:
        """What stands beside its lines; nothing for one that is grey."""
        return (self.rank or str(self.place + 1)) if self.place < COLOURED else ""

    @property
    def css(self) -> str:
        """Its classes: colour and dash."""
        if self.place >= COLOURED:
            return "cx"
        dash = self.place % len(DASHES)
        return f"c{self.place % len(LIGHT)}" + (f" d{dash}" if dash else "")


def css(colours: tuple[str, ...], grey: str) -> str:
    """Rules for the classes of marks."""
    rules = [f".c{place}{{color:{colour}}}" for place, colour in enumerate(colours)]
    rules += [f".d{n}{{stroke-dasharray:{dash}}}" for n, dash in enumerate(DASHES) if dash]
    return "".join([*rules, f".cx{{color:{grey}}}"])
