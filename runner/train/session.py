"""Run one cell from its folder: the entry that every launcher uses.

The folder's ``config.yaml`` is all that is read: editing ``conf/`` never changes a queued cell.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from runner.base.errors import UserError, described, one_line, text_of
from runner.cells.lock import Lock, LostLock
from runner.cells.superseded import kept
from runner.contract.algorithm import Algorithm
from runner.contract.diagnostic import Diagnostics
from runner.contract.generators import seed_globals
from runner.contract.instantiate import build_part
from runner.contract.records import FINISHED, CellFolder
from runner.contract.seeding import cell_seed
from runner.contract.task import Task
from runner.logs import Logger, open_logger
from runner.machine import machine
from runner.machine.residue import Residue, named
from runner.provenance import data_files, source, trust
from runner.train import checkpoint
from runner.train.clock import Clock
from runner.train.loop import Alarm, Evaluate, Loop, Plan, Unsound
from runner.train.warmup import warm_up

TRACE = 50_000  # characters of a traceback that are kept, from its beginning and from its end
COMPILING = 10  # times the patience with a model that is compiled on the way
NO_MEMORY = re.compile(
    r"out of memory|ALLOC(ATION)?_FAILED|can(no|')t allocate memory|Error(MemoryAllocation|OutOfMemory)", re.I
)
NOT_REPRODUCIBLE = re.compile(r"(\S+) does not have a deterministic implementation")
UNREPRODUCIBLE = "workload.deterministic=true: torch has no bit-reproducible {} here: use deterministic=false"
OURS = ("runner", "torch")  # packages whose modules keep what they like
AT_A_HIT = ("samples", "seconds", "steps", "drawn", "eval_index")  # what a summary says of it

Notify = Callable[[dict[str, Any]], None]
Ask = Callable[[dict[str, Any]], str | None]


def patience() -> float:
    """Seconds beyond ``max_seconds`` for which a cell may be silent; ``RUNNER_PATIENCE`` changes it."""
    return float(os.environ.get("RUNNER_PATIENCE", "120"))


def run_cell(
    path: Path,
    notify: Notify = lambda _event: None,
    alarm: Alarm | None = None,
    shared: bool = False,
    ask: Ask = lambda _row: None,
) -> dict[str, Any]:
    """Train the cell in ``path`` to its end, or to a signal; everything it produces lands in the folder.

    A cell that is finished, or that another process works on, is left alone.

    Args:
        path: the cell's folder, with its ``config.yaml``.
        notify: gets progress events: ``{"event": "row" | "heartbeat" | "notice" | "within", ...}``; the last
            says within how many ``seconds`` the next one comes, if the cell does not hang.
        alarm: rung by the caller's signal handlers; None: handlers of our own while the cell runs.
        shared: others compute on the same device meanwhile: the cell counts as contended.
        ask: gets every evaluation; a word in return stops the cell there, with that word as its reason.

    Returns:
        The status record, as written; with ``elsewhere`` where another process works on the cell, with
        ``left`` where the cell has changed this process in a way that would change later cells, and that
        cannot be put back: what. Failures are recorded, not raised.
    """
    try:
        lock = Lock.acquire(path, machine.job_id())
    except FileNotFoundError:
        return {"status": "running", "elsewhere": True, "error": "another process is moving it"}
    except OSError as error:
        return {"status": "failed", "error": one_line(f"its folder cannot be locked: {error}")}
    if lock is None:
        return {"status": "running", "elsewhere": True, "error": "another process is training it"}
    with lock:
        folder = CellFolder(path, lock)
        residue = Residue()
        try:
            if not folder.config_file.exists():
                return {
                    "status": "running",
                    "elsewhere": True,
                    "error": "another process is about to write it",
                }
            if (status := folder.status())["status"] in FINISHED:
                folder.tidy()
                return status
            status = _run_locked(folder, lock, notify, alarm, shared, ask, residue)
        except LostLock as error:
            status = {"status": "running", "elsewhere": True, "error": str(error)}
        except OSError as error:
            status = {"status": "failed", "error": one_line(f"its folder cannot be used: {error}")}
        finally:
            with contextlib.suppress(OSError):
                folder.close()
        return status | _cleared(residue)


def _cleared(residue: Residue) -> dict[str, str]:
    left = residue.clear()
    if residue.settled:
        print(f"restored after the cell: {named(residue.settled)}", file=sys.stderr, flush=True)
    return {"left": named(left)} if left else {}


def _run_locked(
    folder: CellFolder,
    lock: Lock,
    notify: Notify,
    alarm: Alarm | None,
    shared: bool,
    ask: Ask,
    residue: Residue,
) -> dict[str, Any]:
    cell, problem = None, None
    try:
        cell = CellRun(folder, folder.config(), notify, alarm or Alarm(), shared, ask, residue)
        lock.progress = cell.progress
        with cell.signals() if alarm is None else contextlib.nullcontext():
            cell.run()
    except LostLock:
        raise
    except BaseException as error:  # whatever a method raises: the worker has other cells to train
        problem = failure(error)
    status = _recorded(folder, problem)
    if cell is not None:  # after the cell's own records: whatever happens in there, they stand
        facts = {key: status[key] for key in ("status", "error") if key in status}
        with residue.kept():
            cell.logger.finish(facts | status.get("summary", {}))
    return kept(folder, status)


def failure(error: BaseException) -> dict[str, Any]:
    """What a cell's status says about an exception, and its traceback."""
    trace, text = _trace(error), text_of(error)
    if isinstance(error, KeyboardInterrupt):
        return {"status": "preempted", "error": "interrupted", "traceback": trace}
    if _out_of_memory(error):
        return {"status": "oom", "error": text or "out of memory", "traceback": trace}
    if isinstance(error, UserError):
        return {"status": "failed", "error": text, "traceback": trace, "user_error": True}
    if found := NOT_REPRODUCIBLE.search(text):
        said = UNREPRODUCIBLE.format(found[1])
        return {"status": "failed", "error": said, "traceback": trace, "user_error": True}
    return {"status": "failed", "error": described(error), "traceback": trace}


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether memory was lacking, here or where this comes from: each of CUDA's libraries says it its way."""
    if error is None:
        return False
    says = isinstance(error, (RuntimeError, OSError)) and NO_MEMORY.search(str(error)) is not None
    lacking = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return says or lacking or _out_of_memory(error.__cause__)


