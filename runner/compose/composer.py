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

import yaml
from hydra import version
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ConfigDefault, GroupDefault
from hydra.core.object_type import ObjectType
from hydra.core.utils import setup_globals
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from runner.base.errors import UserError, nearest, one_line
from runner.base.paths import CONF, settled
from runner.compose import presets, structure, values
from runner.compose.hydra_internals import ConfigLoaderImpl, ConfigRepository, create_config_search_path
from runner.compose.overrides import GROUPS, bare, is_listed, name_of, parsed
from runner.compose.structure import OwnFile

AUTO = "auto"  # a workload's target: the one in conf/targets
LAUNCHER = "local"  # where nothing else is chosen
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
        settings: what the algorithm's file sets beside parts and nulls.
        counted: whether a value is made from the study or the trial.
        own: the files at the root of the config, such as experiments, but for ``config.yaml`` itself.
    """

    tree: bytes
    choices: dict[str, str]
    targets: dict[str, Any]
    settings: frozenset[str]
    counted: bool
    own: tuple[OwnFile, ...]


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
        main = self._repository.load_config("config")
        assert main is not None
        self.known = {*map(str, main.config), *GROUPS} - {"hydra"}  # keys that a config may have
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
        groups = tuple(o for o in overrides if self.chooses(o))
        return groups, tuple(o for o in overrides if not self.chooses(o))

    def chooses(self, override: str) -> bool:
        """Whether it chooses files, rather than sets keys as ``algorithm={optimizer: {lr: 0.1}}`` does."""
        return self.is_group(name_of(override)) and not override.partition("=")[2].startswith("{")

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
        assigned = {name_of(o): parsed(o).value() for o in overrides if not o.startswith("~")}
        given: dict[str, Any] = {}
        for tree in (*(file.tree for file in self.files(groups).own), assigned):
            given |= values.flatten(tree)
        return given

    def preset_choices(self, groups: Sequence[str], files: Files) -> Mapping[str, str]:
        """What the algorithm's bare preset chooses."""
        preset = f"algorithm={files.choices['algorithm']}"
        return files.choices if self._are_plain(groups) else self.files((preset,)).choices

    @functools.cached_property
    def launch_loader(self) -> ConfigLoaderImpl:
        """Composes, besides, what no cell has to do with: how they are launched."""
        loader = ConfigLoaderImpl(self._repository.config_search_path)
        loader.repository = _Checked(self._repository.config_search_path)
        return loader

    def launch_config(self, overrides: Sequence[str]) -> DictConfig:
        """The config with ``hydra``, of the overrides that hold for every cell.

        Dotted keys are left to the cells: which of them there are depends on each cell's files.
        """
        shared = [o for o in overrides if self.chooses(o) or "." not in name_of(o) or _is_hydras(o)]
        shared = [o for o in shared if not parsed(o).is_sweep_override()]
        self._check_choices([o for o in shared if self.chooses(o)])
        return self.launch_loader.load_configuration("config", shared, RunMode.MULTIRUN)

    def says_how(self, choice: str) -> bool:
        """Whether the file of a choice says how cells are launched."""
        file = self.launch_loader.repository.load_config(f"{name_of(choice)}/{choice.partition('=')[2]}")
        return file is not None and "hydra" in (file.config or {})

    def options(self, group: str) -> list[str]:
        """Files that a group has."""
        return self._repository.get_group_options(group, ObjectType.CONFIG)

    def tree(self, groups: tuple[str, ...]) -> DictConfig:
        """The unresolved config of these files; the caller may change it."""
        return pickle.loads(self.files(groups).tree)

    def _files(self, groups: tuple[str, ...]) -> Files:
        self._check_choices(groups)
        own = self._own_files(groups)
        cfg = self._loader.load_configuration("config", list(groups), RunMode.RUN, from_shell=False)
        choices = {k: str(v) for k, v in cfg.hydra.runtime.choices.items() if not str(k).startswith("hydra")}
        choices = {group: bare(choice) for group, choice in choices.items()}
        # Hydra leaves out lists: algorithm/transform=[clip_norm,perpgrad].
        choices |= {name_of(o): bare(o.partition("=")[2]) for o in groups if is_listed(o)}
        with open_dict(cfg):
            del cfg["hydra"]
        table = self._repository.targets.get(f"targets/{choices.get('targets')}", {})
        tree: Any = OmegaConf.to_container(cfg, resolve=False)
        counted = COUNTED.search(str(tree)) is not None
        return Files(pickle.dumps(cfg), choices, table, _settings(tree.get("algorithm")), counted, own)

    def _own_files(self, groups: tuple[str, ...]) -> tuple[OwnFile, ...]:
        if all(name_of(o).partition("/")[0] in GROUPS for o in groups):
            return ()  # they set keys of their own group alone
        files = self._loader.compute_defaults_list("config", list(groups), RunMode.RUN).defaults
        paths = [f.config_path for f in files if not f.primary and f.config_path]
        return tuple(
            self._own_file(path) for path in paths if path.partition("/")[0] not in (*GROUPS, "hydra")
        )

    def _own_file(self, path: str) -> OwnFile:
        file = self._repository.load_config(path)
        assert file is not None
        for default in file.defaults_list or []:
            if isinstance(default, GroupDefault) and isinstance(default.value, list):
                self._check_list(str(default.group).lstrip("/"), default.value, path)
        tree = OmegaConf.to_container(file.config, resolve=False)
        return OwnFile(path, {str(k): v for k, v in tree.items()} if isinstance(tree, dict) else {})

    def _check_choices(self, groups: Sequence[str]) -> None:
        for choice in groups:
            group, name = name_of(choice), choice.partition("=")[2]
            if is_listed(choice):
                self._check_list(group, list(map(str, parsed(choice).value() or [])), choice)  # pyright: ignore[reportArgumentType]
            # What other files take in; a way through folders; a part where the whole is asked for.
            if name.startswith("_") or ".." in name or (group == "algorithm" and "/" in bare(name)):
                meant = nearest(name.rpartition("/")[2], self.options(group))
                raise UserError(f"unknown {group} {name!r}: {meant}")

    def _check_list(self, group: str, names: Sequence[str], where: str) -> None:
        files = [self._repository.load_config(f"{group}/{name}") for name in names]
        packages = [file.header["package"] for file in files if file is not None]
        if group not in SHAPING:
            structure.check_choices(group, names, packages, where)

    def _resolved(self, groups: tuple[str, ...], keys: tuple[str, ...]) -> dict[str, Any]:
        cfg = self.tree(groups)
        _apply(keys, cfg)
        plain = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(plain, dict)
        config = {str(key): value for key, value in plain.items()}
        structure.check(config, self.known, self.files(groups).own)
        if self.files(groups).choices.get("ruleset", "None") == "None":
            left = config.pop("ruleset", None)  # what an experiment sets for a ruleset that was taken out
            if left and "~ruleset" not in groups:
                raise UserError(structure.no_ruleset(self.files(groups).own))
        # A part left at null is absent, and so leaves no trace in the cell's id.
        settings = self.files(groups).settings
        config["algorithm"] = {k: v for k, v in config["algorithm"].items() if v is not None or k in settings}
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
            return name in GROUPS and group[0] not in "+~"
        file = self._repository.load_config(f"{name}/{choice}")
        return file is not None and _picks_files_alone(file)

    def _is_group(self, name: str) -> bool:
        return "/" in name or any((Path(base) / name).is_dir() for base in (CONF, *self.config_dirs) if name)


