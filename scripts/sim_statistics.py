"""Do the statistics keep what they promise? ``python -m scripts.sim_statistics``.

Tables are drawn from a seed with a known truth, and the project's own functions are asked for their verdicts
and intervals. Prints Markdown tables; those in docs/statistics.md come from here.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
from scipy.special import ndtri

from runner.stats import bootstrap, scores, signed_rank
from runner.stats.crossing import p_above, passes_from
from runner.stats.pairs import log_ratios, more_studies, p_of

LEVEL = 0.95
SPREAD = 0.3  # standard deviation of a log ratio
POINTS, RISE = 60, 0.05  # of a curve: evaluations, and how much the mean rises from one to the next
TRIED = (*range(4, 21), *range(22, 41, 2), *range(45, 101, 5), 150, 200, 500)  # studies
Table = tuple[str, list[str], list[list[str]]]


# -- pairs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """How times to target are drawn.

    Attributes:
        studies: per workload.
        workloads: how many.
        ratio: median of (time of a ÷ time of b).
        miss: chance of b to miss its budget.
        shared: share of the variance of a log ratio that a study's workloads have in common.
        points: evaluations in a budget: times are rounded up to them; 0 for none.
        heavy: Student's t with 3 degrees of freedom in place of the normal distribution.
        uneven: standard deviation of workloads' own log ratios, which add up to zero.
    """

    studies: int = 5
    workloads: int = 4
    ratio: float = 1.0
    miss: float = 0.0
    shared: float = 0.0
    points: int = 0
    heavy: bool = False
    uneven: float = 0.0

    def __str__(self) -> str:
        own = [f for f in fields(self)[2:] if getattr(self, f.name) != f.default]
        words = [f.name if f.type == "bool" else f"{f.name} {getattr(self, f.name):g}" for f in own]
        return ", ".join([f"{self.studies} × {self.workloads}", *words])


def draw(truth: Truth, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Log ratios of all pairs, and the study of each."""
    shape = (truth.workloads, truth.studies)
    own = rng.standard_t(3, (2, *shape)) / math.sqrt(3) if truth.heavy else rng.standard_normal((2, *shape))
    common = rng.standard_normal((2, 1, truth.studies))
    luck = math.sqrt(1 - truth.shared) * own + math.sqrt(truth.shared) * common
    logs = SPREAD / math.sqrt(2) * luck
    effect = truth.uneven * rng.standard_normal((truth.workloads, 1))
    logs[0] += math.log(truth.ratio) + effect - effect.mean()
    times = np.exp(logs)
    if truth.miss or truth.points:
        budget = math.exp(SPREAD / math.sqrt(2) * float(ndtri(1 - (truth.miss or 0.001))))
        if truth.points:
            times = np.ceil(times * truth.points / budget) * budget / truth.points
        times[times > budget * (1 + 1e-9)] = np.inf
    return log_ratios(times[0].ravel(), times[1].ravel()), np.tile(np.arange(truth.studies), truth.workloads)


def separated(truth: Truth, tuned: bool, n: int, seed: int) -> float:
    """How often the verdict is "separable"; ``tuned``: with the trial points that workloads share."""
    rng = np.random.default_rng(seed)
    found = (draw(truth, rng) for _ in range(n))
    return float(np.mean([p_of(logs, study if tuned else None) <= 1 - LEVEL + 1e-9 for logs, study in found]))


def covered(truth: Truth, tuned: bool, n: int, seed: int) -> tuple[float, float, float]:
    """How often the interval holds the true ratio where both hit; its mean level and median width."""
    rng = np.random.default_rng(seed)
    wanted, inside, widths, levels = _log_ratio_where_both_hit(truth, seed), [], [], []
    for _ in range(n):
        logs, study = draw(truth, rng)
        low, high, level = signed_rank.interval(logs, LEVEL, study if tuned else None)
        if level:
            inside.append(low - 1e-9 <= wanted <= high + 1e-9)
            widths.append(high - low)
            levels.append(level)
    return float(np.mean(inside)), float(np.mean(levels)), float(np.exp(np.median(widths)))


