"""LinUpper against uniform weights on language models and least squares."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from runner.stats.signed_rank import p_value, signed_ranks
from scripts.claims._claim import Claim, Row, Run, grouped, table, values

UNIFORM, LINUPPER = "uniform", "linupper"
WEIGHTS = (LINUPPER, "quadratic", "extremes")
LEVEL = 0.05
HEAD = ("workload and level", "weights", "lr", "hit", "steps, median", "ratio", "p")
NOTES = """Steps to a level of validation loss, namely the one that every run with uniform weights reaches
at its best learning rate, but not below the workload's target, where runs end. The learning rate is the
best of those tried, separately for each weighting (most hits, then the smallest median number of steps).
Ratios are geometric means over the studies in which both hit. p is from Wilcoxon's test, in which a miss
is slower than every hit. With three studies p cannot be below 0.25, with five not below 0.06, so no
single row can be separable. The verdict therefore pools LinUpper's pairs of all workloads and
temperatures, which are not independent because they share the uniform runs. LinUpper starts after 5 % of
the budget."""


def evidence(runs: Sequence[Run]) -> Iterable[Row]:
    """Steps to the workload's level of validation loss, and the smallest loss, of each run."""
    rows = []
    for workload, own in _by_workload(runs).items():
        level = _level(own)
        rows += [
            {
                "workload": workload,
                "level": level,
                "weights": _weights(run),
                "r": run.setting("r", math.inf),
                "lr": run.setting("lr"),
                "study": run.cell["study"],
                "steps": _steps_to(run, level),
                "best_loss": _best_loss(run),
            }
            for run in own
        ]
    order = (UNIFORM, *WEIGHTS)
    return sorted(rows, key=lambda r: (r["workload"], order.index(r["weights"]), r["r"], r["lr"], r["study"]))


def judge(rows: Sequence[Row]) -> str:
    """Median steps to the target at the best learning rate of each weighting, and pairs by study."""
    lines, pooled, favour, tried = [], [], 0, 0
    for workload, mine in grouped(rows, "workload").items():
        best = {key: _best(own) for key, own in grouped(mine, "weights", "r").items()}
        base = next(own for (name, _), own in best.items() if name == UNIFORM)
        for (name, r), own in best.items():
            logs = [] if name == UNIFORM else _logs(own, base)
            if name == LINUPPER and logs:
                pooled += logs
                favour, tried = favour + (sum(logs) < 0), tried + 1
            steps = values(own, "steps")
            median = statistics.median(steps)
            lines.append(
                (
                    f"{workload}, {own[0]['level']:.4g}" if name == UNIFORM else "",
                    name if name == UNIFORM else f"{name}, r {r:g}",
                    f"{own[0]['lr']:g}",
                    f"{sum(map(math.isfinite, steps))}/{len(steps)}",
                    f"{median:,.0f}" if math.isfinite(median) else "missed",
                    _ratio(logs),
                    f"{_p(logs):.2f}" if logs else "",
                )
            )
    p = _p(pooled)
    said = f"it needs {_ratio(pooled)} × the steps over {len(pooled)} pairs (p = {p:.3f})"
    faster = f"LinUpper is faster in {favour} of {tried} rows"
    if p >= LEVEL:
        verdict = f"Not reproduced: {faster}; over all rows {said}, which is not separable."
    elif sum(pooled) < 0:
        verdict = f"Reproduced: {faster}; over all rows {said}."
    else:
        verdict = f"The opposite was found: {faster}; over all rows {said}."
    return "\n".join([verdict, "", NOTES, "", table(HEAD, lines)])


def _by_workload(runs: Sequence[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.cell["workload"], []).append(run)
    return found


def _level(runs: Sequence[Run]) -> float:
    """What every run with uniform weights reaches at its best learning rate; never below the target."""
    by_rate: dict[float, list[float]] = {}
    for run in runs:
        if _weights(run) == UNIFORM:
            by_rate.setdefault(run.setting("lr"), []).append(_best_loss(run))
    return max(runs[0].cell["target"], max(min(by_rate.values(), key=statistics.fmean)))


def _steps_to(run: Run, level: float) -> float:
    return next((float(row["steps"]) for row in run.evals if row["validation/loss"] <= level), math.inf)


def _best_loss(run: Run) -> float:
    return min(run.along("validation/loss"))


def _weights(run: Run) -> str:
    return next((name for name in WEIGHTS if name in run.cell["label"]), UNIFORM)


def _best(rows: Sequence[Row]) -> list[Row]:
    def order(own: list[Row]) -> tuple[int, float]:
        steps = values(own, "steps")
        return -sum(map(math.isfinite, steps)), statistics.median(steps)

    return min(grouped(rows, "lr").values(), key=order)


def _logs(own: Sequence[Row], base: Sequence[Row]) -> list[float]:
    other = {row["study"]: row["steps"] for row in base}
    pairs = [(row["steps"], other[row["study"]]) for row in own]
    # A miss is beyond every ratio; where both missed nobody was faster.
    return [math.log(a) - math.log(b) for a, b in pairs if math.isfinite(a) or math.isfinite(b)]


def _ratio(logs: Sequence[float]) -> str:
    both = [log for log in logs if math.isfinite(log)]
    return f"{math.exp(statistics.fmean(both)):.2f}" if both else ""


def _p(logs: Sequence[float]) -> float:
    return p_value(signed_ranks(np.array(logs)))


CLAIM = Claim(
    "reweighting",
    "LinUpper reaches a held-out loss in fewer steps than uniform weights",
    "Sow et al. 2025, Dynamic Loss-Based Sample Reweighting, and the README of the authors' code: holding "
    "back rows\n"
    "of small loss helps on language-model pretraining and on linear regression.",
    evidence,
    judge,
)
