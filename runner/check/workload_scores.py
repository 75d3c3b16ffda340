"""Metrics of the scored splits against the row-by-row reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from runner.check import workload_numbers as numbers
from runner.check.workload_metrics import measured_metrics
from runner.check.workload_numbers import Entry
from runner.check.workload_rows import cut, evaluated, outputs
from runner.check.workload_subject import SPLITS, Built
from runner.contract.metrics import METRICS


def evaluation_faults(built: Built, few: Any) -> Iterator[str | None]:
    """What is wrong with the metrics of the few rows that the evaluation ``few`` has."""
    for name in SPLITS:
        rows = few.splits[name]
        watched = evaluated(built, few, name)
        yield watched.fault(len(rows.y), name)
        yield _report_fault(name, watched.metrics, rows.y)
        found = numbers.entries(built.kind, outputs(built, rows.x), rows.y)
        yield from _metric_faults(built, name, watched.metrics, found)


def _report_fault(split: str, metrics: Mapping[str, float], y: Tensor) -> str | None:
    if "loss" not in metrics:
        return f"the evaluation reports {', '.join(metrics) or 'nothing'}: it must report loss as well"
    for name, value in metrics.items():
        if name in METRICS and not METRICS[name].is_defined(y):
            continue
        if not isinstance(value, float) or not math.isfinite(value):
            return f"{split} {name} is {value!r}, wanted a finite float"
    return None


def _metric_faults(
    built: Built, split: str, metrics: Mapping[str, float], rows: list[list[Entry]]
) -> Iterator[str | None]:
    wanted = reference_metrics(built, rows)
    for name in [name for name in wanted if name in metrics and not math.isnan(wanted[name])]:
        value, right = metrics[name], wanted[name]
        if not numbers.close(value, right):
            why = numbers.guess(value, right, rows, built.own_loss) if name == "loss" else ""
            yield f"{split} {name} is {value:.6g}, a row-by-row reference has {right:.6g}{why}"


def reference_metrics(built: Built, rows: list[list[Entry]]) -> dict[str, float]:
    """The metrics that are known by name; a regression has no right answers to count."""
    found = numbers.references(rows, built.own_loss)
    loss, right = (numbers.mean(list(column)) for column in zip(*found, strict=True))
    more = measured_metrics(built.kind, rows)
    if built.kind == "regression":
        return {"loss": loss, **more}
    perplexity = math.exp(min(loss, 700.0))
    return {"loss": loss, "accuracy": right, "error": 1 - right, "perplexity": perplexity, **more}


def unknown(built: Built, rows: int) -> str:
    """A remark on metrics that have no reference; empty where there are none."""
    few = cut(built.evaluate, rows)
    reported, split = evaluated(built, few, "validation").metrics, few.splits["validation"]
    found = numbers.entries(built.kind, outputs(built, split.x), split.y)
    odd = sorted(set(reported) - set(reference_metrics(built, found)))
    return f"no reference for {', '.join(odd)}" if odd else ""
