"""Hydra's part of composing a cell: files are composed once per choice, changed keys go on top of a copy.

A composition of files takes about 100 ms and a grid makes thousands of cells of a few choices, so all that
cells share is kept here.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ConfigDefault, GroupDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from runner import presets, values
from runner.errors import UserError
from runner.overrides import bare, is_listed, name_of
from runner.paths import CONF, settled

AUTO = "auto"  # a workload's target: the one in conf/targets
PLAIN_GROUPS = (
    "algorithm",
    "workload",
    "log",
    "targets",
    "ruleset",
    "diagnostics",
)  # their files add to no other group
SHAPING = ("experiment",)  # groups that set keys rather than add a part
COUNT = re.compile(r"(study|trial)=(0|[1-9]\d*)")
COUNTED = re.compile(r"\$\{[^}]*\b(study|trial)\b")
KEPT = 256  # resolved configs that are remembered


@dataclass(frozen=True)
class Files:
    """One choice of config files, composed.

    Attributes:
        tree: the pickled, unresolved ``DictConfig``; unpickling copies it faster than a deep copy.
        choices: config group -> file chosen.
        targets: the table of targets, which is big and stays out of the tree.
        counted: whether a value is made from the study or the trial.
        given: what files at the root of the config set, as experiments do, by dotted key.
    """

    tree: bytes
    choices: dict[str, str]
    targets: dict[str, Any]
    counted: bool
    given: dict[str, Any]


class Composer:
    """Composes from ``conf/`` and other folders as their files are now.

    Args:
        config_dirs: folders beside ``conf/``, absolute.
    """

    def __init__(self, config_dirs: tuple[str, ...], stamp: int) -> None:
        presets.register([Path(d) for d in config_dirs])
        self.config_dirs, self.stamp = config_dirs, stamp
        self._repository = _Remembering(_search_path(config_dirs), {}, {})
        self._loader = ConfigLoaderImpl(self._repository.config_search_path)
        self._loader.repository = self._repository
        self.is_group = functools.cache(self._is_group)
        self.is_plain = functools.cache(self._is_plain)
        self.files = functools.lru_cache(maxsize=1024)(self._files)
        # The resolved config of (groups, keys), remembered: not to be changed.
        self.plain = functools.lru_cache(maxsize=KEPT)(self._resolved)

    def forget_values(self) -> None:
        """Resolve anew from here on: the environment may have changed."""
        self.plain.cache_clear()

    def split(self, overrides: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Those that choose files, and those that set keys."""
        groups = tuple(o for o in overrides if self.is_group(name_of(o)))
        return groups, tuple(o for o in overrides if not self.is_group(name_of(o)))

    def config(self, overrides: Sequence[str]) -> tuple[dict[str, Any], Files]:
        """The resolved config, as plain data of the caller's own, and the files that it is made of."""
        groups, keys = self.split(overrides)
        files = self.files(groups)
        counts: dict[str, int] = {}
        if not files.counted and not any(COUNTED.search(key) for key in keys):
            # Most cells of a grid differ in these two alone.
            found = {key: match for key in keys if (match := COUNT.fullmatch(key))}
            counts = {match[1]: int(match[2]) for key in keys if (match := found.get(key))}
            keys = tuple(key for key in keys if key not in found)
        return copy.deepcopy(self.plain(groups, keys)) | counts, files

    def baseline(self, overrides: Sequence[str], files: Files) -> dict[str, Any]:
        """The same choice of files without any changed key: what types are held against; read-only."""
        groups, _ = self.split(overrides)
        if self._are_plain(groups):
            return self.plain(groups, ())
        picked = {g: c for g, c in files.choices.items() if c != "None" and g not in SHAPING}
        preset = self.preset_choices(groups, files)
        dropped = [f"~{g}" for g, c in preset.items() if c != "None" and g not in picked]
        return self.plain((*(f"{g}={c}" for g, c in sorted(picked.items())), *dropped), ())

    def given(self, overrides: Sequence[str]) -> dict[str, Any]:
        """What the user sets, by dotted key, on the command line or in an experiment."""
        groups, _ = self.split(overrides)
        assigned = {name_of(o): _parsed(o).value() for o in overrides if not o.startswith("~")}
        return self.files(groups).given | values.flatten(assigned)

    def preset_choices(self, groups: Sequence[str], files: Files) -> Mapping[str, str]:
        """What the algorithm's bare preset chooses."""
        preset = f"algorithm={files.choices['algorithm']}"
        return files.choices if self._are_plain(groups) else self.files((preset,)).choices

    def options(self, group: str) -> list[str]:
        """Files that a group has."""
        found = self._repository.get_group_options(group, ObjectType.CONFIG)
        return [name for name in found if name != presets.BASE and not name.startswith("_")]

    def tree(self, groups: tuple[str, ...]) -> DictConfig:
        """The unresolved config of these files; the caller may change it."""
        return pickle.loads(self.files(groups).tree)

    def _files(self, groups: tuple[str, ...]) -> Files:
        cfg = self._loader.load_configuration("config", list(groups), RunMode.RUN, from_shell=False)
        choices = {k: str(v) for k, v in cfg.hydra.runtime.choices.items() if not str(k).startswith("hydra")}
        choices = {group: bare(choice) for group, choice in choices.items()}
        # Hydra leaves out lists: algorithm/transform=[clip_norm,perpgrad].
        choices |= {name_of(o): bare(o.partition("=")[2]) for o in groups if is_listed(o)}
        with open_dict(cfg):
            del cfg["hydra"]
        table = self._repository.targets.get(f"targets/{choices.get('targets')}", {})
        counted = COUNTED.search(str(OmegaConf.to_container(cfg, resolve=False))) is not None
        return Files(pickle.dumps(cfg), choices, table, counted, self._given(groups))

    def _given(self, groups: tuple[str, ...]) -> dict[str, Any]:
        """What files at the root of the config set, but for the project's own ``config.yaml``."""
        if all(name_of(o).partition("/")[0] in PLAIN_GROUPS for o in groups):
            return {}  # they set keys of their own group alone
        files = self._loader.compute_defaults_list("config", list(groups), RunMode.RUN).defaults
        paths = [f.config_path for f in files if not f.package and not f.primary and f.config_path]
        loaded = [file.config for path in paths if (file := self._repository.load_config(path))]
        given: dict[str, Any] = {}
        for tree in loaded:
            given |= values.flatten(OmegaConf.to_container(tree, resolve=False))  # pyright: ignore[reportArgumentType]
        return given

    def _resolved(self, groups: tuple[str, ...], keys: tuple[str, ...]) -> dict[str, Any]:
        cfg = self.tree(groups)
        _apply(keys, cfg)
        plain = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(plain, dict)
        config = {str(key): value for key, value in plain.items()}
        if self.files(groups).choices.get("ruleset", "None") == "None":
            config.pop("ruleset", None)  # what an experiment sets for a ruleset that was taken out
        # A part left at null is absent, and so leaves no trace in the cell's id.
        config["algorithm"] = {k: v for k, v in config["algorithm"].items() if v is not None}
        workload = config["workload"]
        if workload.get("target") == AUTO:
            entry = self.files(groups).targets.get(target_key(workload["name"], workload))
            workload["target"] = None if entry is None else entry["target"]
        return settled(config)

    def _are_plain(self, groups: Sequence[str]) -> bool:
        """Whether they choose whole files alone, so that what is composed is its own baseline."""
        return all(self.is_plain(o) for o in groups)

    def _is_plain(self, group: str) -> bool:
        name, choice = name_of(group), group.partition("=")[2]
        if name not in SHAPING:
            return name in PLAIN_GROUPS and group[0] not in "+~"
        file = self._repository.load_config(f"{name}/{choice}")
        return file is not None and _picks_files_alone(file)

    def _is_group(self, name: str) -> bool:
        return "/" in name or any((Path(base) / name).is_dir() for base in (CONF, *self.config_dirs) if name)


