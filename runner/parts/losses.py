"""Losses from elsewhere: called the way they mean it, one number per row.

A loss of this project is called with logits and class ids and gives a number for each row. What others write
may mean a whole batch, want class ids as vectors or signs, or want probabilities. The first is changed where
that is possible; of the others a YAML says which (:data:`runner.parts.loss_forms.WORDS`), and
where it does not, a trial decides before training (:mod:`runner.parts.loss_trial`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from runner.base.errors import UserError
from runner.contract.batch import Info
from runner.contract.instantiate import build_part
from runner.contract.targets import arguments, locate
from runner.contract.task import Task
from runner.parts.loss_forms import AS_OURS, WORDS, Call
from runner.parts.loss_trial import choose

REDUCTIONS = ("mean", "sum", "none", "batchmean")  # a `reduction` that is one of these by default is torch's
SUMMED = ("sum", "batchmean")  # over the entries of a row; rows are averaged
OURS = ("setup", "compatible", "predict", "penalty")  # a loss with one of these is written for this project


def build_loss(spec: Any, prefix: str = "algorithm.") -> Any:
    """A loss from its config (or its factory), made to give one number per row where it does not.

    Raises:
        UserError: as ``build_part``, and for a wrong ``inputs`` or ``targets``.
    """
    if not isinstance(spec, Mapping):
        return _adapted(spec(), {}, "mean")
    words = {key: spec[key] for key in WORDS if spec.get(key) is not None}
    for key, word in words.items():
        if word not in WORDS[key]:
            raise UserError(f"{prefix}loss.{key}: got {word!r}, expected one of {', '.join(WORDS[key])}")
    rest = _with_tensors({key: value for key, value in spec.items() if key not in WORDS})
    return _adapted(_built(rest, prefix), words, str(spec.get("reduction")))


class AdaptedLoss:
    """A loss from elsewhere as one of ours: of logits (N, C) and ids (N,), or of numbers (N,) twice.

    Args:
        loss: called with outputs and targets; gives a number for a batch, or numbers for each of its rows.
        words: what its YAML says of ``inputs`` and ``targets``; what is not said is tried.
        summed: whether the entries of a row, where it has several, are added up rather than averaged.
    """

    fits_numbers = True  # where the trial finds it so

    def __init__(self, loss: Any, words: Mapping[str, str], summed: bool) -> None:
        self.loss, self.words = loss, words
        self._call = Call(loss, AS_OURS, summed=summed)
        self._tried = False  # on classes

    def compatible(self, info: Info) -> str | None:
        """Try it on made-up rows of such a task: None where it fits, else why not and which words would."""
        if isinstance(self.loss, nn.Module) and any(p.requires_grad for p in self.loss.parameters()):
            return f"{self._call.name} has weights of its own, which nothing here would train"
        found = choose(self._call, self.words, info)
        if isinstance(found, str):
            return found
        self._call, self._tried = found, info.task != "regression"
        return None

    def found(self) -> str | None:
        """How it is called, where a trial had to find that; None where its YAML says so, or on numbers."""
        guessed = self._tried and self.words.keys() < WORDS.keys()
        return f"{self._call.name} is called with {self._call.form}" if guessed else None

    def setup(self, task: Task) -> None:
        """Take what it holds to the device.

        Raises:
            UserError: where it does not fit the task.
        """
        reason = self.compatible(task.info)
        if reason is not None:
            raise UserError(f"loss: {reason}")
        if isinstance(self.loss, nn.Module):
            self.loss.to(task.data.x.device)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Losses, (N,)."""
        return self._call(outputs, targets)

    def state_dict(self) -> dict[str, Any]:
        """Its buffers, where it has any."""
        return self.loss.state_dict() if isinstance(self.loss, nn.Module) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        if isinstance(self.loss, nn.Module):
            self.loss.load_state_dict(state)


def _adapted(loss: Any, words: Mapping[str, str], reduction: str) -> Any:
    ours = any(hasattr(loss, name) for name in OURS)
    return loss if ours and not words else AdaptedLoss(loss, words, reduction in SUMMED)


def _built(spec: Mapping[str, Any], prefix: str) -> Any:
    if _has_reduction(_target(spec)):
        with contextlib.suppress(UserError):  # where it has no "none", it is called row by row
            return _called_by_rows(build_part("loss", {**spec, "reduction": "none"}, prefix=prefix))
    try:
        return _called_by_rows(build_part("loss", spec, prefix=prefix))
    except UserError as error:
        if not inspect.isroutine(_target(spec)) or spec.get("_partial_"):
            raise
        raise UserError(
            f"{error}; a function that is the loss itself has _partial_: true beside it"
        ) from error


def _called_by_rows(loss: Any) -> Any:
    return (
        functools.partial(loss, reduction="none") if _has_reduction(getattr(loss, "forward", None)) else loss
    )


def _has_reduction(function: Any) -> bool:
    found = arguments(function).get("reduction")
    return found is not None and found.default in REDUCTIONS


def _with_tensors(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as tensors where the loss takes tensors, as the ``weight`` of classes."""
    known = arguments(_target(spec))
    return {
        key: torch.tensor(value, dtype=torch.float32)
        if isinstance(value, list) and key in known and "Tensor" in str(known[key].annotation)
        else value
        for key, value in spec.items()
    }


def _target(spec: Mapping[str, Any]) -> Any:
    try:
        return locate(spec["_target_"])
    except Exception:
        return None  # building it will say what is wrong
