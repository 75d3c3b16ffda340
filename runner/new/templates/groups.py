"""One line on what the method does."""

from __future__ import annotations

from typing import Any

from runner.contract.task import Task


class MyMethod:
    """SUMMARY.

    Paper: title (authors, year, arXiv id).
    Update: the head has a group of its own, without weight decay.
    Defaults: none.
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: none known.
    Deviations: none.
    """

    def __call__(self, task: Task) -> list[dict[str, Any]]:
        """Parameter groups that hold every parameter once."""
        head: list[Any] = []
        rest: list[Any] = []
        for name, p in task.model.named_parameters():
            if p.requires_grad:
                (head if task.info.param_kind.get(name) == "head" else rest).append(p)
        groups = [{"params": rest}, {"params": head, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]
