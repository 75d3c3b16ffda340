"""From overrides to the resolved config of one cell: composed once, checked, labelled.

A worker reads only what comes out of here, so editing ``conf/`` never changes a queued cell.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner import logs
from runner.base.errors import UserError, nearest
from runner.compose import advice, labels, presets, resources, search, space_files, structure, values
from runner.compose.composer import AUTO, LAUNCHER, Composer, composer, target_key
from runner.compose.overrides import GROUPS, as_hydra, cell_overrides, check_text, name_of, parsed
from runner.contract import placeholders
from runner.contract.metrics import METRICS
from runner.machine import gpus
from runner.machine.slots import usable_cpus
from runner.provenance import scripts

__all__ = [
    "algorithm_names", "as_hydra", "cell_overrides", "compose", "explained", "free_cores", "hydra_ready",
    "register_resolvers", "workload_names",
]  # fmt: skip

NOT_TRAINING = ("search_space", "bounds")
# How a grid runs: never part of a cell.
GRID_KEYS = (
    "grid", "dry_run", "workers", "per_gpu", "cells_per_task", "minutes_per_task", "wait", "then",
)  # fmt: skip


def compose(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> dict[str, Any]:
    """The resolved config of the cell that ``overrides`` describe, as plain data.

    Raises:
        UserError: for an unknown name or key (with the nearest known ones), or a bad value.
    """
    wanted = cell_overrides(overrides)
    check_text(wanted)
    for override in wanted:
        if parsed(override).is_sweep_override():
            raise UserError(advice.swept(override))
    with explained(config_dirs, wanted), hydra_ready(config_dirs) as using:
        return _finished(using, wanted)


def limits(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> dict[str, tuple[float, float]]:
    """The smallest and the largest value of each numeric setting of the algorithm that ``overrides`` name.

    Raises:
        UserError: as :func:`compose`.
    """
    wanted = cell_overrides(overrides)
    with explained(config_dirs, wanted), hydra_ready(config_dirs) as using:
        return values.limits(using.config(wanted)[0]["algorithm"])


def algorithm_names() -> list[str]:
    """Every name that ``algorithm=`` takes."""
    return list(presets.algorithms())


def workload_names() -> list[str]:
    """Every name that ``workload=`` takes."""
    return list(presets.workloads())


def _finished(using: Composer, overrides: Sequence[str]) -> dict[str, Any]:
    """Resolve, check, label and complete a config."""
    config, files = using.config(overrides)
    default = using.baseline(overrides, files)
    structure.check_parts(config, default, files.own)
    space_file = config["algorithm"].get("search_space")
    default = space_files.take_in(config, default)
    removed = [key for key in values.removed(config, default) if not resources.is_need(key)]
    needs = resources.take(config)
    values.check_targets(config, files.choices)
    for part in ("algorithm", "workload"):
        values.keep_text(config[part], default[part])
    values.check(config, default)
    values.check_spaces(config, default)
    needs["share"] = resources.share(config, default)
    logs.check(config.get("log"))
    for part in ("algorithm", "workload"):
        values.keep_numbers(config[part], default[part])
    changed = values.changed(config, default) | dict.fromkeys(removed)
    if isinstance(space_file, str):
        changed["algorithm.search_space"] = space_file
    preset = using.preset_choices(using.split(overrides)[0], files)
    given = using.given(overrides)
    pinned = _set_trial(config, given.keys() | changed.keys())
    keys = values.flatten({"algorithm": config["algorithm"]})
    config["label"] = config["label"] or labels.algorithm_label(files.choices, preset, changed | pinned, keys)
    # Also where it is the workload's usual target: a variant has no other.
    own_target = given.get("workload.target", AUTO) != AUTO
    _name_workload(config, changed, files.targets, own_target)
    _set_direction(config["workload"], given.keys() | changed.keys())
    config["algorithm"] = scripts.settled(config["algorithm"])
    ruleset = config.pop("ruleset", {})
    config["targets"] = config["targets"].get("version")
    config["ruleset"] = files.choices.get("ruleset") if ruleset else None
    if config["device"] == "auto":
        config["device"] = needs["device"] or gpus.automatic()
    _require_tf32(config["workload"].get("precision"), config["device"])
    _place(config, ruleset.get("budget_factor", 1))
    config["resources"] = resources.completed(needs, config, ruleset.get("budget_factor", 1))
    return {key: value for key, value in config.items() if key not in GRID_KEYS}


def _name_workload(
    config: dict[str, Any], changed: Mapping[str, Any], targets: Mapping[str, Any], own_target: bool
) -> None:
    """Name and label of the workload, and the target of a variant: the one asked for, its own, or none."""
    workload = config["workload"]
    name = workload["name"] = labels.workload_name(workload)
    config["workload_label"] = labels.workload_label(name, changed)
    other = labels.other_problem(changed)
    entry = targets.get(labels.workload_label(name, other) if other else target_key(name, workload))
    if own_target or "workload.target" in changed:
        entry = None
    elif other:
        workload["target"] = None if entry is None else entry["target"]
    config["provisional"] = bool(entry and entry.get("provisional"))
    if workload.get("model", "") is None:  # its own: as if nothing were said
        del workload["model"]


def _set_direction(workload: dict[str, Any], given: Collection[str]) -> None:
    """Which way is better goes with a metric that was asked for, where that is known by name."""
    metric = METRICS.get(str(workload.get("metric")))
    if metric is None or workload.get("minimize", False) == metric.minimize:
        return
    if "workload.minimize" in given or ("minimize" in workload and "workload.metric" not in given):
        said, better = str(workload["minimize"]).lower(), "smaller" if metric.minimize else "larger"
        raise UserError(
            f"workload.metric={workload['metric']} with workload.minimize={said}: a {better} "
            f"{workload['metric']} is better"
        )
    workload["minimize"] = metric.minimize


def _set_trial(config: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Put the trial's point of the search space in. What is ``given`` stays; returned, to be named."""
    space = config["search_space"] = search.spaces(config["algorithm"])
    pinned: dict[str, Any] = {}
    if config["trial"] > 0:
        sequence = config.get("ruleset", {}).get("sequence", search.SCRAMBLED)
        point = search.point(space, config["study"], config["trial"], sequence)
        own = values.flatten({"algorithm": config["algorithm"]})
        pinned = {key: own[key] for name in point if (key := f"algorithm.{name}") in given}
        search.put(config["algorithm"], {k: v for k, v in point.items() if f"algorithm.{k}" not in pinned})
    config["algorithm"] = _without(config["algorithm"], NOT_TRAINING)
    return pinned


