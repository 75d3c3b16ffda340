"""Start a grid: print its plan, or run its cells and what follows them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from runner.base.cli import INTERRUPTED
from runner.base.errors import UserError
from runner.base.paths import shown
from runner.compose.commands import command
from runner.compose.values import FOLLOW_UPS
from runner.contract.records import FINISHED
from runner.launch import plan
from runner.launch.display import Display
from runner.launch.grid import Backend, Grid
from runner.logs import afterwards


def run_grid(
    jobs: Sequence[Sequence[str]],
    backend: Backend,
    config_dirs: Sequence[Path] = (),
    dry_run: bool = False,
    then: str | None = None,
) -> int:
    """Run every cell that the override lists expand to.

    Args:
        jobs: override lists.
        backend: where to run them.
        config_dirs: folders beside ``conf/``.
        dry_run: print the plan and run nothing.
        then: ``score``: score the experiment when all is done.

    Returns:
        0 when every cell is done or diverged, 1 when one failed, 2 for bad input, 130 after Ctrl-C.
    """
    return run(Grid(jobs, backend, Display(), config_dirs), dry_run, then)


def run(grid: Grid, dry_run: bool = False, then: str | None = None) -> int:
    """Run a grid, wherever its cells come from; see :func:`run_grid`."""
    try:
        if then not in FOLLOW_UPS:
            raise UserError(f"then: got {then!r}, expected score, or null")
        if dry_run:
            return plan.show(grid)
        with grid.display as display:
            finished = grid.backend.run(grid, display)
            if not finished:
                display.interrupted()
                return INTERRUPTED
            code = display.summary()
        for experiment in grid.launches:
            for line in afterwards(experiment):
                display.say(line)
        if not display.stays:
            return code
        if then is None and any(status["status"] in FINISHED for status in display.statuses.values()):
            verb = "runner.report" if display.total == 1 else "runner.score"
            display.say("; ".join(f"next: {command(verb, experiment)}" for experiment in grid.experiments))
        return code if then is None else max(code, _follow_up(then, grid.experiments))
    except UserError as error:
        Display.error(str(error))
        return 2
    finally:
        grid.end()


def _follow_up(then: str, experiments: Iterable[Path]) -> int:
    """``then=score``: call that verb on every experiment of the grid."""
    verb = importlib.import_module(f"runner.{then}")
    return max((verb.main([str(shown(experiment))]) for experiment in experiments), default=0)
