"""Are the facts that algorithms read true?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from runner.check.result import Result, ok
from runner.check.workload_rows import cut, enough, evaluated
from runner.check.workload_subject import SPLITS, Built, WorkloadSubject, first_fault
from runner.contract.batch import Info
from runner.contract.batch_norm import batch_norms
from runner.contract.metrics import METRICS, Metric
from runner.contract.stream import decode
from runner.train.loop import hits

ROLES = ("embedding", "hidden", "head", "bias", "norm")
FILLED = 0.5  # share of the stated input range that inputs take up at least
EVALUATIONS = (5, 1000)  # in a whole run: fewer say little about when a target was reached
FIRST_TARGETS = 200


def check_info(subject: WorkloadSubject) -> Result:
    """What Info and the config state is so: rows, classes, shapes, ranges, roles, grid, metric, target."""
    return first_fault(_faults(subject)) or ok()


def _faults(subject: WorkloadSubject) -> Iterator[str | None]:
    if subject.summary is not None and not subject.summary.strip():
        yield "the first line of its YAML must be a comment that sums the workload up"
    built = subject.build()
    yield from _row_faults(built)
    yield from _class_faults(built)
    yield from _range_faults(built)
    yield from _model_faults(built)
    yield from _grid_faults(built)
    yield from _metric_faults(subject, built)


def _differ(name: str, stated: Any, found: Any) -> str | None:
    return None if stated == found else f"info.{name} is {stated}, but it is {found}"


def _row_faults(built: Built) -> Iterator[str | None]:
    info, data, workload = built.task.info, built.task.data, built.workload
    yield _differ("num_train", info.num_train, len(data.x))
    yield _differ("input_shape", tuple(info.input_shape), tuple(data.x.shape[1:]))
    yield _differ("batch_size", info.batch_size, data.batch_size)
    yield _differ("budget_samples", info.budget_samples, workload.budget_samples)
    yield _differ("aux", sorted(info.aux), sorted(built.task.aux))
    if len(data.y) != len(data.x):
        yield f"training has {len(data.x)} inputs and {len(data.y)} targets"
    if not 1 <= info.batch_size <= len(data.x):
        yield f"info.batch_size is {info.batch_size}, with {len(data.x)} training rows"
    for name in SPLITS:
        rows = built.evaluate.splits[name]
        if not len(rows.x) == len(rows.y) > 0:
            yield f"{name} has {len(rows.x)} inputs and {len(rows.y)} targets"
        yield _differ("input_shape", tuple(info.input_shape), tuple(rows.x.shape[1:]))


# -- targets and inputs ------------------------------------------------------------------------------


def _class_faults(built: Built) -> Iterator[str | None]:
    classes, kind = built.task.info.num_classes, built.kind
    fixed = {"binary": 2, "regression": 0}.get(kind, classes)
    if classes != fixed:
        yield f"info.num_classes is {classes}, and a {kind} task has {fixed}"
    targets = {"training": built.task.data.y} | {s: built.evaluate.splits[s].y for s in SPLITS}
    if kind == "regression":
        yield from (_number_fault(name, y) for name, y in targets.items())
        return
    for name, y in targets.items():
        yield from _label_faults(name, y, kind, classes)
    if kind != "lm":
        absent = sorted(set(range(classes)) - {int(c) for c in targets["training"].unique()})
        if absent:
            yield f"info.num_classes is {classes}, but no training row is of class {_few(absent)}"


def _number_fault(split: str, y: Tensor) -> str | None:
    if y.dim() == 1 and y.is_floating_point():
        return None if bool(torch.isfinite(y).all()) else f"targets of {split} are not all finite"
    return f"targets of {split} are {y.dtype} of shape {tuple(y.shape)}, wanted one float a row, (n,)"


def _few(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:5])) + (" …" if len(ids) > 5 else "")


def _label_faults(split: str, y: Tensor, kind: str, classes: int) -> Iterator[str | None]:
    if kind == "multiclass" and y.dim() != 1:
        yield f"targets of {split} are of shape {tuple(y.shape)}, wanted one class id a row"
    if kind != "binary" and y.dtype != torch.int64:
        yield f"targets of {split} are {y.dtype}, wanted torch.int64"
    if kind == "binary" and not bool(((y == 0) | (y == 1)).all()):
        yield f"targets of {split} are {_span(y)}, wanted 0 and 1"
    if not bool(((y >= 0) & (y < classes)).all()):
        yield f"targets of {split} are {_span(y)}, wanted class ids from 0 to num_classes − 1 = {classes - 1}"


def _span(values: Tensor) -> str:
    return f"from {values.min().item():.4g} to {values.max().item():.4g}"


def _range_faults(built: Built) -> Iterator[str | None]:
    x, stated = built.task.data.x, built.task.info.input_range
    if not decode(x[:1]).is_floating_point():
        yield from _token_faults(built, x)
    elif not all(bool(torch.isfinite(rows).all()) for rows in (x, *_scored_inputs(built))):
        yield "inputs are not all finite"
    elif stated is not None:
        yield from _span_faults(x, stated)


def _scored_inputs(built: Built) -> list[Tensor]:
    return [built.evaluate.splits[split].x for split in SPLITS]


def _token_faults(built: Built, x: Tensor) -> Iterator[str | None]:
    stated, most = built.task.info.input_range, built.task.info.num_classes - 1
    if stated is not None:
        yield f"info.input_range is {stated}, and inputs are {x.dtype}: tokens have none, so None"
    if not bool(((x >= 0) & (x <= most)).all()):
        yield f"tokens are {_span(x)}, wanted 0 to num_classes − 1 = {most}"


def _span_faults(x: Tensor, stated: tuple[float, float]) -> Iterator[str | None]:
    low, high = (float(decode(x.amin().reshape(1))), float(decode(x.amax().reshape(1))))
    if not stated[0] - 1e-6 <= low <= high <= stated[1] + 1e-6:
        yield (
            f"info.input_range is {tuple(stated)}, but training inputs go from {low:.4g} to {high:.4g}: "
            "state what is so, or None where they have no range, as standardised ones"
        )
    if high - low < FILLED * (stated[1] - stated[0]):
        yield (
            f"info.input_range is {tuple(stated)}, but training inputs only go from {low:.4g} to {high:.4g}: "
            "are they divided twice?"
        )


# -- model, grid, metric -----------------------------------------------------------------------------


def _model_faults(built: Built) -> Iterator[str | None]:
    info, model = built.task.info, built.task.model
    yield _differ("has_batchnorm", info.has_batchnorm, bool(batch_norms(model)))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        yield "the model has no trainable parameter"
    lacking, odd = sorted(trained - set(info.param_kind)), sorted(set(info.param_kind) - trained)
    if lacking or odd:
        fault = f"lacks {', '.join(lacking[:3])}" if lacking else f"names {', '.join(odd[:3])}"
        yield f"info.param_kind {fault}: wanted one role for each trainable parameter"
    unknown = sorted(set(info.param_kind.values()) - set(ROLES))
    if unknown:
        yield f"info.param_kind has the role {unknown[0]!r}; roles are {', '.join(ROLES)}"


def _grid_faults(built: Built) -> Iterator[str | None]:
    info, grid = built.task.info, built.workload.eval_every
    for name, value in (("budget_samples", info.budget_samples), ("eval_every", grid)):
        if not isinstance(value, int) or value < 1:
            yield f"{name} is {value!r}, wanted a positive number of rows"
    if grid % info.batch_size:
        yield (
            f"eval_every={grid} is no multiple of batch_size={info.batch_size}: evaluations lie on a grid of "
            "whole steps"
        )
    low, high = EVALUATIONS
    if not low <= info.budget_samples / grid <= high:
        yield (
            f"budget_samples={info.budget_samples} over eval_every={grid} is "
            f"{info.budget_samples / grid:.3g} evaluations; wanted {low} to {high}"
        )


def _metric_faults(subject: WorkloadSubject, built: Built) -> Iterator[str | None]:
    info, first = built.task.info, {}
    for split in SPLITS:
        few = cut(built.evaluate, enough(built, FIRST_TARGETS))
        metrics = first[split] = evaluated(built, few, split).metrics
        if info.metric not in metrics:
            yield f"metric is {info.metric}, but the evaluation of {split} reports {', '.join(metrics)}"
        for name, known in METRICS.items():
            if name in metrics and known.is_defined(few.splits[split].y):
                yield _bound_fault(f"{split} {name}", metrics[name], known)
    yield _differ("target", info.target, subject.workload.get("target"))
    if info.metric in METRICS and METRICS[info.metric].minimize != info.minimize:
        yield f"metric={info.metric} with minimize={str(info.minimize).lower()}: it is the wrong way round"
    if info.target is not None:
        yield from _target_faults(info, info.target, first["validation"][info.metric])


def _bound_fault(what: str, value: float, known: Metric) -> str | None:
    if known.low <= value <= known.high:
        return None
    return f"{what} is {value:.4g}, wanted {known.low:g} to {known.high:g}"


def _target_faults(info: Info, target: float, first: float) -> Iterator[str | None]:
    known = METRICS.get(info.metric)
    low, high = (known.low, known.high) if known else (-math.inf, math.inf)
    if not low <= target <= high:
        yield f"target={target:g} cannot be reached: {info.metric} lies from {low:g} to {high:g}"
    if hits(first, target, info.minimize):
        yield f"target={target:g} is met before training: {info.metric} is {first:.4g} at initialisation"