def target_key(name: str, workload: Mapping[str, Any]) -> str:
    """Where the target of a workload stands in the table."""
    # Data that differs between installations says which it is; a target belongs to one of them.
    data = workload.get("data_id")
    return name if data is None else f"{name}@{data}"


# -- which composer ----------------------------------------------------------------------------------

_open: Composer | None = None
_last: tuple[Any, Composer] | None = None  # and the running Hydra that it was made under


@contextlib.contextmanager
def composer(config_dirs: Sequence[Path] = ()) -> Iterator[Composer]:
    """The composer for these folders: inside another ``with`` that one, in a launcher one for all its life,
    else one that has seen every change of a file.
    """
    global _open
    if _open is not None:
        yield _open
        return
    _open = _current(tuple(str(Path(d).resolve()) for d in config_dirs))
    try:
        yield _open
    finally:
        _open = None


def _current(config_dirs: tuple[str, ...]) -> Composer:
    global _last
    running = GlobalHydra.instance().hydra
    known = _last[1] if _last is not None and _last[1].config_dirs == config_dirs else None
    if known is not None and running is not None and _last is not None and _last[0] is running:
        return known
    stamp = _stamp(config_dirs)
    if known is None or known.stamp != stamp:
        known = Composer(config_dirs, stamp)
    known.forget_values()
    _last = running, known
    return known