def _trace(error: BaseException) -> str:
    """The traceback, of one that is endless both ends."""
    trace = "".join(traceback.format_exception(error))
    return trace if len(trace) <= 2 * TRACE else f"{trace[:TRACE]}\n[…]\n{trace[-TRACE:]}"


def _recorded(folder: CellFolder, problem: dict[str, Any] | None) -> dict[str, Any]:
    """The status on disk; where the disk does not take it, what it would have been."""
    last = folder.status()
    if problem is None or last["status"] in FINISHED:  # what goes wrong behind the last word changes nothing
        return last
    try:
        folder.fail(**problem)
    except OSError as error:
        known = {key: value for key, value in problem.items() if key != "traceback"}
        return {**known, "error": one_line(f"{problem['error']} (and not recorded: {error})")}
    return folder.status()


class CellRun:
    """One cell on its way: what the loop needs, built from the config, and where it reports to."""

    def __init__(
        self,
        folder: CellFolder,
        config: dict[str, Any],
        notify: Notify,
        alarm: Alarm,
        shared: bool,
        ask: Ask,
        residue: Residue,
    ) -> None:
        self.folder, self.config, self.notify, self.ask = folder, config, notify, ask
        self.residue = residue
        self._reason: str | None = None  # why it stopped early
        self.alarm, self.shared = alarm, shared
        self._training_since: tuple[float, int] | None = None
        self.device = torch.device(config["device"])
        self.seed = cell_seed(config["workload"]["name"], config["study"], config["trial"])
        self.logger: Logger = open_logger(None)

    def run(self) -> None:
        """Build, warm up, resume if there is a checkpoint, train, record."""
        config, folder = self.config, self.folder
        self._will_speak()
        self._configure()
        machine.reset_peak_memory(self.device)
        folder.discard(folder.error_file)
        folder.set_status("running", **self._where())
        source.reach(folder.manifest().get("paths"))
        self.residue.configured()
        trust.check_parts(config)
        sources = self._import()
        clock = Clock(machine.synchronizer(self.device))
        workload = build_part("workload", config["workload"], prefix="")
        workload.prepare(Path(config["data_dir"]))
        compile_seconds = self._warm_up(workload)

        self._begin(workload, clock)
        made_by = {"source": source.combined(sources), "sources": sources}
        made_by["files"] = data_files.stamps(config)
        folder.update_manifest(machine.facts(self.device, workload) | made_by | self._found())
        with self.residue.kept():
            self.logger = open_logger(config.get("log"))
        resumed = self._resume(workload)
        task = self.loop.task
        self._training_since = time.time(), task.cost.drawn
        with self.residue.kept():
            self.logger.start(folder, resumed)
        usage = machine.Usage()
        ended = self._train()
        self._finish(ended, compile_seconds, usage)

    def _found(self) -> dict[str, Any]:
        """What set-up found out by itself, such as how a loss is called: in the log, and for the manifest."""
        found = self.loop.algorithm.found()
        for kind, text in found.items():
            print(f"{kind}: {text}", file=sys.stderr, flush=True)
        return {"found": found} if found else {}

    def _configure(self) -> None:
        workload = self.config["workload"]
        precision = workload.get("precision", "fp32")
        if precision == "tf32":
            machine.refuse_tf32(self.device)
        machine.configure(self.config["threads"], workload.get("deterministic", False), precision)

    def _will_speak(self) -> None:
        """Tell the launcher how long a silence is too long: longer than all of training may take."""
        if self.config["max_seconds"] is not None:
            wait = patience() * (COMPILING if self.config["workload"].get("compile") else 1)
            self.notify({"event": "within", "seconds": self.config["max_seconds"] + wait})

    def _import(self) -> dict[str, str]:
        """Import the cell's parts, all at once; returns module -> hash of the source that runs."""
        parts = set(source.targets(self.config))
        for name in parts:
            with contextlib.suppress(Exception):  # whoever builds the part says what is wrong
                importlib.import_module(name)
        # Between submission and now, in a queue perhaps, the code may have been edited: what runs counts.
        sources = source.loaded_hashes(self.config)
        self.residue.imported(name for name in {*sources, *parts} if name.partition(".")[0] not in OURS)
        return sources

    def _fresh(self, workload: Any) -> tuple[Task, Evaluate, Algorithm]:
        """The cell as it begins, before set-up; the same each time."""
        seed_globals(self.seed)
        task, evaluate = workload.build(self.seed, self.device)
        return task, evaluate, self._algorithm(task)

    def _train(self) -> str:
        try:
            return self.loop.run()
        except Unsound as error:
            whose, ours = self.config["workload_label"], self.config["label"]
            raise UserError(
                f"workload {whose}: {error} before the first step: check its rows and its model (or what "
                f"{ours} does to the model)"
            ) from error

    def _begin(self, workload: Any, clock: Clock) -> None:
        """The loop of the cell as it begins, its algorithm set up."""
        task, evaluate, algorithm = self._fresh(workload)
        clock.switch("setup")
        task.model.train()
        algorithm.setup(task)
        clock.switch("log")
        self._tell(algorithm.notices)
        diagnostics = self._diagnostics(workload, algorithm)
        self.loop = self._loop(task, algorithm, evaluate, clock, workload.eval_every, diagnostics)

    def _tell(self, notices: Sequence[str]) -> None:
        for text in notices:
            self.notify({"event": "notice", "text": text})
        if notices:
            self.folder.update_manifest({"notices": list(notices)})

    def _algorithm(self, task: Task) -> Algorithm:
        algorithm: Algorithm = build_part("algorithm", self.config["algorithm"], prefix="")
        reason = algorithm.compatible(task.info)
        if reason is not None:
            pair = f"algorithm {self.config['label']} cannot train workload {self.config['workload_label']}"
            raise UserError(f"{pair}: {reason}")
        return algorithm

    def _warm_up(self, workload: Any) -> float:
        steps = self.config.get("warmup_steps", 3)
        if not steps:
            return 0.0
        task, _, algorithm = self._fresh(workload)
        return warm_up(task, algorithm, steps)

    def _diagnostics(self, workload: Any, algorithm: Algorithm) -> Diagnostics:
        specs = self.config.get("diagnostics") or {}
        parts = {name: build_part(name, spec, prefix="diagnostics.") for name, spec in specs.items()}

        def rebuild() -> tuple[Task, Algorithm]:
            task, _, again = self._fresh(workload)
            task.model.train()
            again.setup(task)
            return task, again

        return Diagnostics(parts, algorithm, rebuild)

    def _loop(
        self,
        task: Task,
        algorithm: Algorithm,
        evaluate: Evaluate,
        clock: Clock,
        eval_every: int,
        diagnostics: Diagnostics,
    ) -> Loop:
        config = self.config
        plan = Plan(eval_every, config["stop_at_target"], config["max_seconds"], config["checkpoint_every"])
        return Loop(task, algorithm, evaluate, plan, clock, self, self.alarm, diagnostics=diagnostics)

    # -- what the loop tells -----------------------------------------------------------------------

    def row(self, row: dict[str, Any]) -> str | None:
        """Record an evaluation, tell the logger and the launcher, and ask whether to go on."""
        self.folder.append_eval(row)
        self.logger.row(row)
        info = self.loop.task.info
        metric = f"validation/{info.metric}"
        self.notify({"event": "row", "drawn": row["drawn"], "budget": info.budget_samples,
                     "steps": row["steps"], "metric": info.metric, "value": row[metric],
                     "target": info.target})  # fmt: skip
        self._reason = self.ask(row)
        return self._reason

    def heartbeat(self, steps: int, drawn: int) -> None:
        """Tell the launcher that training goes on."""
        self.notify({"event": "heartbeat", "steps": steps, "drawn": drawn,
                     "budget": self.loop.task.info.budget_samples})  # fmt: skip

    def checkpoint(self) -> None:
        """Write the checkpoint, then say so in the status; a full disk is no reason to stop training."""
        self.folder.guard()
        state = {**self._origin(), **checkpoint.snapshot(self.loop)}
        try:
            checkpoint.save(self.folder.checkpoint_file, state, self.folder.stage)
            self.folder.set_status("running", **self._where(), **self._reached())
        except OSError as error:
            print(f"warning: could not write a checkpoint: {error}", file=sys.stderr, flush=True)

    def progress(self) -> dict[str, Any]:
        """How far training is, for the lock's heartbeat, which asks from a thread of its own."""
        if self._training_since is None:
            return {}
        since, drawn = self._training_since
        return {**self._reached(), "since": since, "drawn_at_start": drawn}

    def _reached(self) -> dict[str, int]:
        task = self.loop.task
        return {"steps": task.cost.steps, "drawn": task.cost.drawn, "budget": task.info.budget_samples}

    def _resume(self, workload: Any) -> bool:
        """Take up a checkpoint of this very cell and source; otherwise start from nothing, and say why."""
        folder = self.folder
        if folder.checkpoint_file.exists():
            try:
                self._take_up()
                return True
            except checkpoint.Unusable as error:
                self._start_over(workload, f"cannot resume from the checkpoint ({error}): starting over")
        folder.discard(folder.evals_file)
        return False

    def _take_up(self) -> None:
        folder = self.folder
        state = checkpoint.load(folder.checkpoint_file, self._origin())
        try:
            rows = state["progress"]["rows"]
            checkpoint.restore(self.loop, state)
        except Exception as error:  # whatever it is, it is not what this cell has written
            traceback.print_exc()
            raise checkpoint.Unusable(one_line(described(error), 120)) from error
        if len(folder.evals()) < rows:
            raise checkpoint.Unusable(f"only {len(folder.evals())} of its {rows} evaluations are there")
        folder.keep_evals(rows)
        folder.update_manifest({"resumes": folder.manifest().get("resumes", 0) + 1})

    def _origin(self) -> dict[str, Any]:
        """What a checkpoint has to come from, if this cell is to go on from it."""
        made_by = self.folder.manifest()
        return {"id": self.config["id"], "source": made_by.get("source"), "data": made_by.get("data")}

    def _start_over(self, workload: Any, why: str) -> None:
        print(f"warning: {why}", file=sys.stderr, flush=True)
        self.notify({"event": "notice", "text": why})
        self.folder.update_manifest({"started_over": why})
        self.folder.discard(self.folder.checkpoint_file)
        self._begin(workload, Clock(machine.synchronizer(self.device)))  # the checkpoint's own may be half in

    # -- the end -----------------------------------------------------------------------------------

    def _finish(self, ended: str, compile_seconds: float, usage: machine.Usage) -> None:
        loop, folder = self.loop, self.folder
        where = self._where() | self._reached()
        if ended == "preempted":
            folder.set_status("preempted", **where)
            return
        loop.clock.switch("log")
        summary = summarise(loop, ended, compile_seconds) | usage.facts(self.config["threads"])
        summary |= machine.peak_memory(self.device)
        summary["contended"] |= self.shared
        if ended == "stopped":
            folder.set_status("stopped", **where, reason=self._reason, summary=summary)
            return
        status = "diverged" if ended == "diverged" else "done"
        folder.finish(status, **where, summary=summary)
        folder.tidy()

    def _where(self) -> dict[str, Any]:
        return {"host": machine.host(), "pid": os.getpid(), "job": machine.job_id()}

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGUSR1 ask for a checkpoint and a stop; a second SIGINT stops at once."""

        def ring(number: int, _frame: object) -> None:
            if self.alarm.preempted and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.alarm.ring()
            if number == signal.SIGINT:  # print() may not be re-entered
                os.write(2, b"interrupted: ending the step, then saving (Ctrl-C again to stop immediately)\n")

        names = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        before = {}
        with contextlib.suppress(ValueError):  # not the main thread: nobody signals this one
            before = {name: signal.signal(name, ring) for name in names}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)


def summarise(loop: Loop, ended: str, compile_seconds: float) -> dict[str, Any]:
    """The row of a finished cell: when it hit, how good it became, what it cost.

    A miss has no hit columns; tables read them as infinite.
    """
    info, cost, clock, hit = loop.task.info, loop.task.cost, loop.clock, loop.progress.hit
    summary: dict[str, Any] = {
        "ended": ended,
        "hit": hit is not None,
        "metric": info.metric,
        "target": info.target,
        "minimize": info.minimize,
        "open_division": loop.algorithm.open_division,
        "uses_metrics": loop.algorithm.uses_metrics,
        "evals": loop.progress.rows,
        "steps": cost.steps,
        "drawn": cost.drawn,
        "samples": cost.samples,
        "seconds": clock.charged,
        "wall_seconds": clock.wall,
        "compile_seconds": compile_seconds,
        **{f"cost/{k}": v for k, v in cost.state_dict().items() if k not in ("drawn", "steps")},
        **{f"clock/{account}": seconds for account, seconds in clock.accounts.items()},
    }
    if loop.past_budget:
        summary["rows_past_budget"] = cost.drawn - info.budget_samples  # where no hit counts
    if hit is not None:
        summary |= {f"{unit}_to_target": hit[unit] for unit in AT_A_HIT}
        summary[f"test/{info.metric}_at_target"] = hit.get(f"test/{info.metric}")
    return summary


def main() -> int:
    """``python -m runner.train.session FOLDER``: run one cell, in a batch script or a debugger."""
    if len(sys.argv) != 2:
        print("usage: python -m runner.train.session FOLDER", file=sys.stderr)
        return 2
    started = time.perf_counter()
    status = run_cell(Path(sys.argv[1]))
    print(
        one_line(f"{status['status']} after {time.perf_counter() - started:.1f} s {status.get('error', '')}")
    )
    return 0 if status["status"] in ("done", "diverged") else 1


if __name__ == "__main__":
    sys.exit(main())
