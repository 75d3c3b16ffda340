"""``python -m runner.verify results/leaderboards/<name> --cells 5``: run some of a board's cells again.

Cells are drawn at random, composed from the published configs alone, trained here, and compared evaluation
by evaluation. On the same kind of machine, with the same source and packages, they agree bit for bit;
elsewhere, and on a GPU without ``workload.deterministic``, within the spread over the algorithm's studies.
What does not is recorded beside its row.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.base.cli import leave
from runner.base.errors import UserError, nearest, one_line
from runner.base.files import append_line
from runner.base.paths import expanded, settled
from runner.contract.records import FINISHED, CellFolder
from runner.launch.grid import Grid
from runner.provenance import trust

if TYPE_CHECKING:
    import pandas as pd

    from runner.boards.inputs import Inputs
    from runner.cells.cell import Cell

VERDICTS = ("same", "agrees", "disputed", "other source")
NOT_COMPARED = ("seconds", "clock/", "report/seconds")  # times, which no two runs share
SUMMARY = (
    "status", "hit", "samples_to_target", "steps_to_target", "eval_index_to_target", "best_metric", "metric",
    "minimize", "target", "samples", "steps", "drawn", "data_checksum",
)  # fmt: skip
KIND = ("device", "cpu")  # of the hardware record: what makes a kind of machine


@dataclass(frozen=True)
class Verdict:
    """What a rerun said of a published cell.

    Attributes:
        id, label, title: the cell.
        verdict: one of :data:`VERDICTS`.
        why: in words.
        machine: what it ran on this time.
    """

    id: str
    label: str
    title: str
    verdict: str
    why: str
    machine: str


@dataclass
class Again(Grid):
    """The grid of the chosen cells.

    Attributes:
        chosen: cells whose configs were published.
    """

    chosen: Sequence[Cell] = field(default_factory=list)

    def cells(self) -> Iterator[Cell]:
        """The chosen ones."""
        self.display.expects(len(self.chosen))
        yield from self.chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cells and print a verdict on each.

    Returns:
        0 where all agree, 1 where one is disputed or failed, 2 for bad input, 130 after Ctrl-C.
    """
    options = _parser().parse_args(argv)
    try:
        return _verify(options)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # labels hold line breaks, too
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.verify",
        description="Rerun cells of a published leaderboard and compare the results.",
    )
    add = parser.add_argument
    add("folder", type=expanded, help="results/leaderboards/<name>")
    add("--cells", type=int, default=5, metavar="N", help="how many cells, drawn at random (default: 5)")
    add("--id", nargs="+", default=[], metavar="ID", help="these cells instead")
    add("--label", metavar="LABEL", help="only cells of this algorithm")
    add("--seed", type=int, help="seed of the draw (default: new each time)")
    add("--workers", type=int, help="cells to run at once")
    add("--keep", type=expanded, metavar="DIR", help="keep the rerun folders in DIR")
    add("--dry-run", action="store_true", help="do not record the verdicts")
    trust.add_option(parser)
    return parser


