"""The algorithm under test on one small workload, and the runs that several checks share."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.check.modules import fresh_modules
from runner.check.origin import home
from runner.check.trial import Pieces, Trial, build, train
from runner.compose import search, values
from runner.contract.algorithm import Algorithm
from runner.contract.batch import Info
from runner.contract.instantiate import build_part

SHORT = 20  # steps: more than an epoch of breast_cancer
MOST = 200  # steps of a short run that is past all that an algorithm does now and then
LONG = 60  # steps: enough to see the loss fall
BATCH = 32  # rows a step, at most
EVAL_EVERY = 8  # steps between evaluations of an ordinary short run
LEAST = 4  # steps, however many rows one draws


@dataclass
class Subject:
    """A resolved algorithm on a resolved workload.

    Attributes:
        algorithm: the algorithm's config, with its ``_target_``.
        workload: the workload's config; batch size, budget and evaluation grid are made small.
        label: the algorithm's name.
        small: configs of all small workloads, of which the algorithm must fit at least one.
        device: where to train.
        data_dir: where data lies.
        limits: setting of the algorithm -> the smallest and the largest value it may have; None for those
            that its name alone gives.
        config_dirs: folders of the user's own parts.
    """

    algorithm: Mapping[str, Any]
    workload: Mapping[str, Any]
    label: str = "algorithm"
    small: Sequence[Mapping[str, Any]] = ()
    device: str = "cpu"
    data_dir: Path = Path("data")
    limits: Mapping[str, tuple[float, float]] | None = None
    config_dirs: Sequence[Path] = ()

    @property
    def ends(self) -> Mapping[str, tuple[float, float]]:
        """The smallest and the largest value of each numeric setting."""
        return values.limits(self.algorithm) if self.limits is None else self.limits

    @property
    def title(self) -> str:
        """What a report calls it."""
        return f"{self.label} on {self.workload['name']}"

    def at(self, path: str, value: Any) -> Subject:
        """The same with another value of one setting, and as many rows a step."""
        algorithm = copy.deepcopy(dict(self.algorithm))
        search.put(algorithm, {path: value})
        other = replace(self, algorithm=algorithm)
        other.rows = self.rows
        return other

    def build_algorithm(self) -> Algorithm:
        """A fresh instance."""
        return build_part("algorithm", self.algorithm, prefix="")

    def pieces(self, steps: int | None = None, warmup: int = 0, setup: bool = True, **changes: Any) -> Pieces:
        """A fresh cell with a budget of ``steps`` steps, and with ``changes`` to its workload.

        By default a short run: of :data:`SHORT` steps, or past all that the algorithm does now and then,
        unless that is too long (epochs of a larger workload): there are workloads with fewer rows.
        """
        budget = max(self.budget(SHORT), self._pace[1]) if steps is None else self.budget(steps)
        workload = {**self._small_batches, "budget_samples": budget, **changes}
        return build(
            self.build_algorithm,
            workload,
            device=self.device,
            data_dir=self.data_dir,
            warmup=warmup,
            setup=setup,
        )

    def train(
        self, steps: int | None = None, warmup: int = 0, precision: str | None = None, **watch: Any
    ) -> Trial:
        """A fresh run in a process as good as new; ``watch`` as in :func:`runner.check.trial.train`."""
        changes: dict[str, Any] = {} if precision is None else {"precision": precision}
        with self.fresh():
            return self.train_here(self.pieces(steps, warmup, **changes), **watch)

    def train_here(self, pieces: Pieces, eval_every: int | None = None, **watch: Any) -> Trial:
        """Train ``pieces`` in the process as it is, evaluating every so many steps (each, if it steers)."""
        every = eval_every or (1 if pieces.algorithm.uses_metrics else EVAL_EVERY)
        return train(pieces, eval_every=every * self.rows, **watch)

    def budget(self, steps: int) -> int:
        """Rows of ``steps`` default batches; fewer steps where one draws far more rows than that."""
        return max(steps * self._small_batches["batch_size"], max(LEAST, steps // 4) * self.rows)

    def fresh(self) -> AbstractContextManager[None]:
        """Inside, the method's modules are as in a new process."""
        return fresh_modules(target for _, target in self.targets())

    def targets(self) -> Iterator[tuple[str, str]]:
        """(kind, dotted path) of every part, or of a whole algorithm; the harness's own classes left out."""
        yield from ((kind, path) for kind, path in _targets(self.algorithm) if not path.startswith("runner."))

    @functools.cached_property
    def homes(self) -> tuple[str, ...]:
        """Where the code lies of parts that libraries bring."""
        return tuple(place for _, target in self.targets() if (place := home(target)) is not None)

    @property
    def library(self) -> str | None:
        """A part that an installed package brings, torch aside; None where there is none."""
        brought = (target for _, target in self.targets() if home(target) is not None)
        return next((target for target in brought if not target.startswith("torch.")), None)

    # -- runs and facts that several checks share --------------------------------------------------------

    @functools.cached_property
    def info(self) -> Info:
        """The facts of the workload, at its own budget."""
        return self.info_of(self.workload)

    def info_of(self, workload: Mapping[str, Any]) -> Info:
        """The facts that a workload hands to algorithms."""
        pieces = build(
            self.build_algorithm, workload, device=self.device, data_dir=self.data_dir, setup=False
        )
        return pieces.task.info

    @functools.cached_property
    def refusal(self) -> str | None:
        """The algorithm's reason not to run on this workload."""
        return self.build_algorithm().compatible(self.info)

    @functools.cached_property
    def rows(self) -> int:
        """Rows that a step draws: at least the default batch, or what the second step does."""
        return self._pace[0]

    @functools.cached_property
    def _pace(self) -> tuple[int, int]:
        """Rows of a step, and of a run that is past all that the algorithm does now and then."""
        with self.fresh():
            workload = self._small_batches
            pieces = build(self.build_algorithm, workload, device=self.device, data_dir=self.data_dir)
            task, algorithm = pieces.task, pieces.algorithm
            left = 1 - task.cost.drawn / task.info.budget_samples  # set-up may have a share of the budget
            algorithm.step(task)
            first = task.cost.drawn
            algorithm.step(task)
        rows, cycle = max(workload["batch_size"], task.cost.drawn - first), algorithm.cycle(task.info)
        return rows, math.ceil(rows * cycle / left) if cycle <= MOST else 0

    @property
    def _small_batches(self) -> dict[str, Any]:
        size = min(BATCH, self.workload["batch_size"])
        return {**self.workload, "batch_size": size, "target": None}

    @functools.cached_property
    def twice(self) -> tuple[Trial, Trial]:
        """Two short runs, one behind the other in one process."""
        with self.fresh():
            return self.train_here(self.pieces()), self.train_here(self.pieces())

    @property
    def short(self) -> Trial:
        """The undisturbed short run that others are held against."""
        return self.twice[0]

    @functools.cached_property
    def long(self) -> Trial:
        """A run long enough to see the loss fall, evaluated at its start and its end."""
        return self.train(LONG, eval_every=LONG)


def _targets(config: Mapping[str, Any], kind: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(config.get("_target_"), str):
        yield kind or "algorithm", config["_target_"]
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _targets(value, f"{kind}.{key}" if kind else str(key))
