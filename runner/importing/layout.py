"""Where a trial's folder stands: ``<submission>/study_<k>/<workload>_<framework>/trial_<i>``."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.importing.logs import Folders, Parts
from runner.importing.notices import Notices

PATTERN = "<submission>/study_<k>/<workload>_<framework>/trial_<i>"
RULESETS = ("external_tuning", "self_tuning")
FRAMEWORKS = re.compile(r"(.+)_(jax|pytorch)$")
STUDY, TRIAL = re.compile(r"study_(\d{1,9})$"), re.compile(r"trial_(\d{1,9})$")


@dataclass
class Trial:
    """One trial's folder: where it stands, and what it holds."""

    folder: str
    above: Parts
    submission: str
    study: int
    workload: str
    framework: str | None
    trial: int
    evals: bytes
    hparams: dict[str, Any]
    metas: list[dict[str, Any]]
    label: str = ""
    ruleset: str = ""

    @property
    def meta(self) -> dict[str, Any]:
        """The last metadata file: that of the last restart."""
        return self.metas[-1] if self.metas else {}

    @property
    def place(self) -> tuple[str, str, str, int, int]:
        """What no two trials may share."""
        return self.ruleset, self.workload, self.label, self.study, self.trial


def trials(folders: Folders, notices: Notices) -> list[Trial]:
    """The trials among the folders, those out of place left out; labels and rulesets are filled in."""
    found = []
    depth = _shared(folders)
    for parts, files in folders.items():
        trial = _placed(parts, files, notices, "/".join(parts[min(depth, len(parts) - 1) :]))
        if trial is not None:
            found.append(trial)
    _name(found)
    return _unique(found, notices)


def _placed(parts: Parts, files: Mapping[str, bytes], notices: Notices, short: str) -> Trial | None:
    *_, submission, study_name, workload_name, trial_name = ("",) * 4 + parts
    study = STUDY.fullmatch(study_name) if submission else None
    number = TRIAL.fullmatch(trial_name)
    if study is None or number is None:
        notices.add("unexpected folder, ignored", short)
        return None
    suffixed = FRAMEWORKS.fullmatch(workload_name)
    if suffixed is None:
        notices.add("workload's folder without _jax or _pytorch, used as its name", short)
    names = sorted((n for n in files if n.startswith("meta_data_")), key=lambda n: (len(n), n))
    metas = [meta for name in names if (meta := _json(files[name], f"{short}/{name}", notices)) is not None]
    if not names:
        notices.add("trial without meta_data_*.json", short)
    elif len({_goal(meta) for meta in metas}) > 1:
        notices.add("metadata files of one trial that name different targets, the last one used", short)
    hparams = (
        _json(files["hparams.json"], f"{short}/hparams.json", notices) if "hparams.json" in files else {}
    )
    workload, framework = suffixed.groups() if suffixed else (workload_name, None)
    return Trial(
        short, parts[:-4], submission, int(study[1]), workload, framework, int(number[1]),
        files.get("eval_measurements.csv", b""), hparams or {}, metas,
    )  # fmt: skip


def _goal(meta: Mapping[str, Any]) -> tuple[str, str]:
    return str(meta.get("workload.target_metric_name")), str(meta.get("workload.validation_target_value"))


def _json(text: bytes, place: str, notices: Notices) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    if text.strip() not in (b"", b"null"):  # self-tuning ones may hold nothing
        notices.add("file without a JSON object, ignored", place)
    return None


def _shared(paths: Collection[Parts]) -> int:
    """How many parts all of the paths begin with."""
    least = min(map(len, paths), default=0)
    columns = zip(*paths, strict=False)
    return next((k for k, column in enumerate(columns) if len(set(column)) > 1), least)


def _name(found: Sequence[Trial]) -> None:
    """Labels and rulesets: from the folders' names, else by whether the submission has hyperparameters."""
    tuned = {(trial.above, trial.submission) for trial in found if trial.hparams}
    for trial in found:
        named = [part for part in reversed(trial.above) if part in RULESETS]
        trial.ruleset = named[0] if named else RULESETS[(trial.above, trial.submission) not in tuned]
    homes: dict[tuple[str, str], set[Parts]] = {}
    for trial in found:
        homes.setdefault((trial.ruleset, trial.submission), set()).add(trial.above)
    for trial in found:
        places = homes[trial.ruleset, trial.submission]
        shared = _shared(places)
        # Two submissions of one name: what differs above them tells them apart.
        trial.label = "/".join((*trial.above[shared:], trial.submission))


def _unique(found: Sequence[Trial], notices: Notices) -> list[Trial]:
    kept: dict[tuple[Any, ...], Trial] = {}
    for trial in found:
        first = kept.setdefault(trial.place, trial)
        if first is trial:
            continue
        if trial.evals and not first.evals:
            kept[trial.place], trial = trial, first
        notices.add("second folder for one trial, ignored", trial.folder)
    return list(kept.values())
