"""Before training: in which form can a loss be called, and does it then want the right answers?

It is called with a few made-up rows. A form fits where every row has a finite number of its own, whose slope
leads to the row's right answer, and which has no way down for ever. A negative log-likelihood that is handed
logits for log-probabilities fails there, and so does one that is handed probabilities.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.base.errors import one_line
from runner.contract.batch import Info
from runner.contract.kinds import NO_CLASSES, two_logits
from runner.parts.loss_forms import INPUTS, TARGETS, Call, Form

ROWS = 6
DOUBT, SURE = 0.5, (10.0, 1000.0)  # logits of a class that is slightly preferred, and of one beyond doubt
LITTLE = 0.01
LEAST = -1e-4  # of a classifier's loss, but for rounding
WHOLE = "is a loss of the whole batch, not of its rows, which takes an objective"
CANNOT = "cannot be called"
UNKNOWN_RANGE = (-1.0, 1.0)  # of numbers to be predicted
DEFAULT, OTHER = "logits", INPUTS[1:]
# What is tried where nothing is said: logits before all else, and signs where no other targets fit.
USUAL, RARE = tuple(word for word in TARGETS if word != "signs"), ("signs",)
TIERS = tuple((inputs, targets) for inputs in ((DEFAULT,), OTHER) for targets in (USUAL, RARE))


class UnfitError(Exception):
    """Why a loss cannot be called in a form."""


def choose(call: Call, words: Mapping[str, str], info: Info) -> Call | str:
    """``call`` in the form that ``words`` and a trial leave, or why there is none, with what would fit."""
    with _undisturbed():
        if info.task == "regression":
            return _on_numbers(call, words, info)
        call = replace(call, binary=info.task == "binary")
        found = _first_fit(call, words, info)
        if isinstance(found, Call) or not words:
            return found
        other = _first_fit(call, {}, info)
    return f"{found}; {other.form} would fit" if isinstance(other, Call) else found


def _first_fit(call: Call, words: Mapping[str, str], info: Info) -> Call | str:
    """The call whose form fits, of those that the words allow; or why none does."""
    faults: dict[Form, str] = {}
    for tier in TIERS:
        fits = []
        for form in _allowed(tier, words):
            try:
                fits.append(_on_classes(replace(call, form=form), info))
            except UnfitError as why:
                faults[form] = str(why)
        inputs = {fit.form.inputs for fit in fits}
        if len(inputs) > 1:
            return f"{call.name} can be called with {' or '.join(sorted(inputs))}: set inputs to choose"
        if fits:
            return fits[0]
    return _explained(call, faults, bool(words))


def _allowed(tier: tuple[tuple[str, ...], tuple[str, ...]], words: Mapping[str, str]) -> Iterator[Form]:
    given_inputs, given_targets = words.get("inputs"), words.get("targets")
    for targets in tier[1]:
        for inputs in tier[0]:
            if given_inputs in (None, inputs) and given_targets in (None, targets):
                yield Form(inputs, targets)


def _explained(call: Call, faults: Mapping[Form, str], said: bool) -> str:
    """The fault of the form that comes furthest: one that can be called at all, where there is one."""
    form = max(faults, key=lambda form: not faults[form].startswith(CANNOT))
    return f"{call.name} with {form} {faults[form]}" if said else f"{call.name} {faults[form]}"


# -- classes ---------------------------------------------------------------------------------------


def _on_classes(call: Call, info: Info) -> Call:
    """``call``, by rows where it has to be, if it fits.

    Raises:
        UnfitError: otherwise.
    """
    classes = 2 if call.binary else info.num_classes
    rows = ROWS + (classes == ROWS)  # not as many as classes, so that one is not taken for the other
    made = Made(torch.linspace(0, classes - 1, rows).round().long(), classes, call.binary)
    call = _row_by_row(call, made.logits(made.various()), made.ids)
    blank, *sure = (
        _called(call, made.logits(at), made.ids)
        for at in (made.blank(), *(made.preferring(made.ids, logit) for logit in SURE))
    )
    if not all(bool((rows >= LEAST).all()) for rows in sure):
        raise UnfitError("falls below zero where the right class is certain")
    if call.form.inputs != DEFAULT and not bool((sure[0] <= blank).all()):
        raise UnfitError("is not least where the right class is certain")
    undecided, wrong = (_slope(call, made, at) for at in (made.blank(), made.preferring(made.rivals, DOUBT)))
    if not bool(made.raises_own(undecided).all() and made.lowers_rival(wrong).all()):
        raise UnfitError("does not lead to the right class")
    return call


@dataclass(frozen=True)
class Made:
    """Made-up rows of classes ``ids``, and outputs for them: (N, C), or (N,) on a binary task."""

    ids: Tensor
    classes: int
    binary: bool

    @property
    def rivals(self) -> Tensor:
        """A wrong class for each row, (N,)."""
        return (self.ids + 1) % self.classes

    def blank(self) -> Tensor:
        """Outputs that prefer nothing."""
        return torch.zeros(len(self.ids)) if self.binary else torch.zeros(len(self.ids), self.classes)

    def preferring(self, ids: Tensor, logit: float) -> Tensor:
        """Outputs in which the logit of class ``ids``, (N,), is larger than the others by ``logit``."""
        if self.binary:
            return logit * (2.0 * ids - 1)
        return logit * (ids.unsqueeze(1) == torch.arange(self.classes)).float()

    def various(self) -> Tensor:
        """Outputs of which no row is like another: some right, some wrong, and less and less in doubt."""
        preferred = torch.where(torch.arange(len(self.ids)) % 3 > 0, self.ids, self.rivals)
        outputs = self.preferring(preferred, 1.0)
        return outputs * torch.linspace(DOUBT, 4, len(outputs)).view(-1, *[1] * (outputs.dim() - 1))

    def logits(self, outputs: Tensor) -> Tensor:
        """As a loss sees them, (N, C)."""
        return two_logits(outputs) if self.binary else outputs

    def raises_own(self, slope: Tensor) -> Tensor:
        """Whether a step down ``slope`` raises each row's class above its rival, (N,)."""
        return self._lead(slope) if self.binary else _at(slope, self.ids) < _at(slope, self.rivals)

    def lowers_rival(self, slope: Tensor) -> Tensor:
        """Whether it lowers the rival itself as well, (N,)."""
        return self._lead(slope) if self.binary else self.raises_own(slope) & (_at(slope, self.rivals) > 0)

    def _lead(self, slope: Tensor) -> Tensor:
        return slope * (2.0 * self.ids - 1) < 0


