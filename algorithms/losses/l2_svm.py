"""The squared hinge of a linear L2-SVM on top of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.base.errors import UserError

if TYPE_CHECKING:
    from runner.contract.batch import Info
    from runner.contract.task import Task

REDUCTIONS = ("element", "tang")


class L2SVM:
    """L2-SVM: a squared one-against-all hinge, and an L2 penalty on the weights of the output layer.

    Paper: Deep Learning using Linear Support Vector Machines (Tang 2013, arXiv 1306.0239), and as a network
        for MNIST: An Architecture Combining CNN and SVM for Image Classification (Agarap 2017,
        arXiv 1712.03541, and the author's code).
    Update: hᵢₖ = max(0, 1 − Yᵢₖ zᵢₖ)², Y = ±1. element: mean(W²) + C · meanₖ hᵢₖ; tang: ½ ‖W‖² + C · Σₖ hᵢₖ;
        means over rows i. W holds the head's weights without the bias.
    Defaults: C 1, reduction element (Agarap's code); tang is the form of Tang's paper.
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: element averages over the K classes too: its hinge is K times smaller than tang's, which Adam
        does not mind and SGD does. Scores are no log-odds: a target on the cross-entropy is out of reach.
        AdamW's own weight decay on the head comes on top. With many classes few of the ±1 are positive.
    Deviations: on a binary task's one logit the hinge is the ordinary one, max(0, 1 − t·s)², t = ±1.
        Accuracy is that of argmax(z); the author's code scores argmax(sign(z)), where ties fall to the first
        class.

    Args:
        C: weight of the hinge against the penalty, above 0.
        reduction: ``"element"`` or ``"tang"``.

    Raises:
        ValueError: for a value outside its range.
    """

    def __init__(self, C: float = 1.0, reduction: str = "element") -> None:
        if not C > 0:
            raise ValueError(f"C must be above 0, got {C}")
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction}")
        self.C, self.reduction = C, reduction
        self.binary = False
        self._heads: list[str] = []

    def compatible(self, info: Info) -> str | None:
        """A model without a head has nothing to penalise."""
        return (
            None if _heads(info) else "the model has no head of its own, whose weights the SVM would penalise"
        )

    def setup(self, task: Task) -> None:
        """Learn which parameters are the head's.

        Raises:
            UserError: when the model has none of them, as after a surgery that renames them.
        """
        names = [name for name, _ in task.model.named_parameters()]
        self._heads = [name for name in _heads(task.info) if name in names]
        if not self._heads:
            raise UserError(
                f"loss l2_svm: the model has no parameter called {', '.join(_heads(task.info)) or 'head'}"
            )
        self.binary = task.info.task == "binary"

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """C times the hinge of each entry, (N,), of logits (N, K) and class ids (N,)."""
        if self.binary:
            # Logits are [0, s]: the constant first column would be a second, idle class.
            margins = (2 * targets - 1).unsqueeze(1) * logits[:, 1:]
        else:
            # Not F.one_hot, which reads its input to check it.
            own = targets.unsqueeze(1) == torch.arange(logits.shape[1], device=targets.device)
            margins = torch.where(own, logits, -logits)
        hinge = F.relu(1 - margins).square()
        return self.C * (hinge.mean(1) if self.reduction == "element" else hinge.sum(1))

    def penalty(self, params: Mapping[str, Tensor]) -> Tensor:
        """Penalty on the head's weights, 0-d; to be added once to a mean over entries.

        Args:
            params: name -> parameter of the model at which the loss is taken.
        """
        weights = torch.cat([params[name].flatten() for name in self._heads]).float()
        return weights.square().mean() if self.reduction == "element" else 0.5 * weights.square().sum()


def _heads(info: Info) -> list[str]:
    return [name for name, kind in info.param_kind.items() if kind == "head"]
