"""``hydra/launcher=inline``: one cell after the other, in this very process: for debuggers."""

# No `from __future__ import annotations`: Hydra runs plugin modules outside sys.modules, where dataclasses
# cannot resolve string annotations.

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore

from hydra_plugins.runner_launchers.base import GridConfig, GridLauncher


@dataclass
class InlineConfig(GridConfig):
    """No options of its own."""

    _target_: str = "hydra_plugins.runner_launchers.inline.InlineLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="inline", node=InlineConfig, provider="runner")


class InlineLauncher(GridLauncher):
    """Hands the whole grid to the runner."""

    def backend(self) -> Any:
        """This process."""
        from runner.launch.local import Inline

        return Inline()
