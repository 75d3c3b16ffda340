"""Trials and their evaluations as the ``cells`` and ``evals`` tables of :mod:`runner.cells.tables`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.importing import rows
from runner.importing.layout import Trial
from runner.importing.notices import Notices
from runner.importing.targets import Goal

if TYPE_CHECKING:
    import pandas as pd

RENAMED = {
    "global_step": "steps",
    "accumulated_submission_time": "seconds",
    "accumulated_eval_time": "clock/eval",
    "accumulated_logging_time": "clock/logging",
    "total_duration": "wall_seconds",
    "preemption_count": "preemptions",
}
FIRST = (
    "id", "workload", "label", "study", "trial", "status", "hit", "samples_to_target", "seconds_to_target",
    "steps_to_target", "drawn_to_target", "eval_index_to_target", "best_metric", "metric", "target",
    "minimize", "ruleset", "base_workload",
    "framework", "data", "ended", "evals", "samples", "seconds", "steps",
    "wall_seconds", "budget_seconds", "error", "device", "hardware", "threads", "commit", "seed", "resumes",
    "contended", "open_division", "provisional", "targets",
    "folder",
)  # fmt: skip
KEYS = ("id", "workload", "label", "study", "trial")
UNKNOWN = {"samples_to_target": math.nan, "drawn_to_target": math.nan, "samples": math.nan}
FACTS = {"data": "real", "contended": False, "open_division": False, "provisional": False, "threads": None}


def tables(
    trials: Sequence[Trial], goals: Mapping[str, Goal], targets: str, notices: Notices
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``cells``, one row per trial, and ``evals``, one row per evaluation, in the order of ``trials``.

    A trial hits at its first evaluation with a finite value at least as good as the target. One without
    evaluations crashed: its status is ``failed`` and it has no time.

    Args:
        trials: what was found.
        goals: the workloads' targets.
        targets: what to call their source in the column of that name.
        notices: told of everything odd.
    """
    evals = _evals(trials, notices)
    cells = _cells(trials, goals, targets, _outcomes(trials, goals, evals, notices))
    owner = evals.pop(rows.OWNER)
    for place, key in enumerate(KEYS):
        evals.insert(place, key, cells[key].take(owner).array)
    return cells, evals


def _evals(trials: Sequence[Trial], notices: Notices) -> pd.DataFrame:
    folders = [trial.folder for trial in trials]
    evals = rows.table([trial.evals for trial in trials], folders, notices).to_pandas()
    evals[rows.OWNER] = evals[rows.OWNER].astype("int64")
    _fill_time(evals)
    evals = evals.rename(columns=RENAMED)
    for name in ("seconds", "steps"):
        if name not in evals:
            evals[name] = math.nan
    evals.insert(1, "eval_index", evals.groupby(rows.OWNER).cumcount())
    evals.insert(2, "samples", math.nan)
    backwards = evals.groupby(rows.OWNER)["seconds"].diff() < 0
    for owner in sorted(set(evals.loc[backwards, rows.OWNER].tolist())):
        notices.add("evaluations whose time decreases, kept in order", folders[owner])
    return evals


def _fill_time(evals: pd.DataFrame) -> None:
    """``score`` is the same time by another name: it fills what is missing, and goes."""
    time = "accumulated_submission_time"
    if "score" in evals:
        score = evals.pop("score")
        evals[time] = evals[time].fillna(score) if time in evals else score


def _outcomes(
    trials: Sequence[Trial], goals: Mapping[str, Goal], evals: pd.DataFrame, notices: Notices
) -> dict[int, dict[str, Any]]:
    """Place of a trial with evaluations -> what came of it."""
    last = evals.drop_duplicates(rows.OWNER, keep="last")
    outcomes: dict[int, dict[str, Any]] = {}
    for row in _records(last, [rows.OWNER, "seconds", "steps", "wall_seconds", "eval_index"]):
        owner, index = int(row.pop(rows.OWNER)), row.pop("eval_index")
        outcomes[owner] = {"status": "done", "evals": index + 1, "hit": False, **row}
    folders = [trial.folder for trial in trials]
    for workload, goal in goals.items():
        owners = [k for k in outcomes if trials[k].workload == workload]
        part = evals.loc[evals[rows.OWNER].isin(owners)]
        _against(goal, part, outcomes, folders, notices)
    return outcomes