def _stamp(config_dirs: Sequence[str]) -> int:
    """Changes whenever a config file does: a notebook sees an edited YAML at the next call."""
    files = [p for base in (CONF, *map(Path, config_dirs)) for p in base.rglob("*.yaml")]
    return hash(tuple(sorted((str(p), p.stat().st_mtime_ns) for p in files if p.exists())))


# -- Hydra -------------------------------------------------------------------------------------------


class _Remembering(ConfigRepository):
    """Parses a file once, not once a composition, and takes the tables of targets out."""

    def __init__(
        self,
        search_path: ConfigSearchPath,
        files: dict[tuple[str, tuple[str, ...]], bytes],
        targets: dict[str, dict[str, Any]],
    ) -> None:
        super().__init__(search_path)
        self.config_search_path, self.files, self.targets = search_path, files, targets

    def __deepcopy__(self, _memo: object) -> _Remembering:
        # Hydra works on a copy, since it may change the search path; what was read is shared.
        return _Remembering(self.config_search_path, self.files, self.targets)

    def load_config(self, config_path: str) -> ConfigResult | None:
        key = config_path, tuple(source.path for source in self.sources)
        if key not in self.files:
            self.files[key] = pickle.dumps(self._without_table(config_path))
        return pickle.loads(self.files[key])

    def _without_table(self, config_path: str) -> ConfigResult | None:
        result = super().load_config(config_path)
        if result is None or not config_path.startswith("targets/"):
            return result
        config = result.config
        if isinstance(config, DictConfig) and "values" in config:
            table = OmegaConf.to_container(config.pop("values"), resolve=True)
            assert isinstance(table, dict)
            self.targets[bare(config_path)] = {str(key): entry for key, entry in table.items()}
        return result


def _picks_files_alone(file: ConfigResult) -> bool:
    """Whether an experiment's file sets no key of a workload or an algorithm, and no part."""
    config, defaults = file.config, file.defaults_list or []
    groups = [d for d in defaults if isinstance(d, GroupDefault)]
    files = [d.path for d in defaults if isinstance(d, ConfigDefault)]
    picks = all(d.override and str(d.group).lstrip("/") in PLAIN_GROUPS for d in groups)
    whole = file.header["package"] == "_global_" and files in ([], ["_self_"])
    return picks and whole and isinstance(config, DictConfig) and not {"algorithm", "workload"} & set(config)


def _search_path(config_dirs: Sequence[str]) -> ConfigSearchPath:
    version.setbase("1.3")
    setup_globals()
    path = create_config_search_path(f"file://{CONF}")
    for folder in config_dirs:
        path.prepend("runner", f"file://{folder}", anchor="schema")
    return path


def _apply(keys: Sequence[str], cfg: DictConfig) -> None:
    """What Hydra itself does behind its defaults list, and so with its grammar and its errors."""
    parsed = [_parsed(key) for key in keys]
    sweeps = [str(o.input_line) for o in parsed if o.is_sweep_override()]
    if sweeps:
        raise UserError(f"{sweeps[0]}: add -m to sweep over it, or write [a,b] for a list")
    ConfigLoaderImpl._apply_overrides_to_config(parsed, cfg)


@functools.lru_cache(maxsize=4096)
def _parsed(key: str) -> Override:
    return OverridesParser.create().parse_overrides([key])[0]
