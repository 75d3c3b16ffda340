"""Trial points: a Halton sequence over an algorithm's search space.

Point k is computed alone, anywhere, and studies never share points: each reads its own stretch of one
sequence. Ours is scrambled and seeded, in the smallest prime bases; AlgoPerf's construction is there for
comparison, without its last step, an unseeded shuffle.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runner.base.errors import UserError, nearest
from runner.contract.seeding import derive

# A prime: a multiple of a base would put trial k of every study into the same part of that base's axis.
STUDY_STRIDE = 1009
TRIALS = 999  # that a study may have
SCRAMBLE = derive("search") % 2**32
SCRAMBLED, ALGOPERF = "scrambled", "algoperf"
BELOW_PRIMES = 1000  # AlgoPerf's bases are the largest primes below, but for the last
SKIPPED = 100  # first points that AlgoPerf drops
RANGE = ("min", "max", "scale")
LISTS = ("choices", "points")
KEYS = (*RANGE, *LISTS)
WITHIN = 1 / math.pi  # a share of a range that no whole number stands at


def spaces(algorithm: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Hyperparameter path (``optimizer.lr``) -> its range, collected from every part.

    Raises:
        UserError: for a range that is none.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, value in algorithm.items():
        if key == "search_space" and isinstance(value, Mapping):
            # null: a preset takes out what a part would search.
            found |= {f"{prefix}{name}": entry for name, entry in value.items() if entry is not None}
        elif isinstance(value, Mapping):
            found |= spaces(value, f"{prefix}{key}.")
    return found if prefix else {name: _checked(name, entry) for name, entry in found.items()}


def point(
    space: Mapping[str, Mapping[str, Any]], study: int, trial: int, sequence: str = SCRAMBLED
) -> dict[str, Any]:
    """Hyperparameters of ``trial`` ≥ 1 of ``study``, by path.

    Args:
        space: hyperparameter path -> its range, its choices, or the points that trials take in turn.
        study: 0, 1, …
        trial: 1, …, 999
        sequence: ``scrambled`` or ``algoperf``.

    Raises:
        UserError: without a search space, or for a trial beyond 999.
    """
    if not space:
        raise UserError(f"trial={trial}: this algorithm has no search space; use trial=0, its defaults")
    if not 1 <= trial <= TRIALS:
        raise UserError(f"trial: got {trial}, expected an integer from 0 to {TRIALS}")
    listed = {
        name: _of_trial(name, entry["points"], trial) for name, entry in space.items() if "points" in entry
    }
    drawn = {name: _checked(name, entry) for name, entry in space.items() if name not in listed}
    unit = SEQUENCES[sequence](len(drawn), study * STUDY_STRIDE + trial) if drawn else []
    found = {name: _scaled(entry, u) for (name, entry), u in zip(drawn.items(), unit, strict=True)}
    return {name: (listed | found)[name] for name in space}


def _of_trial(name: str, points: Sequence[Any], trial: int) -> Any:
    if trial > len(points):
        raise UserError(f"trial={trial}: search_space.{name} lists {len(points)} points, one for each trial")
    return points[trial - 1]


def samples(entry: Mapping[str, Any]) -> list[Any]:
    """Values of a space that stand for all: its choices; or the ends of its range and one between.

    Points that are listed were chosen by hand, together: none of them stands for anything.
    """
    if "points" in entry:
        return []
    if "choices" in entry:
        return list(entry["choices"])
    return [entry["min"], _scaled(entry, WITHIN), entry["max"]]


def put(algorithm: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set hyperparameters by path, in place."""
    for path, value in values.items():
        *parents, last = path.split(".")
        tree = algorithm
        for parent in parents:
            tree = tree[parent]
        tree[last] = value


# -- sequences ---------------------------------------------------------------------------------------


WRAP = 2**62


def scrambled(dimensions: int, index: int) -> list[float]:
    """Point ``index`` in [0, 1)^d of scipy's scrambled Halton sequence, under one seed."""
    sequence = _halton(dimensions)
    # scipy's fast_forward would draw every point before it. Its indices have 64 bits; a study may be a stamp.
    sequence.num_generated = index % WRAP
    return [float(u) for u in sequence.random(1)[0]]


