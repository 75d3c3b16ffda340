"""What the launchers share: the whole grid goes to the runner, which composes, skips and runs its cells."""

# No `from __future__ import annotations`: Hydra runs plugin modules outside sys.modules, where dataclasses
# cannot resolve string annotations.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class GridConfig:
    """Options of every launcher; they follow the keys of the same name in ``conf/config.yaml``."""

    dry_run: bool = "${dry_run}"  # pyright: ignore[reportAssignmentType]
    then: Any = "${then}"


class GridLauncher(Launcher):
    """A launcher that knows its backend; Hydra's own way of running jobs is not used."""

    def __init__(self, dry_run: bool = False, then: str | None = None, **options: Any) -> None:
        self.dry_run, self.then, self.options = dry_run, then, options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's set-up; nothing of it is needed."""

    def backend(self) -> Any:
        """Where the cells run: a :class:`runner.grid.Backend`."""
        raise NotImplementedError

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every cell; leaves the process with the grid's exit code."""
        from runner.__main__ import config_dirs
        from runner.grid import run_grid

        jobs = [list(overrides) for overrides in job_overrides]
        raise SystemExit(run_grid(jobs, self.backend(), config_dirs(), self.dry_run, self.then))
