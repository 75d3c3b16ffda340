"""From overrides to the resolved config of one cell: composed once, checked, labelled.

A worker reads only what comes out of here, so editing ``conf/`` never changes a queued cell.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from runner import labels, presets, search, values
from runner.errors import UserError, nearest
from runner.paths import CONF

NOT_TRAINING = ("search_space", "bounds")


def compose(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> dict[str, Any]:
    """The resolved config of the cell that ``overrides`` describe, as plain data.

    Raises:
        UserError: for an unknown name or key (with the nearest known ones), or a bad value.
    """
    with explained(config_dirs, overrides), hydra_ready(config_dirs):
        cfg, choices = _compose(tuple(cell_overrides(overrides)))
        return finish(cfg, choices)


def algorithm_names() -> list[str]:
    """Every name that ``algorithm=`` takes."""
    return list(presets.algorithms())


def workload_names() -> list[str]:
    """Every name that ``workload=`` takes."""
    return list(presets.workloads())


def cell_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides that concern the cell itself, without those that configure Hydra."""
    return [without_null(o) for o in overrides if not o.lstrip("+~").startswith("hydra")]


def without_null(override: str) -> str:
    """``algorithm/loss=null`` as Hydra spells it: ``~algorithm/loss``."""
    return re.sub(r"^(algorithm/\w+)=(null|None)?$", r"~\1", override)