def algoperf(dimensions: int, index: int) -> list[float]:
    """Point ``index`` ≥ 1 in [0, 1)^d as AlgoPerf makes them: digits permuted, shifted, large prime bases.

    Raises:
        UserError: for more dimensions than there are bases.
    """
    bases = _odd_primes(BELOW_PRIMES)[:-1]
    if dimensions > len(bases):
        raise UserError(f"search_space: got {dimensions} hyperparameters, expected at most {len(bases)}")
    return [_shifted(base, index + SKIPPED) for base in bases[-dimensions:]]


def radical_inverse(index: int, base: int, digits: Sequence[int]) -> float:
    """The digits of ``index`` mirrored at the point, each replaced by the one that ``digits`` has there."""
    value, weight = 0.0, 1.0 / base
    while index:
        index, digit = divmod(index, base)
        value += digits[digit] * weight
        weight /= base
    return value


SEQUENCES: dict[str, Callable[[int, int], list[float]]] = {SCRAMBLED: scrambled, ALGOPERF: algoperf}


@functools.cache
def _halton(dimensions: int) -> Any:
    from scipy.stats.qmc import Halton

    return Halton(dimensions, scramble=True, rng=SCRAMBLE)


def _shifted(base: int, index: int) -> float:
    digits, shift = _permutation(base)
    return (radical_inverse(index, base, digits) + shift) % 1.0


@functools.cache
def _permutation(base: int) -> tuple[tuple[int, ...], float]:
    """The permutation of a base's digits, 0 kept, and the shift: both drawn by a generator of that seed."""
    from numpy.random import RandomState

    rng = RandomState(base)
    digits = list(range(1, base))
    rng.shuffle(digits)
    return (0, *digits), float(rng.random_sample())


@functools.cache
def _odd_primes(below: int) -> tuple[int, ...]:
    return tuple(n for n in range(3, below, 2) if all(n % d for d in range(3, math.isqrt(n) + 1, 2)))


# -- spaces ------------------------------------------------------------------------------------------


def _scaled(entry: Mapping[str, Any], u: float) -> Any:
    if "choices" in entry:
        return entry["choices"][min(math.floor(u * len(entry["choices"])), len(entry["choices"]) - 1)]
    low, high = float(entry["min"]), float(entry["max"])
    if entry.get("scale") == "log":
        return low * math.exp(u * math.log(high / low))
    return low + u * (high - low)


def _checked(name: str, entry: Any) -> dict[str, Any]:
    key = f"search_space.{name}"
    if not isinstance(entry, Mapping):
        raise UserError(f"{key}: got {entry!r}, expected min and max, or choices")
    for unknown in [k for k in entry if k not in KEYS]:
        raise UserError(f"{key}: unknown key {str(unknown)!r}: {nearest(str(unknown), KEYS)}")
    given = {k: v for k, v in entry.items() if v is not None}  # null: a preset takes it out
    kind = next((k for k in LISTS if k in given), None)
    if kind is None:
        _check_range(key, given)
        return given
    if not isinstance(given[kind], (list, tuple)) or not given[kind]:
        raise UserError(f"{key}.{kind}: got {given[kind]!r}, expected a list of values")
    if beside := [k for k in KEYS if k in given and k != kind]:
        raise UserError(f"{key}: got {kind} beside {', '.join(beside)}; set {kind} to null, or the others")
    return given


def _check_range(key: str, entry: Mapping[str, Any]) -> None:
    for bound in ("min", "max"):
        if bound not in entry:
            raise UserError(f"{key}: expected min and max, or choices; {bound!r} is missing")
        value = entry[bound]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UserError(f"{key}.{bound}: got {value!r}, expected a number")
    scale = entry.get("scale", "linear")
    if scale not in ("linear", "log"):
        raise UserError(f"{key}.scale: got {scale!r}, expected linear or log")
    if not entry["min"] < entry["max"]:
        raise UserError(f"{key}: got min {entry['min']} and max {entry['max']}, expected min < max")
    if scale == "log" and entry["min"] <= 0:
        raise UserError(f"{key}.min: got {entry['min']}, expected a number above 0 on a log scale")
