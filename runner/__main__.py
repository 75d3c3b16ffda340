"""``python -m runner``: train an algorithm on a workload. See ``--help``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from runner import presets
from runner.config import explained, register_resolvers, without_null
from runner.display import Display
from runner.errors import UserError
from runner.paths import CONF, expanded


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the command line to Hydra; a user's mistake is one line and exit code 2.

    Returns:
        0 when every cell is done or diverged, 1 when one failed, 2 for bad input, 130 after Ctrl-C.
    """
    arguments = [_readable(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    sys.argv = ["python -m runner", *arguments]
    try:
        with explained(config_dirs(), [a for a in arguments if "=" in a and not a.startswith("-")]):
            register_resolvers()
            presets.register(config_dirs())
            _hydra()
    except UserError as error:
        Display.error(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _readable(argument: str) -> str:
    """An argument as Hydra reads it."""
    flag, _, value = argument.partition("=")
    if flag == "--config-dir" and value:
        return f"{flag}={expanded(value)}"
    return str(expanded(argument)) if argument.startswith("~/") else without_null(argument)


def _hydra() -> None:
    import hydra

    # Hydra otherwise prints its own multi-line message and exits with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def run(cfg: DictConfig) -> None:
        _launch(cfg)

    run()


def _launch(cfg: DictConfig) -> None:
    """Without ``-m`` Hydra starts no launcher: one override list is a grid, too."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    hydra = HydraConfig.get()
    with open_dict(cfg):
        cfg.hydra = {"launcher": OmegaConf.to_container(hydra.launcher, resolve=False)}
    if not str(hydra.launcher["_target_"]).startswith("hydra_plugins.runner_launchers."):
        chosen = hydra.runtime.choices["hydra/launcher"]
        Display.error(f"hydra/launcher={chosen}: cells run with local, slurm or inline")
        raise SystemExit(2)
    instantiate(cfg.hydra["launcher"]).launch([list(hydra.overrides.task)], 0)


def config_dirs() -> list[Path]:
    """Those of this process's command line; see :func:`extra_config_dirs`."""
    return extra_config_dirs(sys.argv[1:])


def extra_config_dirs(arguments: Sequence[str]) -> list[Path]:
    """Folders given with Hydra's ``--config-dir`` (``-cd``): they may hold presets, parts and workloads."""
    found = []
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if flag in ("--config-dir", "-cd"):
            found.append(expanded(value))
        elif flag.startswith("--config-dir="):
            found.append(expanded(flag.partition("=")[2]))
    return found


if __name__ == "__main__":
    sys.exit(main())
