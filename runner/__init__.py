"""A benchmark harness and experiment runner for neural-network training algorithms.

``run(["algorithm=lion", "workload=digits"])`` trains one cell and returns its row;
``cells, evals = load("results/demo")`` reads an experiment into two pandas tables.
"""

from __future__ import annotations

import io
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.base.errors import UserError as UserError
    from runner.cells.tables import load as load
    from runner.contract.algorithm import Algorithm as Algorithm
    from runner.contract.batch import Batch as Batch
    from runner.contract.batch import Info as Info
    from runner.contract.task import Task as Task
    from runner.launch.notebook import run as run
    from runner.parts.composed import Composed as Composed

__version__ = "0.1.0"

# A terminal whose encoding lacks a character gets a replacement: every command begins with this import.
for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper):
        _stream.reconfigure(errors="replace")
# Of `python -m runner.…`, Ctrl-C ends the imports without a traceback; runner.base.cli goes on from there.
_module = sys.argv[:1] == ["-m"] and any(re.match(r"(-m)?runner(\.|$)", word) for word in sys.orig_argv)
_module |= sys.argv[0].endswith("/ttt")
if _module and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# Resolved when asked for: `python -m runner --help` imports neither torch nor pandas.
_HOMES = {
    "run": "runner.launch.notebook",
    "load": "runner.cells.tables",
    "Task": "runner.contract.task",
    "Batch": "runner.contract.batch",
    "Info": "runner.contract.batch",
    "Algorithm": "runner.contract.algorithm",
    "Composed": "runner.parts.composed",
    "UserError": "runner.base.errors",
}
__all__ = ["Algorithm", "Batch", "Composed", "Info", "Task", "UserError", "load", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
