"""What may stand where in a composed config: mistakes in files that Hydra merges without a word."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.base.errors import UserError
from runner.compose import advice, presets
from runner.compose.overrides import GROUPS

NULLABLE = ("log", "ruleset", "diagnostics")
LOOSE = ("workload.aux", "workload.resources", "ruleset")  # mappings that no constructor checks
HEADER = "# @package _global_"
COMPOSED = "runner.parts.composed.Composed"  # takes parts; whole algorithms may use the same words


@dataclass(frozen=True)
class OwnFile:
    """A file at the root of the config, an experiment for one.

    Attributes:
        path: as Hydra names it, ``experiment/mine``.
        tree: its content, unresolved.
    """

    path: str
    tree: dict[str, Any]


def check(config: Mapping[str, Any], known: Collection[str], own: Sequence[OwnFile]) -> None:
    """Hold the top level of a composed config against what it may have.

    Args:
        config: resolved.
        known: keys that it may have.
        own: the user's files in it.

    Raises:
        UserError: for an unknown key, or a name where a file has to be chosen; says in which file.
    """
    for key in config:
        if key not in known:
            raise UserError(_unknown(key, config[key], [*known, *_nested_keys(config)], own))
    for group in GROUPS:
        value = config.get(group)
        if not isinstance(value, Mapping) and not (value is None and group in NULLABLE):
            raise UserError(_not_chosen(group, value, own))
    composed = config["algorithm"].get("_target_") == COMPOSED
    for kind, value in config["algorithm"].items():
        if composed and isinstance(value, str) and kind in presets.kinds():
            raise UserError(_not_chosen(f"algorithm/{kind}", value, own))
    if "name" not in config["workload"]:
        raise UserError("workload: its file must set a name")


def check_parts(config: Mapping[str, Any], default: Mapping[str, Any], own: Sequence[OwnFile]) -> None:
    """Hold algorithm and workload against the same choice of files without any changed key.

    Raises:
        UserError: for a part that was set to null by key, which no label would show, or an unknown key.
    """
    for path in _parts(default["algorithm"], ("algorithm",)):
        if not _has(config, (*path, "_target_")):
            key, group = ".".join(path), "/".join(path[:2])
            raise UserError(
                f"{_where(key, own)}{key}: a part is removed by {group}=null, "
                f"in a file by `override /{group}: null` under defaults"
            )
    for path in LOOSE:
        known, given = _at(default, path), _at(config, path)
        for key in given:
            if key not in known:
                keys = [f"{path}.{name}" for name in known]
                raise UserError(_where(path, own) + advice.unknown(f"{path}.{key}", keys))


def check_choices(group: str, names: Sequence[str], packages: Sequence[str | None], where: str) -> None:
    """Refuse several files that would be merged into one.

    Raises:
        UserError: unless every file says by its ``@package`` where it goes.
    """
    if None in packages or len(set(packages)) < len(packages):
        listed = ",".join(names)
        raise UserError(
            f"{where}: one file of {group} at a time; a grid of them: -m {group}={listed}, "
            f"or `{group}: [{listed.replace(',', ', ')}]` under grid in an experiment"
        )


def no_ruleset(own: Sequence[OwnFile]) -> str:
    """What to say of numbers for a ruleset where none is chosen."""
    return (
        f"{_where('ruleset', own)}ruleset: choose one: ruleset=external_tuning, or `- override /ruleset: …`"
    )


def _parts(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            if "_target_" in value:
                yield (*path, name)
            yield from _parts(value, (*path, name))


def _unknown(key: str, value: Any, known: Collection[str], own: Sequence[OwnFile]) -> str:
    where = _where(key, own)
    if key == "experiment":
        return f"experiment: the first line of the file has to be `{HEADER}` (UTF-8, no byte order mark)"
    if key.startswith("override ") or "/" in key:
        group = key.removeprefix("override ").lstrip("/")
        return f"{where}{key}: belongs under defaults: `- override /{group}: {value}`"
    if "." in key:
        return f"{where}{key}: a file nests its keys: `{_nested(key, value)}`; dotted ones stand under grid"
    return where + advice.unknown(key, known, value)


def _nested_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if prefix:
            yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _nested_keys(value, f"{prefix}{name}.")


def _not_chosen(group: str, value: Any, own: Sequence[OwnFile]) -> str:
    if value is None:
        return f"{group}: one file is needed; choose another with {group}=<name>"
    where = _where(group.replace("/", "."), own)
    if where:
        return f"{where}{group}: a file is chosen under defaults: `- override /{group}: {value}`"
    return f"{group.replace('/', '.')}: a file is chosen by {group}={value}"


def _nested(key: str, value: Any) -> str:
    first, *rest = key.split(".")
    return f"{first}: " + "".join(f"{{{name}: " for name in rest) + str(value) + "}" * len(rest)


def _where(key: str, own: Sequence[OwnFile]) -> str:
    names = (key,) if "." in key and any(key in file.tree for file in own) else key.split(".")
    return next((f"{file.path}: " for file in own if _has(file.tree, names)), "")


def _has(tree: Any, names: Sequence[str]) -> bool:
    for name in names:
        if not isinstance(tree, Mapping) or name not in tree:
            return False
        tree = tree[name]
    return True


def _at(config: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    tree: Any = config
    for name in path.split("."):
        tree = tree.get(name) or {}
    return tree
