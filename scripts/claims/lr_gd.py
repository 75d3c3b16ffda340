"""Normalised gradient descent for logistic regression on its worst case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scripts.claims._claim import Claim, Row, Run, table

PAPER = {(100, True): 2, (10, True): 2, (1, True): 16, (0.1, True): 157, (100, False): 308}  # its Table 1


def evidence(runs: Sequence[Run]) -> Iterable[Row]:
    """Steps until all training rows are separated."""
    rows = [
        {"normalized": r.cell["hparam/normalized"], "lr": r.cell["hparam/lr"], "steps": int(r.cell["steps"])}
        for r in runs
    ]
    return sorted(rows, key=lambda row: (not row["normalized"], -row["lr"]))


def judge(rows: Sequence[Row]) -> str:
    """Step counts against the paper's, which are exact."""
    counts = {(row["lr"], row["normalized"]): row["steps"] for row in rows}
    lines = [
        ("normalised" if normalised else "plain", f"{lr:g}", str(steps), str(PAPER[lr, normalised]))
        for (lr, normalised), steps in counts.items()
    ]
    same = counts == PAPER
    verdict = "Reproduced: the same counts, all five." if same else "Not reproduced: the counts differ."
    counted = table(("gradient descent", "step size", "steps", "paper"), lines)
    return f"{verdict}\n{counted}\n\nThe experiment is deterministic (n = 1)."


CLAIM = Claim(
    "lr_gd",
    "Normalised gradient descent separates the worst case at a perceptron's speed",
    "Tyurin 2025, arXiv 2412.08424, Table 1: one row against 999 copies of another, from zero.",
    evidence,
    judge,
)
