"""Cross-entropy, and saying the same of the worst image nearby."""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms.objectives._common import cross_entropy, divergence, logits_of
from runner.contract.batch import Batch, Info
from runner.contract.batch_norm import evaluation_mode
from runner.contract.kinds import NO_CLASSES
from runner.contract.task import Task

JITTER = 1e-3  # spread of the random start: at x itself the divergence has no gradient


class TRADES:
    """TRADES: adversarial training that trades accuracy for robustness, by a divergence between the two.

    Paper: Theoretically Principled Trade-off between Robustness and Accuracy (Zhang et al. 2019, arXiv
        1901.08573; the id from memory), and the authors' code.
    Update: ℓ = CE(z(x), y) + β · KL(softmax z(x) ‖ softmax z(x')). x' begins at x + 0.001 · N(0, I) and
        takes ``steps`` steps x' ← clip(x' + step_size · sign ∇ KL) that climb the same divergence, clipped to
        within eps of x in each entry and to the range of the inputs. The network is in evaluation mode
        meanwhile.
    Defaults: beta 6, eps 0.031, step_size 0.007, steps 10 (authors' code, CIFAR-10). For MNIST eps 0.3,
        step_size 0.01 and 40 steps, from memory.
    State: none (a generator).
    Cost: 13 forward, 12 backward. That is for 10 steps: 3 + steps forward and 2 + steps backward.
    Pitfalls: an order of magnitude dearer than plain training, and clean accuracy falls: the gain is in
        robust accuracy, which no workload here scores. eps is in units of the inputs, before normalisation.
    Deviations: z(x) is computed once for the attack and once for the loss, where the code repeats it at
        every step. Both passes that are trained on move batch-norm statistics, as there; the attack's do not.

    Args:
        beta: weight β of the divergence, at least 0.
        eps: largest change of an input, above 0.
        step_size: of the attack, above 0.
        steps: of the attack, at least 1.

    Raises:
        ValueError: for a value outside its range.
    """

    def __init__(
        self, beta: float = 6.0, eps: float = 0.031, step_size: float = 0.007, steps: int = 10
    ) -> None:
        if not beta >= 0:
            raise ValueError(f"beta must be at least 0, got {beta}")
        if not eps > 0:
            raise ValueError(f"eps must be above 0, got {eps}")
        if not step_size > 0:
            raise ValueError(f"step_size must be above 0, got {step_size}")
        if not steps >= 1 or steps != int(steps):
            raise ValueError(f"steps must be an integer of at least 1, got {steps}")
        self.beta, self.eps, self.step_size, self.steps = beta, eps, step_size, int(steps)

    def compatible(self, info: Info) -> str | None:
        """Needs logits, and inputs that can be moved a little within a range."""
        if info.task == "regression":
            return f"compares softmaxes of logits; {NO_CLASSES}"
        if info.task == "lm" or info.input_range is None:
            return "moves inputs a little within their range: the workload states none (input_range)"
        return None

    def setup(self, task: Task) -> None:
        """Learn the range of the inputs, and which modules to quieten during an attack."""
        low_high = task.info.input_range
        assert low_high is not None, "see compatible()"
        self._low, self._high = low_high
        self._modules = list(task.model.modules())

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        """The rows' losses, (B,), in nats."""
        moved = self.attack(task, batch)
        outputs = task.outputs(batch)
        distances = divergence(logits_of(outputs), logits_of(task.outputs(moved)))
        return cross_entropy(task, outputs, batch) + self.beta * distances

    @torch.enable_grad()
    def attack(self, task: Task, batch: Batch) -> Batch:
        """The batch with every row moved to where the network says something else of it."""
        x = batch.x.detach()
        noise = torch.randn(x.shape, generator=task.rng("trades"), device=x.device, dtype=x.dtype)
        moved = x + JITTER * noise
        low, high = x - self.eps, x + self.eps
        with evaluation_mode(self._modules):
            with torch.no_grad():
                target = logits_of(task.outputs(batch))
            for _ in range(self.steps):
                moved.requires_grad_()
                distance = divergence(target, logits_of(task.outputs(Batch(moved, batch.y)))).sum()
                (slope,) = torch.autograd.grad(distance, moved)
                moved = moved.detach().add(slope.sign(), alpha=self.step_size)
                moved = moved.clamp(low, high).clamp(self._low, self._high)
        return Batch(moved, batch.y, batch.index, batch.weights)