def _settings(algorithm: Any) -> frozenset[str]:
    written = algorithm.items() if isinstance(algorithm, dict) else ()
    return frozenset(key for key, value in written if not (value is None or isinstance(value, dict)))


def target_key(name: str, workload: Mapping[str, Any]) -> str:
    """Where the target of a workload stands in the table."""
    # Data that differs between installations says which it is; a target belongs to one of them.
    data = workload.get("data_id")
    return name if data is None else f"{name}@{data}"


# -- which composer ----------------------------------------------------------------------------------

_open: Composer | None = None
_last: Composer | None = None


@contextlib.contextmanager
def composer(config_dirs: Sequence[Path] = ()) -> Iterator[Composer]:
    """The composer for these folders: inside another ``with`` that one, else one of the files as they are."""
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
    stamp = _stamp(config_dirs)
    if _last is None or (_last.config_dirs, _last.stamp) != (config_dirs, stamp):
        _last = Composer(config_dirs, stamp)
    _last.forget_values()
    return _last


def _stamp(config_dirs: Sequence[str]) -> int:
    """Changes whenever a config file does: a notebook sees an edited YAML at the next call."""
    files = [p for base in (CONF, *map(Path, config_dirs)) for p in base.rglob("*.yaml")]
    return hash(tuple(sorted((str(p), p.stat().st_mtime_ns) for p in files if p.exists())))


