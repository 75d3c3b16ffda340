"""Override strings (``key=value``, ``group=name``, ``~group``): taken apart and made, without composing."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runner.errors import UserError

BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")  # text that Hydra reads as itself
_QUOTES = {"'", '"'}
_HOME = re.compile(r"(?<=[=,\[])~[^,\[\]{}]*")  # a value that is a path under a home
WORDS = ("null", "true", "false", "nan", "inf")  # and text that it does not


def name_of(override: str) -> str:
    """The key or group that an override is about."""
    return override.lstrip("+~").partition("=")[0]


def is_listed(override: str) -> bool:
    """Whether it chooses several files of one group, as in ``algorithm/transform=[clip_norm,perpgrad]``."""
    return override.partition("=")[2].startswith("[")


def bare(choice: str) -> str:
    """A choice of files by name alone: Hydra takes ``lion.yaml`` and ``/lion`` for ``lion``, too."""
    return re.sub(r"(?<![\w.-])/|\.yaml(?![\w.-])", "", choice)


def without_null(override: str) -> str:
    """``algorithm/loss=null`` as Hydra spells it: ``~algorithm/loss``; a list becomes the empty one.

    A path that begins with ``~`` is quoted, which Hydra's grammar asks for.
    """
    override = re.sub(r"^(diagnostics)=(null|None)?$", r"\1=[]", override)
    override = override if _QUOTES & set(override) else _HOME.sub(lambda path: _quoted(path[0]), override)
    return re.sub(r"^(algorithm/\w+|ruleset|log)=(null|None)?$", r"~\1", override)


def cell_overrides(overrides: Iterable[str]) -> list[str]:
    """The overrides that concern the cell itself, without those that configure Hydra."""
    return [without_null(o) for o in overrides if not o.lstrip("+~").startswith("hydra")]


def check_text(overrides: Iterable[str]) -> None:
    """Raise for what did not come as text in the locale's encoding: no file could hold it.

    Raises:
        UserError: which override, and what to do.
    """
    for override in overrides:
        try:
            override.encode()
        except UnicodeEncodeError as error:
            shown = override.encode(errors="replace").decode()
            raise UserError(
                f"{shown}: not text in this locale's encoding ({sys.getfilesystemencoding()}); "
                "set LC_ALL=C.UTF-8, or write it in ASCII"
            ) from error


def assignment(key: str, value: Any) -> str:
    """The override that sets ``key`` to ``value``, whatever characters it holds; null takes a part out."""
    return without_null(f"{key}={spelled(value)}")


def spelled(value: Any) -> str:
    """A value in Hydra's grammar of overrides: text is quoted where it would be read as something else."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value if BARE.fullmatch(value) and value.lower() not in WORDS else _quoted(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{spelled(k)}:{spelled(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(spelled(v) for v in value) + "]"
    return repr(value)


def _quoted(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text=text, quote=Quote.single).with_quotes()
