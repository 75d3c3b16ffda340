"""What people see holds no control characters, wherever it comes from.

Labels, errors and names of folders may hold what a terminal obeys (escape sequences), or what shows text in
another order than it has (overrides of its direction). Both are left out, in pipes and files too.
"""

from __future__ import annotations

import re

# C0 and C1 but for tab and line feed, DEL, marks and overrides of direction, separators of lines.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """The text without control characters; tabs and line feeds stay."""
    return _CONTROL.sub("", text)
