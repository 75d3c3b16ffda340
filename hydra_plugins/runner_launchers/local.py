"""``hydra/launcher=local``: cells side by side on this machine's devices."""

# No `from __future__ import annotations`: Hydra runs plugin modules outside sys.modules, where dataclasses
# cannot resolve string annotations.

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore

from hydra_plugins.runner_launchers.base import GridConfig, GridLauncher


@dataclass
class LocalConfig(GridConfig):
    """Options."""

    _target_: str = "hydra_plugins.runner_launchers.local.LocalLauncher"
    workers: Any = "${workers}"  # cells at once; null: cores divided by threads a cell, or one a GPU
    per_gpu: Any = "${per_gpu}"  # cells at once on a GPU
    warm: bool = True  # false: a new process for every cell


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalConfig, provider="runner")


class LocalLauncher(GridLauncher):
    """Hands the whole grid to the runner's local workers."""

    def backend(self) -> Any:
        """Local workers with these options."""
        from runner.launch.local import Local, checked

        return Local(**checked(self.options))
