"""``python -m runner.retry results/<name>``: rerun failed, stale, damaged or unfinished cells.

Uses the cells' own resolved configs, never ``conf/``. The cells run like those of a grid, with the launcher
of the experiment's last launch unless told otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.base.cli import leave
from runner.base.errors import UserError, nearest, one_line
from runner.base.paths import expanded, settled
from runner.cells.cell import ID, Cell, identity
from runner.cells.survey import DOUBTED, FAILED, LEFT, STATES, Seen, View, look, pick, place
from runner.compose.resources import DEFAULTS, FACTOR, completed
from runner.contract.records import FINISHED, CellFolder
from runner.launch.display import Display
from runner.launch.grid import Backend, Grid
from runner.launch.local import Inline, Local, checked
from runner.launch.scheduler import Job
from runner.launch.start import run
from runner.provenance import trust
from runner.provenance.source import reach, source_hashes

AGAIN = (*FAILED, *DOUBTED, *LEFT)
LAUNCHERS = ("local", "slurm", "inline")
PREFIX = "hydra.launcher."
NEEDED = ("id", "label", "workload_label", "study", "trial", "device", "threads", "workload", "algorithm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cells.

    Returns:
        0 when every one of them is done or diverged (or queued), 1 when one failed, 2 for bad input, 130
        after Ctrl-C.
    """
    options = _parser().parse_intermixed_args(argv)
    try:
        return _retry(options)
    except UserError as error:
        Display.error(str(error))
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.retry",
        description=f"Run an experiment's cells again that are {', '.join(AGAIN[:-1])} or {AGAIN[-1]}. Cells "
        "that are running or queued are left alone.",
        epilog="Launcher options are given as key=value, such as workers=4 or hydra.launcher.partition=gpu.",
    )
    parser.add_argument("folder", type=expanded, help="results/<name>, or the folder of one cell")
    parser.add_argument("set", nargs="*", metavar="key=value", help="launcher options")
    parser.add_argument("--cells", nargs="+", default=[], metavar="GLOB_OR_ID", help="only these cells")
    parser.add_argument("--states", help=f"only cells in these states, out of {','.join(AGAIN)}")
    parser.add_argument("--stopped", action="store_true", help="resume cells that were stopped on purpose")
    parser.add_argument("--launcher", choices=LAUNCHERS, help="default: the launcher of the last launch")
    parser.add_argument("--dry-run", action="store_true", help="print the plan without running anything")
    trust.add_option(parser)
    return parser


def _retry(options: argparse.Namespace) -> int:
    # `--cells a b workers=4`: argparse gives all three to --cells.
    trust.allow(options.allow)
    settings = [*options.set, *filter(_is_option, options.cells)]
    experiment, only = place(options.folder)
    view = look(experiment, check=True)
    patterns = [word for word in options.cells if not _is_option(word)] + ([only] if only else [])
    wanted = states(options.states or ("stopped" if options.stopped else None))
    chosen = select(view, patterns, wanted)
    launcher, given = how(view, options.launcher, assignments(settings))
    display = Display()
    backend, then = backend_of(launcher, given)
    for notice in view.notices:
        display.notice(notice)
    if not chosen:
        print(f"{experiment}: nothing to retry{_instead(view, patterns)}")
        return 0
    return run(Retry((), backend, display, experiment=experiment, chosen=chosen), options.dry_run, then)


def _is_option(word: str) -> bool:
    """Cells' names hold ``=``, too: ``digits.adamw_lr=0.1.s0.t0.*``."""
    from runner.launch.slurm.options import SlurmOptions

    key = word.partition("=")[0]
    known = {option.name for kind in (Local, SlurmOptions) for option in dataclasses.fields(kind)}
    return "=" in word and (key.startswith(PREFIX) or key in known)


def states(text: str | None) -> tuple[str, ...]:
    """The states named by ``--states``; by default, every state that retry handles.

    Raises:
        UserError: for a word that is none of them.
    """
    words = AGAIN if text is None else tuple(word.strip() for word in text.split(","))
    for word in words:
        if word not in (*AGAIN, "stopped"):
            why = "cells in this state are not run again" if word in STATES else nearest(word, AGAIN)
            raise UserError(f"--states {word}: {why}")
    return words


def select(view: View, patterns: Sequence[str], wanted: Sequence[str]) -> list[Seen]:
    """The cells to run: in a wanted state, among the named ones, and not already running or queued."""
    cells = pick(view.cells, patterns) if patterns else view.cells
    return [cell for cell in cells if cell.state in wanted and not cell.coming]


def _instead(view: View, patterns: Sequence[str]) -> str:
    cells = pick(view.cells, patterns) if patterns else view.cells
    counts = Counter(cell.state for cell in cells)
    return f": {', '.join(f'{n} {state}' for state, n in counts.items())}" if counts else ": it has no cells"


