"""Cards of methods and data sets: what a docstring says, read from its file without running it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runner.base.paths import CONF
from runner.compose.presets import comments
from runner.methods.card import words

KNOWN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+")


def targets(config: Any, prefix: str = "") -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(part, dotted path of its class, settings), of a resolved config; the whole is called ``algorithm``."""
    if not isinstance(config, Mapping):
        return
    if isinstance(target := config.get("_target_"), str):
        yield prefix or "algorithm", target, config
    for key, value in config.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from targets(value, name)
        elif isinstance(value, list):
            for item in value:
                yield from targets(item, name)


def card(target: str, settings: Mapping[str, Any] | None = None) -> str:
    """The card of a class or function, as ``runner.methods`` shows it.

    Of several YAMLs with one class (SGD, Nesterov) it is the one that says most of ``settings``.
    """
    if not KNOWN.fullmatch(target):
        return ""
    return words(target, _said(_comments().get(target, ()), settings or {}))


def _said(written: Sequence[tuple[str, Mapping[str, Any]]], settings: Mapping[str, Any]) -> str:
    def agreement(entry: tuple[str, Mapping[str, Any]]) -> int:
        return sum(
            settings.get(key) == value for key, value in entry[1].items() if not isinstance(value, Mapping)
        )

    return max(written, key=agreement)[0] if written else ""


@functools.cache
def _comments() -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """Dotted path -> (leading comments, content) of each YAML under ``conf/`` whose ``_target_`` it is."""
    import yaml

    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for path in sorted(CONF.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        said = "\n".join(map(str.strip, comments(path)))
        for target in re.findall(r"^_target_:\s*['\"]?([\w.]+)", text, re.MULTILINE):
            found.setdefault(target, []).append((said, yaml.safe_load(text)))
    return found
