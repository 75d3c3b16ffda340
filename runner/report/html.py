"""HTML and SVG as text: every word that is put in is escaped, unless it is markup made here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from html import escape
from typing import Any

VOID = ("input", "meta", "br", "hr", "link")
# What neither XML nor UTF-8 can hold: control characters, halves of surrogate pairs.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class Html(str):
    """Markup: put into other markup as it is."""

    __slots__ = ()


Child = Any  # Html, text, a number, None for nothing, or an iterable of those


def el(name: str, /, *children: Child, **attributes: Any) -> Html:
    """An element.

    Args:
        name: of the element.
        children: markup, or text to escape.
        attributes: ``class_`` is ``class``, ``data_v`` is ``data-v``; None and False leave one out, True has
            no value.
    """
    opening = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}>"
    return Html(opening if name in VOID else f"{opening}{join(children)}</{name}>")


def join(children: Iterable[Child], between: str = "") -> Html:
    """Markup and text, one at a time."""
    return Html(between.join(text(child) for child in children if child is not None))


def text(child: Child) -> str:
    """Markup as it is, anything else escaped."""
    if isinstance(child, Html):
        return child
    if isinstance(child, (list, tuple)) or hasattr(child, "__next__"):
        return join(child)
    return escape(clean(str(child)), quote=True)


def clean(words: str) -> str:
    """Without characters that a page or an SVG cannot hold."""
    return UNPRINTABLE.sub("\ufffd", words)


def json_in_script(value: Any) -> Html:
    """Plain data as JSON that no ``</script>`` or ``<!--`` in it can end."""
    plain = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Html(plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def number(value: Any) -> str:
    """A value for machines, as the tables' CSV has it: all digits, ``inf``, nothing where there is none."""
    if value is None or value != value:
        return ""
    if isinstance(value, (bool, str)):
        return str(value)
    value = float(value)
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return repr(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def _attribute(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(value)}"'
