"""``python -m runner``: train an algorithm on a workload. See ``--help``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from runner import presets
from runner.config import explained, register_resolvers, without_null
from runner.display import Display
from runner.errors import UserError
from runner.paths import CONF


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the command line to Hydra; a user's mistake is one line and exit code 2.

    Returns:
        0 when every cell is done or diverged, 1 when one failed, 2 for bad input, 130 after Ctrl-C.
    """
    arguments = [without_null(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    config_dirs = extra_config_dirs(arguments)
    try:
        with explained(config_dirs):
            register_resolvers()
            presets.register(config_dirs)
            _hydra(arguments, config_dirs)
    except UserError as error:
        Display.error(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _hydra(arguments: Sequence[str], config_dirs: Sequence[Path]) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig

    # Hydra otherwise prints its own multi-line message and exits with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["python -m runner", *arguments]

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def run(_cfg: DictConfig) -> None:
        from runner.grid import run_grid

        raise SystemExit(run_grid([list(HydraConfig.get().overrides.task)], config_dirs))

    run()


def extra_config_dirs(arguments: Sequence[str]) -> list[Path]:
    """Folders given with Hydra's ``--config-dir`` (``-cd``): they may hold presets, parts and workloads."""
    found = []
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if flag in ("--config-dir", "-cd"):
            found.append(Path(value))
        elif flag.startswith("--config-dir="):
            found.append(Path(flag.partition("=")[2]))
    return found


if __name__ == "__main__":
    sys.exit(main())
