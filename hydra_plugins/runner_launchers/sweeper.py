"""Hydra's own sweeper, less its habits of composing every cell before the first starts, and of writing.

``scripts/bench_grid.py`` sweeps with it over Hydra's joblib launcher; ``python -m runner`` has no need of it.
"""

# No `from __future__ import annotations`: Hydra runs plugin modules outside sys.modules.

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from runner.compose.hydra_internals import BasicSweeper


class GridSweeper(BasicSweeper):
    """Hands over the whole grid as it is; the runner checks cells as it composes them."""

    def sweep(self, arguments: list[str]) -> Any:
        """Expand ``hydra.sweeper.params`` and the command line, and launch all of it at once."""
        assert self.hydra_context is not None and self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (jobs,) = self.split_arguments(overrides, max_batch_size=None)
        returned = self.launcher.launch(jobs, initial_job_idx=0)
        for job in returned:  # another's launcher keeps a job's exception in here
            _ = job.return_value
        return returned