def _records(table: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    """The named columns, where there are such, one dict per row."""
    columns = [table[name].tolist() for name in names if name in table]
    present = [name for name in names if name in table]
    return [dict(zip(present, values, strict=True)) for values in zip(*columns, strict=True)]


def _against(
    goal: Goal,
    part: pd.DataFrame,
    outcomes: dict[int, dict[str, Any]],
    folders: Sequence[str],
    notices: Notices,
) -> None:
    """One workload's trials against its target: when each first hit, and its best value."""
    column = f"validation/{goal.metric}"
    values = part[column] if column in part else part["seconds"] * math.nan
    for owner in sorted(set(part.loc[values.abs() == math.inf, rows.OWNER].tolist())):
        notices.add(f"infinite value of {column}, treated as missing", folders[int(owner)])
    values = values.where(values.abs() < math.inf)
    best = values.groupby(part[rows.OWNER]).agg("min" if goal.minimize else "max")
    for owner, value in zip(best.index.tolist(), best.tolist(), strict=True):
        if math.isnan(value):
            notices.add(f"trial without any value of {column}, treated as a miss", folders[owner])
        outcomes[owner] |= {"best_metric": value, **_when(math.inf, math.inf, math.inf)}
    reached = values <= goal.target if goal.minimize else values >= goal.target  # NaN never does
    hits = part.loc[reached].drop_duplicates(rows.OWNER)
    for row in _records(hits, [rows.OWNER, "seconds", "steps", "eval_index"]):
        if row["seconds"] >= 0:
            when = _when(row["seconds"], row["steps"], row["eval_index"])
            outcomes[row[rows.OWNER]] |= {"hit": True, **when}
        else:
            owner = int(row[rows.OWNER])
            notices.add("hit without a readable time, treated as a miss", folders[owner])


def _when(seconds: float, steps: float, index: float) -> dict[str, float]:
    return {"seconds_to_target": seconds, "steps_to_target": steps, "eval_index_to_target": float(index)}


def _cells(
    trials: Sequence[Trial], goals: Mapping[str, Goal], targets: str, outcomes: Mapping[int, dict[str, Any]]
) -> pd.DataFrame:
    import pandas as pd

    crashed = {"status": "failed", "hit": False, "evals": 0, "error": "no evaluations: it crashed"}
    records = []
    for place, trial in enumerate(trials):
        goal = goals.get(trial.workload)
        known = {"metric": goal.metric, "target": goal.target, "minimize": goal.minimize} if goal else {}
        base = {"base_workload": goal.base if goal else trial.workload, "targets": targets}
        outcome = outcomes.get(place, crashed)
        hparams = {f"hparam/{key}": _plain(value) for key, value in trial.hparams.items()}
        records.append(_who(trial) | FACTS | UNKNOWN | base | known | _machine(trial) | outcome | hparams)
    names = dict.fromkeys([*FIRST, *(key for record in records for key in record)])
    return pd.DataFrame(records, columns=list(names)).pipe(_one_type)


def _who(trial: Trial) -> dict[str, Any]:
    identity = "\0".join(map(str, (*trial.place, trial.framework)))
    return {
        "id": hashlib.sha256(identity.encode()).hexdigest()[:10],
        **{
            key: getattr(trial, key)
            for key in ("workload", "label", "study", "trial", "ruleset", "framework")
        },
        "folder": trial.folder,
    }


def _machine(trial: Trial) -> dict[str, Any]:
    meta = trial.meta
    gpu, count = meta.get("gpu_model_name"), meta.get("gpu_count")
    budget = meta.get("workload.max_allowed_runtime_sec")
    return {
        "device": "cuda" if gpu else None,
        "hardware": f"{count} × {gpu}" if gpu and count else gpu,
        "budget_seconds": float(budget) if isinstance(budget, (int, float)) else math.nan,
        "commit": meta.get("git_commit_hash"),
        "seed": meta.get("rng_seed"),
        "resumes": max(len(trial.metas) - 1, 0),
    }


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _one_type(cells: pd.DataFrame) -> pd.DataFrame:
    """Columns that hold words and numbers, or numbers past 64 bits, become words: Parquet has one type."""
    for name in cells.columns[[kind == "object" for kind in cells.dtypes]]:
        kinds = {type(value) for value in cells[name] if value is not None and value == value}
        if len(kinds) > 1 or kinds == {int}:
            cells[name] = [None if v is None or v != v else str(v) for v in cells[name]]
    return cells
