"""English text that comes with every Python: the language reference behind ``help("while")``.

Imports nothing heavy: the config of a cell is composed with it.
"""

from __future__ import annotations

import functools
import hashlib

LENGTH = 200_000  # characters, of 465,000 in Python 3.11: about what the budget of tiny_lm_pydocs draws


@functools.cache
def text() -> str:
    """The first 200,000 characters of ``pydoc_data.topics``, topics in alphabetical order."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))[:LENGTH]


def text_sha256() -> str:
    """SHA-256 of that text in UTF-8, as hex. It differs between Python versions."""
    return hashlib.sha256(text().encode()).hexdigest()


def data_id() -> str:
    """The first twelve digits of :func:`text_sha256`: enough to tell versions apart, and short in a table."""
    return text_sha256()[:12]
