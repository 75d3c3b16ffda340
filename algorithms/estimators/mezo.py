"""Gradients from two forward passes: SPSA in the memory of inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from runner.contract.batch import Batch
from runner.contract.batch_norm import batch_norms, evaluation_mode, frozen_statistics
from runner.contract.memory_layout import dense
from runner.contract.task import Task

CHUNK = 1 << 20  # numbers of z that exist at a time, unless one parameter alone has more


class MeZO:
    """MeZO: the slope along a random direction z, from the losses at w + εz and w − εz; no backward pass.

    Paper: Fine-Tuning Language Models with Just Forward Passes (Malladi et al. 2023, arXiv 2305.17333,
        Algorithm 1, and Algorithm 2 for n_samples > 1); SPSA is Spall 1992.
    Update: z ~ N(0, I); p = (L(w + εz) − L(w − εz)) / 2ε on one batch; g = p·z, averaged over n_samples
        directions. z is drawn again from the generator's state wherever it is needed, not stored, and w is
        moved in place.
    Defaults: eps 1e-3, n_samples 1 (authors' code, full fine-tuning). The preset's lr is ours.
    State: none (a generator).
    Cost: 2 forward, 0 backward. That is for n_samples 1; n cost 2n forward.
    Pitfalls: the estimate is about √N times as long as the gradient of N weights, so lr has to be about N
        times smaller than SGD's. Adaptive optimizers see noise in every coordinate, momentum averages it: the
        preset has neither. Under bf16 the rounding of the loss drowns a slope at ε = 1e-3: raise ε. An
        objective or a reweighting that takes gradients has to enable them itself.
    Deviations: the estimate is written to ``.grad`` (one tensor per parameter) for transforms and the
        optimizer to go on from; the authors' own step needs none. The loss handed on is the mean of all
        passes, not L(w + εz). As in their code w comes back up to rounding and dropout is off in both passes;
        but batch norms, which their models lack, normalise by the batch, and only the first pass moves
        their statistics. A reweighting's weights are those of the first pass.

    Args:
        eps: distance ε of the two points from w, in units of z; positive.
        n_samples: directions that a step averages over, at least 1.

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    changes_gradient: ClassVar[bool] = True
    forward_only: ClassVar[bool] = True

    def __init__(self, eps: float = 1e-3, n_samples: int = 1) -> None:
        if not eps > 0:
            raise ValueError(f"eps must be above 0, got {eps}")
        if not n_samples >= 1 or n_samples != int(n_samples):
            raise ValueError(f"n_samples must be an integer of at least 1, got {n_samples}")
        self.eps, self.n_samples = eps, int(n_samples)

    def setup(self, task: Task) -> None:
        """Find the modules to quieten, and the parameters that are moved together."""
        self._norms = batch_norms(task.model)
        self._others = [m for m in task.model.modules() if not isinstance(m, _BatchNorm)]
        self._chunks = list(chunks(task.params))

    @torch.no_grad()
    def __call__(self, task: Task, batch: Batch) -> Tensor:
        """Fill ``.grad`` with the estimate, leave w up to rounding; returns the mean loss, 0-d."""
        generator = task.rng("mezo")
        losses: list[Tensor] = []
        with evaluation_mode(self._others):
            for _ in range(self.n_samples):
                start = generator.get_state()
                self._move(generator, self.eps)
                losses.append(self._loss(task, batch, first=not losses))
                generator.set_state(start)
                self._move(generator, -2 * self.eps)
                losses.append(self._loss(task, batch, first=False))
                generator.set_state(start)
                self._return(generator, (losses[-2] - losses[-1]) / (2 * self.eps * self.n_samples))
        return torch.stack(losses).mean()

    def _loss(self, task: Task, batch: Batch, first: bool) -> Tensor:
        with frozen_statistics([] if first else self._norms):
            return task.mean_loss(batch)

    def _move(self, generator: torch.Generator, distance: float) -> None:
        """Add ``distance`` · z to the parameters."""
        for params in self._chunks:
            torch._foreach_add_(params, draw(params, generator), alpha=distance)

    def _return(self, generator: torch.Generator, slope: Tensor) -> None:
        """Add εz, which ends at w again, and ``slope`` · z to the gradients."""
        for params in self._chunks:
            z = draw(params, generator)
            torch._foreach_add_(params, z, alpha=self.eps)
            torch._foreach_mul_(z, slope)
            grads = [p.grad for p in params if p.grad is not None]
            if grads:
                torch._foreach_add_(grads, z)
                continue
            for p, grad in zip(params, z, strict=True):
                p.grad = grad


def draw(params: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Standard normal tensors laid out like ``params``, from one call of the generator."""
    sizes = [p.numel() for p in params]
    flat = torch.randn(sum(sizes), generator=generator, device=params[0].device, dtype=params[0].dtype)
    return [
        z.as_strided(p.shape, p.stride()) if p.is_contiguous() or dense(p) else z.view(p.shape)
        for z, p in zip(flat.split(sizes), params, strict=True)
    ]


def chunks(params: Sequence[Tensor], size: int = CHUNK) -> Iterator[list[Tensor]]:
    """Runs of parameters of one type that hold at most ``size`` numbers, or a single parameter."""
    run: list[Tensor] = []
    for p in params:
        if run and (sum(q.numel() for q in run) + p.numel() > size or p.dtype != run[0].dtype):
            yield run
            run = []
        run.append(p)
    if run:
        yield run
