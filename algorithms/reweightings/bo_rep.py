"""Weights of the training rows, learned from clean rows by hypergradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from runner.contract.batch import Batch, Info
from runner.contract.batch_norm import batch_norms, frozen_statistics
from runner.contract.task import Task

START = 1.0  # every xᵢ
TINY = 1e-10


class BORep:
    """BO-REP: one logit a training row, learned so that what the weighted rows teach does well on clean rows.

    Paper: Bilevel Optimization under Unbounded Smoothness: A New Algorithm and Convergence Analysis, and the
        authors' data-cleaning code.
    Update: row i weighs σ(xᵢ). After every ``inner`` training steps, ``period`` times, y standing still: with
        G = meanᵢ σ(xᵢ) ℓᵢ(y) over the last training batch and F = mean ℓ over a clean one,
        z ← z − ν (∇²_yy G z − ∇_y F); h = −∇²_xy G z; m ← β m + (1 − β) h; x ← x − η m / (‖m‖ + 1e-10).
    Defaults: eta 0.05, nu 0.01, beta 0.9, period 2 (authors' code); inner 10, decay 0.2 at thirds of the
        budget and holdout 0.1 (ours).
    State: 1 tensor per parameter (z), 3 numbers a training row (x, m, whether it trains).
    Cost: 1 forward, 1 backward, 0.33 hvp.
    Pitfalls: normalised steps never shrink: without the decay of η x dithers. z wants ν · (largest curvature)
        < 2, and grows along directions of negative curvature. All weights start at σ(1) = 0.73, which an
        SGD's learning rate feels. Rows move only when a batch with them comes up for an update. Clean rows
        count as drawn.
    Deviations: the clean batch comes from the stream ``clean`` where there is one; the committed code takes
        it from the noisy training rows. Where there is none, the share ``holdout`` of the training rows is
        held out for it, and weighs 0. The paper's refinement of y before the first update and its balls
        around y (both absent from the code, both from memory) are left out, and so is the code's penalty
        1e-4 ‖y‖: the optimizer has weight decay. The optimizer is any, not SGD with a rate of its own. z
        starts at 0, in the code at random (Xavier). Between updates the code makes 11 steps, the first on a
        batch that the product with z shares, and takes ∇²_xy G over another batch; here both are over the
        last one. Its factor of 0.2 is due after 25 epochs, all that its run has.

    Args:
        eta: length of a step of x, above 0.
        nu: step size ν of z, above 0.
        beta: momentum β of the hypergradient, in [0, 1).
        inner: training steps between updates, at least 1.
        period: updates in a row, at least 1.
        decay: factor of η at a third and at two thirds of the budget, in (0, 1].
        holdout: share of the training rows to hold out where no clean stream is, in (0, 1).

    Raises:
        ValueError: for a value outside its range.
    """

    own_gradients: ClassVar[bool] = True
    second_order: ClassVar[bool] = True
    draws_rows: ClassVar[bool] = True  # clean ones, beside those of the step

    def __init__(
        self,
        eta: float = 0.05,
        nu: float = 0.01,
        beta: float = 0.9,
        inner: int = 10,
        period: int = 2,
        decay: float = 0.2,
        holdout: float = 0.1,
    ) -> None:
        for name, value in {"eta": eta, "nu": nu}.items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        for name, count in {"inner": inner, "period": period}.items():
            if not count >= 1 or count != int(count):
                raise ValueError(f"{name} must be an integer of at least 1, got {count}")
        if not 0 <= beta < 1:
            raise ValueError(f"beta must lie in [0, 1), got {beta}")
        if not 0 < decay <= 1:
            raise ValueError(f"decay must lie in (0, 1], got {decay}")
        if not 0 < holdout < 1:
            raise ValueError(f"holdout must lie in (0, 1), got {holdout}")
        self.eta, self.nu, self.beta, self.decay, self.holdout = eta, nu, beta, decay, holdout
        self.inner, self.period = int(inner), int(period)

    def setup(self, task: Task) -> None:
        """All rows weigh the same; hold rows out where there are no clean ones."""
        data = task.data
        ids = torch.arange(data.n, device=data.x.device) if data.index is None else data.index
        rows = int(ids.max()) + 1
        self.x = torch.full((rows,), START, device=ids.device)
        self.m, self.trains = torch.zeros_like(self.x), torch.ones_like(self.x)
        self.z = [torch.zeros_like(p) for p in task.params]
        self._out: Tensor | None = None
        if "clean" not in task.aux:
            generator = task.rng("bo_rep holdout")
            order = torch.randperm(data.n, generator=generator, device=generator.device)
            self._out = order[: max(1, round(self.holdout * data.n))]
            self.trains[ids[self._out]] = 0
        self._norms = batch_norms(task.model)
        self._last: Batch | None = None
        self.steps = 0

    def cycle(self, info: Info) -> int:
        """Until a step with updated weights."""
        return self.inner + 1

    def __call__(self, task: Task, batch: Batch, losses: Tensor) -> Tensor:
        """Weights, (B,), in [0, 1]."""
        self._last = batch
        return self._weights(self.x, batch).to(losses.dtype)

    def after_step(self, task: Task) -> None:
        """Every ``inner`` steps, update z and x ``period`` times."""
        self.steps += 1
        if self.steps % self.inner == 0 and self._last is not None:
            for _ in range(self.period):
                self._update(task, self._last, self._clean(task))

    def lower(self, task: Task, batch: Batch, x: Tensor) -> Tensor:
        """G: the weighted mean loss, 0-d."""
        return task.weighted_loss(batch, self._weights(x, batch))

    def upper(self, task: Task, clean: Batch) -> Tensor:
        """F: the mean loss on clean rows, 0-d."""
        return task.losses(clean).mean()

    def report(self) -> dict[str, float]:
        """Mean weight of the rows that train."""
        weights = torch.sigmoid(self.x) * self.trains
        return {"mean": (weights.sum() / self.trains.sum()).item()}

    def state_dict(self) -> dict[str, Any]:
        """Logits of the rows, their momentum, z and the step."""
        return {"x": self.x, "m": self.m, "z": self.z, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.x.copy_(state["x"])
        self.m.copy_(state["m"])
        for mine, saved in zip(self.z, state["z"], strict=True):
            mine.copy_(saved)
        self.steps = state["steps"]

    def _weights(self, x: Tensor, batch: Batch) -> Tensor:
        if batch.index is None:
            return torch.full((len(batch),), START, device=x.device).sigmoid()
        return torch.sigmoid(x[batch.index]) * self.trains[batch.index]

    def _clean(self, task: Task) -> Batch:
        if self._out is None:
            return task.aux["clean"].next()
        generator, size = task.rng("bo_rep clean batch"), (task.data.batch_size,)
        at = torch.randint(len(self._out), size, generator=generator, device=generator.device)
        return task.data.take(self._out[at], augment=True)

    def _update(self, task: Task, batch: Batch, clean: Batch) -> None:
        params, x = task.params, self.x.clone().requires_grad_()
        with frozen_statistics(self._norms):
            goal = _grad(self.upper(task, clean), params)
            # The products are counted by hand: each is one of Hessian type over the batch.
            with sdpa_kernel(SDPBackend.MATH), task.cost.paused():
                slopes = _grad(self.lower(task, batch, x), params, create_graph=True)
                curved = _grad(_dot(slopes, self.z), params, retain_graph=True)
                torch._foreach_sub_(self.z, curved, alpha=self.nu)
                torch._foreach_add_(self.z, goal, alpha=self.nu)
                (cross,) = _grad(_dot(slopes, self.z), [x])
        task.cost.hvp += 2 * len(batch)
        self.m.mul_(self.beta).sub_(cross, alpha=1 - self.beta)
        eta = self.eta * self.decay ** int(3 * min(task.progress, 0.999))
        self.x.sub_(eta * self.m / (torch.linalg.vector_norm(self.m) + TINY))


def _grad(value: Tensor, at: Sequence[Tensor], **options: Any) -> list[Tensor]:
    return list(torch.autograd.grad(value, list(at), allow_unused=True, materialize_grads=True, **options))


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(u * v).sum() for u, v in zip(a, b, strict=True)]).sum()
