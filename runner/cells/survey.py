"""The state of an experiment's cells, from one quick, read-only pass over their folders.

A finished cell costs two small reads and one ``stat``; any other cell one read and a listing. Ten thousand
cells take a second or two.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from runner.base.errors import UserError, nearest, one_line
from runner.base.files import UNREADABLE, no_link
from runner.cells.launches import Launch, launches
from runner.cells.lock import holder, runs_here
from runner.contract.records import FINISHED, STATUSES, CellFolder
from runner.provenance import data_files, source

Record = dict[str, Any]
FAILED = ("failed", "oom", "timeout")
DOUBTED = ("damaged", "stale")  # finished, and yet to be run again
LEFT = ("pending", "preempted", "killed")  # unfinished; need a retry unless a worker or job will take them
# In the order in which people read them; what is not among a folder's statuses only shows from outside.
STATES = (
    "done", "diverged", "stopped", "running", "queued", "pending", "preempted", "killed", *FAILED, *DOUBTED,
    source.UNAVAILABLE,
)  # fmt: skip
DEPTH = 3  # of an experiment's name
CHANGES = 3  # modules and files that are named where a cell is stale
CLOCK_SLACK = 5.0  # seconds: a cell's folder is written just before the launch that will run it
PENDING: Record = {"status": "pending"}
_FINISHED = re.compile(rb'\{\n "status": "(done|diverged)"')
_EVALS_BYTES = re.compile(rb'^ "evals_bytes": (\d+)', re.MULTILINE)
_EVALS_MADE = re.compile(rb'^  "evals": [1-9]', re.MULTILINE)  # a summary of before there were digests
_FILES = re.compile(rb'^ "files": (\{.*?^ \})', re.MULTILINE | re.DOTALL)
_SOURCE = re.compile(rb'^ "source": "(\w+)"', re.MULTILINE)
_NAME = re.compile(r"(?P<names>.+)\.s(?P<study>\d+)\.t(?P<trial>\d+)\.(?P<id>[^.]+)")


@dataclass(frozen=True)
class Seen:
    """A cell as it stands.

    Attributes:
        name: of its folder.
        state: one of :data:`STATES`.
        text: of its status record.
        lock: the record of the worker that holds it; None if there is none.
        experiment: its experiment's folder.
        coming: a worker, a launcher or a queued job will finish it.
    """

    name: str
    state: str
    text: bytes
    lock: Record | None
    experiment: Path
    coming: bool = False

    @functools.cached_property
    def status(self) -> Record:
        """Its status record."""
        return _parsed(self.text) or PENDING

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.experiment / "cells" / self.name

    @functools.cached_property
    def title(self) -> str:
        """``digits · lion · study 0 · trial 0``; without its card, as far as the folder's name says it."""
        card = _parsed(_read(f"{self.path}/cell.json")) or {}
        if not {"workload_label", "label", "study", "trial"} <= card.keys():
            return title_of(self.name)
        return "{workload_label} · {label} · study {study} · trial {trial}".format(**card)

    @functools.cached_property
    def reason(self) -> str:
        """Why it stands as it does, on one line; empty where its state says it all."""
        if self.state in FAILED:
            return one_line(self.status.get("error", ""), 160)
        if self.state == "killed":
            return f"its process on {self.status.get('host', '?')} no longer exists"
        if self.state not in ("stale", source.UNAVAILABLE):
            return ""
        folder = CellFolder(self.path)
        made_by = folder.manifest()
        recorded, files = made_by.get("sources") or {}, made_by.get("files") or {}
        if self.state == source.UNAVAILABLE:
            return source.not_here(source.unreachable(recorded, folder.readable_config()))
        changed = [name for name, value in recorded.items() if source.current(name) != value]
        changed += [path for path, stamp in files.items() if data_files.changed({path: stamp})]
        return "changed since: " + ", ".join(changed[:CHANGES]) + ", …" * (len(changed) > CHANGES)

    @property
    def id(self) -> str:
        """The cell's id."""
        return self.name.rpartition(".")[2]

    @property
    def left_behind(self) -> bool:
        """Whether it is unfinished and no worker, launcher or job will finish it."""
        return self.state in LEFT and not self.coming


