"""``log=wandb``: every cell is a run on Weights & Biases, online where logged in, offline otherwise.

wandb is imported by the first cell that starts, and not at all where ``WANDB_MODE=disabled``. The run's id is
made of cell id and source hash, its step is the number of the evaluation: a cell that goes on from a
checkpoint goes on in its run, and a row that the run has already is not sent again.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.base.errors import one_line
from runner.contract.records import ENDED, CellFolder
from runner.logs import FAULTS, Logger, warn
from runner.logs.reach import bounded, logged_in, reachable

if TYPE_CHECKING:
    import wandb

MODES = ("auto", "online", "offline")
AXES = ("samples", "steps", "seconds")  # what W&B's panels can be drawn over; the first is the default
MANIFEST = ("seed", "source", "git", "packages", "python", "hardware", "data", "host", "job")
LONGEST = 128  # characters of a name
LONGEST_TAG = 64  # and of a job type
FORBIDDEN = frozenset("/\\#?%:")  # in a project's name
GRACE = 5.0  # seconds that wandb may be late for its own timeouts
PREEMPTED = 10.0  # seconds to end in when the batch system wants the machine back

# Quiet, and nothing gathered that the cell's own folder does not hold.
SETTINGS = {
    "console": "off", "quiet": True, "show_info": False, "symlink": False, "use_dot_wandb": False,
    "save_code": False, "disable_code": True, "disable_git": True, "disable_job_creation": True,
    "label_disable": True, "x_save_requirements": False, "finish_timeout_raises": True,
}  # fmt: skip

# Settings that the environment may hold for the one run of a process.
OF_ONE_RUN = ("sweep_id", "launch", "run_id", "fork_from", "resume_from")

_offline_from_now_on = False  # once a server has failed this process, no later cell waits for it


class WandbLogger(Logger):
    """One W&B run a cell.

    Args:
        mode: ``auto``: online where logged in and the server can be reached, otherwise, and in a batch
            system's job, offline.
        project: W&B project.
        entity: W&B team or user; None for the account's default.
        group: runs that W&B shows together; None for the experiment's name.
        tags: on top of workload, algorithm, precision, kind of data and experiment.
        notes: free text.
        system_metrics: let wandb sample CPU, GPU and memory.
        timeout: seconds that W&B may take to begin, and to end, a cell.

    Raises:
        ValueError: for a mode that does not exist, a timeout that is not above 0, a project that W&B refuses,
            or a value of another type.
    """

    def __init__(
        self,
        mode: str = "auto",
        project: str = "time-to-target",
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        system_metrics: bool = False,
        timeout: float = 30.0,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        _check_timeout(timeout)
        _check_texts(project=project, entity=entity, group=group, notes=notes)
        if not project or FORBIDDEN & set(project) or len(project) > LONGEST:
            raise ValueError(
                f"project must have 1 to {LONGEST} characters and none of {' '.join(sorted(FORBIDDEN))}, "
                f"got {project!r}"
            )
        if not isinstance(system_metrics, bool):
            raise ValueError(f"system_metrics must be true or false, got {system_metrics!r}")
        self.mode, self.project, self.entity, self.group = mode, project, entity, group
        self.tags = [tags] if isinstance(tags, str) else list(tags)
        self.notes, self.system_metrics, self.timeout = notes, system_metrics, timeout
        self._run: wandb.Run | None = None
        self._next = 0
        self._superseded: list[Path] = []

    # -- what the cell tells -----------------------------------------------------------------------

    def start(self, cell: CellFolder, resumed: bool) -> None:
        """Open the cell's run; rows from before the checkpoint that the run lacks are sent first."""
        if os.environ.get("WANDB_MODE") == "disabled":
            return
        if os.environ.get("WANDB_SWEEP_ID"):
            warn("WANDB_SWEEP_ID is set: this cell is a run outside the sweep (docs/logging.md)")
        folder = cell.path.resolve().parent.parent / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):  # wandb would go to a temporary folder
            raise PermissionError(f"{folder} cannot be written")
        with _reset_on_fault():
            mode = self._mode()
            if mode != "disabled":
                self._begin(mode, folder, cell, cell.evals() if resumed else [])

    def row(self, row: Mapping[str, Any]) -> None:
        """Send the evaluation, unless the run has it from before a kill."""
        run, step = self._run, row["eval_index"]
        if run is None or step < self._next:
            return
        with _reset_on_fault():
            bounded(self.timeout, lambda: run.log(dict(row), step=step, commit=True))
        self._next = step + 1

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Close the run, with the summary; offline runs that this one contains are removed."""
        run, self._run = self._run, None
        if run is None:
            return
        preempted = summary.get("status") == "preempted"
        seconds = min(self.timeout, PREEMPTED) if preempted else self.timeout + GRACE
        with _reset_on_fault(online=not run.offline):
            bounded(seconds, lambda: _close(run, summary))
        for folder in self._superseded:
            shutil.rmtree(folder, ignore_errors=True)

    # -- how ---------------------------------------------------------------------------------------

    def _mode(self) -> str:
        """``online``, ``offline`` or ``disabled``; no prompt, and no wait for a network that is not there."""
        from runner.machine.machine import (
            job_id,  # and with it torch, which a launcher that checks options needs not
        )

        wandb = _imported()
        settings = self._set_up(wandb).settings
        if settings.mode == "disabled":
            return "disabled"
        # Nodes of a cluster often have no network, and hundreds of jobs at once would be turned away.
        unwanted = self.mode == "auto" and (settings.mode in ("offline", "dryrun") or job_id() is not None)
        if self.mode == "offline" or unwanted or _offline_from_now_on:
            return "offline"
        if not logged_in(settings):
            if self.mode == "online":
                warn(f"not logged in to {settings.base_url} (wandb login, or WANDB_API_KEY): logging offline")
            return "offline"
        if self.mode == "auto" and not reachable(settings.base_url):
            warn(f"{settings.base_url} cannot be reached: logging offline")
            return "offline"
        return "online"

    def _begin(self, mode: str, folder: Path, cell: CellFolder, kept: list[dict[str, Any]]) -> None:
        config, manifest = cell.config(), cell.manifest()
        run_id = f"{config['id']}-{manifest['source']}"
        before = sorted(folder.glob(f"*run-*-{run_id}*"))
        run = self._run = self._open(mode, folder.parent, run_id, config, manifest)
        for axis in AXES:
            run.define_metric(axis)
        run.define_metric("*", step_metric=AXES[0])
        local = [path for path in before if not _uploaded(path)]
        if run.offline and len(local) < len(before):
            # A part is on the server, how much cannot be asked: this folder holds what comes now.
            self._next = len(kept)
        else:
            # This run holds all rows: the server says which it has, and offline it has none.
            self._next, self._superseded = run.starting_step, local
        for row in kept:
            self.row(row)

    def _open(
        self, mode: str, folder: Path, run_id: str, config: dict[str, Any], manifest: dict[str, Any]
    ) -> wandb.Run:
        """A new run, or the one with this id; offline where the server does not let us in."""
        wandb = _imported()
        self._set_up(wandb)
        arguments = self._names(config) | {
            "id": run_id, "resume": "allow", "reinit": "create_new", "dir": str(folder), "mode": mode,
            "config": {**config, "manifest": {k: manifest[k] for k in MANIFEST if k in manifest}},
            "settings": self._settings(),
        }  # fmt: skip
        try:
            run = bounded(self.timeout + GRACE, lambda: wandb.init(**arguments))
        except FAULTS as error:
            if mode == "offline":
                raise
            warn(one_line(f"W&B cannot be used ({type(error).__name__}: {error}): logging offline"))
            reset(online=True)
            return self._open("offline", folder, run_id, config, manifest)
        # wandb's own exit handler waits for its service without a limit: this one comes before it.
        atexit.unregister(reset)
        atexit.register(reset)
        return run

    def _names(self, config: Mapping[str, Any]) -> dict[str, Any]:
        workload, label = config["workload_label"], config["label"]
        facts = (config["workload"].get(key) for key in ("name", "data", "precision"))
        tags = [*self.tags, *(fact for fact in facts if fact), label, config["name"]]
        return {
            "project": self.project,
            "entity": self.entity,
            "name": f"{workload} · {label} · s{config['study']} t{config['trial']}"[:LONGEST],
            "group": (self.group or config["name"])[:LONGEST],
            "job_type": workload[:LONGEST_TAG],
            "tags": list(dict.fromkeys(str(tag)[:LONGEST_TAG] for tag in tags)),
            "notes": self.notes,
        }

    def _set_up(self, wandb: Any) -> Any:
        """What wandb prints of itself follows the settings of the process, not those of the run.

        So does what the environment says of a run (W&B's agent sets ``WANDB_SWEEP_ID``): a cell is a run of
        its own all the same.
        """
        ours = wandb.setup(settings=self._settings())
        for name in OF_ONE_RUN:
            if getattr(ours.settings, name, None):
                setattr(ours.settings, name, None)
        return ours

    def _settings(self) -> wandb.Settings:
        """What this wandb knows of what we want: names of settings come and go."""
        wandb = _imported()
        wanted = SETTINGS | {
            "init_timeout": self.timeout,
            "finish_timeout": self.timeout,
            "x_service_wait": self.timeout,
            "x_disable_stats": not self.system_metrics,
            "x_disable_meta": not self.system_metrics,
            "x_disable_machine_info": not self.system_metrics,
        }
        known = wandb.Settings.model_fields
        return wandb.Settings(**{key: value for key, value in wanted.items() if key in known})


def _check_timeout(timeout: Any) -> None:
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not number or not 0 < timeout < threading.TIMEOUT_MAX:
        raise ValueError(f"timeout must be above 0, got {timeout!r}")


def _check_texts(**texts: Any) -> None:
    for name, value in texts.items():
        if not isinstance(value, str | None):
            raise ValueError(f"{name} must be text, got {value!r}")


def _imported() -> Any:
    # wandb's own telemetry: threads that send, in the process that is being timed.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


def _close(run: wandb.Run, summary: Mapping[str, Any]) -> None:
    run.summary.update(dict(summary))
    if summary.get("status") == "preempted" and not run.offline:
        run.mark_preempting()
    run.finish(exit_code=0 if summary.get("status") in ENDED else 1)


def _uploaded(folder: Path) -> bool:
    """Whether a server has, or may have, what is in a run's folder."""
    return folder.name.startswith("run-") or any(folder.glob("*.synced"))


@contextlib.contextmanager
def _reset_on_fault(online: bool = False) -> Iterator[None]:
    try:
        yield
    except FAULTS:
        reset(online)
        raise


def reset(online: bool = False) -> None:
    """End wandb's service, so that the next cell gets a new one.

    Args:
        online: the fault may be the server's: cells that follow in this process do not wait for it again.
    """
    global _offline_from_now_on
    _offline_from_now_on = _offline_from_now_on or online
    with contextlib.suppress(*FAULTS):
        bounded(GRACE, _imported().teardown)
