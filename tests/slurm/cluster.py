"""Small cells on a real SLURM cluster; ``slurm-up.sh`` brings one up on this machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from runner.cells import slurm_queue
from runner.cells.cell import Cell
from runner.cells.launches import Launch
from runner.launch.slurm.options import SlurmOptions
from runner.launch.slurm.pack import CellSpec
from runner.launch.slurm.submit import submit
from runner.train.session import run_cell
from workloads.base import Data
from workloads.embedded import Digits

TIMES = ("seconds", "wall_seconds", "compile_seconds", "seconds_to_target", "cpu_seconds", "cpu_over_wall",
         "cpu_waited_seconds", "contended")  # fmt: skip
SHORT, LONG = 3200, 20000  # samples: half a second; some three seconds, long enough to be disturbed
COMMAND_SECONDS = 20


def no_cluster() -> str | None:
    """Why there is no cluster to test on; None where there is one."""
    try:
        sinfo = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, timeout=5)
    except FileNotFoundError:
        return "no SLURM on this machine (tests/slurm/slurm-up.sh installs and starts one)"
    except subprocess.TimeoutExpired:
        return "sinfo does not answer: is $SLURM_CONF set, and the cluster up?"
    return None if sinfo.returncode == 0 else f"sinfo: {sinfo.stderr.strip()[:200]}"


class Needs(NamedTuple):
    minutes: float = 1.0
    memory_gb: float = 0.5
    cores: int = 1
    gpus: int = 0


def slurm(*line: str) -> str:
    """What a command of SLURM's prints."""
    done = subprocess.run(line, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True)
    return done.stdout


def accounting() -> bool:
    return "accounting_storage/none" not in slurm_queue.config_value("AccountingStorageType", "")


class Devices(Digits):
    """Says which GPUs its process sees: CUDA looks when it is first used."""

    def load(self, root: Path) -> Data:
        print("devices:", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
        return super().load(root)


class Experiment:
    """Cells of one experiment, and their jobs."""

    def __init__(self, root: Path) -> None:
        self.path, self.root = root / "slurm" / "exp", root
        self.launch: Launch | None = None

    def overrides(self, *more: str, samples: int = SHORT, where: str = "slurm") -> list[str]:
        base = ["workload=digits", "log=none", "name=exp", f"results_dir={self.root / where}"]
        return [*base, "stop_at_target=false", f"workload.budget_samples={samples}", *more]

    def cells(self, *more: str, samples: int = SHORT, count: int = 1) -> list[Cell]:
        lists = [self.overrides(f"study={study}", *more, samples=samples) for study in range(count)]
        found = [Cell.from_overrides(overrides) for overrides in lists]
        for cell in found:
            cell.submit()
        return found

    def submit(self, cells: list[Cell], *needs: Needs, **options: Any) -> list[str]:
        self.launch = Launch.create(self.path, "slurm", options)
        specs = [
            CellSpec(cell.folder.path.name, needs[i] if needs else Needs()) for i, cell in enumerate(cells)
        ]
        return submit(self.path, specs, SlurmOptions.of(options), self.launch)

    def states(self) -> dict[str, str]:
        """The tasks in the queue."""
        assert self.launch is not None
        found = slurm_queue.ask([self.launch])
        assert found.reason is None, found.reason
        return found.states

    def logs(self) -> str:
        assert self.launch is not None
        return "\n".join(path.read_text() for path in sorted(self.launch.path.glob("slurm/*_log.out")))

    def until(self, true: Callable[[], object], seconds: float = 90) -> None:
        """Wait for something to become true; show the tasks' logs when it does not."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"{self.states()}\n{self.logs()}"
            time.sleep(0.2)

    def until_training(self, cell: Cell) -> None:
        """Wait until a cell has evaluated a few times."""
        self.until(lambda: len(cell.folder.evals()) >= 4)

    def until_gone(self, seconds: float = 90) -> None:
        """Wait until no task of ours is in the queue."""
        self.until(lambda: not self.states(), seconds)

    def undisturbed(self, cell: Cell) -> Any:
        """The result of the same cell, trained here and now."""
        config = {**cell.config, "results_dir": str(self.root / "here")}
        other = Cell.from_config(config)
        other.submit()
        run_cell(other.folder.path)
        return result(other)


def result(cell: Cell) -> Any:
    """What must not depend on when, where and how often a cell was run."""
    rows = [untimed(row) for row in cell.folder.evals()]
    return cell.state(), untimed(cell.folder.status().get("summary", {})), rows


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k not in TIMES and not k.startswith("clock/")}
