"""Trains one cell again and again, each time with another file operation of it failing.

``python -m tests.doubles.fault_server FOLDER``, or ``--help``. torch is imported once; each run is a fork.
Prints how many operations of each kind were tried in each scenario, and what was wrong behind them, as JSON.
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import json
import math
import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.cells import launches
from runner.cells.cell import Cell, folder_state
from runner.cells.survey import look
from runner.cells.tables import load
from runner.contract.records import FINISHED, CellFolder
from runner.launch.local import Inline
from runner.launch.start import run_grid
from runner.machine import machine
from tests.doubles.file_faults import KINDS, Fault, Seam
from tests.small_cells import evaluations, interrupted
from workloads.embedded import BreastCancer

SCENARIOS = ("fresh", "resumed", "replaced")
NEVER = 10**9
# Two steps, an evaluation before, between and behind, and a checkpoint at each step.
BUDGET = 128
ARGS = ("name=exp", "log=none", "workload=breast_cancer", "algorithm=adamw", "workload.target=null",
        "workload.batch_size=64", f"workload.budget_samples={BUDGET}", "workload.eval_every=64",
        "warmup_steps=0", "checkpoint_every=1e-9", "diagnostics=none")  # fmt: skip
COMPARED = ["id", "status", "best_metric", "steps", "drawn"]

Outcome = dict[str, Any]


class Server:
    """One scenario, on a folder that is put back before each run."""

    def __init__(self, folder: Path, scenario: str) -> None:
        self.results, self._before = folder / "results", folder / "before"
        self.args = [*ARGS, f"results_dir={self.results}"]
        self.cell = Cell.from_overrides(self.args)
        self.path, self.experiment = self.cell.folder.path, self.cell.folder.path.parent.parent
        self.run()
        self.expected, self.table = evaluations(self.path), self._table()
        getattr(self, f"_{scenario}")()
        gc.collect()
        gc.freeze()  # forks share what they do not touch

    def run(self) -> int:
        """The command."""
        return run_grid([self.args], Inline())

    # -- how it begins -----------------------------------------------------------------------------

    def _fresh(self) -> None:
        shutil.rmtree(self.results)
        self._before.mkdir()

    def _resumed(self) -> None:
        shutil.rmtree(self.path)
        self.cell.submit()
        interrupted(self.path, after=1)
        self.results.rename(self._before)

    def _replaced(self) -> None:
        self.cell.folder.update_manifest({"source": "before"})
        self.results.rename(self._before)

    # -- one fault ---------------------------------------------------------------------------------

    def trial(self, fault: Fault) -> list[str] | None:
        """What is wrong once the command has run with the fault, and again without; None: it was not met."""
        outcome = self._disturbed(fault)
        if outcome is not None and outcome["count"] < fault.at:
            return None
        again = forked(lambda: {"problems": [*self._left(), *self._ended()]})
        said = [each["problems"] for each in (outcome, again) if each is not None]
        return [*itertools.chain(*said), *([] if again else ["the second run was killed"])]

    def operations(self, kind: str) -> int:
        """How many there are that a fault of this kind can befall."""
        outcome = self._disturbed(Fault(kind, NEVER))
        assert outcome is not None
        return outcome["count"]

    def _disturbed(self, fault: Fault) -> Outcome | None:
        shutil.rmtree(self.results, ignore_errors=True)
        shutil.copytree(self._before, self.results)
        return forked(lambda: self._run_with(fault))

    def _run_with(self, fault: Fault) -> Outcome:
        Seam(self.results, fault).install()
        self.run()
        return {"count": fault.count, "problems": []}

    def _left(self) -> Iterator[str]:
        """What is wrong with the files that are left."""
        if not self.path.exists():
            return
        state = folder_state(self.cell.folder)
        if state in FINISHED and evaluations(self.path) != self.expected:
            yield f"{state} with other evaluations"
        if state == "damaged":
            yield f"damaged: {self.cell.folder.damage()}"
        if (seen := look(self.experiment).counts) not in ({state: 1}, {}):
            yield f"status says {seen} of a cell that is {state}"

    def _ended(self) -> Iterator[str]:
        """What is wrong when the same command has run again."""
        launches.ABANDONED = -1.0  # as if some minutes had passed
        if (code := self.run()) != 0:
            yield f"the same command ended with {code}: {self.cell.folder.status()}"
        if (found := evaluations(self.path)) != self.expected:
            yield f"evaluations {found}"
        if (seen := look(self.experiment, check=True).counts) != {"done": 1}:
            yield f"status says {seen}"
        if (table := self._table()) != self.table:
            yield f"table {table}"
        launches.Launch.create(self.experiment, "inline", {})
        yield from (f"{path.relative_to(self.results)} was left" for path in self._litter())

    def _litter(self) -> Iterator[Path]:
        """What no cell that has ended keeps. A lock in ``superseded/`` locks nothing."""
        found = (path for part in ("cells", "jobs") for path in (self.experiment / part).rglob("*"))
        return (path for path in found if path.name.startswith((".", "lock.", "checkpoint")))

    def _table(self) -> list[Any]:
        cells, evals = load(self.experiment)
        return [cells[COMPARED].to_numpy().tolist(), evals["eval_index"].tolist()]


def forked(work: Callable[[], Outcome]) -> Outcome | None:
    """What ``work`` gives in a process of its own; None where that was killed."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            outcome = work()
        except BaseException:
            outcome = {"count": NEVER, "problems": [traceback.format_exc()]}
        os.write(writing, json.dumps(outcome, default=str).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else None


def warm() -> None:
    """What every run would do again, and no file of the cell has to do with."""
    torch.set_num_threads(1)
    machine._version = functools.cache(machine._version)
    data = BreastCancer.load(BreastCancer.__new__(BreastCancer), Path())
    BreastCancer.load = lambda *_: data  # type: ignore[method-assign]


def tried(server: Server, kind: str, numbers: Iterable[int], enough: float) -> dict[str, Any]:
    """What was wrong behind a fault of each of these operations, until a run meets none, or enough is."""
    found: dict[int, list[str]] = {}
    for number in numbers:
        problems = server.trial(Fault(kind, number))
        if problems is None:
            break
        found[number] = problems
        enough -= bool(problems)
        if enough <= 0:
            break
    return {"tried": len(found), "wrong": {number: said for number, said in found.items() if said}}


def chosen(server: Server, kind: str, options: argparse.Namespace) -> Iterable[int]:
    """Numbers of the operations to try."""
    if options.sample is None:
        return itertools.count(1 + options.seed % options.every, options.every)
    total = server.operations(kind)
    chance = random.Random(f"{options.seed} {kind}")
    return sorted(chance.sample(range(1, total + 1), min(options.sample, total)))


# -- bugs, to be found -------------------------------------------------------------------------------


def uncut(patch: pytest.MonkeyPatch) -> None:
    """Evaluations behind the checkpoint are kept."""
    patch.setattr(CellFolder, "keep_evals", lambda self, count: None)


def hasty(patch: pytest.MonkeyPatch) -> None:
    """A cell is done before its last evaluation is written."""
    append = CellFolder.append_eval

    def append_eval(self: CellFolder, row: dict[str, Any]) -> None:
        if row["drawn"] == BUDGET:
            self.set_status("done", summary={})
        append(self, row)

    patch.setattr(CellFolder, "append_eval", append_eval)


PLANTS = {plant.__name__: plant for plant in (uncut, hasty)}


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--sample", type=int, help="operations of each kind, at random; default: all")
    parser.add_argument("--every", type=int, default=1, help="every so many operations alone (1: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plant", choices=PLANTS, help="a bug, to be found")
    options = parser.parse_args()
    out = os.dup(1)
    log = os.open(options.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    warm()
    found: dict[str, dict[str, Any]] = {}
    for scenario in options.scenarios:
        (options.folder / scenario).mkdir()
        server = Server(options.folder / scenario, scenario)
        with pytest.MonkeyPatch.context() as patch:
            if options.plant:
                PLANTS[options.plant](patch)
            enough = 1 if options.plant else math.inf
            found[scenario] = {
                kind: tried(server, kind, chosen(server, kind, options), enough) for kind in options.kinds
            }
    with os.fdopen(out, "w") as told:
        json.dump(found, told, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
