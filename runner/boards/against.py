"""One's own algorithms on a published board: its cells, its rules and its workloads stand as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from runner.base.errors import UserError, nearest
from runner.base.paths import ROOT
from runner.boards.gaps import recipes_of_algorithms
from runner.boards.inputs import Inputs, read
from runner.boards.publish import HOME
from runner.cells.tables import BOARD
from runner.compose.commands import command, places
from runner.launch.display import plural
from runner.stats.comparable import parts


def against(mine: Inputs, name: str) -> Inputs:
    """An experiment's cells beside those of a published board.

    Args:
        mine: the experiment. A label that the board has, too, gets the experiment's name behind it.
        name: of the board, or its folder.

    Raises:
        UserError: where there is no such board, or no cell was trained as the board's were.
    """
    board = read(_found(name))
    cells = _fitting(mine, board)
    taken = set(board.cells["label"])
    labels = [f"{label} ({mine.name})" if label in taken else label for label in cells["label"]]
    return Inputs(
        board.folder, "published", pd.concat([board.cells, cells.assign(label=labels)], ignore_index=True),
        board.evals, mine.sources, [_said(mine, board, sorted(set(labels))), *mine.headline], mine.missing,
        rules=board.rules, workloads=board.workloads, record=board.record,
    )  # fmt: skip


def _found(name: str) -> Path:
    homes = HOME, ROOT / HOME
    for folder in (Path(name), *(home / name for home in homes)):
        if (folder / BOARD).is_file():
            return folder
    known = [path.parent.name for home in homes for path in home.glob(f"*/{BOARD}")]
    raise UserError(f"--against {name}: no published board; {nearest(name, known)}")


def _fitting(mine: Inputs, board: Inputs) -> pd.DataFrame:
    """The cells on the board's workloads, of its kind of data, ruleset and division."""
    together = board.rules is not None and board.rules.together
    kept = [
        part.cells.loc[part.cells["workload"].isin(list(board.workloads[part.title]))]
        for part in parts(mine.cells, together)
        if part.title in board.workloads
    ]
    cells = pd.concat(kept) if kept else mine.cells.iloc[:0]
    if not len(cells):
        titles = "; ".join(f"{title}: {', '.join(names)}" for title, names in board.workloads.items())
        raise UserError(
            f"no cell of {mine.folder} was trained like those of {board.name} ({titles}); {_how(mine, board)}"
        )
    return cells


def _how(mine: Inputs, board: Inputs) -> str:
    """The command that trains an algorithm as the board's were."""
    cells = board.cells
    rulesets = sorted({str(name) for name in cells["ruleset"].dropna()}) if "ruleset" in cells else []
    words = [f"workload={','.join(sorted({n for own in board.workloads.values() for n in own}))}"]
    words += [f"ruleset={name}" for name in rulesets[:1]]
    if rulesets:
        words += [f"ruleset.studies={cells['study'].nunique()}", f"ruleset.trials={cells['trial'].max()}"]
        words += [f"ruleset.budget_factor={factor:g}" for factor in _factors(cells)]
    known = recipes_of_algorithms(mine.folder, mine.cells) if mine.kind == "experiment" else {}
    label, algorithm = next(iter(known.items()), ("it", ["algorithm=NAME"]))
    others = f", and the {plural(len(known) - 1, 'other')} likewise" if len(known) > 1 else ""
    line = command("runner", "-m", *algorithm, *words, *places(mine.folder))
    return f"train {label} this way{others}: {line}"


def _factors(cells: pd.DataFrame) -> list[float]:
    """The share of its workload's budget that the board gives, where that is one."""
    from runner.compose.config import compose, workload_names

    budgets: Mapping[str, float] = dict(zip(cells["workload"], cells["budget"], strict=True))
    usual = {name: compose([f"workload={name}"])["workload"] for name in set(budgets) & set(workload_names())}
    factors = {budgets[name] / workload["budget_samples"] for name, workload in usual.items()}
    return sorted(factors) if len(factors) == 1 else []


def _said(mine: Inputs, board: Inputs, labels: list[str]) -> str:
    """Whose rows are whose, and whether the code was the same."""
    theirs = {pair for hashes in board.sources.values() for pair in hashes.items()}
    known = {module for module, _ in theirs}
    other = {
        module
        for hashes in mine.sources.values()
        for module, value in hashes.items()
        if module in known and (module, value) not in theirs
    }
    line = f"{', '.join(labels)}: of {mine.folder}; the other rows are those published in {board.name}"
    if not other:
        return line
    return f"{line}, trained by different source code ({len(other)} modules, such as {min(other)})"
