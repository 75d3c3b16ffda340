"""Names on the board: the preset, plus the parts and keys that were changed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

SPACE = ".search_space."
UNNAMED = ("download",)  # keys of a workload that say how to get its data, not what it is
# Keys of a workload that leave the question as it is, so that its target stands.
SAME_PROBLEM = (
    *UNNAMED, "name", "target", "batch_size", "budget_samples", "eval_every", "eval_batch_size", "precision",
    "compile", "deterministic", "aux", "max_seconds", "threads",
)  # fmt: skip


def algorithm_label(
    choices: Mapping[str, str],
    preset: Mapping[str, str],
    changed: Mapping[str, Any],
    keys: Collection[str] = (),
) -> str:
    """``adamw``, ``adamw+label_smoothing``, ``adamw-groups``, ``adamw[lr=0.0003]``.

    Args:
        choices: config group -> file chosen.
        preset: the same for the bare preset.
        changed: dotted key -> value for keys that differ from their file's; None for one that was taken out.
        keys: all keys of the algorithm: one that several of its parts have is named with its part.
    """
    label = choices["algorithm"]
    for group in sorted({*choices, *preset}):
        choice = choices.get(group, "None")
        if group.startswith("algorithm/") and choice != preset.get(group, "None"):
            label += f"-{group.split('/', 1)[1]}" if choice == "None" else f"+{_joined(choice)}"
    return label + _keys({k: v for k, v in changed.items() if k.startswith("algorithm.")}, keys)


def workload_name(workload: Mapping[str, Any]) -> str:
    """The name that its config gives, marked where labels are noisy: ``digits_noise20``."""
    noise = workload.get("label_noise")
    return f"{workload['name']}_noise{_percent(noise)}" if noise else workload["name"]


def other_problem(changed: Mapping[str, Any]) -> dict[str, Any]:
    """Of the changed keys, those that make another problem of a workload: the target is not theirs."""
    keys = {k: v for k, v in changed.items() if k.startswith("workload.")}
    return {k: v for k, v in keys.items() if k.split(".")[1] not in SAME_PROBLEM}


def workload_label(name: str, changed: Mapping[str, Any]) -> str:
    """The workload's name, plus the keys that were changed: a variant is another column on the board."""
    named = {f"workload.{key}" for key in ("name", "label_noise", *UNNAMED)}
    keys = {k: v for k, v in changed.items() if k.startswith("workload.") and k not in named}
    return name + _keys({k.removesuffix("._target_"): v for k, v in keys.items()})


def slug(text: str, limit: int = 60) -> str:
    """``text`` as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_=+.-]+", "_", text).strip("_.")[:limit] or "_"


def _keys(changed: Mapping[str, Any], keys: Collection[str] = ()) -> str:
    known = {*changed, *keys}
    short = [f"{_short(key, known)}={_value(value)}" for key, value in sorted(changed.items())]
    return f"[{','.join(short)}]" if short else ""


def _short(key: str, known: Collection[str]) -> str:
    if SPACE in key:
        return key.partition(SPACE)[2]  # lr.max: the end alone would be max
    last = key.rpartition(".")[2]
    twins = [other for other in known if other.rpartition(".")[2] == last]
    return last if len(twins) == 1 else key.partition(".")[2]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(_value(v) for v in value)
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    """The shortest form that is read back as the same number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _percent(share: float) -> str:
    """``20`` for 0.2; two shares never read alike."""
    short = f"{100 * share:g}"
    return short if float(short) / 100 == share else f"{(100 * Decimal(str(share))).normalize():f}"


def _joined(choice: str) -> str:
    return "+".join(re.findall(r"[A-Za-z0-9_.-]+", choice))
