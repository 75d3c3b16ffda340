"""What a grid of tiny cells costs: warm workers, a process per cell, and Hydra's joblib launcher.

``python -m scripts.bench_grid --cells 200 --workers 2 --per-process-cells 20`` trains the same logistic
regressions in each way, as commands in processes of their own, and prints a Markdown table. Steady figures
leave out the first cell of every worker, and with it the start of the command. docs/benchmarks.md keeps
the results.
"""

from __future__ import annotations

import argparse
import bisect
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.base.errors import one_line
from runner.base.paths import expanded
from runner.contract.records import CellFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parent.parent
SWEEPER = "hydra.sweeper._target_=hydra_plugins.runner_launchers.sweeper.GridSweeper"
NAME = "bench_grid"
WAYS = {"warm": "warm workers", "joblib": "joblib launcher", "process": "a process per cell"}
RATES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
APP = "joblib-app"  # the first argument that makes this module a Hydra application
SAMPLE_SECONDS = 0.2
TRAINING = ("train", "swap", "eval")
MISSING = "left out: hydra-joblib-launcher is not installed (pip install -e '.[dev]')"


@dataclass(frozen=True)
class Grid:
    """A grid of logistic regressions: learning rates times studies.

    Attributes:
        cells: how many; ten learning rates where that divides it, else as many as do.
        budget_samples: drawn per cell, 16 a step.
        overrides: more of the config, for every cell.
    """

    cells: int
    workers: int
    budget_samples: int
    overrides: tuple[str, ...] = ()

    def arguments(self, way: str, results: Path) -> list[str]:
        """What follows ``python -m runner``, or the application that stands in for it."""
        rates = max(k for k in range(1, len(RATES) + 1) if self.cells % k == 0)
        launcher = {
            "warm": ["hydra/launcher=local", f"workers={self.workers}"],
            "process": ["hydra/launcher=local", f"workers={self.workers}", "hydra.launcher.warm=false"],
            "joblib": ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={self.workers}", SWEEPER],
        }[way]
        return [
            "-m", *launcher, f"name={NAME}", f"results_dir={results}", "log=none", "device=cpu",
            "workload=breast_cancer", f"workload.budget_samples={self.budget_samples}",
            "workload.target=null", "workload.eval_every=800", "algorithm=adamw", *self.overrides,
            f"algorithm.optimizer.lr={','.join(map(str, RATES[:rates]))}",
            f"study=range({self.cells // rates})",
        ]  # fmt: skip

    def command(self, way: str, results: Path) -> list[str]:
        """The whole command line."""
        module = ["scripts.bench_grid", APP] if way == "joblib" else ["runner"]
        return [sys.executable, "-m", *module, *self.arguments(way, results)]


# -- Hydra's joblib launcher ---------------------------------------------------------------------------


def has_joblib() -> bool:
    """Whether Hydra's joblib launcher is installed."""
    return importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is not None


def train(_cfg: DictConfig) -> None:
    """One job of the joblib launcher: the same cell, in joblib's process, which stays for the next one."""
    from hydra.core.hydra_config import HydraConfig

    from runner.cells.cell import Cell
    from runner.train.session import run_cell

    # Hydra has composed it; our composing on top adds labels and checks, and takes milliseconds.
    cell = Cell.from_overrides(list(HydraConfig.get().overrides.task))
    cell.submit()
    status = run_cell(cell.folder.path)
    if status["status"] not in ("done", "diverged"):
        raise RuntimeError(status.get("error", status["status"]))


def joblib_app(arguments: Sequence[str]) -> None:
    """``python -m runner`` for a launcher that runs jobs as Hydra does: one function call a job."""
    import hydra

    from runner.base.paths import CONF
    from runner.compose import presets
    from runner.compose.config import register_resolvers
    from scripts.bench_grid import train  # by its module's name, so that workers import it

    sys.argv = ["bench_grid", *arguments]
    register_resolvers()
    presets.register([])
    hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(train)()


