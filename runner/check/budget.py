"""Does it keep to the budget, as its rivals have to?"""

from __future__ import annotations

from runner.check.result import Result, verdict
from runner.check.subject import Subject
from runner.check.trial import Trial

JUMP = 2  # times the largest batch so far that a last batch may have


def check_budget(subject: Subject) -> Result:
    """No step draws more rows than there are to train on, and the last batch is no larger for being the last.

    A run ends with the step that reaches the budget, so a large step is training that others have not.
    """
    drawn, info = _drawn(subject.short), subject.short.pieces.task.info
    most = max(info.num_train, info.batch_size)
    if max(drawn) > most:
        return verdict(f"a step draws {max(drawn):,} rows: more than the {most:,} of the training split")
    usual = max(info.batch_size, *drawn[:-1])
    if drawn[-1] <= JUMP * usual:
        return verdict(None)
    with subject.fresh():
        longer = subject.train_here(subject.pieces(budget_samples=2 * info.budget_samples))
    only_there = max(_drawn(longer)[: len(drawn)]) <= JUMP * usual
    fault = f"the last step draws {drawn[-1]:,} rows, and at most {usual:,} where the budget goes on"
    return verdict(fault if only_there else None)


def _drawn(trial: Trial) -> list[int]:
    """Rows of each step."""
    return [step.cost["drawn"] for step in trial.steps]