def forecasts(truth: Truth, tuned: bool, n: int, seed: int) -> tuple[list[float], int]:
    """Quartiles of the studies forecast in all, where not separable; and what 80 % power takes."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        logs, study = draw(truth, rng)
        if p_of(logs, study if tuned else None) > 1 - LEVEL:
            found.append(truth.studies + more_studies(logs, study, LEVEL, tuned))
    quartiles = [float(value) for value in np.nanquantile(found, [0.25, 0.5, 0.75], method="nearest")]
    return quartiles, next(
        s for s in TRIED if separated(replace(truth, studies=s), tuned, n, seed + 1) >= 0.8
    )


def _log_ratio_where_both_hit(truth: Truth, seed: int) -> float:
    if not (truth.miss or truth.points):
        return math.log(truth.ratio)
    logs = draw(replace(truth, studies=200_000, workloads=1), np.random.default_rng(seed))[0]
    return float(logs[np.isfinite(logs)].mean())


# -- crossings ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curves:
    """Validation curves: noise of standard deviation 1, target 0.

    Attributes:
        studies: how many.
        flat: the mean is at the target all the time, and so never past it; else it rises, from below.
        offset: standard deviation of what a run's evaluations have in common.
        trials: of a study, of which the one that crosses first is kept.
        skewed: exponential noise with a long lower tail.
    """

    studies: int = 5
    flat: bool = True
    offset: float = 0.5
    trials: int = 1
    skewed: bool = False

    def __str__(self) -> str:
        words = [f"{self.studies} studies", "flat at the target" if self.flat else "rising"]
        words += [f"best of {self.trials} trials"] * (self.trials > 1) + ["skewed"] * self.skewed
        return ", ".join(words)


def draw_curves(truth: Curves, studies: int, rng: np.random.Generator) -> np.ndarray:
    """The picked run of each study: (studies, points)."""
    shape = (studies, truth.trials, POINTS)
    noise = 1 - rng.standard_exponential(shape) if truth.skewed else rng.standard_normal(shape)
    rise = np.zeros(POINTS) if truth.flat else RISE * (np.arange(POINTS) - POINTS / 2)
    runs = rise + truth.offset * rng.standard_normal((studies, truth.trials, 1)) + noise
    first = np.where((runs >= 0).any(axis=-1), (runs >= 0).argmax(axis=-1), POINTS)
    return np.take_along_axis(runs, first.argmin(axis=1)[:, None, None], axis=1)[:, 0]


def true_mean(truth: Curves, seed: int) -> np.ndarray:
    """The mean of the picked runs at each point, the one that a certificate is about."""
    if truth.trials == 1:
        return np.zeros(POINTS) if truth.flat else RISE * (np.arange(POINTS) - POINTS / 2)
    return draw_curves(truth, 40_000, np.random.default_rng(seed + 1)).mean(axis=0)


def certify(curves: np.ndarray) -> int | None:
    """The point that ``certified`` names."""
    passed = passes_from(_p(curves), LEVEL)
    return int(passed.argmax()) if passed.any() else None


def first_pass(curves: np.ndarray) -> int | None:
    """For comparison: the first point at which the test passes, however many are tried."""
    passed = _p(curves) <= 1 - LEVEL
    return int(passed.argmax()) if passed.any() else None


def held(curves: np.ndarray) -> int | None:
    """For comparison: runs stop at their first hit, and their value there is held."""
    hit = curves >= 0
    first = np.where(hit.any(axis=1), hit.argmax(axis=1), POINTS - 1)
    place = np.minimum(np.arange(POINTS), first[:, None])
    return certify(np.take_along_axis(curves, place, axis=1))


def claims(truth: Curves, rule: Callable[[np.ndarray], int | None], n: int, seed: int) -> tuple[float, float]:
    """How often the rule names a point whose true mean is not past the target; and any point at all."""
    rng, mean = np.random.default_rng(seed), true_mean(truth, seed)
    named = [rule(draw_curves(truth, truth.studies, rng)) for _ in range(n)]
    wrong = [point is not None and mean[point] <= 0 for point in named]
    return float(np.mean(wrong)), float(np.mean([point is not None for point in named]))


def _p(curves: np.ndarray) -> np.ndarray:
    count = np.full(curves.shape[1], len(curves))
    return p_above(curves.mean(axis=0), curves.std(axis=0, ddof=1), count)


# -- the board's intervals ---------------------------------------------------------------------------


def board_covered(
    studies: int, miss: float, n: int, seed: int, algorithms: int = 6, workloads: int = 4
) -> tuple[float, float]:
    """Share of intervals, of scores and of speed-ups, that hold what infinitely many studies would give."""
    rng, inside = np.random.default_rng(seed), []
    names = [[f"{kind}{i}" for i in range(count)] for kind, count in (("a", algorithms), ("w", workloads))]
    places = pd.MultiIndex.from_product([*names, range(studies)], names=["label", "workload", "study"])
    for _ in range(n):
        base = 0.4 * rng.standard_normal((algorithms, workloads, 1))
        times = np.exp(base + SPREAD / math.sqrt(2) * rng.standard_normal((algorithms, workloads, studies)))
        times[rng.random(times.shape) < miss] = np.inf
        middle = np.exp(base[..., 0] + SPREAD / math.sqrt(2) * float(ndtri(0.5 / (1 - miss))))
        truth = scores(pd.DataFrame(middle, index=names[0], columns=names[1])).to_numpy()
        speed = np.exp(np.log(middle[0] / middle).mean(axis=1))
        table = pd.DataFrame({"time": times.ravel()}, index=places).reset_index()
        found = bootstrap(table, 400, int(rng.integers(2**31)), LEVEL, baseline="a0").to_numpy("float64")
        score_in = (found[:, 0] - 1e-9 <= truth) & (truth <= found[:, 1] + 1e-9)
        speed_in = (found[:, 3] - 1e-9 <= speed) & (speed <= found[:, 4] + 1e-9)
        inside.append([score_in.mean(), speed_in[1:].mean()])
    score, speed = np.mean(inside, axis=0)
    return float(score), float(speed)


# -- tables ------------------------------------------------------------------------------------------

NULLS = (
    Truth(3, 4), Truth(3, 8), Truth(5, 4), Truth(5, 8), Truth(6, 1), Truth(10, 1),
    Truth(3, 4, miss=0.3), Truth(5, 4, miss=0.6), Truth(5, 8, miss=0.3), Truth(5, 4, points=20),
    Truth(5, 4, miss=0.2, points=8), Truth(5, 8, heavy=True), Truth(5, 8, uneven=0.3),
    Truth(3, 8, shared=0.3), Truth(5, 4, shared=0.3), Truth(5, 8, shared=0.3), Truth(5, 8, shared=0.6),
    Truth(5, 8, shared=0.6, miss=0.3, points=20), Truth(4, 8, shared=1), Truth(5, 8, shared=1),
)  # fmt: skip
EFFECTS = (
    Truth(3, 4, 0.8), Truth(5, 4, 0.9), Truth(5, 4, 0.8), Truth(5, 4, 0.67), Truth(5, 8, 0.9),
    Truth(5, 8, 0.8), Truth(5, 8, 0.8, miss=0.3), Truth(5, 8, 0.8, shared=0.3), Truth(10, 1, 0.67),
)  # fmt: skip
INTERVALS = (
    Truth(3, 1, 0.8), Truth(5, 1, 0.8), Truth(10, 1, 0.8), Truth(3, 4, 0.8),
    Truth(5, 4, 0.8), Truth(5, 8, 0.8),
    Truth(5, 8, 0.8, miss=0.3), Truth(5, 8, 0.8, points=20), Truth(5, 8, 0.8, heavy=True),
    Truth(5, 8, 0.8, shared=0.3), Truth(5, 8, 0.8, shared=0.6),
)  # fmt: skip
PILOTS = (
    Truth(5, 1, 0.8),
    Truth(5, 1, 0.67),
    Truth(3, 4, 0.9),
    Truth(5, 4, 0.9),
    Truth(5, 4, 0.9, shared=0.3),
)
CURVES = (
    Curves(3), Curves(5), Curves(10), Curves(5, skewed=True), Curves(3, flat=False),
    Curves(5, flat=False), Curves(5, flat=False, trials=5), Curves(5, flat=False, skewed=True),
)  # fmt: skip


def tables(n: int, seed: int) -> Iterable[Table]:
    """Title, columns and rows of each table."""
    yield (
        'Verdicts where there is no difference: share that is "separable"',
        ["studies × workloads", "separate points per study", "points shared across workloads"],
        [[str(t), *(percent(separated(t, tuned, n, seed)) for tuned in (False, True))] for t in NULLS],
    )
    yield (
        'Verdicts where there is one: share that is "separable"',
        ["studies × workloads", "separate points per study", "points shared across workloads"],
        [[str(t), *(percent(separated(t, tuned, n, seed)) for tuned in (False, True))] for t in EFFECTS],
    )
    yield (
        "Intervals of the ratio where both hit: coverage",
        ["studies × workloads", "level", "coverage", "width", "coverage, points shared", "width"],
        [[str(t), *_interval_row(t, n, seed)] for t in INTERVALS],
    )
    yield (
        "Forecasts: studies for 80 % power, from verdicts that did not separate",
        ["pilot", "points", "forecast (quartiles)", "needed"],
        [_forecast_row(t, n, seed) for t in PILOTS],
    )
    yield (
        "Crossings: points named although the mean is not past the target (all named)",
        ["curves", "certified", "first pass of the test", "stopped, last value held"],
        [[str(t), *(_claims(t, rule, n, seed) for rule in (certify, first_pass, held))] for t in CURVES],
    )
    yield (
        "The board's intervals: coverage",
        ["studies", "score", "score, 20 % miss", "speed-up", "speed-up, 20 % miss"],
        [_board_row(studies, max(1, n // 4), seed) for studies in (2, 3, 5, 10, 20)],
    )


def percent(share: float) -> str:
    """``4.9 %``."""
    return f"{100 * share:.1f} %"


def _interval_row(truth: Truth, n: int, seed: int) -> list[str]:
    (alone, level, width), (shared, _, wider) = (covered(truth, tuned, n, seed) for tuned in (False, True))
    return [percent(level), percent(alone), f"{width:.2f} ×", percent(shared), f"{wider:.2f} ×"]


def _forecast_row(truth: Truth, n: int, seed: int) -> list[str]:
    tuned = truth.shared > 0
    quartiles, needed = forecasts(truth, tuned, n, seed)
    return [str(truth), "shared" if tuned else "one", " / ".join(f"{q:g}" for q in quartiles), str(needed)]


def _claims(truth: Curves, rule: Callable[[np.ndarray], int | None], n: int, seed: int) -> str:
    wrong, named = claims(truth, rule, n, seed)
    return f"{percent(wrong)} ({percent(named)})"


def _board_row(studies: int, n: int, seed: int) -> list[str]:
    clean, missing = board_covered(studies, 0.0, n, seed), board_covered(studies, 0.2, n, seed)
    return [str(studies), *(percent(share) for pair in zip(clean, missing, strict=True) for share in pair)]


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000, help="tables of each kind; a quarter of it for boards")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    print(f"n = {options.n:,}, seed {options.seed}, level {LEVEL:.0%}")
    for title, columns, rows in tables(options.n, options.seed):
        print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'|'.join(['---', *['--:'] * (len(columns) - 1)])}|")
        for row in rows:
            print(f"| {' | '.join(row)} |")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
