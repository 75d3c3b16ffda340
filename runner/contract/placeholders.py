"""What a YAML leaves open until set-up: ``${setup:steps}``, ``${setup:0.1 * steps}``, ``${setup:model}``.

A config keeps the text. What it stands for is put in when an optimizer, a wrapper or a schedule from
elsewhere is built, on the task that it trains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from runner.base.errors import UserError, nearest

if TYPE_CHECKING:
    from runner.contract.task import Task

RESOLVER = "setup"
WHOLE = re.compile(r"\$\{setup:\s*(?P<text>.*?)\s*\}")
FORM = re.compile(r"(?:(?P<factor>\d+\.?\d*(?:[eE][+-]?\d+)?)\s*\*\s*)?(?P<name>\w+)")
StepRows = Callable[[], int]

COUNTS: dict[str, Callable[[Task, StepRows], int]] = {
    "steps": lambda task, rows: -(-task.info.budget_samples // rows()),
    "epochs": lambda task, rows: -(-task.info.budget_samples // task.info.num_train),
    "steps_per_epoch": lambda task, rows: -(-task.info.num_train // rows()),
    "rows": lambda task, rows: task.info.num_train,
    "batch_size": lambda task, rows: rows(),
}
OBJECTS: dict[str, Callable[[Task], Any]] = {
    "model": lambda task: task.model,
    "parameters": lambda task: list(task.params),
    "named_parameters": lambda task: [(k, p) for k, p in task.model.named_parameters() if p.requires_grad],
}


def kept(text: str) -> str:
    """The placeholder itself: OmegaConf resolves ``${setup:…}`` to what set-up will find.

    Raises:
        UserError: for a name that is none, or a factor of what is no number.
    """
    found = FORM.fullmatch(text.strip())
    name = found["name"] if found else text
    if found is None or name not in COUNTS | OBJECTS or (found["factor"] and name in OBJECTS):
        known = f"{nearest(name, COUNTS | OBJECTS)}; a factor stands in front: {example('0.1 * steps')}"
        raise UserError(f"{example(text)}: no such placeholder: {known}")
    return example(text.strip())


def example(text: str) -> str:
    """How a placeholder is written."""
    return f"${{{RESOLVER}:{text}}}"


def is_placeholder(value: Any) -> bool:
    """Whether a value is left open until set-up."""
    return isinstance(value, str) and WHOLE.fullmatch(value) is not None


def left_open(value: Any) -> bool:
    """Whether a value, or an entry of a list, is a placeholder."""
    return is_placeholder(value) or (isinstance(value, (list, tuple)) and any(map(left_open, value)))


def filled(tree: Any, task: Task, step_rows: StepRows) -> Any:
    """``tree`` with what its placeholders stand for; counts with a factor are rounded.

    Args:
        tree: a part's config.
        task: what it trains.
        step_rows: the rows that a step draws; raises where nobody knows.

    Raises:
        UserError: where that cannot be known.
    """
    if isinstance(tree, Mapping):
        return {key: filled(value, task, step_rows) for key, value in tree.items()}
    if isinstance(tree, list):
        return [filled(value, task, step_rows) for value in tree]
    return _value(tree, task, step_rows) if is_placeholder(tree) else tree


def _value(placeholder: str, task: Task, step_rows: StepRows) -> Any:
    outer = WHOLE.fullmatch(placeholder)
    found = FORM.fullmatch(outer["text"] if outer else "")
    if found is None:
        raise UserError(f"{placeholder}: no such placeholder")
    if (of_task := OBJECTS.get(found["name"])) is not None:
        return of_task(task)
    count = COUNTS[found["name"]](task, step_rows)
    return count if found["factor"] is None else round(float(found["factor"]) * count)
