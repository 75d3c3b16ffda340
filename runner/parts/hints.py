"""What to do where an optimizer from elsewhere asks for something: by its complaint, and by its arguments."""

from __future__ import annotations

import re
from typing import Any

from runner.base.errors import described, one_line, text_of
from runner.contract.placeholders import COUNTS, example
from runner.contract.targets import arguments

HIDDEN = "algorithm/groups=muon_groups says which parameters are hidden matrices"
MATRICES = (
    "give it the matrices alone, and the rest another optimizer: "
    "`others: {_target_: torch.optim.AdamW, lr: 1e-3}` in its YAML (or algorithm/groups=muon_groups, if it "
    "knows use_muon)"
)
CLOSURE = "write `closure: true` into its YAML: its step then evaluates the batch as often as it asks"
GRAPH = "write `create_graph: true` into its YAML: the gradient can then be differentiated"
NO_GROUPS = {"model": "model", "module": "model", "named_parameters": "named_parameters"}  # first arguments
COMPLAINTS = (
    (r"use_muon", HIDDEN),
    (r"\b2-?D\b|two-dimensional|only.* matri|matrices only", MATRICES),
    (r"\bclosure\b", CLOSURE),
    (r"does not require grad|create_graph", GRAPH),
)


def hint(complaint: str, target: Any) -> str | None:
    """What would help, or None where nobody knows.

    Args:
        complaint: what was raised.
        target: the class.
    """
    for pattern, advice in COMPLAINTS:
        if re.search(pattern, complaint, re.IGNORECASE):
            return advice
    return _by_arguments(complaint, target)


def advised(error: Exception, optimizer: Any) -> str | None:
    """What a step's exception says, with what would help; None where nothing is known to."""
    advice = hint(text_of(error), type(optimizer))
    return advice and f"algorithm.optimizer ({type(optimizer).__name__}): {text_of(error)}; {advice}"


def early(error: Exception, optimizer: Any) -> str:
    """What to say where the first step with a closure fails."""
    said = one_line(described(error), 160)
    return (
        f"algorithm.optimizer ({type(optimizer).__name__}): its first step fails ({said}); if it wants a "
        "gradient before it calls its closure, write `closure: after_gradient` into its YAML"
    )


def _by_arguments(complaint: str, target: Any) -> str | None:
    first = next(iter(arguments(target)), None)
    if first is None:
        return None
    if "NoneType" in complaint and (rate := arguments(target).get("lr")) is not None and rate.default is None:
        return "its lr has no value of its own: write `lr: …` into its YAML"
    if (known := NO_GROUPS.get(first)) is not None:
        return (
            f"its first argument is no group of parameters: write `{first}: {example(known)}` into its YAML"
        )
    if found := re.search(r"missing \d+ required \S+ arguments?: (.*)", complaint):
        names = ", ".join(example(name) for name in COUNTS)
        return f"write {found[1]} into its YAML; what only set-up knows is {names}, {example('model')}"
    return None
