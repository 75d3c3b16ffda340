"""Is the loss what it is called, in training and in evaluation? Held against plain Python."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from runner.check import workload_numbers as numbers
from runner.check.result import Result, failed, not_applicable, ok
from runner.check.workload_rows import cut, enough, evaluated, outputs, own_dice, some, stirred
from runner.check.workload_scores import evaluation_faults, unknown
from runner.check.workload_subject import Built, WorkloadSubject, first_fault
from runner.check.workload_training import diced, training_faults
from runner.contract.kinds import NO_CLASSES

FIRST_TARGETS, FIRST_STUDIES = 200, 3
NEAR = (0.75, 1.5)  # first loss over that of a uniform guess
MOST, LEAST = 64, 4  # rows held against the reference
MARGINS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0)
CERTAIN = 0.4  # of the loss of a uniform guess; cross-entropy of softmaxed logits stays above 0.45


def check_init(subject: WorkloadSubject) -> Result:
    """The loss at initialisation is about that of a uniform guess, or init_loss_note says why not.

    Where numbers are to be predicted, the guess is zero.
    """
    built = subject.build()
    first, uniform = _first_loss(subject), _uniform(built)
    guess = "guessing zero" if built.kind == "regression" else "a uniform guess"
    found = f"the loss at initialisation is {first:.3g}, that of {guess} {uniform:.3g}"
    note = getattr(built.workload, "init_loss_note", None)
    if note:
        return ok(f"{found}: {note}")
    low, high = (factor * uniform for factor in NEAR)
    if low <= first <= high:
        return ok()
    advice = "change the initial weights, or say why in the class attribute init_loss_note"
    return failed(f"{found} (wanted {low:.3g} to {high:.3g}): {advice}")


def _first_loss(subject: WorkloadSubject) -> float:
    return numbers.mean([_loss(subject.build(study)) for study in range(FIRST_STUDIES)])


def _loss(built: Built) -> float:
    task, rows = built.task, enough(built, FIRST_TARGETS)
    if not task.info.has_batchnorm:
        return evaluated(built, cut(built.evaluate, rows), "validation").metrics["loss"]
    # Before the first step the running statistics are placeholders: those of a batch are what training meets.
    task.model.train()
    batch = task.data.take(some(task.data.n, rows).to(task.data.x.device))
    with torch.no_grad():
        return float(diced(built, lambda: task.losses(batch)).mean())


def _uniform(built: Built) -> float:
    """The loss of logits that are all equal: ln C for cross-entropy; of zeros where there are no classes."""
    # Every row's is the same but for a regression's: there it takes the rows that the first loss is of.
    rows = enough(built, FIRST_TARGETS) if built.kind == "regression" else MOST
    y, classes = cut(built.evaluate, rows).splits["validation"].y, built.task.info.num_classes
    y = y[:LEAST] if built.kind == "lm" else y
    blank = torch.zeros(y.shape if built.kind in ("binary", "regression") else (*y.shape, classes))
    found = numbers.references(numbers.entries(built.kind, blank, y), built.own_loss)
    return numbers.mean([row.loss for row in found])


def check_reference(subject: WorkloadSubject) -> Result:
    """Loss and metrics, in evaluation and in training, are those of a row-by-row reference."""
    built = subject.build()
    if built.kind not in numbers.KINDS:
        return not_applicable(f"no reference for a task of kind {built.kind!r}")
    return first_fault(_faults(built)) or ok(unknown(built, LEAST))


def _faults(built: Built) -> Iterator[str | None]:
    most = _most(built)
    few = cut(built.evaluate, most)
    x, y = few.splits["validation"].x, few.splits["validation"].y
    yield _shape_fault(built, x, y)
    yield _own_loss_fault(built)
    yield _probability_fault(built, x[:16])
    yield from evaluation_faults(built, few)
    yield from training_faults(built, most)
    with stirred(built, x):
        yield from evaluation_faults(built, few)
        yield from training_faults(built, most)


def _most(built: Built) -> int:
    """Rows that plain Python gets through in a moment."""
    entries = built.task.data.y[:1].numel() * built.task.info.num_classes
    return min(MOST, max(LEAST, numbers.ENTRIES // max(entries, 1)))


def _shape_fault(built: Built, x: Tensor, y: Tensor) -> str | None:
    built.task.model.eval()
    found = outputs(built, x)
    if not isinstance(found, Tensor):
        return f"the model answers with a {type(found).__name__}, not with a tensor"
    return numbers.shape_fault(built.kind, found, y, built.task.info.num_classes)


def _probability_fault(built: Built, x: Tensor) -> str | None:
    """Softmax in the model: cross-entropy of its outputs is then wrong everywhere alike."""
    if built.kind == "regression":
        return None
    for mode in ("evaluation", "training"):
        built.task.model.train(mode == "training")
        if all(_are_probabilities(built, x, seed) for seed in (1, 2, 3)):
            sums = "" if built.kind == "binary" else ", each row's sum is 1"
            return (
                f"the model's outputs are probabilities in {mode} mode (they lie in [0, 1]{sums}), "
                "whatever its weights: it must return logits, which is what losses take"
            )
    return None


def _are_probabilities(built: Built, x: Tensor, seed: int) -> bool:
    with own_dice(x.device), stirred(built, x, seed):
        found = outputs(built, x).double()
    if not bool(((found >= 0) & (found <= 1)).all()):
        return False
    return built.kind == "binary" or bool(((found.sum(-1) - 1).abs() < 1e-3).all())


def _own_loss_fault(built: Built) -> str | None:
    """Whatever a loss of the workload's own is: not negative, and small for a right answer that is sure."""
    loss, classes = built.own_loss, 2 if built.kind == "binary" else built.task.info.num_classes
    if loss is None:
        return None
    if built.kind == "regression":
        return f"the workload has a loss of its own, of logits and class ids: {NO_CLASSES}"
    # Logits that are m ahead in the first class: from zero, and from both sides of zero.
    sure = [[low + m, *[low] * (classes - 1)] for m in MARGINS for low in (0.0, -m / 2)]
    found = [numbers.alone(loss, logits, target) for logits in sure for target in (0, 1)]
    uniform = numbers.alone(loss, [0.0] * classes, 0)
    if min(found) < -1e-6:
        return f"the workload's own loss is {min(found):.3g} for some logits, below zero: does it lack a log?"
    if min(found) > CERTAIN * uniform:
        return (
            f"the workload's own loss stays above {min(found):.3g} however sure a right answer is, and a "
            f"uniform guess has {uniform:.3g}: does it take softmax of probabilities?"
        )
    return None