# -- the processes of a command ------------------------------------------------------------------------


@dataclass
class Watch:
    """Samples of a command's process tree.

    Attributes:
        peak: the largest sum of resident memory, bytes; pages that processes share count in each.
        times, cpu: when (epoch), and CPU seconds of the tree up to then, ended processes included.
    """

    peak: int = 0
    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def sample(self, root: int) -> None:
        """Look at every process of the tree once."""
        usages = [usage for pid in tree(root) if (usage := _usage(pid)) is not None]
        self.peak = max(self.peak, sum(rss for rss, _ in usages))
        self.times.append(time.time())
        self.cpu.append(sum(cpu for _, cpu in usages))

    def cpu_at(self, moment: float) -> float:
        """CPU seconds up to the first sample at or after ``moment``."""
        return self.cpu[min(bisect.bisect_left(self.times, moment), len(self.cpu) - 1)]


def tree(root: int) -> Iterator[int]:
    """Process ids of ``root`` and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    line = [root]
    while line:
        pid = line.pop()
        yield pid
        line += children.get(pid, [])


def _usage(pid: int) -> tuple[int, float] | None:
    fields = _stat(pid)
    if fields is None:
        return None
    # utime, stime, and those of children that it has waited for
    ticks = sum(map(int, fields[11:15]))
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/<pid>/stat`` from the state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None


def watched(command: Sequence[str], output: Path) -> tuple[float, Watch]:
    """Run a command to its end; returns its wall seconds and what was seen of it.

    Raises:
        RuntimeError: where it fails, with the last line that it printed.
    """
    watch = Watch()
    with output.open("w", encoding="utf-8") as file:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=_env())
        code = None
        while code is None:
            watch.sample(process.pid)
            try:
                code = process.wait(SAMPLE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        seconds = time.perf_counter() - started
    if code != 0:
        lines = output.read_text(encoding="utf-8").strip().splitlines() or ["no output"]
        raise RuntimeError(one_line(f"{' '.join(command[1:4])} … ended with exit code {code}: {lines[-1]}"))
    return seconds, watch


def _env() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    # Byte code that is not kept makes every process compile what it imports: no way to start many of them.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env


# -- measuring -----------------------------------------------------------------------------------------


@dataclass
class Result:
    """One command. Steady figures begin when every worker has ended its first cell; times in ms a cell.

    Attributes:
        seconds: of the whole command.
        slot: steady: from the end of a worker's cell to the end of its next.
        training, warmup: steady: of that, on the clock's accounts: train, swap and eval; warmup.
        cpu: steady: CPU time of all processes, the launcher's too.
        peak_mb: resident memory of all processes, at the most, MB.
        load: average of the last minute when the command ended.
    """

    way: str
    cells: int
    workers: int
    seconds: float
    slot: float
    training: float
    warmup: float
    cpu: float
    peak_mb: float
    load: float

    @property
    def rest(self) -> float:
        """What a cell costs beyond its accounts: its files, its launcher, waiting for either."""
        return self.slot - self.training - self.warmup

    @property
    def whole_rate(self) -> float:
        """Cells per minute of the whole command."""
        return 60 * self.cells / self.seconds

    @property
    def steady_rate(self) -> float:
        """Cells per minute once every worker has had its first."""
        return 60_000 * self.workers / self.slot


def measure(way: str, grid: Grid, folder: Path) -> Result:
    """Run a grid in one of the :data:`WAYS`, its results in ``folder``, which is new.

    Raises:
        RuntimeError: where the command fails, or a cell did not get done.
    """
    folder.mkdir()
    seconds, watch = watched(grid.command(way, folder), folder / "output.txt")
    statuses = [CellFolder(path).status() for path in _cells(folder)]
    done = sorted((s for s in statuses if s["status"] == "done"), key=lambda s: s["updated"])
    if len(done) != grid.cells:
        raise RuntimeError(f"{WAYS[way]}: {len(done)} of {grid.cells} cells are done")
    first, last = warm_since(done, grid.workers), done[-1]["updated"]
    steady = [status for status in done if status["updated"] > first]
    if not steady:
        raise RuntimeError(f"{WAYS[way]}: a worker's first cell was the last to end; set more --cells")
    slot = 1000 * grid.workers * (last - first) / len(steady)
    training = statistics.fmean(sum(_account(s, name) for name in TRAINING) for s in steady)
    warmup = statistics.fmean(_account(s, "warmup") for s in steady)
    cpu = 1000 * (watch.cpu_at(last) - watch.cpu_at(first)) / len(steady)
    load = os.getloadavg()[0]
    shape = grid.cells, grid.workers, seconds
    return Result(way, *shape, slot, training, warmup, cpu, watch.peak / 1e6, load)


def warm_since(done: Sequence[dict[str, Any]], workers: int) -> float:
    """When the last of the first ``workers`` processes ended its first cell; ``done`` is in order."""
    ends: dict[int, float] = {}
    for status in done:
        ends.setdefault(status["pid"], status["updated"])
    return sorted(ends.values())[:workers][-1]


def _cells(folder: Path) -> list[Path]:
    return sorted((folder / NAME / "cells").iterdir())


def _account(status: dict[str, Any], name: str) -> float:
    return 1000 * status["summary"][f"clock/{name}"]


def numbers(folder: Path) -> dict[str, Any]:
    """What the cells under ``folder`` computed, by their names: their evaluations, less every time."""
    return {path.name: [_timeless(row) for row in CellFolder(path).evals()] for path in _cells(folder)}


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "seconds" and not key.startswith("clock/")}


def check_same(folders: Sequence[Path]) -> int:
    """Hold what every way computed against the others; returns how many cells were in all of them.

    Raises:
        RuntimeError: where two differ.
    """
    first, *others = [numbers(folder) for folder in folders]
    shared = set(first).intersection(*others)
    for folder, other in zip(folders[1:], others, strict=True):
        for name in sorted(set(first) & set(other)):
            if first[name] != other[name]:
                raise RuntimeError(f"{name}: {folder.name} and {folders[0].name} got different numbers")
    if not shared:
        raise RuntimeError("no cell is common to all of the ways")
    return len(shared)


# -- reporting -----------------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """Medians over the repeats of each way as a Markdown table; ratios are to a process per cell."""
    lines = [
        "| way | cells | workers | n | seconds | cells a minute, whole | ratio | cells a minute, steady "
        "| ratio | a cell of a worker, ms | train + swap + eval, ms | warm-up, ms | rest, ms "
        "| CPU of all, ms a cell | ratio | peak memory, MB |",
        "|---|" + "--:|" * 15,
    ]
    groups = {way: [r for r in results if r.way == way] for way in WAYS}
    base = groups["process"]
    for way, runs in groups.items():
        if runs:
            lines.append(f"| {WAYS[way]} | {' | '.join(_row(runs, base))} |")
    return "\n".join(lines)


def _row(runs: Sequence[Result], base: Sequence[Result]) -> Iterator[str]:
    yield from (f"{runs[0].cells}", f"{runs[0].workers}", f"{len(runs)}")
    yield f"{_median(runs, lambda r: r.seconds):,.1f}"
    for rate in (lambda r: r.whole_rate, lambda r: r.steady_rate):
        yield f"{_median(runs, rate):,.1f}" + _range([rate(r) for r in runs])
        yield f"{_median(runs, rate) / _median(base, rate):,.1f}×" if base else ""
    for part in (lambda r: r.slot, lambda r: r.training, lambda r: r.warmup, lambda r: r.rest):
        yield f"{_median(runs, part):,.0f}"
    cpu = _median(runs, lambda r: r.cpu)
    yield f"{cpu:,.0f}"
    yield f"{_median(base, lambda r: r.cpu) / cpu:,.1f}×" if base else ""
    yield f"{max(r.peak_mb for r in runs):,.0f}"


def _median(runs: Sequence[Result], of: Callable[[Result], float]) -> float:
    return statistics.median(map(of, runs))


def _range(values: Sequence[float]) -> str:
    return f" ({min(values):,.1f} to {max(values):,.1f})" if len(values) > 1 else ""


def conditions() -> dict[str, Any]:
    """What the numbers were measured on."""
    from runner.machine import machine
    from runner.provenance import git

    versions = {name: importlib.metadata.version(name) for name in ("torch", "hydra-core", "joblib")}
    return {"cpu": machine.cpu_name(), "cores": os.cpu_count(), "torch threads": 1, **versions, **git.facts()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print.

    Returns:
        0; 1 where a command fails or two ways compute different numbers.
    """
    options = _options(argv)
    ways = [way for way in options.ways if way != "joblib" or has_joblib()]
    with tempfile.TemporaryDirectory(prefix="bench_grid.", dir=options.folder) as base:
        try:
            results, same = _measured(options, ways, Path(base))
        except RuntimeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    where = conditions()
    print(table(results))
    if ways != options.ways:
        print(f"\n{WAYS['joblib']}: {MISSING}")
    loads = [r.load for r in results]
    print(f"\n{same} cells in all of the ways, with the same numbers; {options.budget_samples:,} samples "
          f"a cell; load {min(loads):.1f} to {max(loads):.1f}; "
          + ", ".join(f"{key} {value}" for key, value in where.items()))  # fmt: skip
    if options.json is not None:
        record = {"machine": where, "results": [asdict(r) for r in results]}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def _measured(options: argparse.Namespace, ways: Sequence[str], base: Path) -> tuple[list[Result], int]:
    results, folders = [], []
    # Files into memory and byte code onto the disk: a throw-away run, so that the first way pays no more.
    throw_away = Grid(options.workers, options.workers, options.budget_samples, tuple(options.overrides))
    watched(throw_away.command("warm", base / "first"), base / "first.txt")
    for repeat in range(options.repeats):
        # Back and forth, so that a load that comes or goes hits no way alone.
        for way in ways if repeat % 2 == 0 else ways[::-1]:
            cells = options.per_process_cells if way == "process" else options.cells
            grid = Grid(cells, options.workers, options.budget_samples, tuple(options.overrides))
            folders.append(base / f"{way}-{repeat}")
            results.append(measure(way, grid, folders[-1]))
            r = results[-1]
            print(f"{WAYS[way]}: {r.cells} cells in {r.seconds:.1f} s, load {r.load:.1f}",
                  file=sys.stderr, flush=True)  # fmt: skip
    return results, check_same(folders)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_grid", description=__doc__)
    add = parser.add_argument
    add("--cells", type=int, default=200)
    add("--workers", type=int, default=2, help="cells to run at once")
    add("--per-process-cells", type=int, help="fewer cells for the slow way; its rates are compared")
    add("--repeats", type=int, default=1, help="of every way, in turns")
    add("--ways", type=lambda text: text.split(","), default=list(WAYS), help=f"by commas: {','.join(WAYS)}")
    add("--budget-samples", type=int, default=1600, help="of a cell; 16 a step")
    add("--folder", type=expanded, help="where results are written meanwhile; default: the temporary folder")
    add("--json", type=expanded, help="also write the results here")
    add("overrides", nargs="*", help="of the config, for every cell")
    options = parser.parse_args(argv)
    options.per_process_cells = options.per_process_cells or options.cells
    if options.workers < 1 or options.repeats < 1:
        parser.error("--workers and --repeats must be at least 1")
    if min(options.cells, options.per_process_cells) <= options.workers:
        parser.error("--cells and --per-process-cells must be more than --workers")
    if not set(options.ways) <= set(WAYS):
        parser.error(f"--ways must be of {', '.join(WAYS)}")
    return options


if __name__ == "__main__":
    if sys.argv[1:2] == [APP]:
        joblib_app(sys.argv[2:])
    else:
        sys.exit(main())