def _place(config: dict[str, Any], budget_factor: float) -> None:
    """Fill in what depends on the machine and the ruleset: threads, limits."""
    workload = config["workload"]
    config["threads"] = config["threads"] or workload.pop("threads", None) or free_cores()
    workload.pop("threads", None)
    limit = workload.pop("max_seconds", None)
    if budget_factor != 1:
        workload["budget_samples"] = _scaled_budget(workload["budget_samples"], budget_factor)
        limit = None if limit is None else limit * budget_factor
    _require_a_batch(workload["batch_size"], workload["budget_samples"])
    config["max_seconds"] = limit if config["max_seconds"] is None else config["max_seconds"]


def _require_tf32(precision: str | None, device: str) -> None:
    """On a CPU it would be fp32, on a board of its own."""
    if precision == "tf32" and device == "cpu":
        raise UserError("workload.precision=tf32: only GPUs support it, but device=cpu: use fp32")


def _scaled_budget(samples: int, factor: float) -> int:
    scaled = round(samples * factor)
    if scaled < 1:
        raise UserError(f"ruleset.budget_factor: got {factor}, which leaves less than one of {samples:,}")
    return scaled


def _require_a_batch(rows: int, budget: int) -> None:
    if rows > budget:
        raise UserError(
            f"workload.budget_samples must be at least one batch, workload.batch_size={rows}, got {budget}"
        )


def free_cores() -> int:
    """Cores that this process may use."""
    return len(usable_cpus())


def _without(tree: Any, keys: Sequence[str]) -> Any:
    if isinstance(tree, dict):
        return {k: _without(v, keys) for k, v in tree.items() if k not in keys}
    return tree


# -- Hydra -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def hydra_ready(config_dirs: Sequence[Path] = ()) -> Iterator[Composer]:
    """Keep what many cells share: inside, changes of ``conf/`` and of the environment are not seen."""
    register_resolvers()
    with composer(config_dirs) as using:
        yield using


def register_resolvers() -> None:
    """``${call:a.b.c}`` is what ``a.b.c()`` gives, ``${runner_help:}`` help, ``${setup:steps}`` itself."""
    OmegaConf.register_new_resolver("call", _call, replace=True)
    OmegaConf.register_new_resolver("runner_help", _help, replace=True)
    OmegaConf.register_new_resolver(placeholders.RESOLVER, placeholders.kept, replace=True)


def _call(function: str) -> Any:
    from hydra.utils import get_method

    return get_method(function)()


def _help() -> str:
    from runner.compose.help import text

    return text()


