"""A network of few-bit weights, trained at its quantised weights against a teacher of full precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from algorithms.objectives._common import cross_entropy, divergence, logits_of, per_row
from algorithms.samplers.rho_loss import fit
from runner.contract.batch import Batch, Info
from runner.contract.kinds import NO_CLASSES
from runner.contract.task import Task

REDUCTIONS = ("element", "batchmean")


class QuantizedDistillation:
    """Quantised distillation: gradients are taken at the quantised weights, and move the full ones.

    Paper: Model compression via distillation and quantization (Polino et al. 2018, arXiv 1802.05668; authors
        and id from memory), and the authors' code (antspy/quantized_distillation).
    Update: ℓ = α T² · KL(softmax(zₜ / T) ‖ softmax(z / T)) + (1 − α) · CE, z the logits at Q(w), zₜ a
        teacher's; its gradient with respect to Q(w) moves w. Q: in buckets of ``bucket`` weights of a tensor,
        b their smallest and a their range, w ↦ a · round((w − b) / a · (s − 1)) / (s − 1) + b, s = 2^bits,
        half to even. Evaluations see Q(w), or Q of the weights that an average or a
        schedule-free optimizer evaluates.
    Defaults: alpha 0.7, temperature 2, bucket 256, kl_reduction element (authors' code: the KL is divided by
        the number of classes; batchmean does not); bits 4, one of theirs. teach 0.3 and teach_lr 1e-3 (AdamW)
        are ours.
    State: the teacher, 1 tensor per parameter.
    Cost: 2 forward, 1 backward.
    Pitfalls: all parameters are quantised, biases and norms too, unless a model has a first or last layer
        worth sparing. The teacher's rows count as drawn, so a schedule begins where these leave it, and the
        teacher is trained again when a cell is resumed. Small learning rates move weights less than half a
        level in a step: that is what the full-precision copy is for.
    Deviations: the teacher is the network itself, unquantised, trained at set-up for the share ``teach`` of
        the budget; the paper's is a larger one. The optimizer is any.

    Args:
        bits: a weight has 2^bits levels, from 1 to 16.
        bucket: weights that share a range; None for a whole tensor.
        alpha: weight of the teacher, in [0, 1].
        temperature: T, above 0.
        kl_reduction: ``element`` or ``batchmean``.
        teach: share of the budget for the teacher, in (0, 1).
        teach_lr: its learning rate, above 0.

    Raises:
        ValueError: for a value outside its range.
    """

    changes_gradient: ClassVar[bool] = True  # that of the loss at Q(w) moves w

    def __init__(
        self,
        bits: int = 4,
        bucket: int | None = 256,
        alpha: float = 0.7,
        temperature: float = 2.0,
        kl_reduction: str = "element",
        teach: float = 0.3,
        teach_lr: float = 1e-3,
    ) -> None:
        if not 1 <= bits <= 16 or bits != int(bits):
            raise ValueError(f"bits must be an integer from 1 to 16, got {bits}")
        if bucket is not None and bucket < 1:
            raise ValueError(f"bucket must be at least 1, got {bucket}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
        if kl_reduction not in REDUCTIONS:
            raise ValueError(f"kl_reduction must be one of {', '.join(REDUCTIONS)}, got {kl_reduction}")
        if not 0 < teach < 1:
            raise ValueError(f"teach must lie in (0, 1), got {teach}")
        for name, value in {"temperature": temperature, "teach_lr": teach_lr}.items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        self.levels, self.bucket, self.alpha = 2 ** int(bits), bucket, alpha
        self.temperature, self.kl_reduction = temperature, kl_reduction
        self.teach, self.teach_lr = teach, teach_lr

    def compatible(self, info: Info) -> str | None:
        """Needs logits."""
        return f"compares softmaxes of logits; {NO_CLASSES}" if info.task == "regression" else None

    def setup(self, task: Task) -> None:
        """Train the teacher."""
        self.teacher = task.spawn(name="quantized_distillation teacher")
        steps = max(1, round(self.teach * task.info.budget_samples / task.data.batch_size))
        fit(self.teacher, steps, self.teach_lr)
        self.teacher.model.eval()

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        """The rows' losses, (B,), in nats."""
        with torch.no_grad():
            target = logits_of(self.teacher.outputs(batch))
        outputs = task.outputs(batch, self.straight_through(task))
        return self.blend(cross_entropy(task, outputs, batch), target, logits_of(outputs), batch)

    def blend(self, own: Tensor, target: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """The rows' losses, (B,), from their cross-entropy and from two logits of each entry, (N, C)."""
        distances = per_row(divergence(target, logits, self.temperature), batch)
        if self.kl_reduction == "element":
            distances = distances / logits.shape[1]
        return self.alpha * self.temperature**2 * distances + (1 - self.alpha) * own

    def straight_through(self, task: Task) -> dict[str, Tensor]:
        """Quantised parameters by name, whose gradients are handed to the full ones."""
        named = {name: p for name, p in task.model.named_parameters() if p.requires_grad}
        return {name: p + (self.quantised(p) - p).detach() for name, p in named.items()}

    def quantised(self, w: Tensor) -> Tensor:
        """Q(w), of the shape of ``w``; detached."""
        return quantise(w.detach(), self.levels, self.bucket)

    @torch.no_grad()
    def map_evaluated(self, task: Task, trained: list[Tensor]) -> None:
        """Quantise the weights that are evaluated, be they trained or averaged."""
        torch._foreach_copy_(task.params, [self.quantised(p) for p in task.params])

    def broken_promise(self, task: Task, trained: list[Tensor]) -> str | None:
        """Each bucket of the evaluated weights has at most 2^bits values."""
        for name, p in task.model.named_parameters():
            if p.requires_grad and (found := most_values(p.detach(), self.bucket)) > self.levels:
                return f"{name} has {found} values in a bucket, {self.levels} are allowed"
        return None

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the teacher's weights are kept by the task."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to do."""


def quantise(w: Tensor, levels: int, bucket: int | None = None) -> Tensor:
    """Round ``w`` to ``levels`` evenly spaced values between the ends of each bucket, ends included."""
    rows = in_buckets(w, bucket)
    low, high = torch.aminmax(rows, dim=1, keepdim=True)
    span = torch.where(high - low < 1e-10, 1.0, high - low)
    steps = torch.round((rows - low) / span * (levels - 1)) / (levels - 1)
    return (steps * span + low).flatten()[: w.numel()].view(w.shape)


def in_buckets(w: Tensor, bucket: int | None) -> Tensor:
    """The entries of ``w``, one bucket per row, (n, bucket); the last row filled up with the last entry."""
    flat = w.flatten()
    size = flat.numel() if bucket is None else min(bucket, flat.numel())
    missing = -flat.numel() % size
    padded = torch.cat([flat, flat[-1:].expand(missing)]) if missing else flat
    return padded.view(-1, size)


def most_values(w: Tensor, bucket: int | None) -> int:
    """The largest number of different values in a bucket of ``w``."""
    ordered = in_buckets(w, bucket).sort(1).values
    return int((ordered.diff(dim=1) != 0).sum(1).max()) + 1
