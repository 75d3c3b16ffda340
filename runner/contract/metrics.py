"""What can be scored, by name: for which kinds of task, which way is better, within which bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the launcher imports this
    from torch import Tensor

# Outputs and targets of a whole split, float64 on the CPU: logits (n,) or (n, C) and classes, or two times
# numbers, (n,).
Measure = Callable[["Tensor", "Tensor"], float]
CLASSES = ("binary", "multiclass")


@dataclass(frozen=True)
class Metric:
    """A metric that is known by its name.

    Attributes:
        kinds: kinds of task that have it.
        minimize: whether a smaller one is better.
        low: least value.
        high: largest value.
        measure: what computes it from a whole split; None where an evaluation reports it anyway, or is to be
            one's own.
        least_classes: classes that targets must have among them; with fewer it is NaN.
    """

    kinds: tuple[str, ...]
    minimize: bool
    low: float
    high: float
    measure: Measure | None = None
    least_classes: int = 0

    def is_defined(self, y: Tensor) -> bool:
        """Whether it exists for these targets."""
        return not self.least_classes or len(y.unique()) >= self.least_classes


def measured(metric: Metric, outputs: Tensor, y: Tensor) -> float:
    """The metric of a whole split; NaN where outputs are not all finite.

    Args:
        metric: one with a ``measure``.
        outputs: logits, (n,) or (n, C), or numbers, (n,).
        y: targets, (n,).
    """
    assert metric.measure is not None
    outputs = outputs.double().cpu()
    return metric.measure(outputs, y.double().cpu()) if bool(outputs.isfinite().all()) else math.nan


def offered(kind: str, reported: Iterable[str]) -> list[str]:
    """Names that a task of that kind can be scored by: of those ``reported`` anyway, and those measured."""
    own = [name for name in reported if name not in METRICS or kind in METRICS[name].kinds]
    return own + [name for name, m in METRICS.items() if m.measure and kind in m.kinds and name not in own]


# -- classes ---------------------------------------------------------------------------------------


def _f1(logits: Tensor, y: Tensor) -> float:
    """Of class 1, or the plain mean over the classes that are there or are predicted; 0 for none right."""
    from sklearn.metrics import f1_score

    average = "binary" if logits.dim() == 1 else "macro"
    return float(f1_score(y.numpy(), _predicted(logits), average=average, zero_division=0.0))  # pyright: ignore[reportArgumentType]


def _balanced_accuracy(logits: Tensor, y: Tensor) -> float:
    """The plain mean of the shares of right answers in each class that is there."""
    from sklearn.metrics import recall_score

    recall = recall_score(y.numpy(), _predicted(logits), labels=y.unique().numpy(), average="macro")
    return float(recall)


def _auc(logits: Tensor, y: Tensor) -> float:
    """The area under the ROC curve; of each class against the rest, by softmax, and their plain mean."""
    from sklearn.metrics import roc_auc_score

    scores = {1: logits} if logits.dim() == 1 else dict(enumerate(logits.softmax(1).unbind(1)))
    areas = [roc_auc_score((y == c).numpy(), s.numpy()) for c, s in scores.items() if _divides(y == c)]
    return float(sum(areas) / len(areas)) if areas else math.nan


def _divides(mine: Tensor) -> bool:
    return bool(mine.any()) and not bool(mine.all())


def _predicted(logits: Tensor):  # noqa: ANN202
    return (logits > 0 if logits.dim() == 1 else logits.argmax(1)).double().numpy()


# -- numbers ---------------------------------------------------------------------------------------


def _mae(outputs: Tensor, y: Tensor) -> float:
    return (outputs - y).abs().mean().item()


def _rmse(outputs: Tensor, y: Tensor) -> float:
    return (outputs - y).square().mean().sqrt().item()


def _r2(outputs: Tensor, y: Tensor) -> float:
    """1 − squared errors over squared distances from the mean, of the split's own targets."""
    from sklearn.metrics import r2_score

    return float(r2_score(y.numpy(), outputs.numpy()))


METRICS: dict[str, Metric] = {
    "accuracy": Metric((*CLASSES, "lm"), False, 0.0, 1.0),
    "error": Metric((*CLASSES, "lm"), True, 0.0, 1.0),
    "loss": Metric((*CLASSES, "lm", "regression"), True, 0.0, math.inf),
    "perplexity": Metric((*CLASSES, "lm"), True, 1.0, math.inf),
    "f1": Metric(CLASSES, False, 0.0, 1.0, _f1),
    "auc": Metric(CLASSES, False, 0.0, 1.0, _auc, least_classes=2),
    "balanced_accuracy": Metric(CLASSES, False, 0.0, 1.0, _balanced_accuracy),
    "mae": Metric(("regression",), True, 0.0, math.inf, _mae),
    "rmse": Metric(("regression",), True, 0.0, math.inf, _rmse),
    "r2": Metric(("regression",), False, -math.inf, 1.0, _r2),
}
