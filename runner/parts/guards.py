"""Which parts exclude each other: read from what they declare, wherever it is declared, never from names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from runner.contract.batch import COMPILED, Info
from runner.contract.kinds import NO_CLASSES
from runner.parts.modes import has_modes

Parts = Mapping[str, Any]  # kind, or kind.name where there are several -> part, or its class before set-up
Rule = Callable[[Parts, Info], str | None]


def clash(parts: Parts, info: Info) -> str | None:
    """Why these parts cannot train together on such a workload, in a line; None when they can."""
    reasons = (rule(parts, info) for rule in RULES)
    return next((reason for reason in reasons if reason is not None), None)


def declaring(parts: Parts, flag: str, *kinds: str) -> Iterator[str]:
    """The parts, of these kinds or of any, that declare ``flag``."""
    return (
        name
        for name, part in parts.items()
        if getattr(part, flag, False) and (not kinds or name.partition(".")[0] in kinds)
    )


def _first(parts: Parts, flag: str, *kinds: str) -> str | None:
    return next(declaring(parts, flag, *kinds), None)


def _two_losses(parts: Parts, info: Info) -> str | None:
    both = "loss" in parts and "objective" in parts
    return "a loss and an objective exclude each other: an objective owns its loss" if both else None


def _loss_without_classes(parts: Parts, info: Info) -> str | None:
    wrong = info.task == "regression" and not getattr(parts.get("loss"), "fits_numbers", "loss" not in parts)
    return f"loss: takes logits and class ids; {NO_CLASSES}" if wrong else None


def _nothing_to_reweight(parts: Parts, info: Info) -> str | None:
    wrong = "reweighting" in parts and _first(parts, "batch_level", "objective")
    return "a batch-level objective has no per-example losses to reweight" if wrong else None


def _per_example(parts: Parts, info: Info) -> str | None:
    name = _first(parts, "per_example")
    if name is None:
        return None
    if "objective" in parts:
        return f"{name}: its per-example gradients are the loss's, not an objective's"
    if _first(parts, "batch_level", "surgery"):
        return f"{name}: a surgery that works on whole batches has no per-example gradients"
    if _first(parts, "forward_only", "estimator"):
        return f"{name}: its per-example gradients are not those of an estimator without backward passes"
    return None


def _own_gradients(parts: Parts, info: Info) -> str | None:
    name = _first(parts, "own_gradients")
    if name is None:
        return None
    if "objective" in parts:
        return f"{name}: takes gradients of the loss itself, which an objective replaces"
    if _first(parts, "changes_gradient", "surgery"):
        return f"{name}: takes gradients of the loss itself, which the surgery changes"
    return None


def _no_backward_pass(parts: Parts, info: Info) -> str | None:
    name = _first(parts, "changes_gradient", "surgery", "objective")
    wrong = name is not None and _first(parts, "forward_only", "estimator")
    return f"{name}: changes gradients in the backward pass, and the estimator makes none" if wrong else None


def _other_gradient(parts: Parts, info: Info) -> str | None:
    wanting, name = _first(parts, "needs_loss"), _first(parts, "changes_gradient")
    if wanting is None or name is None:
        return None
    return f"{wanting}: needs the loss and its gradient at the same point; {name} hands on another gradient"


def _whole_batches(parts: Parts, info: Info) -> str | None:
    name = _first(parts, "batch_level", "objective", "surgery")
    wrong = name is not None and _first(parts, "splits_batches", "estimator")
    return f"{name}: works on whole batches, and the estimator splits them" if wrong else None


def _workers(parts: Parts, info: Info) -> str | None:
    sampler, workers = parts.get("sampler"), getattr(parts.get("estimator"), "workers", None)
    shards, rows = getattr(sampler, "workers", None), getattr(sampler, "least_rows", None)
    if workers is None:
        return None
    if shards is not None and shards != workers:
        return f"sampler: deals rows to {shards} workers, and the estimator has {workers}"
    if rows is not None and rows < workers:
        return f"estimator: needs a row for each of {workers} workers, and the sampler draws {rows}"
    return None


def _two_swaps(parts: Parts, info: Info) -> str | None:
    names = [
        name
        for name, part in parts.items()
        if hasattr(part, "swap_in") or (name == "optimizer" and has_modes(part))
    ]
    if len(names) < 2 or set(names) == {
        "average",
        "optimizer",
    }:  # an average stands in for the optimizer's own
        return None
    return f"{' and '.join(names)} each evaluate weights of their own, and only one of them can"


def _two_maps(parts: Parts, info: Info) -> str | None:
    names = [name for name, part in parts.items() if hasattr(part, "map_evaluated")]
    if len(names) < 2:
        return None
    return f"{' and '.join(names)} both change the weights that are evaluated: one would undo the other"


def _second_order(parts: Parts, info: Info) -> str | None:
    name = _first(parts, "second_order")
    return f"{name}: {COMPILED}" if name is not None and info.compiled else None


RULES: tuple[Rule, ...] = (
    _two_losses, _loss_without_classes, _nothing_to_reweight, _per_example, _own_gradients,
    _no_backward_pass, _other_gradient, _whole_batches, _workers, _two_swaps, _two_maps,
    _second_order,
)  # fmt: skip
