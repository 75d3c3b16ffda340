"""What a command imports, and the worker that starts before the launcher has imported anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.base.paths import ROOT
from runner.launch import ahead
from runner.launch.pool import Worker

HEAVY = ("torch", "torch._dynamo", "sklearn", "scipy", "scipy.stats", "pandas", "pyarrow", "numpy",
         "matplotlib", "wandb", "submitit", "torchvision", "hydra", "rich", "sympy")  # fmt: skip
TABLES = {"numpy", "pandas", "pyarrow", "rich", "scipy", "scipy.stats"}
# Verb and arguments -> which of them it may have imported in the end; {tmp} is a folder.
MAY: dict[str, set[str]] = {
    "runner --help": {"hydra", "rich"},
    "runner --cfg job": {"hydra", "rich"},
    "runner -m algorithm=adamw,lion workload=digits dry_run=true results_dir={tmp}": {"hydra", "rich"},
    "runner.status {tmp}": {"rich"},
    "runner.methods lion": {"rich"},
    "runner.score results/leaderboards/embedded-v1 --no-report": TABLES,
    "runner hydra/launcher=inline algorithm=sgd workload=breast_cancer log=none results_dir={tmp}":
        {"hydra", "rich", "torch", "torch._dynamo", "numpy", "sympy"},
}  # fmt: skip
SHOW = """
import runpy, sys
verb, *sys.argv = sys.argv[1:]
sys.argv.insert(0, verb)
try:
    runpy.run_module(verb, run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code
print("MODULES", code, *sorted(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("line", MAY)
def test_a_command_imports_what_it_needs_and_no_more(line: str, tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    words = [word.format(tmp=tmp_path) for word in line.split()]
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *words], capture_output=True, encoding="utf-8", cwd=ROOT, timeout=300
    )
    code, *modules = done.stderr.rpartition("MODULES")[2].split()
    assert code == "0", done.stderr
    assert set(HEAVY) & set(modules) <= MAY[line]


@pytest.mark.parametrize(
    ("line", "here"),
    [
        ("", True),
        ("algorithm=lion workload=digits study=3", True),
        ("-m algorithm=lion,adamw then=score", True),
        ("--help", False),
        ("--cfg job workload=digits", False),
        ("-m algorithm=lion,adamw dry_run=true", False),
        ("-m hydra/launcher=slurm", False),
        ("-m +experiment=linked", False),
        ("-m --config-dir conf algorithm=lion", False),
    ],
)
def test_only_what_surely_trains_here_starts_a_worker_ahead(line: str, here: bool) -> None:
    assert ahead.trains_here(line.split()) is here


@pytest.mark.parametrize("end", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_worker_that_nobody_takes_ends_with_the_command(end: type[BaseException]) -> None:
    with pytest.raises(end), ahead.started(["workload=digits"]):
        (worker,) = ahead._first
        assert worker.alive()
        raise end
    assert not worker.alive()


def test_the_first_to_ask_gets_the_worker_that_was_started_ahead() -> None:
    with ahead.started(["workload=digits"]):
        (started,) = ahead._first
        taken, other = ahead.worker(), ahead.worker()
    try:
        assert taken is started and isinstance(other, Worker) and other is not started and taken.alive()
    finally:
        taken.close()
        other.close()


def test_bad_input_is_one_line_and_leaves_no_process() -> None:
    mark = f"FIRST_SECOND_{os.getpid()}"
    command = [sys.executable, "-m", "runner", "workload=nope"]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", cwd=ROOT, env={**os.environ, mark: "1"}, timeout=300
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert not _marked(mark)


def test_ctrl_c_in_the_first_second_leaves_no_process(tmp_path: Path) -> None:
    mark = f"FIRST_SECOND_{os.getpid()}"
    command = [sys.executable, "-m", "runner", "workload=digits", f"results_dir={tmp_path}"]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, mark: "1"}, stderr=subprocess.PIPE
    ) as process:
        while not _marked(mark, b"runner.launch.worker"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    assert not _marked(mark)


def _marked(mark: str, command: bytes = b"") -> list[str]:
    """Processes with that variable in their environment whose command line holds ``command``."""
    return [path.name for path in Path("/proc").glob("[0-9]*") if _has(path, mark, command)]


def _has(process: Path, mark: str, command: bytes) -> bool:
    try:
        marked = mark.encode() in (process / "environ").read_bytes()
        return marked and command in (process / "cmdline").read_bytes()
    except OSError:  # it has ended
        return False
