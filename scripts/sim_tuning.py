"""Simulations with known truth of the tuning statistics: ``python -m scripts.sim_tuning --n 2000``.

Prints a Markdown table: what is checked, in which case, what was stated, and what was found.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from runner.compose.search import STUDY_STRIDE, scrambled
from runner.stats.best_metric import expected_best
from runner.stats.edges import edges
from runner.stats.importance import importance
from runner.stats.one_setting import one_setting, one_setting_by_workload
from runner.stats.sensitivity import good_region
from runner.stats.tuning import hit_probability

MISS = math.inf
Row = tuple[str, str, str, str]
SPACE = {"lr": {"min": 1e-4, "max": 1.0, "scale": "log"}, "wd": {"min": 0.0, "max": 1.0}}


def searches(times: np.ndarray, hparams: Mapping[str, np.ndarray], studies: int = 5) -> pd.DataFrame:
    """A workload for each row of ``times`` (replications, trials)."""
    count, n = times.shape
    per = -(-n // studies)
    frame = pd.DataFrame(
        {
            "workload": np.repeat([f"w{i:06d}" for i in range(count)], n),
            "label": "a",
            "study": np.tile(np.arange(n) // per, count),
            "trial": np.tile(np.arange(n) % per + 1, count),
            "status": "done",
            "samples_to_target": times.ravel(),
        }
    )
    return frame.assign(**{f"hparam/{key}": values.ravel() for key, values in hparams.items()})


def covered(own: pd.DataFrame, truth: float, of: str = "") -> str:
    """The share of intervals ``<of>low`` to ``<of>high`` that hold the truth."""
    low, high = (own[f"{of}{side}"].to_numpy("float64") for side in ("low", "high"))
    return f"{100 * ((low <= truth + 1e-12) & (high >= truth - 1e-12)).mean():.1f} %"


def tuning_curves(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """Bands of the chance to hit: independent trials, the harness's own points, and shared points."""
    for n, p in ((25, 0.05), (25, 0.2), (25, 0.6), (15, 0.2)):
        times = np.where(rng.random((count, n)) < p, 1.0, MISS)
        frame = hit_probability(searches(times, {"lr": rng.random(times.shape)}), trials=[1, 5])
        for k, own in frame.groupby("k"):
            found = covered(own, 1 - (1 - p) ** int(str(k)))
            yield "band of the chance to hit", f"{n} trials, p = {p}, k = {k}", "95 %", found
    yield from halton_curves(count, rng)
    lr = rng.random((count, 5))
    hit = (lr < 0.4)[:, None, :] ^ (rng.random((count, 5, 5)) < 0.05)
    times = np.where(hit, 1.0, MISS).reshape(count, 25)
    frame = hit_probability(searches(times, {"lr": np.tile(lr, (1, 5))}), trials=[1])
    found = covered(frame, 0.41)
    yield "band of the chance to hit", "5 studies of the same 5 points", "95 %", found


