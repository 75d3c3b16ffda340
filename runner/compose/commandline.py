"""``python -m runner <flags> <overrides>``: taken apart, composed for the launch, handed to a launcher.

Hydra's flags, grammar and files are used, its way of running jobs is not: cells are composed by
:mod:`runner.compose.config`, each with its own files.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from runner import __version__
from runner.base.errors import UserError
from runner.base.paths import expanded, own_folders
from runner.compose import advice
from runner.compose.composer import Composer
from runner.compose.config import explained, hydra_ready
from runner.compose.overrides import MOST, as_hydra, check_text, name_of, parsed
from runner.provenance import trust

OURS = "hydra_plugins.runner_launchers."
ALONE = {  # what Hydra would take and cells would not see, and what does it here
    "config_name": "the config is conf/config.yaml; put your own keys into an experiment: +experiment=<name>",
    "config_path": "add your own folder to conf/ with --config-dir <folder>",
    "experimental_rerun": "launch the same command again, or python -m runner.retry <experiment>",
}
HYDRAS = {
    "hydra.searchpath": "add your own folder to conf/ with --config-dir <folder>",
    "hydra.run.dir": "results are written to results_dir/name: set results_dir or name",
    "hydra.sweep.dir": "results are written to results_dir/name: set results_dir or name",
    "hydra.sweep.subdir": "the folder is named after the cell",
}


@dataclass(frozen=True)
class CommandLine:
    """What was typed.

    Attributes:
        parser: Hydra's, for its help.
        flags: Hydra's own.
        overrides: in Hydra's spelling.
        config_dirs: folders beside ``conf/``.
    """

    parser: argparse.ArgumentParser
    flags: argparse.Namespace
    overrides: list[str]
    config_dirs: list[Path]

    @property
    def shows(self) -> bool:
        """Whether a flag asks for something to be printed, and nothing to be trained."""
        flags = self.flags
        return any((flags.help, flags.hydra_help, flags.cfg, flags.info, flags.shell_completion))


def read(arguments: Sequence[str]) -> CommandLine:
    """Take a command line apart; flags and overrides may stand in any order.

    Raises:
        UserError: for a flag that is none or that has no use here, and an override that cannot be read.
    """
    from runner.compose.hydra_internals import get_args_parser

    check_text(arguments)
    parser = argparse.ArgumentParser("python -m runner", parents=[get_args_parser()], add_help=False,
                                     conflict_handler="resolve", exit_on_error=False)  # fmt: skip
    parser.add_argument("--config-dir", "-cd", action="append", default=own_folders(), type=expanded,
                        help="Adds a folder to the config search path")  # fmt: skip
    parser.add_argument("--version", action="version", version=f"time-to-target {__version__}")
    trust.add_option(parser)
    try:
        flags, unknown = parser.parse_known_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    if unknown:
        following = "".join(arguments[arguments.index(unknown[0]) + 1 :][:1])
        raise UserError(advice.unknown_flag(unknown[0], following))
    for flag, instead in ALONE.items():
        if getattr(flags, flag) not in (None, "config"):
            raise UserError(f"--{flag.replace('_', '-')}: {instead}")
    for folder in flags.config_dir:
        if not folder.is_dir():
            raise UserError(f"--config-dir {folder}: no such folder")
    overrides = [as_hydra(override) for override in flags.overrides]
    for override in overrides:
        if parsed(override).key_or_group in HYDRAS:
            raise UserError(f"{override}: {HYDRAS[name_of(override)]}")
    return CommandLine(parser, flags, overrides, flags.config_dir)


def run(line: CommandLine) -> int:
    """Do what the command line says; returns the exit code.

    Raises:
        UserError: for a mistake in it.
    """
    trust.allow(line.flags.allow)
    with explained(line.config_dirs, line.overrides), hydra_ready(line.config_dirs) as using:
        if line.shows:
            _show(line, using)
            return 0
        cfg = using.launch_config(line.overrides)
        jobs = _jobs(line, cfg, using)
        launcher = _launcher(cfg)
    with hydra_ready(line.config_dirs):  # every cell sees the files as they are now
        return launcher.start(jobs, line.config_dirs)


def split(overrides: Sequence[str], loader: Any = None) -> list[list[str]]:
    """The override lists of a sweep: the product of those with several values.

    Args:
        overrides: of one key twice, the last counts.
        loader: knows the files that ``glob(…)`` stands for.

    Raises:
        UserError: for more than :data:`MOST` of them.
    """
    axes = {name_of(override): _limited(override, loader) for override in overrides}
    if math.prod(map(len, axes.values())) > MOST:
        raise UserError(f"a grid of more than {MOST:,} cells: split it into several launches")
    return [list(job) for job in itertools.product(*axes.values())]


def _limited(override: str, loader: Any) -> list[str]:
    found = list(itertools.islice(_values(override, loader), MOST + 1))
    if len(found) > MOST:
        raise UserError(f"{override}: more than {MOST:,} values, the largest grid")
    return found


def _values(override: str, loader: Any) -> Iterator[str]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not parsed(override).is_sweep_override():
        yield override
        return
    sweep = OverridesParser.create(loader).parse_overrides([override])[0]
    if not sweep.is_discrete_sweep():
        raise UserError(
            f"{override}: an interval has infinitely many values: list them, or use range(start,stop,step)"
        )
    yield from (f"{sweep.get_key_element()}={value}" for value in sweep.sweep_string_iterator())


def _jobs(line: CommandLine, cfg: DictConfig, using: Composer) -> list[list[str]]:
    chosen = cfg.hydra.runtime.choices["hydra/sweeper"]
    if chosen != "basic":
        raise UserError(advice.other_sweeper(chosen))
    params = [f"{key}={value}" for key, value in (cfg.hydra.sweeper.params or {}).items()]
    if line.flags.multirun or str(cfg.hydra.mode).endswith("MULTIRUN"):
        for override in line.overrides:
            if parsed(override).is_sweep_override():
                _refuse_hydra(override, using)
        return split([*map(as_hydra, params), *line.overrides], using.launch_loader)
    _refuse_sweeps(line)
    if params:
        raise UserError(f"hydra.sweeper.params ({params[0]}, …) defines a grid: add -m")
    return [line.overrides]


def _refuse_sweeps(line: CommandLine) -> None:
    for override in line.overrides:
        if parsed(override).is_sweep_override():
            raise UserError(advice.swept(override))


def _refuse_hydra(override: str, using: Composer) -> None:
    """What says how a grid is launched cannot be one axis of it."""
    name = name_of(override)
    if name.startswith("hydra"):
        raise UserError(f"{override}: the whole grid shares one {name}")
    if name == "experiment":
        for value in _values(override, using.launch_loader):
            if using.says_how(value):
                raise UserError(f"{value}: sets its own launcher (hydra:); launch it separately")


def _launcher(cfg: DictConfig) -> Any:
    from hydra.utils import instantiate

    if not str(cfg.hydra.launcher["_target_"]).startswith(OURS):
        raise UserError(advice.other_launcher(cfg.hydra.runtime.choices["hydra/launcher"]))
    return instantiate(cfg.hydra.launcher)


def _show(line: CommandLine, using: Composer) -> None:
    """Hydra's flags that print."""
    from runner.compose.hydra_internals import Hydra

    _refuse_sweeps(line)
    hydra, flags = Hydra("runner", using.launch_loader), line.flags
    asked: Mapping[str, Any] = {"config_name": "config", "overrides": line.overrides}
    if flags.help and "$" not in (text := using.launch_config(line.overrides).hydra.help.template):
        print(text)  # Hydra takes 2.5 s to gather what a template might ask for, such as $FLAGS_HELP
    elif flags.help:
        hydra.app_help(config_name="config", args_parser=line.parser, args=flags)
    elif flags.hydra_help:
        hydra.hydra_help(config_name="config", args_parser=line.parser, args=flags)
    elif flags.cfg:
        hydra.show_cfg(**asked, cfg_type=flags.cfg, package=flags.package, resolve=flags.resolve)
    elif flags.info:
        hydra.show_info(flags.info, **asked)
    else:
        hydra.shell_completion(**asked)
