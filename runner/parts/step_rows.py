"""How many rows a step draws, where that is known before training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.base.errors import UserError
from runner.contract.batch import Info


def step_rows(info: Info, parts: Mapping[str, Any]) -> int:
    """Rows that every step draws: the workload's batch, or what the sampler says (``step_rows(info)``).

    Args:
        info: facts of the workload.
        parts: kind -> part.

    Raises:
        UserError: where a part draws rows of its own (``draws_rows``), or a sampler as many as it likes.
    """
    for kind, part in parts.items():
        if getattr(part, "draws_rows", False) or (kind == "sampler" and not hasattr(part, "step_rows")):
            raise UserError(
                f"algorithm.{kind}: how many rows its steps draw is not known in advance, so neither is "
                "the number of steps: replace the placeholder with a number"
            )
    sampler = parts.get("sampler")
    return info.batch_size if sampler is None else sampler.step_rows(info)
