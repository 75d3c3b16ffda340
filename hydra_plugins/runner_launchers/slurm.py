"""``hydra/launcher=slurm``: the cells of ``-m`` as job arrays of a SLURM cluster."""

# No `from __future__ import annotations`: Hydra runs plugin modules outside sys.modules, where dataclasses
# cannot resolve string annotations.

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from hydra_plugins.runner_launchers.base import GridConfig, GridLauncher


@dataclass
class SlurmConfig(GridConfig):
    """Options; :class:`runner.launch.slurm.options.SlurmOptions` says what they mean, and checks them."""

    _target_: str = "hydra_plugins.runner_launchers.slurm.SlurmLauncher"
    partition: Any = None
    account: Any = None
    qos: Any = None
    time: Any = None
    mem_gb: Any = None
    cpus_per_task: Any = None
    gpus: Any = None
    gres: Any = None
    constraint: Any = None
    exclude: Any = None
    nodelist: Any = None
    signal_delay_s: Any = 90
    array_parallelism: Any = 256
    max_requeues: Any = 100
    setup: Any = field(default_factory=list)
    sbatch: Any = field(default_factory=dict)
    python: Any = None
    poll: Any = 10.0
    cells_per_task: Any = "${cells_per_task}"
    minutes_per_task: Any = "${minutes_per_task}"
    wait: Any = "${wait}"


ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmConfig, provider="runner")


class SlurmLauncher(GridLauncher):
    """Hands the whole grid to SLURM."""

    def __init__(self, dry_run: bool = False, then: str | None = None, **options: Any) -> None:
        # What follows the grid is a job of its own.
        super().__init__(dry_run, None, **options)
        self.options["then"] = then

    def backend(self) -> Any:
        """SLURM with these options."""
        from runner.launch.slurm.backend import Slurm

        plain = {k: OmegaConf.to_object(v) if OmegaConf.is_config(v) else v for k, v in self.options.items()}
        return Slurm(**plain)