def halton_curves(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """The points that external tuning runs, in 5 studies of 5, of a good region anywhere."""
    points = np.array(
        [scrambled(2, STUDY_STRIDE * study + trial) for study in range(5) for trial in range(1, 6)]
    )
    for side in (0.3, 0.6):
        where = rng.random((count, 1, 2)) * (1 - side)
        good = ((points >= where) & (points < where + side)).all(axis=2)
        times = np.where(good, 1.0, MISS)
        lr = np.broadcast_to(points[:, 0], times.shape)
        frame = hit_probability(searches(times, {"lr": lr}), trials=[1])
        found = covered(frame, side**2)
        yield (
            "band of the chance to hit",
            f"search points of 5 studies, good square of side {side}",
            "95 %",
            found,
        )


def best_metric(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """The interval of the median of the best of k."""
    values = rng.lognormal(size=(count, 25))
    cells = searches(np.full(values.shape, MISS), {"lr": rng.random(values.shape)})
    cells = cells.assign(best_metric=values.ravel(), minimize=False, metric="m")
    frame = expected_best(cells, trials=[1, 3, 5])
    for k, own in frame.groupby("k"):
        truth = math.exp(statistics.NormalDist().inv_cdf(0.5 ** (1 / int(str(k)))))
        yield (
            "interval of the median best metric",
            f"25 trials, k = {k}",
            "95 %",
            covered(own, truth),
        )


def regions(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """The width of the good region: in a box, in an ellipse, and cut by the border of the space."""
    for n, shape in ((25, "box"), (50, "box"), (50, "ellipse"), (50, "box at the border")):
        u, v = rng.random((2, count, n))
        centre = 0.9 if "border" in shape else 0.5
        inside = (np.abs(u - centre) < 0.2) & (np.abs(v - 0.5) < 0.25)
        if shape == "ellipse":
            inside = ((u - 0.5) / 0.2) ** 2 + ((v - 0.5) / 0.25) ** 2 < 1
        times = np.where(inside, rng.uniform(10, 19, u.shape), MISS)
        frame = good_region(searches(times, {"lr": 1e-4 * 1e4**u, "wd": v}), {"a": SPACE})
        own = frame.loc[(frame["hyperparameter"] == "lr") & frame["width"].notna()]
        truth = 0.3 if "border" in shape else 0.4
        case = f"{n} settings, {shape}, {len(own)} of {count} with 3 good or more"
        yield "width of the good region, mean", case, f"{truth}", f"{own['width'].mean():.3f}"
        yield "its interval", case, "95 %", covered(own, truth, "width_")


def importances(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """Shares of log time = 2 x₁ + x₂ + noise, misses above 2; and what does not matter."""
    truth = _shares(1, 5000, rng).set_index("hyperparameter")["share"]
    for n in (15, 25, 50):
        frame = _shares(max(count // 4, 1), n, rng)
        for key, own in frame.groupby("hyperparameter"):
            case = f"{n} settings, {key}"
            yield "share of the variance, mean", case, f"{truth[str(key)]:.2f}", f"{own['share'].mean():.2f}"
            wanted = "≤ 1.7 %" if key == "x3" else "high"
            yield "said to matter", case, wanted, f"{100 * own['matters'].astype(bool).mean():.1f} %"


def _shares(count: int, n: int, rng: np.random.Generator) -> pd.DataFrame:
    x = rng.random((3, count, n))
    log = 2 * x[0] + x[1] + 0.2 * rng.standard_normal((count, n))
    return importance(searches(np.where(log < 2, np.exp(log), MISS), {"x1": x[0], "x2": x[1], "x3": x[2]}))


def borders(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """How often a range is on a border: by chance, and where the optimum lies beyond it."""
    for n in (5, 25):
        u = rng.random((count, n))
        for slope, case in ((0.0, "does not matter"), (3.0, "faster all the way to the bound")):
            times = np.exp(-slope * u + 0.1 * rng.standard_normal(u.shape))
            frame = edges(searches(times, {"lr": 1e-4 * 1e4**u}, studies=n // 5), {"a": SPACE})
            wanted = "slightly above 10 %" if slope == 0 else "high"
            yield "tuning truncated", f"{n} trials, {case}", wanted, f"{100 * len(frame) / count:.1f} %"


def regrets(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """Mean log regret of one setting for all, of 25 on 6 workloads, against the truth without luck."""
    for luck in (0.0, 0.1, 0.3):
        expected = 0.5 * rng.standard_normal((count, 25, 1)) + 0.3 * rng.standard_normal((count, 25, 6))
        times = np.exp(5 + expected + luck * rng.standard_normal((count, 25, 6)))
        cells = _settings(times)
        frame, each = one_setting(cells), one_setting_by_workload(cells)
        regret, run = expected - expected.min(axis=1, keepdims=True), np.arange(count)
        true = regret[run, frame["trial"].to_numpy(int) - 1].mean()
        held = each["held_out_trial"].to_numpy(int).reshape(count, 6) - 1
        true_held = regret[run[:, None], held, np.arange(6)].mean()
        case = f"luck of a run {luck}"
        yield (
            "regret of the chosen setting (log)",
            case,
            f"{true:.3f}",
            f"{np.log(frame['ratio']).mean():.3f}",
        )
        found = np.log(frame["held_out_ratio"]).mean()
        yield "regret of the held-out choice (log)", case, f"{true_held:.3f}", f"{found:.3f}"


def _settings(times: np.ndarray) -> pd.DataFrame:
    """(replications, settings, workloads) as cells: a label a replication, one study."""
    run, setting, workload = np.indices(times.shape)
    frame = {"label": [f"a{i:06d}" for i in run.ravel()], "workload": [f"w{i}" for i in workload.ravel()]}
    numbers = {"study": 0, "trial": setting.ravel() + 1, "status": "done", "samples_to_target": times.ravel()}
    return pd.DataFrame({**frame, **numbers, "hparam/lr": setting.ravel() + 1.0})


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m scripts.sim_tuning", description=__doc__)
    parser.add_argument("--n", type=int, default=2000, help="replications")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    print(f"n = {options.n}, seed = {options.seed}\n")
    print("| figure | case | stated, or true | found |\n|---|---|---|---|")
    for simulate in (tuning_curves, best_metric, regions, importances, borders, regrets):
        for row in simulate(options.n, np.random.default_rng(options.seed)):
            print(f"| {' | '.join(row)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
