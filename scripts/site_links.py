"""For ``make docs``: links that leave ``docs/`` lead to the repository, and have to lead to something.

In the repository ``[lion](../algorithms/optimizers/lion.py)`` works as it stands. On
the site it is a link below mkdocs' ``repo_url``, and its text alone where none is set.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Mkdocs calls this with each page's text."""
    folder = Path(config["docs_dir"], page.file.src_uri).parent

    def moved(link: re.Match[str]) -> str:
        text, path, anchor = link[1], (folder / link[2]).resolve(), link[3] or ""
        if path.is_relative_to(config["docs_dir"]):
            return link[0]
        if not path.exists():
            raise PluginError(f"{page.file.src_uri}: {link[0]} leads to nothing")
        home = config.get("repo_url")
        return f"[{text}]({home.rstrip('/')}/blob/main/{path.relative_to(ROOT)}{anchor})" if home else text

    return LINK.sub(moved, markdown)
