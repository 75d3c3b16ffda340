"""Several steps of the model towards a target for its outputs, for one gradient of the loss."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from runner.contract.algorithm import Algorithm
from runner.contract.batch import Batch
from runner.contract.batch_norm import batch_norms, frozen_statistics
from runner.contract.seeding import derive
from runner.contract.task import Task

SCHEDULES = ("constant", "stochastic", "exponential")
TARGET_STEP = {"binary": 4.0, "multiclass": 2.0, "lm": 2.0, "regression": 0.5}  # 1 / smoothness
DECREASE, SHRINK, GROW, TRIALS, FLAT = 0.5, 0.9, 1.8, 100, 1e-6  # of the line search


class SSO(Algorithm):
    """Stochastic surrogate optimisation: m inner steps on a quadratic of the outputs, one gradient of a loss.

    Paper: Target-based Surrogates for Stochastic Optimization (Lavington et al. 2023, arXiv 2302.02607), and
        the authors' code.
    Update: for each batch z₀ = f_θ(x) and gᵢ = ∂ℓᵢ/∂z₀ᵢ, once; then m steps of gradient descent on
        Q(θ) = meanᵢ [⟨gᵢ, f_θ(xᵢ) − z₀ᵢ⟩ + ‖f_θ(xᵢ) − z₀ᵢ‖² / (2ηₜ)], whose minimum in the outputs is
        z₀ − ηₜ·g. ηₜ is η (constant), η/√t (stochastic) or η·T^(−t/T) (exponential), T the budget's steps.
        The line search begins at lr in every batch, times 1.8^(batch/rows) from one inner step to the next,
        and shrinks by 0.9 until Q falls by 0.5·lr·‖∇Q‖², 100 times at most; flat once ‖∇Q‖ ≤ 1e-6.
    Defaults: m 5 (the authors' grid: 1, 5, 10, 100); eta null, 1/L of the loss in the outputs: 4 for one
        logit, 2 for softmax, 0.5 for the squared error; lr 0.03 (ours; the authors': 10 with the search).
    State: the number of steps.
    Cost: 5 forward, 5 backward. m each; the line search passes forward once more for every trial.
    Pitfalls: saves gradients of the loss, one a step, and not passes through the model: steps are the
        paper's axis, samples are ours. lr is that of Q, whose curvature goes as 1/η: small η wants small lr.
        With m = 1 this is SGD. Dropout inside other modules than torch's own is not seen, and not held.
    Deviations: plain steps of one lr by default, in the paper the line search, whose cost no card can tell.
        These follow ηₜ/η, since the curvature of Q goes the other way; the line search finds that itself.
        ½ in front of the square from memory; the code has none, so its η is twice this one. Q is a sum over
        classes and a mean over rows (and tokens), so η is free of the batch size. Batch norm keeps the
        statistics of the first pass, dropout its mask. A loss's penalty on weights is in Q as it is. The code
        expands its step before the first trial of a batch too, and scales what it finds by a schedule. Where
        no trial of the line search passes, the batch is left; the code takes the last one.

    Args:
        m: inner steps, at least 1.
        eta: η, above 0; None for 1/L.
        schedule: ``constant``, ``stochastic`` or ``exponential``.
        lr: step of the inner gradient descent, or the first one that the line search tries; above 0.
        line_search: whether to search for the step.

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    def __init__(
        self,
        m: int = 5,
        eta: float | None = None,
        schedule: str = "constant",
        lr: float = 0.03,
        line_search: bool = False,
    ) -> None:
        if not m >= 1 or m != int(m):
            raise ValueError(f"m must be an integer of at least 1, got {m}")
        if eta is not None and not eta > 0:
            raise ValueError(f"eta must be greater than 0, or null, got {eta}")
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule}")
        if not lr > 0:
            raise ValueError(f"lr must be greater than 0, got {lr}")
        self.m, self.eta, self.schedule = int(m), eta, schedule
        self.lr, self.line_search = float(lr), line_search
        self.syncs_every = 1 if line_search else 0
        self.steps = 0

    def setup(self, task: Task) -> None:
        """Find what must be held still while a batch lasts."""
        modules = task.model.modules()
        self._norms = batch_norms(task.model)
        self._drops = any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in modules)
        self._target_step = TARGET_STEP[task.info.task] if self.eta is None else float(self.eta)
        self._total = task.info.steps_at_default_batch
        self._growth = GROW ** min(1.0, task.data.batch_size / task.data.n)
        self.steps = 0

    def step(self, task: Task) -> Tensor:
        """One gradient of the loss and m steps towards the target; returns the loss before them."""
        self.steps += 1
        batch, scale = task.data.next(), self._scale()
        outputs = self._outputs(task, batch)
        surrogate = Surrogate(task, batch, outputs, self._target_step * scale)
        with frozen_statistics(self._norms):
            if self.line_search:
                self._descend_by_search(task, batch, outputs, surrogate)
            else:
                self._descend(task, batch, outputs, surrogate, self.lr * scale)
        return surrogate.loss

    def _scale(self) -> float:
        """ηₜ/η."""
        t, total = self.steps, self._total
        return {"constant": 1.0, "stochastic": t**-0.5, "exponential": total ** -(t / total)}[self.schedule]

    def _descend(self, task: Task, batch: Batch, outputs: Tensor, surrogate: Surrogate, lr: float) -> None:
        params: list[Tensor] = list(task.params)
        for k in range(self.m):
            at = outputs if k == 0 else self._outputs(task, batch)
            grads = torch.autograd.grad(surrogate(at), params)
            with torch.no_grad():
                torch._foreach_add_(params, grads, alpha=-lr)

    def _descend_by_search(self, task: Task, batch: Batch, outputs: Tensor, surrogate: Surrogate) -> None:
        params, lr = list(task.params), self.lr
        for k in range(self.m):
            value = surrogate(outputs if k == 0 else self._outputs(task, batch))
            grads = torch.autograd.grad(value, params)
            square = torch.stack(torch._foreach_norm(grads)).square().sum()
            before, slope = torch.stack([value.detach(), square]).tolist()  # waits for the device
            if slope <= FLAT**2:
                return
            found = self._search(task, batch, surrogate, grads, lr * self._growth if k else lr, before, slope)
            if found is None:
                return
            lr = found

    @torch.no_grad()
    def _search(
        self,
        task: Task,
        batch: Batch,
        surrogate: Surrogate,
        grads: tuple[Tensor, ...],
        lr: float,
        before: float,
        slope: float,
    ) -> float | None:
        """Step along −∇Q by the first lr that Armijo's rule accepts, and return it; None where none does."""
        params: list[Tensor] = list(task.params)
        start = [p.clone() for p in params]
        for _ in range(TRIALS):
            torch._foreach_copy_(params, torch._foreach_sub(start, torch._foreach_mul(grads, lr)))
            if surrogate(self._outputs(task, batch)).item() <= before - DECREASE * lr * slope:
                return lr
            lr *= SHRINK
        torch._foreach_copy_(params, start)
        return None

    def _outputs(self, task: Task, batch: Batch) -> Tensor:
        with self._same_mask(task):
            return task.outputs(batch)

    @contextlib.contextmanager
    def _same_mask(self, task: Task) -> Iterator[None]:
        """Draw the same dropout in every pass of a step, from a generator state of the step's own."""
        if not self._drops:
            yield
            return
        device = task.data.x.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(derive(task.seed, "sso dropout", self.steps))
            yield

    def report(self) -> dict[str, float]:
        """η of the last step."""
        return {"eta": self._target_step * (self._scale() if self.steps else 1.0)}

    def state_dict(self) -> dict[str, Any]:
        """The number of steps."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.steps = state["steps"]


class Surrogate:
    """Q of one batch, at outputs of any parameters.

    Args:
        task: whose loss it stands for.
        batch: the rows.
        outputs: z₀, at the present weights.
        eta: ηₜ.

    Attributes:
        loss: the mean loss at z₀, detached, 0-d.
    """

    def __init__(self, task: Task, batch: Batch, outputs: Tensor, eta: float) -> None:
        self.start, self.eta = outputs.detach(), eta
        at = outputs.detach().requires_grad_()
        loss = task.kind.rows(at, batch.y, task.own_loss).mean()
        classes = 1 if at.dim() == 1 else at.shape[-1]
        self.entries = at.numel() // classes
        (slope,) = torch.autograd.grad(loss, at)
        self.slope = slope * self.entries
        self._penalty: Any = getattr(task.own_loss, "penalty", None)
        self._named = dict(task.model.named_parameters()) if self._penalty is not None else {}
        self.loss = loss.detach()
        if self._penalty is not None:
            self.loss = self.loss + self._penalty(self._named).detach()

    def __call__(self, outputs: Tensor) -> Tensor:
        """Q and the loss's penalty on weights, 0-d."""
        moved = outputs - self.start
        value = (moved * (self.slope + moved / (2 * self.eta))).sum() / self.entries
        return value if self._penalty is None else value + self._penalty(self._named)

    def target(self) -> Tensor:
        """Outputs at which Q is least, shaped like z₀."""
        return self.start - self.eta * self.slope