def _slope(call: Call, made: Made, outputs: Tensor) -> Tensor:
    leaf = outputs.requires_grad_()
    return _gradient(_called(call, made.logits(leaf), made.ids), leaf)


def _at(slope: Tensor, ids: Tensor) -> Tensor:
    return slope.gather(1, ids.unsqueeze(1)).squeeze(1)


# -- numbers ---------------------------------------------------------------------------------------


def _on_numbers(call: Call, words: Mapping[str, str], info: Info) -> Call | str:
    """``call``, by rows where it has to be, if its slope leads to the targets."""
    low, high = info.target_range or UNKNOWN_RANGE
    targets = torch.linspace(low, high, ROWS)
    far = high - low + 1
    try:
        call = _row_by_row(call, targets + torch.linspace(far / 4, far, ROWS), targets)
        below, above = (_slope_at(call, targets + aside, targets) for aside in (-far, far))
        # Below a count of zero the slope may be next to nothing.
        if not bool((below < LITTLE).all() and (below[1:] < 0).all() and (above > 0).all()):
            raise UnfitError(f"does not lead to targets from {low:g} to {high:g}")
    except UnfitError as why:
        return f"{call.name} {why}; {NO_CLASSES}"
    if words.keys() - {"inputs"} or words.get("inputs", DEFAULT) != DEFAULT:
        return f"inputs and targets are words for classes; {NO_CLASSES}"
    return call


def _slope_at(call: Call, outputs: Tensor, targets: Tensor) -> Tensor:
    leaf = outputs.clone().requires_grad_()
    return _gradient(_called(call, leaf, targets), leaf)


# -- both ------------------------------------------------------------------------------------------


def _row_by_row(call: Call, outputs: Tensor, targets: Tensor) -> Call:
    """``call``, by rows where it gives a number for the whole batch.

    Raises:
        UnfitError: where it cannot be called so, or where a row's number hangs on the others.
    """
    found = rows = _called(call, outputs, targets)
    each = [_called(call, outputs[i : i + 1], targets[i : i + 1]) for i in range(len(targets))]
    alone = torch.cat([row.reshape(-1) for row in each])
    same = _close(found, alone)
    if found.dim() == 0:
        same = any(_close(found, whole) for whole in (alone.mean(), alone.sum()))
        call = replace(call, by_row=True)
        rows = _called_by_row(call, outputs, targets) if same else alone
    if rows.shape != targets.shape or not bool(rows.isfinite().all()):
        raise UnfitError(f"{CANNOT}: it gives {_described(rows)} for {len(targets)} rows")
    if not same:
        raise UnfitError(WHOLE)
    return call


def _called_by_row(call: Call, outputs: Tensor, targets: Tensor) -> Tensor:
    try:
        return _called(call, outputs, targets)
    except UnfitError as error:  # it looks at values, as a loss does that seeks pairs of rows
        raise UnfitError(f"{WHOLE}: torch.vmap cannot call it row by row") from error


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def _called(call: Call, outputs: Tensor, targets: Tensor) -> Tensor:
    try:
        found = call(outputs, targets)
    except Exception as error:
        raise UnfitError(f"{CANNOT}: {one_line(str(error) or type(error).__name__, 160)}") from error
    if not isinstance(found, Tensor):
        raise UnfitError(f"{CANNOT}: it returns not a tensor but {type(found).__name__}")
    return found


def _described(rows: Tensor) -> str:
    return f"{tuple(rows.shape)} numbers" if bool(rows.isfinite().all()) else "numbers that are not finite"


def _gradient(rows: Tensor, leaf: Tensor) -> Tensor:
    if not rows.requires_grad:
        raise UnfitError("has no gradient")
    return torch.autograd.grad(rows.sum(), leaf)[0]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave torch's generator as it is, and say nothing of what a trial is warned of."""
    with torch.random.fork_rng([]), warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        yield