# -- errors ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def explained(config_dirs: Sequence[Path] = (), overrides: Sequence[str] = ()) -> Iterator[None]:
    """Turn Hydra's and OmegaConf's exceptions, which ``overrides`` brought about, into one line of advice."""
    try:
        yield
    except MissingConfigException as error:
        raise UserError(_unknown_name(error, config_dirs)) from error
    except ConfigCompositionException as error:
        raise UserError(_unknown_key(error, config_dirs, overrides)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_first_line(error)) from error
    except ValueError as error:
        if not str(error).startswith("Config group override"):
            raise
        chosen = [o for o in overrides if not isinstance(parsed(o).value(), (str, list))]
        names = [f"{o}: expected the name of a file" for o in chosen if "." not in name_of(o)]
        raise UserError("; ".join(names) or _first_line(error)) from error  # algorithm=3


def _unknown_name(error: MissingConfigException, config_dirs: Sequence[Path]) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = [o for o in error.options or [] if o != presets.BASE and not o.startswith("_")]
    others = {"hydra/launcher": advice.other_launcher, "hydra/sweeper": advice.other_sweeper}
    if group in others:
        return others[group](name)
    nested = re.match(rf"experiment/(?:.*/)?({'|'.join(GROUPS)})$", group)
    if nested:  # defaults: [algorithm: lion]
        return f"{group}: {name}: in an experiment it is `- override /{nested[1]}: {name}`"
    if group.partition("/")[0] == "experiment":  # which may lie in folders
        group, _, name = f"{group}/{name}".partition("/")
        options = list(presets.listed(group, config_dirs))
    return f"unknown {group or 'config'} {name!r}: {nearest(name, options)}"


def _unknown_key(
    error: ConfigCompositionException, config_dirs: Sequence[Path], overrides: Sequence[str]
) -> str:
    found = re.match(r"Could not override '([^']+)'", str(error))
    if found is None:
        return _first_line(error)
    return unknown_key(found[1], overrides, config_dirs)


def unknown_key(key: str, overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> str:
    """What to say of a key or group that is none in the config of ``overrides``."""
    value = next((o.partition("=")[2] for o in overrides if name_of(o) == key), None)
    if "/" in key:
        groups = {f"algorithm/{kind}" for kind in presets.kinds()} | {*GROUPS}
        return f"unknown group {key!r}: {nearest(key, groups)}"
    if key.startswith("hydra.launcher."):
        name = next((o.partition("=")[2] for o in overrides if o.startswith("hydra/launcher=")), LAUNCHER)
        others = [other for other in ("local", "slurm") if key in _launcher_keys(other)]
        if others:
            return f"unknown key {key!r} of the launcher {name}: hydra/launcher={others[0]} has it"
        return advice.unknown(key, _launcher_keys(name), value)
    with hydra_ready(config_dirs) as using:
        config, _ = using.config([o for o in cell_overrides(overrides) if using.chooses(o)])
    if key.startswith("ruleset.") and "ruleset" not in config:
        rulesets = [f"ruleset={name}" for name in presets.listed("ruleset", config_dirs)]
        return f"unknown key {key!r}: choose a ruleset first: {', '.join(rulesets)}"
    known = [*values.flatten(config), *GROUPS]
    if value is not None and value.startswith("{"):  # algorithm={optimizer: {lrr: 1}}
        entries = values.flatten({key: parsed(f"{key}={value}").value()})
        key, value = next(((k, v) for k, v in entries.items() if k not in known), (key, None))
    return advice.unknown(key, known, value)


def _launcher_keys(name: str) -> list[str]:
    """Options of a launcher."""
    from hydra.core.config_store import ConfigStore

    node = ConfigStore.instance().repo["hydra"]["launcher"].get(f"{name}.yaml")
    return [f"hydra.launcher.{key}" for key in node.node if key != "_target_"] if node else []


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first, *rest = lines or [type(error).__name__]
    if first.endswith(":") and rest:  # In 'experiment/mine': ConfigKeyError raised while composing config:
        first += f" {rest[0]}"
    found = re.match(r"In '([^']+)': ConfigKeyError.*: Key '(\w+)' not in '(Basic)?(\w+)Config'", first)
    if found:
        file, key, _, owner = found.groups()
        return f"{file}: {key} is not an option of {owner.lower()}; hydra/launcher=slurm may have it"
    found = re.match(r"Multiple values for ([\w/]+)\..* 'override [^:]*: (\w+)'", first)
    if found:
        group, name = found.groups()
        return f"{group} is chosen twice: write {group}={name}, in a file `override /{group}: {name}`"
    found = re.match(r"In '([^']+)': Could not override '[^@']*?/?(\w+)@", first)
    if found:
        return f"{found[1]}: override {found[2]}: write `override /{found[2]}: …`, with a slash"
    return first