@dataclass
class View:
    """An experiment as it stands.

    Attributes:
        experiment: its folder.
        cells: by name.
        launched: its launches, oldest first.
        tasks: batch system's tasks that are queued or running -> its word for them.
        notices: what could not be read, a line each.
        silent: why SLURM did not say what is in its queue; None where it did, or was not concerned.
    """

    experiment: Path
    cells: list[Seen] = field(default_factory=list)
    launched: list[Launch] = field(default_factory=list)
    tasks: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    silent: str | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Cells by state, in the order of :data:`STATES`."""
        counted = Counter(cell.state for cell in self.cells)
        return {state: counted[state] for state in STATES if counted[state]}

    def state_of(self, launch: Launch) -> str:
        """``running``, ``ended``, ``gone`` (it never said that it ended), ``n tasks``, or ``cannot be seen``.

        A launch of another machine is running as long as cells there are.
        """
        if launch.record.get("launcher") == "slurm":
            return self._tasks_of(launch)
        if launch.record.get("ended") is not None:
            return "ended"
        if launch.alive():
            return "running"
        if is_here(launch):
            return "gone"
        host = launch.record.get("host")
        working = any(cell.lock and cell.lock.get("host") == host for cell in self.cells)
        return "running" if working else "cannot be seen"

    def _tasks_of(self, launch: Launch) -> str:
        words = Counter(word.lower() for task, word in self.tasks.items() if task in tasks_of(launch))
        if words:
            return ", ".join(f"{count} {word}" for word, count in words.most_common())
        return "ended" if self.silent is None else "cannot be seen"


def survey(experiment: Path, stale: bool = True) -> list[Seen]:
    """The cells of an experiment, by name; see :func:`look`."""
    return look(experiment, stale).cells


def look(experiment: Path, stale: bool = True, check: bool = False) -> View:
    """One look at an experiment's folder, and at the queue where it has jobs there.

    Args:
        experiment: its folder.
        stale: tell ``stale`` and ``unavailable`` from ``done``, which takes a second file a cell.
        check: hold every byte of finished cells' evaluations against their digest, or in old folders against
            their count, where otherwise the size has to do.

    Raises:
        UserError: where there is no experiment.
    """
    view = View(experiment, launched=launches(experiment))
    queued = _ask_slurm(view)
    standing = _Standing() if stale else None
    unwritten = 0
    for name in _names(experiment):
        cell = _seen(experiment, name, standing, queued, view.notices, check)
        if cell is None:
            unwritten += 1
        else:
            view.cells.append(cell)
    if unwritten:
        view.notices.append(
            f"{unwritten} folder{'s' * (unwritten != 1)} without config.yaml: a launch was interrupted while "
            "writing; launch the same grid again to fill them"
        )
    began = [launch.submitted for launch in view.launched if _awaited(view, launch)]
    since = min(began, default=None)
    view.cells = [_with_coming(cell, since) for cell in view.cells]
    return view


def place(path: Path) -> tuple[Path, str | None]:
    """What people name: an experiment's folder, or a cell's in it.

    Returns:
        The experiment's folder, and the name of the cell's if it was one.

    Raises:
        UserError: for anything else, with the nearest experiments.
    """
    if path.name in ("", ".."):
        path = path.resolve()
    if (path / "cells").is_dir():
        return path, None
    if path.resolve().parent.name == "cells" and path.is_dir():
        cell = path.resolve()
        return Path(os.path.relpath(cell.parent.parent)), cell.name
    known = experiments(path) or sorted(_experiments_below(path.parent, 1))
    what = "no experiment" if path.is_dir() else "no such folder"
    if not known:
        raise UserError(f"{path}: {what}")
    raise UserError(f"{path}: {what}; {nearest(path.name, [found.name for found in known])}")


def experiments(results: Path) -> list[Path]:
    """The folders of experiments in ``results``, by name; one may be called ``a/b``, or ``a/b/c``."""
    return sorted(_experiments_below(results, DEPTH))


def _experiments_below(folder: Path, depth: int) -> Iterator[Path]:
    """What lies in an experiment's folder is not searched: ten thousand cells, for one."""
    try:
        inside = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for path in inside:
        if (path / "cells").is_dir():
            yield path
        else:
            yield from _experiments_below(path, depth - 1) if depth > 1 else ()


def pick(cells: Sequence[Seen], patterns: Iterable[str]) -> list[Seen]:
    """Those that a pattern names: an id, a folder's name or path, or a glob over folders' names.

    Raises:
        UserError: for a pattern that names none.
    """
    chosen: dict[str, Seen] = {}
    for pattern in patterns:
        found = [cell for cell in cells if _named(cell, pattern.rstrip("/").rpartition("/")[2])]
        if not found:
            known = [cell.name if "." in pattern else cell.id for cell in cells]
            raise UserError(f"--cells {pattern}: no such cell; {nearest(pattern, known)}")
        chosen |= {cell.name: cell for cell in found}
    return list(chosen.values())


def title_of(name: str) -> str:
    """``digits · lion · study 0 · trial 0`` for a cell folder's name."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return name
    # A dot between two digits belongs to a number: digits_label_noise=0.2.adamw.
    names = " · ".join(re.split(r"(?<!\d)\.|\.(?!\d)", parts["names"], maxsplit=1))
    return f"{names} · study {parts['study']} · trial {parts['trial']}"


def is_here(launch: Launch) -> bool:
    """Whether this machine would see the launching process if it ran."""
    return runs_here(launch.record) is not None


def tasks_of(launch: Launch) -> dict[str, list[str]]:
    """``"123_4"`` -> names of its cells, for every task of a launch; the follow-up job has none."""
    from runner.cells.slurm_queue import tasks

    return tasks([launch])


def can_ask_slurm() -> bool:
    """Whether this machine has SLURM's commands."""
    return shutil.which("squeue") is not None


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``2 h 10 min``, ``3 d 4 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


