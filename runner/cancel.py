"""``python -m runner.cancel results/<name>``: end the experiment's jobs and launchers; nothing is lost.

Cells save themselves: ``runner.retry``, or the command that launched them, goes on from the checkpoints.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.base.cli import leave
from runner.base.errors import UserError
from runner.base.paths import expanded
from runner.cells.launches import Launch
from runner.cells.survey import Seen, View, is_here, look, pick, place, tasks_of
from runner.compose.commands import command
from runner.launch.display import plural

WAIT = 60.0  # seconds for launchers to save their cells


@dataclass
class Plan:
    """What is to be ended.

    Attributes:
        tasks: SLURM's arrays or tasks, as scancel takes them.
        launchers: of this machine.
        lines: what is said before, and what cannot be done from here.
        blocked: something cannot be ended from here.
    """

    tasks: list[str] = field(default_factory=list)
    launchers: list[Launch] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    blocked: bool = False

    def cannot(self, line: str) -> None:
        """Note what cannot be ended from here."""
        self.lines.append(line)
        self.blocked = True


def main(argv: Sequence[str] | None = None) -> int:
    """Cancel.

    Returns:
        0 when everything asked for has ended (or was told to, in SLURM's hands), 1 when something goes on,
        2 for bad input.
    """
    options = _parser().parse_args(argv)
    try:
        experiment, only = place(options.folder)
        view = look(experiment, stale=False)
        patterns = [*options.cells, *([only] if only else [])]
        return _carry_out(
            _plan(view, pick(view.cells, patterns) if patterns else None), experiment, options.yes
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.cancel",
        description="Stop an experiment's SLURM jobs and its launchers here; cells save checkpoints first.",
    )
    parser.add_argument("folder", type=expanded, help="results/<name>, or the folder of one cell")
    parser.add_argument(
        "--cells", nargs="+", default=[], metavar="GLOB_OR_ID", help="only the jobs of these cells"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    return parser


def _carry_out(plan: Plan, experiment: Path, sure: bool) -> int:
    for line in plan.lines:
        print(line)
    if not plan.tasks and not plan.launchers:
        print(f"{experiment}: nothing {'else ' if plan.lines else ''}to cancel")
        return int(plan.blocked)
    if not sure and sys.stdin.isatty() and not _agreed():
        print("nothing was cancelled")
        return 1
    good = all([_cancel_tasks(plan.tasks), _interrupt(plan.launchers)])  # both, whatever the first says
    print("to resume from the checkpoints, launch the same command again, or")
    print(f"  {command('runner.retry', experiment)}")
    return 0 if good and not plan.blocked else 1


def _agreed() -> bool:
    try:
        return input("Cancel? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        return False


def _plan(view: View, cells: Sequence[Seen] | None) -> Plan:
    """What to end; ``cells`` None: all of it."""
    plan = Plan()
    if view.silent is not None:
        plan.cannot(view.silent)
    for launch in view.launched:
        if launch.record.get("launcher") == "slurm":
            _plan_tasks(plan, view, launch, cells)
        else:
            _plan_launcher(plan, view, launch, cells)
    _plan_others(plan, view, cells)
    return plan


def _plan_tasks(plan: Plan, view: View, launch: Launch, cells: Sequence[Seen] | None) -> None:
    ours = {task: names for task, names in tasks_of(launch).items() if task in view.tasks}
    if cells is None:
        # Whole arrays, and the job that follows them.
        ids = list(dict.fromkeys(task.partition("_")[0] for task in ours))
        then = launch.record.get("then")
        if then and f"{then['id']}_0" in view.tasks:
            ids = list(dict.fromkeys([*ids, str(then["id"])]))
        found, others = ids, 0
    else:
        wanted = {cell.name for cell in cells}
        found = [task for task, names in ours.items() if wanted & set(names)]
        others = sum(len(set(ours[task]) - wanted) for task in found)
    if found:
        count = f"{plural(len(ours if cells is None else found), 'task')} of SLURM: {', '.join(found[:8])}"
        plan.lines.append(count + (", …" if len(found) > 8 else ""))
        if others:
            plan.lines.append(f"  {plural(others, 'other cell')} in the same tasks will stop too")
    plan.tasks += found


def _plan_launcher(plan: Plan, view: View, launch: Launch, cells: Sequence[Seen] | None) -> None:
    state = view.state_of(launch)
    host, pid = launch.record.get("host"), launch.record.get("pid")
    name = f"the {launch.record.get('launcher')} launcher on {host}, process {pid}"
    if state in ("ended", "gone"):
        return
    if state == "cannot be seen":
        plan.lines.append(f"{name}, may still be running: check, and cancel, on that machine")
    elif not is_here(launch):
        plan.cannot(f"{name}, cannot be reached from here: run the same command there")
    elif cells is not None:
        if any(cell.coming for cell in cells):
            plan.cannot(f"{name}, can only be cancelled as a whole: omit --cells")
    else:
        plan.lines.append(name)
        plan.launchers.append(launch)


def _plan_others(plan: Plan, view: View, cells: Sequence[Seen] | None) -> None:
    """Cells that somebody trains without a launch of this experiment: a notebook, say."""
    hosts = {launch.record.get("host") for launch in view.launched if view.state_of(launch) == "running"}
    live = {name for launch in view.launched for name in _names(view, launch)}
    for cell in view.cells if cells is None else cells:
        lock = cell.lock
        if lock is None or lock.get("host") in hosts or cell.name in live:
            continue
        who = f"job {lock['job']}" if lock.get("job") else f"process {lock.get('pid')}"
        plan.cannot(f"{cell.title}: {who} on {lock.get('host')} was not launched by this experiment")


def _names(view: View, launch: Launch) -> list[str]:
    """Cells in the tasks of a launch that SLURM knows."""
    return [name for task, names in tasks_of(launch).items() if task in view.tasks for name in names]


def _cancel_tasks(tasks: Sequence[str]) -> bool:
    if not tasks:
        return True
    from runner.cells.slurm_queue import cancel

    problem = cancel(tasks)
    print(
        f"scancel: {problem}"
        if problem
        else f"cancelled {', '.join(tasks[:8])}{', …' if len(tasks) > 8 else ''}"
    )
    return problem is None


def _interrupt(launchers: Iterable[Launch]) -> bool:
    """Ctrl-C for the launchers; waits until their cells have saved themselves."""
    told = [launch for launch in launchers if _signal(launch)]
    deadline = time.monotonic() + WAIT
    while any(launch.alive() for launch in told) and time.monotonic() < deadline:
        time.sleep(0.1)
    slow = [launch for launch in told if launch.alive()]
    for launch in told:
        pid = launch.record["pid"]
        print(f"process {pid} {'is still saving its cells' if launch in slow else 'has ended'}")
    return not slow


def _signal(launch: Launch) -> bool:
    if not launch.alive():  # it has ended while the question stood
        return False
    try:
        os.kill(launch.record["pid"], signal.SIGINT)
    except ProcessLookupError:
        return False
    except PermissionError:
        raise UserError(f"process {launch.record['pid']} belongs to another user") from None
    return True


if __name__ == "__main__":
    leave(main, tidies=True)
