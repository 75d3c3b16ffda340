"""What the launchers share: the whole grid goes to the runner, which composes, skips and runs its cells."""

# No `from __future__ import annotations`: Hydra runs plugin modules outside sys.modules, where dataclasses
# cannot resolve string annotations.

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class GridConfig:
    """Options of every launcher; they follow the keys of the same name in ``conf/config.yaml``."""

    dry_run: bool = "${dry_run}"  # pyright: ignore[reportAssignmentType]
    then: Any = "${then}"


class GridLauncher:
    """A launcher that knows its backend; Hydra's own way of running jobs is not used."""

    def __init__(self, dry_run: bool = False, then: str | None = None, **options: Any) -> None:
        self.dry_run, self.then, self.options = dry_run, then, options

    def backend(self) -> Any:
        """Where the cells run: a :class:`runner.launch.grid.Backend`."""
        raise NotImplementedError

    def start(self, jobs: Sequence[Sequence[str]], config_dirs: Sequence[Path]) -> int:
        """Run every cell of the override lists; returns the grid's exit code."""
        from runner.launch.start import run_grid

        return run_grid(jobs, self.backend(), config_dirs, self.dry_run, self.then)