# -- one cell ----------------------------------------------------------------------------------------


class _Standing:
    """What :func:`runner.provenance.source.standing` says of finished cells; asked once for each."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], str | None] = {}

    def __call__(self, path: str) -> str | None:
        text = _read(f"{path}/manifest.json")
        found = _SOURCE.search(text)
        if found is None:
            return _standing(path, text)
        files = _FILES.search(text)
        key = found[1], files[1] if files is not None else b""
        if key not in self._known:
            self._known[key] = _standing(path, text)
        return self._known[key]


def _standing(path: str, manifest: bytes) -> str | None:
    return source.standing(_parsed(manifest) or {}, CellFolder(Path(path)).readable_config)


def _names(experiment: Path) -> list[str]:
    try:
        with os.scandir(experiment / "cells") as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise UserError(f"{experiment} cannot be read: {error.strerror}") from error


def _seen(
    experiment: Path,
    name: str,
    standing: _Standing | None,
    queued: Collection[str],
    notices: list[str],
    check: bool,
) -> Seen | None:
    """Agrees with :func:`runner.cells.cell.folder_state`, but for what a queue adds.

    Returns:
        None for the folder of a cell that was never submitted: its launch was cut while it wrote it.
    """
    path = f"{experiment}/cells/{name}"
    text = _read(f"{path}/status.json")
    state, lock = _status_word(text), None
    if state is None:
        if text:
            notices.append(f"{name}: status.json is damaged; counted as pending")
        elif not os.path.exists(f"{path}/config.yaml") and holder(Path(path)) is None:  # noqa: PTH110
            return None
        state, text = "pending", b""
    if state in FINISHED:
        if CellFolder(Path(path)).damage() is not None if check else _cut(path, text):
            state = "damaged"
        elif standing is not None:
            state = standing(path) or state
    elif (lock := holder(Path(path))) is not None:
        state = "running"
    elif state in (*LEFT, "running") and name in queued:
        state = "queued"
    elif state == "running":
        state = "killed"
    return Seen(name, state, text, lock, experiment)


def _cut(path: str, status: bytes) -> bool:
    """Whether evaluations have gone or come since the cell's last word, as far as the file's size tells."""
    try:
        size = os.stat(f"{path}/evals.jsonl").st_size  # noqa: PTH116 - for every finished cell
    except OSError:
        size = None
    recorded = _EVALS_BYTES.search(status)
    if recorded is None:
        return size is None and _EVALS_MADE.search(status) is not None
    return size != int(recorded[1])


def _status_word(text: bytes) -> str | None:
    """The status in a record; None in a damaged one. The records of finished cells are long, and many."""
    quick = _FINISHED.match(text)
    if quick is not None and text.endswith(b"}\n"):
        return quick[1].decode()
    word = (_parsed(text) or {}).get("status")
    return word if word in STATUSES else None


def _read(path: str) -> bytes:
    """A file; empty where it cannot be read. Half the time of pathlib's, which counts here."""
    text = b""
    try:
        handle = no_link(path, os.O_RDONLY)
    except OSError:
        return text
    try:
        while part := os.read(handle, 1 << 16):
            text += part
            if len(part) < 1 << 16:
                break
    except OSError:
        return b""
    finally:
        os.close(handle)
    return text


def _parsed(text: bytes) -> Record | None:
    try:
        value = json.loads(text)
    except UNREADABLE:
        return None
    return value if isinstance(value, dict) else None


def _with_coming(cell: Seen, since: float | None) -> Seen:
    """A local launcher has its cells in memory: those written since it began. It comes back to one whose
    worker has died.
    """
    coming = cell.state in ("running", "queued")
    if cell.state in LEFT and since is not None:
        coming = cell.status.get("updated", 0) >= since - CLOCK_SLACK
    return replace(cell, coming=True) if coming else cell


def _named(cell: Seen, pattern: str) -> bool:
    return pattern in (cell.id, cell.name) or fnmatchcase(cell.name, pattern)


# -- launches ----------------------------------------------------------------------------------------


def _awaited(view: View, launch: Launch) -> bool:
    return launch.record.get("launcher") != "slurm" and view.state_of(launch) == "running"


def _ask_slurm(view: View) -> set[str]:
    """Names of the cells in SLURM's hands; fills the view's tasks."""
    ours = [launch for launch in view.launched if launch.record.get("launcher") == "slurm"]
    if not ours:
        return set()
    if not can_ask_slurm():
        return _unasked(view, "this machine has no squeue")
    from runner.cells import slurm_queue

    answer = slurm_queue.ask(ours)
    if answer.reason is not None:
        return _unasked(view, f"SLURM does not answer: {answer.reason}")
    view.tasks = answer.states
    return set(slurm_queue.by_cell(ours, answer))


def _unasked(view: View, reason: str) -> set[str]:
    view.silent = f"{reason}; cells waiting in its queue are counted as pending"
    view.notices.append(view.silent)
    return set()