def finish(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """Resolve, check, label and complete a composed config."""
    config: dict[str, Any] = _plain(cfg)
    default = _baseline(choices)
    values.check(config, default)
    changed = values.changed(config, default)
    config["label"] = config["label"] or labels.algorithm_label(choices, _preset_choices(choices), changed)
    _name_workload(config, changed)
    space = search.spaces(config["algorithm"])
    config["search_space"] = space
    if config["trial"] > 0:
        point = search.point(space, config["study"], config["trial"])
        search.put(config["algorithm"], {k: v for k, v in point.items() if f"algorithm.{k}" not in changed})
    config["algorithm"] = _without(config["algorithm"], NOT_TRAINING)
    config["targets"] = config["targets"].get("version")
    return _placed(config)


def _name_workload(config: dict[str, Any], changed: Mapping[str, Any]) -> None:
    """Name and label of the workload, and the target of a variant: its own, or none."""
    workload = config["workload"]
    name = workload["name"] = labels.workload_name(workload)
    config["workload_label"] = labels.workload_label(name, changed)
    other = labels.other_problem(changed)
    key = labels.workload_label(name, other) if other else _target_key(name, workload)
    entry = config["targets"].get("values", {}).get(key)
    if "workload.target" in changed:
        entry = None
    elif other:
        workload["target"] = None if entry is None else entry["target"]
    config["provisional"] = bool(entry and entry.get("provisional"))


def _placed(config: dict[str, Any]) -> dict[str, Any]:
    """Fill in what depends on the machine: device, threads, limits."""
    workload = config["workload"]
    config["device"] = resolve_device(config["device"])
    config["threads"] = config["threads"] or workload.pop("threads", None) or free_cores()
    workload.pop("threads", None)
    limit = workload.pop("max_seconds", None)
    config["max_seconds"] = limit if config["max_seconds"] is None else config["max_seconds"]
    return config


def free_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_device(device: str) -> str:
    """``auto`` as ``cuda`` where torch has CUDA and a GPU is visible, else ``cpu``; torch is not imported."""
    if device != "auto":
        return device
    from importlib.metadata import version

    gpus = Path("/proc/driver/nvidia/gpus")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    visible = (gpus.is_dir() and any(gpus.iterdir())) or Path("/dev/nvidia0").exists()
    return "cuda" if visible and not hidden and "+cpu" not in version("torch") else "cpu"


# -- Hydra -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def hydra_ready(config_dirs: Sequence[Path] = ()) -> Iterator[None]:
    """Use the Hydra that runs already, or one of our own that reads ``conf/`` (and ``config_dirs``)."""
    register_resolvers()
    if GlobalHydra.instance().is_initialized():
        yield
        return
    from hydra import initialize_config_dir

    presets.register(config_dirs)
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3", job_name="runner"):
        global _searchpath
        _searchpath = tuple(str(Path(d).resolve()) for d in config_dirs)
        try:
            yield
        finally:
            _searchpath = ()


_searchpath: tuple[str, ...] = ()


def register_resolvers() -> None:
    """``${target:}`` is the target of the workload it stands in, ``${call:a.b.c}`` what ``a.b.c()`` returns,
    ``${runner_help:}`` the help text.
    """
    OmegaConf.register_new_resolver("target", _target, replace=True)
    OmegaConf.register_new_resolver("call", _call, replace=True)
    OmegaConf.register_new_resolver("runner_help", _help, replace=True)


def _target(*, _parent_: DictConfig, _root_: DictConfig) -> float | None:
    entry = _root_.targets.get("values", {}).get(_target_key(_parent_.name, _parent_))
    return None if entry is None else entry.target


def _target_key(name: str, workload: Mapping[Any, Any]) -> str:
    # Data that differs between installations says which it is; a target belongs to one of them.
    data = workload.get("data_id")
    return name if data is None else f"{name}@{data}"


def _call(function: str) -> Any:
    from hydra.utils import get_method

    return get_method(function)()


def _help() -> str:
    from runner.help import text

    return text()


def _compose(overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    """Config and choice of files. Files are composed once per choice; changed keys go on top of a copy."""
    groups = tuple(o for o in overrides if _is_group(o))
    cfg, choices = _compose_files(groups, _searchpath, _stamp())
    cfg = copy.deepcopy(cfg)
    keys = [o for o in overrides if not _is_group(o)]
    # What Hydra itself does behind its defaults list, and so with its grammar and its errors.
    parsed = OverridesParser.create().parse_overrides(keys)
    sweeps = [str(o.input_line) for o in parsed if o.is_sweep_override()]
    if sweeps:
        raise UserError(f"{sweeps[0]}: add -m to sweep over it, or write [a,b] for a list")
    ConfigLoaderImpl._apply_overrides_to_config(parsed, cfg)
    return cfg, dict(choices)


@functools.lru_cache(maxsize=1024)
def _compose_files(
    groups: tuple[str, ...], searchpath: tuple[str, ...], _stamp: float
) -> tuple[DictConfig, dict[str, str]]:
    import hydra

    extra = [f"hydra.searchpath=[{','.join(f'file://{d}' for d in searchpath)}]"] if searchpath else []
    cfg = hydra.compose("config", overrides=[*groups, *extra], return_hydra_config=True)
    choices = {k: str(v) for k, v in cfg.hydra.runtime.choices.items() if not str(k).startswith("hydra")}
    # Hydra leaves out lists: algorithm/transform=[clip_norm,perpgrad].
    choices |= {k.lstrip("+"): v for k, _, v in (o.partition("=") for o in groups) if v.startswith("[")}
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, choices


def _is_group(override: str) -> bool:
    key = override.lstrip("+~").partition("=")[0]
    return "/" in key or any((Path(base) / key).is_dir() for base in (CONF, *_searchpath) if key)


def _stamp() -> float:
    """Changes whenever a config file does: a notebook sees an edited YAML at the next call."""
    files = [p for base in (CONF, *map(Path, _searchpath)) for p in base.rglob("*.yaml")]
    return max((p.stat().st_mtime for p in files), default=0.0) + len(files)


def _baseline(choices: Mapping[str, str]) -> dict[str, Any]:
    """The same choice of files without any changed key: what types are held against."""
    picked = {
        group: choice for group, choice in choices.items() if choice != "None" and group not in _SHAPING
    }
    dropped = [
        f"~{g}" for g, choice in _preset_choices(picked).items() if choice != "None" and g not in picked
    ]
    cfg, _ = _compose((*(f"{group}={choice}" for group, choice in sorted(picked.items())), *dropped))
    return _plain(cfg)


_SHAPING = ("experiment",)  # groups that set keys rather than add a part


def _preset_choices(choices: Mapping[str, str]) -> dict[str, str]:
    return _compose((f"algorithm={choices['algorithm']}",))[1]


def _plain(cfg: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    config = {str(key): value for key, value in plain.items()}
    # A part left at null is absent, and so leaves no trace in the cell's id.
    config["algorithm"] = {k: v for k, v in config["algorithm"].items() if v is not None}
    return config


def _without(tree: Any, keys: Sequence[str]) -> Any:
    if isinstance(tree, dict):
        return {k: _without(v, keys) for k, v in tree.items() if k not in keys}
    return tree


# -- errors ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def explained(config_dirs: Sequence[Path] = (), overrides: Sequence[str] = ()) -> Iterator[None]:
    """Turn Hydra's and OmegaConf's exceptions, which ``overrides`` brought about, into one line of advice."""
    try:
        yield
    except MissingConfigException as error:
        raise UserError(_unknown_name(error)) from error
    except ConfigCompositionException as error:
        raise UserError(_unknown_key(error, config_dirs, overrides)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_first_line(error)) from error


def _unknown_name(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = [o for o in error.options or [] if o != presets.BASE]
    return f"unknown {group or 'config'} {name!r}: {nearest(name, options)}"


def _unknown_key(
    error: ConfigCompositionException, config_dirs: Sequence[Path], overrides: Sequence[str]
) -> str:
    found = re.match(r"Could not override '([^']+)'", str(error))
    if found is None:
        return _first_line(error)
    key = found[1]
    if "/" in key or key in ("optimizer", "loss", "schedule"):
        groups = {f"algorithm/{path.parent.name}" for _, path in presets.parts(config_dirs)}
        return f"unknown group {key!r}: {nearest(key, groups | {'algorithm', 'workload', 'log', 'targets'})}"
    with hydra_ready(config_dirs):
        cfg, _ = _compose(tuple(o for o in cell_overrides(overrides) if _is_group(o)))
    keys = values.flatten(_plain(cfg))
    parent = key.rpartition(".")[0]
    siblings = [k for k in keys if k.rpartition(".")[0] == parent]
    return f"unknown key {key!r}: {nearest(key, siblings or keys)}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    if first.startswith("Ambiguous value"):
        first += ": add -m to sweep over it, or write [a,b] for a list"
    return first