def _verify(options: argparse.Namespace) -> int:
    from runner.boards import publish
    from runner.boards.inputs import read

    trust.allow(options.allow)
    inputs = read(options.folder)
    if inputs.kind != "published":
        raise UserError(f"{options.folder} is not a published leaderboard like those in {publish.HOME}")
    if inputs.imported:
        raise UserError(f"{options.folder} was imported: there are no configs to run its cells from")
    wanted = choose(inputs.cells, options.cells, options.id, options.label, options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        code, verdicts = rerun(
            inputs, wanted, options.keep or Path(scratch), options.workers, bool(options.keep)
        )
    if code == 1 and not options.keep:
        print("the rerun folders were deleted; --keep DIR keeps them", file=sys.stderr)
    for verdict in verdicts:
        print(f"{verdict.verdict}: {verdict.title}: {verdict.why}")
        if not options.dry_run:
            append_line(options.folder / publish.VERIFIED, json.dumps(_line(verdict)))
    if verdicts and not options.dry_run:
        publish.refresh(options.folder)
    return max(code, int(any(verdict.verdict == "disputed" for verdict in verdicts)))


def choose(
    cells: pd.DataFrame, number: int, ids: Sequence[str], label: str | None, seed: int | None
) -> list[str]:
    """Ids of the cells to run.

    Raises:
        UserError: for an unknown id or label, or a number below 1.
    """
    finished = cells.loc[cells["status"].isin(list(FINISHED))]
    known = [str(name) for name in finished["id"]]
    for name in ids:
        if name not in known:
            raise UserError(f"--id {name}: no such finished cell on this leaderboard; {nearest(name, known)}")
    if ids:
        return list(ids)
    if number < 1:
        raise UserError(f"--cells {number}: expected 1 or more")
    if label is not None:
        labels = [str(name) for name in finished["label"]]
        if label not in labels:
            raise UserError(
                f"--label {label}: no such algorithm on this leaderboard; {nearest(label, labels)}"
            )
        known = [name for name, own in zip(known, labels, strict=True) if own == label]
    return random.Random(seed).sample(sorted(known), min(number, len(known)))


def rerun(
    inputs: Inputs, ids: Sequence[str], results: Path, workers: int | None = None, stays: bool = True
) -> tuple[int, list[Verdict]]:
    """Train the cells under ``results`` and compare them.

    Args:
        inputs: the board.
        ids: of its cells.
        results: where the reruns go.
        workers: cells at once.
        stays: whether ``results`` is there afterwards.

    Returns:
        The grid's exit code, and a verdict on every cell that finished.

    Raises:
        UserError: where a config was not published.
    """
    from runner.boards.publish import configs
    from runner.cells.tables import load
    from runner.launch.display import Display
    from runner.launch.local import Local, checked
    from runner.launch.start import run

    published = configs(inputs.folder)
    if lacking := [name for name in ids if name not in published]:
        raise UserError(f"{inputs.folder}: the config of {lacking[0]} was not published")
    cells = [_cell(inputs.folder, name, published[name], results) for name in ids]
    code = run(Again((), Local(**checked({"workers": workers})), Display(stays=stays), chosen=cells))
    rows, evals = load(results / "verify")
    done = rows.loc[rows["status"].isin(list(FINISHED))]
    verdicts = []
    for cell in cells:
        if cell.id in set(done["id"]):
            new = done.loc[done["id"] == cell.id].iloc[0].to_dict()
            own = evals.loc[evals["id"] == cell.id]
            verdicts.append(judge(inputs, cell, new, own))
    return code, verdicts


def _cell(board: Path, name: str, config: Mapping[str, Any], results: Path) -> Cell:
    """A cell as it was published, in a folder of ours, of classes that may be built here."""
    from runner.cells.cell import Cell, identity

    data = os.environ.get("BENCH_DATA", "data")  # as in conf/config.yaml
    own = {"results_dir": str(results), "name": "verify", "log": None, "data_dir": data}
    try:
        if identity(config) != name:
            raise UserError("its contents do not match its id")
        trust.check(config)
        return Cell.from_config(settled({**config, **own}))
    except UserError as error:
        raise UserError(f"{board}: the config of {name} is not used: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{board}: the config of {name} is damaged: {one_line(repr(error))}") from error


def judge(inputs: Inputs, cell: Cell, new: Mapping[str, Any], evals: pd.DataFrame) -> Verdict:
    """Compare a rerun with what was published."""
    old = inputs.cells.loc[inputs.cells["id"] == cell.id].iloc[0].to_dict()
    before = inputs.evals.loc[inputs.evals["id"] == cell.id]
    manifest = CellFolder(cell.folder.path).manifest()
    machine = str(manifest.get("hardware", {}).get("device"))
    changed = _changed(inputs.sources.get(str(old.get("source")), {}), cell.sources)
    place = unlike(before, evals) or unlike_summary(old, new)
    close, said = within(inputs.cells, old, new)
    if place is None:
        word, why = "same", "every evaluation, bit for bit"
    elif changed:
        word, why = "other source", f"{place}; {', '.join(changed[:3])} changed since; {said}"
    elif not reproducible(cell.config):
        word, why = "agrees" if close else "disputed", f"a GPU without workload.deterministic; {said}"
    elif _same_kind(inputs, manifest):
        word, why = "disputed", f"the same kind of machine, and {place}; {said}"
    else:
        word, why = "agrees" if close else "disputed", f"another machine; {said}"
    return Verdict(cell.id, str(old["label"]), cell.title, word, why, machine)


def reproducible(config: Mapping[str, Any]) -> bool:
    """Whether a cell of that config computes the same bits each time: a GPU does where it is told to."""
    return config["device"] == "cpu" or bool(config["workload"].get("deterministic"))


def unlike(before: pd.DataFrame, now: pd.DataFrame) -> str | None:
    """Where two tables of evaluations first differ, but for times; None where they are equal bit for bit."""
    from runner.stats.comparable import absent

    names = [n for n in before if n != "id" and not str(n).startswith(NOT_COMPARED)]
    if len(before) != len(now):
        return f"{len(now)} evaluations instead of {len(before)}"
    for name in names:
        again = now[name] if name in now else [None] * len(now)
        if name in now and str(before[name].dtype) == "float32":  # published in brief
            again = now[name].astype("float32")
        for place, (old, new) in enumerate(zip(before[name], again, strict=True)):
            if old != new and not (absent(old) and absent(new)):
                return f"{name} of evaluation {place} is {new} instead of {old}"
    return None


def unlike_summary(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Where two rows of ``cells`` differ in what the evaluations led to; None where they do not."""
    from runner.stats.comparable import absent

    for name in SUMMARY:
        was, now = old.get(name), new.get(name)
        if was != now and not (absent(was) and absent(now)):
            return f"{name} is {now} instead of {was}"
    return None


def within(cells: pd.DataFrame, old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether a rerun lies within the spread over the studies of its algorithm on its workload.

    Two hits agree where their times differ by no more than the algorithm's study times do; a miss and a miss,
    or a hit and a miss, where the best metrics differ by no more than those of the studies' best trials.
    """
    from runner.stats import study_times

    same = (cells["workload"] == old["workload"]) & (cells["label"] == old["label"])
    # The rerun stands for its study: a published number does not widen the spread that it is held against.
    others = cells.loc[same & (cells["study"] != old["study"])]
    was, now = old["samples_to_target"], new["samples_to_target"]
    times = sorted(time for time in [*study_times(others)["time"], now] if math.isfinite(time))
    if math.isfinite(was) and math.isfinite(now) and len(times) > 1:
        allowed = times[-1] / times[0] if times[0] > 0 else math.inf
        ratio = max(was, now) / min(was, now) if min(was, now) > 0 else float(was == now)
        said = f"{now:g} samples to target instead of {was:g} (studies spread {allowed:.2f}×)"
        return ratio <= allowed, said
    return _within_best(others, old, new)


def _within_best(others: pd.DataFrame, old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[bool, str]:
    was, now = float(old["best_metric"]), float(new["best_metric"])
    best = [*others.groupby("study")["best_metric"].agg("min" if old["minimize"] else "max"), now]
    known = [float(value) for value in best if not math.isnan(value)]
    allowed = max(known) - min(known) if known else 0.0
    said = f"best {old['metric']} {now:.5g} instead of {was:.5g} (studies spread {allowed:.2g})"
    return abs(was - now) <= allowed or (math.isnan(was) and math.isnan(now)), said


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _same_kind(inputs: Inputs, manifest: Mapping[str, Any]) -> bool:
    """Whether the board knows this hardware together with these packages."""
    from runner.base.files import read_json

    published = read_json(inputs.folder / "manifest.json") or {}
    hardware = manifest.get("hardware", {})
    machines = [entry["value"] for entry in published.get("machines", [])]
    packages = [entry["value"] for entry in published.get("packages", [])]
    alike = any(all(known.get(key) == hardware.get(key) for key in KIND) for known in machines)
    return alike and manifest.get("packages") in packages


def _line(verdict: Verdict) -> dict[str, Any]:
    from runner.provenance import git

    facts = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": git.facts().get("commit")}
    return {**verdict.__dict__, **facts}


if __name__ == "__main__":
    leave(main, tidies=True)
