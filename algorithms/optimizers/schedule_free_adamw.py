"""Schedule-Free AdamW: an average of the iterates in place of a schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.optimizers._base import Base, plain
from algorithms.optimizers._common import Closure, ParamsT, decay_rates, evaluate, in_blocks, non_negative
from runner.contract.batch import Info
from runner.contract.task import Task


class Budget:
    """How much of a task's budget is gone. A copy looks at the same task; a pickle leaves it behind.

    Args:
        task: None once it was left behind.
        before: the share that was gone then.
    """

    def __init__(self, task: Task | None, before: float = 0.0) -> None:
        self.task, self.before = task, before

    def gone(self, enough: float) -> float:
        """The share that is gone; of more than ``enough``, some share above it.

        Raises:
            RuntimeError: where the task was left behind before that.
        """
        if self.task is not None:
            return self.task.progress
        if self.before < enough:
            raise RuntimeError(
                "a pickle leaves the task behind, and the warm-up was on: call setup(task) again"
            )
        return self.before

    def __deepcopy__(self, memo: dict[int, Any]) -> Budget:
        return Budget(memo.get(id(self.task), self.task), self.before)

    def __reduce__(self) -> tuple[Any, ...]:
        return Budget, (None, self.before if self.task is None else self.task.progress)


class ScheduleFreeAdamW(Base):
    """Schedule-Free AdamW: gradients at y, between the iterate z and its running average x; x is evaluated.

    Paper: The Road Less Scheduled (Defazio et al. 2024, arXiv 2405.15682, Algorithm 1), as in the authors'
        code (facebookresearch/schedule_free 1.4.1, AdamWScheduleFree).
    Update: v ← β₂·v + (1 − β₂)·g², g taken at y; z ← z − γ·(g / (√(v / (1 − β₂ᵗ)) + ε) + λ·y);
        x ← (1 − c)·x + c·z; y ← β₁·x + (1 − β₁)·z. γ is lr times the warm-up; c = wₜ / Σᵢ wᵢ with
        wₜ = tʳ · (largest γ so far)^weight_lr_power. x and z start at the initial weights.
    Defaults: betas (0.9, 0.999), eps 1e-8, r 0, weight_lr_power 2 (authors' code); lr 5e-3, weight_decay
        1e-2, warmup 0.05 (ours; the authors' are 2.5e-3, 0 and 0).
    State: 2 tensors per parameter (z, v); the parameters hold y, and x follows from y and z.
    Cost: 1 forward, 1 backward.
    Pitfalls: the method replaces the schedule and has a warm-up of its own, so its preset has no schedule.
        One that is put in all the same scales γ but not the weights of the average: as γ shrinks, late
        iterates that hardly move any more go on counting in full. The authors advise an lr 1-10 times
        AdamW's, and β₁ 0.95 or 0.98 on very long runs. A wrapper or an average sees y, not x; an average is
        evaluated in place of x.
    Deviations: from the paper, as in the code: v is corrected for its bias as Adam's, where Algorithm 1 has
        √(1 − β₂ᵗ) in γ (and so in λ's factor and in c), and weights follow the largest γ so far. From the
        code: warm-up counts the trained samples, as our schedules do; a group waits for its first gradient.
        Batch norms are evaluated with the running statistics of training, those of y, as in AlgoPerf's
        submission; the authors advise to estimate them anew at x, which would cost forward passes at every
        evaluation (docs/scoring.md).

    Args:
        params: parameters or parameter groups.
        lr: step size, held from the end of the warm-up to the end.
        betas: β₁, the share of x in y, in (0, 1); β₂, the decay rate of the second moment, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled weight decay λ, at y.
        warmup: share of the budget over which the step size climbs, in [0, 1); without :meth:`setup`, which
            the harness calls, there is no budget and no warm-up.
        r: power of the step number in the weights of the average.
        weight_lr_power: power of the step size in them.

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    _budget: Budget | None = None

    def __init__(
        self,
        params: ParamsT,
        lr: float = 5e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        warmup: float = 0.05,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
    ) -> None:
        non_negative(lr=lr, eps=eps, weight_decay=weight_decay, r=r, weight_lr_power=weight_lr_power)
        decay_rates(betas)
        if not betas[0] > 0:
            raise ValueError(f"betas must begin with a number above 0, got {betas}")
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must lie in [0, 1), got {warmup}")
        own = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "r": r,
               "weight_lr_power": weight_lr_power, "warmup": warmup}  # fmt: skip
        counters = {"k": 0, "lr_max": 0.0, "weight_sum": 0.0, "averaged": False}
        super().__init__(params, own | counters)

    def cycle(self, info: Info) -> int:
        """One step of the warm-up, and those behind it."""
        return info.steps_to_see(self.param_groups[0]["warmup"])

    def setup(self, task: Task) -> None:
        """Learn from ``task`` how much of the budget is gone, for the warm-up."""
        self._budget = Budget(task)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Update every parameter that has a gradient; returns what ``closure`` gives.

        Raises:
            RuntimeError: between :meth:`eval` and :meth:`train`: gradients belong to y, not to x.
        """
        if self.param_groups[0]["averaged"]:
            raise RuntimeError("step() at the averaged weights: call train() first")
        loss = evaluate(closure)
        for group in self.param_groups:
            if blocks := list(in_blocks(group, "ScheduleFreeAdamW")):
                lr = plain(group)["lr"] * self._climb(group["warmup"])
                share = self._share(group, lr)
                for block in blocks:
                    self._update(group, *block, lr, share)
        return loss

    def _climb(self, warmup: float) -> float:
        """Warm-up: the share of the step size; the batch of this step counts as trained."""
        gone = warmup if self._budget is None else self._budget.gone(warmup)
        return 1.0 if gone >= warmup else gone / warmup

    def _update(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], lr: float, c: float
    ) -> None:
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        states = [self._state_of(p) for p in params]
        z, v = [s["z"] for s in states], [s["exp_avg_sq"] for s in states]
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, 1 - beta2)
        # √(v / a²) + ε = (√v + a·ε) / a: the division moves into the step sizes, and one pass is saved.
        a = math.sqrt(1 - beta2 ** group["k"])
        scales = torch._foreach_sqrt(v)
        torch._foreach_add_(scales, a * group["eps"])
        # With u = g / scales + λ·y: y ← (1 − c)·y + c·z + lr·(β₁·(1 − c) − 1)·u and z ← z − lr·u, so x, which
        # follows from both, is never stored. The decays go first, while y is at hand.
        if decay != 0:
            torch._foreach_add_(z, params, alpha=-lr * decay)
            torch._foreach_mul_(params, 1 - lr * decay * (1 - beta1))
        torch._foreach_lerp_(params, z, c)
        torch._foreach_addcdiv_(params, grads, scales, a * lr * (beta1 * (1 - c) - 1))
        torch._foreach_addcdiv_(z, grads, scales, -a * lr)

    def _share(self, group: dict[str, Any], lr: float) -> float:
        """Count the step; the share c of the new z in the average."""
        group["k"] += 1
        group["lr_max"] = max(group["lr_max"], lr)
        weight = group["k"] ** group["r"] * group["lr_max"] ** group["weight_lr_power"]
        group["weight_sum"] += weight
        return weight / group["weight_sum"] if group["weight_sum"] > 0 else 0.0

    def _state_of(self, p: Tensor) -> dict[str, Any]:
        state = self.state[p]
        if not state:
            state |= {"z": p.detach().clone(), "exp_avg_sq": torch.zeros_like(p)}
        return state

    # -- the two points of view ----------------------------------------------------------------------

    def eval(self) -> None:
        """Move the parameters from y to the average x; a second call changes nothing."""
        self._move(True)

    def train(self) -> None:
        """Move them back to y, up to rounding; a second call changes nothing."""
        self._move(False)

    @torch.no_grad()
    def _move(self, averaged: bool) -> None:
        for group in self.param_groups:
            params = [p for p in group["params"] if p in self.state]
            if group["averaged"] != averaged and params:
                share = 1 - 1 / group["betas"][0] if averaged else 1 - group["betas"][0]
                torch._foreach_lerp_(params, [self.state[p]["z"] for p in params], share)
            group["averaged"] = averaged

    def swap_in(self, task: Task) -> None:
        """:meth:`eval`, for evaluations."""
        self.eval()

    def swap_out(self, task: Task) -> None:
        """:meth:`train`."""
        self.train()

    def step_size(self, group: dict[str, Any]) -> float:
        """γ."""
        return plain(group)["lr"] * self._climb(group["warmup"])

    def rescale(self, params: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
        """Follow ``params`` (y) that were multiplied by ``factors``: z with them, and so x."""
        pairs = [(self.state[p]["z"], f) for p, f in zip(params, factors, strict=True) if p in self.state]
        torch._foreach_mul_([z for z, _ in pairs], [f for _, f in pairs])
