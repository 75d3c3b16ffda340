"""Override strings (``key=value``, ``group=name``, ``~group``): taken apart and made, without composing."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.base.errors import UserError
from runner.compose import advice

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

BARE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")  # text that Hydra reads as itself
_QUOTES = {"'", '"'}
_HOME = re.compile(r"(?<=[=,\[])~[^,\[\]{}]*")  # a value that is a path under a home
WORDS = ("null", "true", "false", "nan", "inf")  # and text that it does not
MOST = 1_000_000  # cells of a grid
GROUPS = (
    "algorithm",
    "workload",
    "log",
    "targets",
    "ruleset",
    "diagnostics",
)  # files that set no other's keys
SPELLINGS = [
    (re.compile(pattern), spelling)
    for pattern, spelling in (
        (r"^(?=experiment=)", "+"),
        # Whatever names an algorithm from elsewhere has, and a file of their ranges.
        (r"^(?=algorithm\.(hyperparameters\.|search_space=))", "++"),
        (rf"^(\+?(?:{'|'.join(GROUPS)}|experiment)(?:/\w+)*=[^\[{{]*)\.ya?ml$", r"\1"),
        (r"^~diagnostics$|^diagnostics=(null|None|none)?$", "diagnostics=[]"),
        (r"^(algorithm/\w+|ruleset|log)=(null|None|none)?$", r"~\1"),
    )
]


def name_of(override: str) -> str:
    """The key or group that an override is about."""
    return override.lstrip("+~").partition("=")[0]


def is_listed(override: str) -> bool:
    """Whether it chooses several files of one group, as in ``algorithm/transform=[clip_norm,perpgrad]``."""
    return override.partition("=")[2].startswith("[")


def bare(choice: str) -> str:
    """A choice of files by name alone: Hydra takes ``lion.yaml`` and ``/lion`` for ``lion``, too."""
    return re.sub(r"(?<![\w.-])/|\.yaml(?![\w.-])", "", choice)


@functools.lru_cache(maxsize=4096)
def parsed(override: str) -> Override:
    """The override by Hydra's grammar.

    Raises:
        UserError: where it cannot be read, with what to write instead.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_overrides([override])[0]
    except HydraException as error:
        raise UserError(advice.unreadable(override)) from error


def as_hydra(override: str) -> str:
    """An override as Hydra spells it: ``algorithm/loss=null`` is ``~algorithm/loss``, a list the empty one.

    An experiment may go without its ``+``, and the name of a file may end in ``.yaml``. A path that begins
    with ``~`` is quoted, which Hydra's grammar asks for.
    """
    if not _QUOTES & set(override):
        override = _HOME.sub(lambda path: advice.quoted(path[0]), override)
    for pattern, spelling in SPELLINGS:
        override = pattern.sub(spelling, override)
    return override


def cell_overrides(overrides: Iterable[str]) -> list[str]:
    """The overrides that concern the cell itself, without those that configure Hydra."""
    return [as_hydra(o) for o in overrides if not re.match(r"hydra[./=]", o.lstrip("+~"))]


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
    return as_hydra(f"{key}={spelled(value)}")


def spelled(value: Any) -> str:
    """A value in Hydra's grammar of overrides: text is quoted where it would be read as something else."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value if BARE.fullmatch(value) and value.lower() not in WORDS else advice.quoted(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{spelled(k)}:{spelled(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(spelled(v) for v in value) + "]"
    return repr(value)
