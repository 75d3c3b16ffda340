"""Learning-rate schedules, each with its learning rate tuned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scripts.claims._claim import Claim, Row, Run, grouped, mean, spread, table, values

COMMON = ("constant", "inverse_sqrt", "step", "cosine", "linear")
TWICE = "refined, twice the budget"
ORDER = (*COMMON, "refined", TWICE)
NOTES = """AdamW with the named schedule and 5 % warm-up (the refined schedule has its own), learning
rates 1e-4, 3e-4, …, 1e-1, {studies} studies, all run to the end of the budget. The learning rate is the
one with the best mean of the last validation values; the table shows the last test value, mean (range). ←
marks the best of the five schedules; * means that the learning rate is at the edge of those tried. The
value is accuracy on digits and cifar10_synthetic, and loss elsewhere. With n = {studies}, do not read
differences inside the ranges as real."""


def evidence(runs: Sequence[Run]) -> Iterable[Row]:
    """The last validation and test value of each cell."""
    rows = [
        {
            "workload": run.cell["workload"].split("[")[0],
            "metric": run.cell["metric"],
            "schedule": _schedule(run.cell["label"], run.cell["workload"]),
            "lr": run.setting("lr"),
            "study": run.cell["study"],
            "validation": run.along(f"validation/{run.cell['metric']}")[-1],
            "test": run.along(f"test/{run.cell['metric']}")[-1],
        }
        for run in runs
    ]
    return sorted(rows, key=lambda row: tuple(row.values())[:5])


def judge(rows: Sequence[Row]) -> str:
    """Test values at the learning rate that is best on validation, by schedule and workload."""
    lines, firsts, close, refined = [], [], 0, {"refined": 0, TWICE: 0}
    edges = (min(values(rows, "lr")), max(values(rows, "lr")))
    by_workload = grouped(rows, "workload")
    for workload, mine in by_workload.items():
        sign = 1 if mine[0]["metric"] == "accuracy" else -1
        tuned = {name: _tuned(grouped(mine, "schedule")[name], sign) for name in ORDER}
        score = {name: sign * mean(cells, "test") for name, cells in tuned.items()}
        best = max(COMMON, key=score.__getitem__)
        firsts.append(best)
        close += max(sign * value for value in values(tuned["linear"], "test")) >= score[best]
        for name in refined:
            refined[name] += score[name] > score["linear"]
        for name, cells in tuned.items():
            lr = cells[0]["lr"]
            first = workload if name == ORDER[0] else ""
            named = f"{name} ←" if name == best else name
            lines.append((first, named, f"{lr:g}{'*' * (lr in edges)}", spread(values(cells, "test"))))
    n = len(by_workload)
    verdict = (
        f"Of the five schedules, linear decay has the best mean on {firsts.count('linear')} of {n} "
        f"workloads; on {close}, the best mean lies within the range of linear decay's seeds. The refined "
        f"schedule's mean is better than linear's on {refined['refined']} of {n} within one budget, and on "
        f"{refined[TWICE]} if its second run is as long as the other schedules' only run."
    )
    notes = NOTES.format(studies=len(grouped(rows, "study")))
    return "\n".join(
        [verdict, "", notes, "", table(("workload", "schedule", "lr", "test at the end"), lines)]
    )


def _tuned(rows: Sequence[Row], sign: int) -> list[Row]:
    return max(grouped(rows, "lr").values(), key=lambda cells: sign * mean(cells, "validation"))


def _schedule(label: str, workload: str) -> str:
    base = label.split("[")[0]
    if base == "refined_schedule":
        return TWICE if "budget_samples" in workload else "refined"
    return base.partition("+")[2] or "cosine"  # AdamW's own


CLAIM = Claim(
    "schedules",
    "Linear decay matches or beats the other schedules, and refining it gains more",
    "Defazio et al. 2023, arXiv 2310.07831 (abstract): linear decay matches or outperforms the other common\n"
    "schedules on ten problems, language models and logistic regression; refinement brings further gains.",
    evidence,
    judge,
)
