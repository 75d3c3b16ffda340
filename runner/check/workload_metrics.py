"""The metrics that are measured on a whole split, in plain Python: pairs of rows, counts, sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

from runner.check.workload_numbers import Entry, mean, softmax


def measured_metrics(kind: str, rows: Sequence[Sequence[Entry]]) -> dict[str, float]:
    """What the metrics of :mod:`runner.contract.metrics` are on these rows; NaN where there is none."""
    entries = [row[0] for row in rows]
    if kind == "regression":
        return _of_numbers([(z[0], t) for z, t in entries])
    if kind not in ("binary", "multiclass"):
        return {}
    right = [int(t) for _, t in entries]
    return _of_classes([z for z, _ in entries], right, [1] if kind == "binary" else None)


# -- classes ---------------------------------------------------------------------------------------


def _of_classes(logits: list[list[float]], right: list[int], only: list[int] | None) -> dict[str, float]:
    """F1 and AUC are of the classes ``only``; None: of all that occur."""
    found = [z.index(max(z)) for z in logits]
    there = sorted(set(right))
    areas = [_area(c, logits, right, only) for c in only or there if len(there) > 1 and c in there]
    return {
        "f1": mean([_f1(c, found, right) for c in only or sorted({*found, *right})]),
        "auc": mean(areas) if areas else math.nan,
        "balanced_accuracy": mean([_recall(c, found, right) for c in there]),
    }


def _f1(c: int, found: list[int], right: list[int]) -> float:
    both = sum(f == r == c for f, r in zip(found, right, strict=True))
    named = found.count(c) + right.count(c)
    return 2 * both / named if named else 0.0


def _recall(c: int, found: list[int], right: list[int]) -> float:
    return mean([float(f == c) for f, r in zip(found, right, strict=True) if r == c])


def _area(c: int, logits: list[list[float]], right: list[int], only: list[int] | None) -> float:
    """How often a row of class ``c`` scores higher for it than one of another class; a tie is half."""
    scores = [z[c] if only else softmax(z)[c] for z in logits]
    mine = [s for s, r in zip(scores, right, strict=True) if r == c]
    others = [s for s, r in zip(scores, right, strict=True) if r != c]
    return mean([1.0 if a > b else 0.5 if a == b else 0.0 for a in mine for b in others])


# -- numbers ---------------------------------------------------------------------------------------


def _of_numbers(pairs: list[tuple[float, float]]) -> dict[str, float]:
    centre = mean([t for _, t in pairs])
    squared, spread = mean([(z - t) ** 2 for z, t in pairs]), mean([(t - centre) ** 2 for _, t in pairs])
    return {
        "mae": mean([abs(z - t) for z, t in pairs]),
        "rmse": math.sqrt(squared),
        "r2": 1 - squared / spread if spread else float(squared == 0),
    }