# -- where they run ----------------------------------------------------------------------------------


def assignments(words: Sequence[str]) -> dict[str, Any]:
    """``key=value`` with values as YAML reads them.

    Raises:
        UserError: for a word without ``=``.
    """
    import yaml

    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word}: expected key=value")
        try:
            found[key.removeprefix(PREFIX)] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"{word}: {one_line(str(error))}") from error
    return found


def how(view: View, launcher: str | None, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The launcher and its options: those of the last launch, with changes.

    Raises:
        UserError: where that was SLURM with options this user has not launched with: they may contain shell
            commands.
    """
    last = view.launched[-1] if view.launched else None
    before = {} if last is None else last.record
    chosen = launcher or before.get("launcher", "local")
    if last is None or chosen != before.get("launcher"):
        return chosen, dict(given)
    if chosen == "slurm" and not last.is_own:
        if launcher is None:
            raise UserError(
                f"{last.path.name}: its SLURM options are not known to be yours ({trust.MODEL}): pass "
                "--launcher slurm with the options you want, such as partition=gpu, or --launcher local"
            )
        return chosen, dict(given)
    return chosen, {**before.get("options", {}), **given}


def backend_of(launcher: str, options: Mapping[str, Any]) -> tuple[Backend, str | None]:
    """The backend with these options, and what follows the cells (``then``).

    Raises:
        UserError: for an unknown launcher or option, or a bad value.
    """
    if launcher == "slurm":
        from runner.launch.slurm.backend import Slurm

        return Slurm(**options), None  # what follows is a job of its own
    kinds: dict[str, Any] = {"local": Local, "inline": Inline}
    if launcher not in kinds:
        raise UserError(f"--launcher {launcher}: {nearest(launcher, LAUNCHERS)}")
    mine = {key: value for key, value in options.items() if key != "then"}
    known = [option.name for option in dataclasses.fields(kinds[launcher])]
    for key in mine:
        if key not in known:
            raise UserError(
                f"{key}: the {launcher} launcher has no such option; {nearest(key, [*known, 'then'])}"
            )
    return kinds[launcher](**checked(mine)), options.get("then")


# -- the cells ---------------------------------------------------------------------------------------


@dataclass
class Retry(Grid):
    """A grid of chosen cells that already have folders; stopped cells resume.

    Attributes:
        experiment: where they are now, whatever their configs say.
        chosen: the cells.
    """

    experiment: Path = Path()
    chosen: Sequence[Seen] = field(default_factory=list)
    left_alone: Sequence[str] = FINISHED

    def cells(self) -> Iterator[Cell]:
        """The chosen cells; an unreadable one counts as failed without stopping the others."""
        self.display.expects(len(self.chosen))
        for seen in self.chosen:
            try:
                cell = restored(self.experiment, seen.name)
            except Exception as error:  # a damaged config can fail anywhere
                self.display.ended(Job(seen.path, title=seen.title), _unusable(error))
                continue
            if identity(cell.config) != cell.id:
                self.display.notice(
                    "the config format has changed, so these cells would get other ids today; they keep "
                    "their ids and folders"
                )
            yield cell


def _unusable(error: Exception) -> dict[str, Any]:
    ours = isinstance(error, UserError)
    said = str(error) if ours else f"{type(error).__name__}: {error}"
    problem = one_line(f"config.yaml cannot be used: {said}")
    return {"status": "failed", "error": problem, "user_error": ours}


def restored(experiment: Path, name: str) -> Cell:
    """A cell as it was submitted, from its folder alone; only its location may have changed.

    Raises:
        OSError, ValueError, KeyError, TypeError, yaml.YAMLError: for a folder without a good config.
        UserError: where it names classes that may not be built here.
    """
    folder = CellFolder(experiment / "cells" / name)
    config = folder.config()
    if not isinstance(config, dict):
        raise ValueError("it holds no mapping")
    if missing := [key for key in NEEDED if key not in config]:
        raise ValueError(f"{missing[0]} is missing")
    if not ID.fullmatch(str(config["id"])) or not name.endswith(f".{config['id']}"):
        raise UserError(f"its id, {one_line(str(config['id']), 40)!r}, is not that of its folder")
    trust.check(config)
    reach(folder.manifest().get("paths"))
    config = settled({**config, "results_dir": str(experiment.parent), "name": experiment.name})
    config.setdefault("resources", completed({**DEFAULTS, FACTOR: 1.0, "share": 1.0}, config, 1.0))
    return Cell(config, folder, source_hashes(config))


if __name__ == "__main__":
    leave(main, tidies=True)
