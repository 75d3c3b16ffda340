"""Shared set-up: one thread a test process, nothing written outside a temporary folder."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "disabled"
os.environ["RUNNER_ALLOW"] = "tests"  # doubles are parts of stored configs
SETTINGS = tempfile.mkdtemp(prefix="runner-tests-settings-")  # of a user who has allowed nothing else
os.environ["XDG_CONFIG_HOME"] = SETTINGS
atexit.register(shutil.rmtree, SETTINGS, ignore_errors=True)
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``python -m <module> <args>`` from a user's point of view, with results under ``tmp_path``."""

    def run(*args: str, module: str = "runner", timeout: float = 300) -> subprocess.CompletedProcess[str]:
        extra = [f"results_dir={tmp_path}"] if module == "runner" else []
        line = [sys.executable, "-m", module, *args, *extra]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=timeout)

    return run
