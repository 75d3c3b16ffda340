"""``hydra/launcher=inline``: the cells of ``-m`` one after the other, on this machine."""

# No `from __future__ import annotations`: Hydra runs plugin modules outside sys.modules, where dataclasses
# cannot resolve string annotations.

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class InlineConfig:
    """No options."""

    _target_: str = "hydra_plugins.runner_launchers.inline.InlineLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="inline", node=InlineConfig, provider="runner")


class InlineLauncher(Launcher):
    """Hands the whole grid to the runner."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's set-up; nothing of it is needed."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every cell; leaves the process with the grid's exit code."""
        from runner.grid import run_grid

        raise SystemExit(run_grid([list(o) for o in job_overrides]))