# -- Hydra -------------------------------------------------------------------------------------------


class _Checked(ConfigRepository):
    """Says in which file a mistake is, and lets an experiment choose the launcher."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        result = self._read(config_path)
        # In Hydra the first override wins, which would be that of config.yaml: it becomes the default itself.
        defaults = (result and result.defaults_list) or []
        launchers = [d for d in defaults if isinstance(d, GroupDefault) and _chooses_launcher(d)]
        if result is not None and config_path == "config":
            result.defaults_list = [d for d in defaults if d not in launchers]
        for default in launchers if config_path == "hydra/config" else []:
            default.value = LAUNCHER
        return result

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = None) -> list[str]:
        found = super().get_group_options(group_name, results_filter)
        return [name for name in found if name != presets.BASE and not name.startswith(("_", "."))]

    def _read(self, config_path: str) -> ConfigResult | None:
        try:
            return super().load_config(config_path)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = "" if mark is None else f", line {mark.line + 1}"
            raise UserError(
                f"{config_path}.yaml{line}: invalid YAML: {one_line(str(error.problem))}"
            ) from error
        except UnicodeDecodeError as error:
            raise UserError(f"{config_path}.yaml: not UTF-8 (byte {error.start})") from error
        except (yaml.YAMLError, OSError, ValueError) as error:
            raise UserError(f"{config_path}.yaml: {one_line(str(error))}") from error


class _Remembering(_Checked):
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
        if result is None or not isinstance(result.config, DictConfig):
            return result
        if not config_path.startswith("hydra/") and config_path != "config":
            result.config.pop("hydra", None)  # how an experiment is launched is no matter of its cells
        if config_path.startswith("targets/") and "values" in result.config:
            table = OmegaConf.to_container(result.config.pop("values"), resolve=True)
            assert isinstance(table, dict)
            self.targets[bare(config_path)] = {str(key): entry for key, entry in table.items()}
        return result


def _chooses_launcher(default: GroupDefault) -> bool:
    return str(default.group).rpartition("/")[2] == "launcher"


def _is_hydras(override: str) -> bool:
    return name_of(override).partition(".")[0] == "hydra"


def _picks_files_alone(file: ConfigResult) -> bool:
    """Whether an experiment's file sets no key of a workload or an algorithm, and no part."""
    config, defaults = file.config, file.defaults_list or []
    groups = [d for d in defaults if isinstance(d, GroupDefault)]
    files = [d.path for d in defaults if isinstance(d, ConfigDefault)]
    picks = all(d.override and str(d.group).lstrip("/") in GROUPS for d in groups)
    whole = file.header["package"] == "_global_" and files in ([], ["_self_"])
    return picks and whole and isinstance(config, DictConfig) and not {*GROUPS} & set(config)


def _search_path(config_dirs: Sequence[str]) -> ConfigSearchPath:
    version.setbase("1.3")
    setup_globals()
    path = create_config_search_path(f"file://{CONF}")
    for folder in config_dirs:
        path.prepend("runner", f"file://{folder}", anchor="schema")
    return path


def _apply(keys: Sequence[str], cfg: DictConfig) -> None:
    """What Hydra itself does behind its defaults list, and so with its grammar and its errors."""
    overrides = [parsed(key) for key in keys]
    for override in overrides:
        # An argument of a part is then at the part's own default; anything else is needed.
        if override.is_delete() and not str(override.key_or_group).startswith("algorithm."):
            raise UserError(f"{override.input_line}: keys cannot be deleted; set {override.key_or_group}=…")
    ConfigLoaderImpl._apply_overrides_to_config(overrides, cfg)
