"""What each workload has to reach: from a file, or as most metadata files of its trials say."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.base.errors import UserError
from runner.importing.layout import Trial
from runner.importing.notices import Notices

BASES = (
    "criteo1tb", "fastmri", "imagenet_resnet", "imagenet_vit", "librispeech_conformer",
    "librispeech_deepspeech", "ogbg", "wmt",
)  # fmt: skip
LOWER = ("loss", "wer", "ppl", "perplexity", "error", "rmse", "mse", "mae", "nll")
HIGHER = ("ssim", "accuracy", "acc", "mean_average_precision", "map", "bleu", "auc", "psnr", "f1")
NEEDED = ("workload", "metric_name", "direction", "validation_target")
DIRECTIONS = {"min": True, "minimize": True, "lower": True, "max": False, "maximize": False, "higher": False}


@dataclass(frozen=True)
class Goal:
    """A workload's target, and the workload it is a variant of."""

    metric: str
    target: float
    minimize: bool
    base: str


def base_of(workload: str) -> str:
    """``ogbg`` for ``ogbg_gelu``; a name that extends none of AlgoPerf's is its own base."""
    return next((base for base in BASES if workload.startswith(f"{base}_")), workload)


def from_file(path: Path) -> dict[str, Goal]:
    """Targets by workload, from a CSV with ``workload, metric_name, direction, validation_target``.

    Raises:
        UserError: when it cannot be read or lacks a column.
    """
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        rows, names = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the targets: {path}: {error}") from error
    if lacking := [name for name in NEEDED if name not in names]:
        raise UserError(f"{path} lacks the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}")
    return {row["workload"]: _goal(row, f"{path}, line {place}") for place, row in enumerate(rows, 2)}


def _goal(row: Mapping[str, str | None], place: str) -> Goal:
    direction, number = (row["direction"] or "").strip().lower(), row["validation_target"] or ""
    if direction not in DIRECTIONS:
        raise UserError(f"{place}: direction is {direction!r}: min or max")
    try:
        target = float(number)
    except ValueError:
        target = math.nan
    if not math.isfinite(target):
        raise UserError(f"{place}: validation_target is {number!r}: a number")
    metric = (row["metric_name"] or "").strip().removeprefix("validation/")
    return Goal(
        metric, target, DIRECTIONS[direction], row.get("base_workload") or base_of(row["workload"] or "")
    )


def from_metadata(trials: Sequence[Trial], notices: Notices) -> dict[str, Goal]:
    """Targets by workload: what most of its trials' metadata say, and a notice where they differ."""
    votes: dict[str, Counter[tuple[str, float]]] = {}
    for trial in trials:
        metric, target = _number(trial.meta)
        if metric:
            votes.setdefault(trial.workload, Counter())[metric, target] += 1
    goals = {}
    for workload, count in votes.items():
        (metric, target), _ = count.most_common(1)[0]
        if len(count) > 1:
            said = ", ".join(f"{m} {t:g} ({n})" for (m, t), n in count.most_common())
            notices.add("several targets for a workload, the most frequent one used", f"{workload}: {said}")
        minimize = _minimized(metric)
        if minimize is None:
            notices.add("metric of unknown direction, ignored as a target", f"{workload}: {metric}")
        else:
            goals[workload] = Goal(metric, target, minimize, base_of(workload))
    return goals


def _number(meta: Mapping[str, Any]) -> tuple[str, float]:
    """Metric and target; no metric where the metadata do not say both."""
    metric, target = meta.get("workload.target_metric_name"), meta.get("workload.validation_target_value")
    number = target if isinstance(target, (int, float)) and not isinstance(target, bool) else math.nan
    if not isinstance(metric, str) or not math.isfinite(number):
        return "", math.nan
    return metric.removeprefix("validation/"), float(number)


def _minimized(metric: str) -> bool | None:
    """None where the name does not tell."""
    words = metric.lower().split("_")
    if metric.lower() in HIGHER or words[-1] in HIGHER:
        return False
    return True if any(word in LOWER for word in words) else None
