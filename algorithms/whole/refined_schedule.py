"""A schedule refined from the gradient norms of a first run, within one budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner.contract.algorithm import Algorithm
from runner.contract.batch import Info
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from runner.parts.stepped import refuse_stepped

POWER = {"l2": 2, "l1": 1}


class RefinedSchedule(Algorithm):
    """Train twice: once to record the gradients' norms, then from new weights under a schedule made of them.

    Paper: Optimal Linear Decay Learning Rate Schedules and Further Refinements (Defazio et al. 2023, arXiv
        2310.07831), and the authors' code (facebookresearch/adaptive_scheduling).
    Update: first run, under ``schedule``: record Gₜ = ‖gₜ‖, t = 1 … T, before any transform. Then Ĝ is G
        behind a median filter of 2·⌊⌊τT⌋/2⌋ + 1 steps (right end reflected); wₜ = Ĝₜ⁻² for l2, Ĝₜ⁻¹ for l1;
        ηₜ ∝ wₜ · Σ_{p>t} w_p, at most 1. Second run: new initial weights, fresh optimizer, lr₀·ηₜ.
    Defaults: norm l1, for the Adam family (l2 for SGD), tau 0.1 (authors' code); first 0.5, floor 1e-3, and a
        linear first run (ours).
    State: one number a step of the first run, then the schedule; beside that of the parts.
    Cost: 1 forward, 1 backward.
    Pitfalls: the first run's rows count, so either run has its share of the budget only, and where the first
        reaches a target that is the time. Where gradients vanish late (models that interpolate) most weight
        is at the end, and at Ĝ = 0 all would be: hence the floor. lr₀ has to be tuned again. The schedule
        belongs to T and to the batch size. Parts with a schedule of their own, or that count shares of the
        budget, see one budget, not two runs.
    Deviations: the second run draws other initial weights and goes on in the stream; it is as long as
        ``first`` leaves it, the schedule stretched by linear interpolation. Ĝ is floored.

    Args:
        optimizer: as for the composed algorithm, and so are all other ``parts``.
        schedule: of the first run; None for a constant one.
        transform: transforms; the norms are recorded in front of them.
        first: share of the budget that the first run has, in (0, 1).
        tau: width of the median filter as a share of the first run, in [0, 1).
        norm: l1 or l2.
        floor: smallest Ĝ, as a share of its median, at least 0.
        parts: the other parts.

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    def __init__(
        self,
        optimizer: Any,
        schedule: Any = None,
        transform: Any = None,
        first: float = 0.5,
        tau: float = 0.1,
        norm: str = "l1",
        floor: float = 1e-3,
        **parts: Any,
    ) -> None:
        if not 0 < first < 1:
            raise ValueError(f"first must lie in (0, 1), got {first}")
        if not 0 <= tau < 1:
            raise ValueError(f"tau must lie in [0, 1), got {tau}")
        if norm not in POWER:
            raise ValueError(f"norm must be one of {', '.join(POWER)}, got {norm}")
        if not floor >= 0:
            raise ValueError(f"floor must be at least 0, got {floor}")
        self.first, self.tau, self.norm, self.floor = first, tau, norm, floor
        self.norms: list[Tensor] = []
        self.curve: list[float] = []  # empty in the first run
        refuse_stepped("refined_schedule", schedule)
        given = None if schedule is None else build_part("schedule", schedule)
        transforms = {"gradient norms": lambda: self._record} | _named(transform)
        self.inner = Composed(optimizer, schedule=lambda: _Phased(self, given), transform=transforms, **parts)
        self.predict, self.uses_metrics = self.inner.predict, self.inner.uses_metrics
        self.open_division = self.inner.open_division

    def compatible(self, info: Info) -> str | None:
        """The parts' reason."""
        return self.inner.compatible(info)

    def setup(self, task: Task) -> None:
        """Set the parts up, and remember what they begin with."""
        self.inner.setup(task)
        self._beginning = self.inner.beginning(task)
        steps = max(1, int(self.first * task.info.steps_at_default_batch))
        self.syncs_every = min(self.inner.syncs_every or steps, steps)

    def cycle(self, info: Info) -> int:
        """The parts', in either run."""
        return math.ceil(self.inner.cycle(info) / min(self.first, 1 - self.first))

    def step(self, task: Task) -> Tensor:
        """A step of the run that it is the turn of."""
        if not self.curve and task.progress >= self.first:
            self._begin_second(task)
        return self.inner.step(task)

    def _begin_second(self, task: Task) -> None:
        norms = torch.stack(self.norms).double().tolist() if self.norms else [1.0]
        self.curve = refine(norms, self.tau, POWER[self.norm], self.floor)
        self.norms = []
        self.inner.restart(task, self._beginning)

    @torch.no_grad()
    def _record(self, params: list[Tensor], grads: list[Tensor]) -> None:
        if self.curve or not grads:
            return
        order = POWER[self.norm]
        norms = torch.stack(torch._foreach_norm(grads, order)).float()
        self.norms.append(torch.linalg.vector_norm(norms, order))

    def multiplier(self, progress: float) -> float:
        """The refined schedule at ``progress`` of the budget."""
        at = (progress - self.first) / (1 - self.first) * len(self.curve)
        return float(np.interp(at, np.arange(len(self.curve)), self.curve))

    def enter_eval(self, task: Task) -> None:
        """See :class:`Algorithm`."""
        self.inner.enter_eval(task)

    def exit_eval(self, task: Task) -> None:
        """See :class:`Algorithm`."""
        self.inner.exit_eval(task)

    def observe(self, metrics: Mapping[str, float]) -> None:
        """See :class:`Algorithm`."""
        self.inner.observe(metrics)

    def report(self) -> dict[str, float]:
        """The parts' scalars, and which run it is."""
        return {**self.inner.report(), "run": 2.0 if self.curve else 1.0}

    def state_dict(self) -> dict[str, Any]:
        """The norms so far or the schedule, and the parts' state."""
        norms = torch.stack(self.norms) if self.norms else None
        return {"norms": norms, "curve": list(self.curve), "inner": self.inner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.norms = [] if state["norms"] is None else list(state["norms"].unbind())
        self.curve = list(state["curve"])
        self.inner.load_state_dict(state["inner"])


class _Phased:
    """The given schedule over the first run, the refined one over the second."""

    def __init__(self, owner: RefinedSchedule, given: Any) -> None:
        self.owner, self.given = owner, given

    def __call__(self, progress: float) -> float:
        if self.owner.curve:
            return self.owner.multiplier(progress)
        return 1.0 if self.given is None else self.given(min(1.0, progress / self.owner.first))

    def setup(self, task: Task) -> None:
        """The given schedule learns of the first run's budget alone."""
        prepare = getattr(self.given, "setup", None)
        if prepare is None:
            return
        whole = task.info
        budget = max(1, int(self.owner.first * whole.budget_samples))
        task.info = dataclasses.replace(whole, budget_samples=budget)
        try:
            prepare(task)
        finally:
            task.info = whole

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "given":
            raise AttributeError(name)
        return getattr(self.given, name)


def refine(norms: Sequence[float], tau: float, power: int, floor: float) -> list[float]:
    """The schedule that gradients of these norms call for, its largest value 1.

    Args:
        norms: one a step of a run.
        tau: width of the median filter, as a share of the run.
        power: 2 for Euclidean norms, 1 for sums of absolute values.
        floor: smallest smoothed norm, as a share of the median of all.
    """
    smooth = smoothed(np.asarray(norms, dtype=np.float64), tau)
    smallest = max(floor * float(np.median(smooth)), np.finfo(np.float64).tiny ** 0.25)
    weights = np.maximum(smooth, smallest) ** -float(power)
    later = np.append(np.cumsum(weights[:0:-1])[::-1], 0.0)
    rates = weights * later
    return (rates / rates.max()).tolist() if rates.max() > 0 else [1.0] * len(rates)


def smoothed(norms: np.ndarray, tau: float) -> np.ndarray:
    """``norms`` behind a median filter over a share ``tau`` of them; the right end is reflected first."""
    width = 2 * (int(tau * len(norms)) // 2) + 1
    if width == 1:
        return norms
    from scipy.ndimage import median_filter

    padded = np.pad(norms, (0, 2 * width), mode="reflect")
    return median_filter(padded, size=width, mode="nearest")[: len(norms)]


def _named(transform: Any) -> dict[str, Any]:
    if transform is None:
        return {}
    if isinstance(transform, Mapping) and "_target_" not in transform:
        return dict(transform)
    return {"0": transform}
