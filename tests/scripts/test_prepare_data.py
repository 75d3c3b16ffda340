"""Getting data ready: a line each, failures apart, and two at once in nobody's way."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import ROOT

CONTENT = "".join(f"{row % 2} 1:{row}.5 3:{row * row}\n" for row in range(2000)).encode()
PIECES = 10  # that the slow server sends a file in


class Slow(SimpleHTTPRequestHandler):
    """Sends a file in pieces, with pauses between them, once so many have asked for it."""

    requests: list[str]
    together: threading.Barrier
    pause = 0.05

    def do_GET(self) -> None:
        type(self).requests.append(self.path)
        self.together.wait(timeout=120)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        size = -(-len(CONTENT) // PIECES)
        for start in range(0, len(CONTENT), size):
            self.wfile.write(CONTENT[start : start + size])
            self.wfile.flush()
            time.sleep(self.pause)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Slow.requests, Slow.together = [], threading.Barrier(1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory="."))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def own(tmp_path: Path, server: ThreadingHTTPServer) -> list[str]:
    """Arguments for a folder of own workloads: ``mine``, whose file is on the server, and ``broken``."""
    url, sha256 = f"http://127.0.0.1:{server.server_port}/mine", hashlib.sha256(CONTENT).hexdigest()
    (tmp_path / "mine.py").write_text(
        "from workloads.logreg import LogReg\n"
        f"class Mine(LogReg):\n    known = {{'libsvm/mine': ({url!r}, {sha256!r})}}\n"
        "class Broken(LogReg):\n    def load(self, root):\n        raise KeyError('a fault\\nof its own')\n"
    )
    folder = tmp_path / "conf" / "workload"
    folder.mkdir(parents=True)
    logreg = (ROOT / "conf" / "workload" / "logreg.yaml").read_text()
    for name in ("mine", "broken"):
        text = logreg.replace("workloads.logreg.LogReg", f"mine.{name.title()}").replace(
            "name: logreg", f"name: {name}"
        )
        text = text.replace("file: libsvm/a9a", "file: libsvm/mine").replace("${.file}.t", "null")
        (folder / f"{name}.yaml").write_text(text)
    return ["--config-dir", str(tmp_path / "conf"), "--data-dir", str(tmp_path / "data")]


def start(
    tmp_path: Path, *arguments: str, script: tuple[str, ...] = ("scripts/prepare_data.py",)
) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    environment = {**os.environ, "PYTHONPATH": path, "no_proxy": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, *script, *arguments]
    return subprocess.Popen(line, cwd=ROOT, env=environment, text=True, stdin=-1, stdout=-1, stderr=-1)


def finish(process: subprocess.Popen[str], say: str = "") -> tuple[int, list[str], list[str]]:
    out, errors = process.communicate(say, timeout=300)
    return process.returncode, out.splitlines(), errors.splitlines()


def test_a_line_each_and_a_failure_stops_no_other(tmp_path: Path, own: list[str]) -> None:
    process = start(tmp_path, "broken", "mine", "breast_cancer", "mine", *own)
    code, out, errors = finish(process)
    assert code == 1 and errors == ["error: broken: KeyError: 'a fault\\nof its own'"]
    assert len(out) == 2
    assert out[0].startswith(
        "mine: ready: train 1,600, validation 200, test 200 rows; 1 file of 0.0 MB, checksums ok; "
    )
    rows = re.match(
        r"breast_cancer: ready: train (\d+), validation (\d+), test (\d+) rows; no files; ", out[1]
    )
    assert rows is not None and sum(map(int, rows.groups())) == 569
    assert (tmp_path / "data" / "libsvm" / "mine").read_bytes() == CONTENT


FORKS = """
import os, sys
import sklearn.datasets, torch, workloads.logreg
from scripts.prepare_data import main

def start():
    child = os.fork()
    if not child:
        code = main(sys.argv[1:])
        sys.stdout.flush()
        os._exit(code)
    return child

first = start()
print(first, flush=True)
os.waitpid(first, 0)
sys.stdin.readline()
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in (start(), start())])
"""


def test_two_at_once_behind_one_that_was_killed_leave_a_whole_file(tmp_path: Path, own: list[str]) -> None:
    process = start(tmp_path, "mine", *own, script=("-c", FORKS))
    assert process.stdin is not None and process.stdout is not None
    first = int(process.stdout.readline())
    while not Slow.requests:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(first, signal.SIGKILL)
    folder = tmp_path / "data" / "libsvm"
    assert not (folder / "mine").exists()
    left, Slow.together = set(folder.iterdir()), threading.Barrier(2)
    Slow.requests.clear()
    code, out, errors = finish(process, say="go on\n")
    assert code == 0 and out[-1] == "[0, 0]" and not errors
    # Two processes print to one pipe: their lines may come together.
    assert len(Slow.requests) == 2 and "".join(out).count("checksums ok") == 2
    assert (folder / "mine").read_bytes() == CONTENT
    assert {path.name for path in set(folder.iterdir()) - left} == {"mine", ".verified.json"}


def test_an_unknown_name_prepares_nothing_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, scripts.prepare_data as p\n"
        f"codes = [p.main(['digits', 'minst', '--data-dir', {str(tmp_path / 'data')!r}]), p.main([])]\n"
        "print(codes, [m for m in ('torch', 'sklearn', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[2, 2] []\n"
    unknown, none = done.stderr.splitlines()
    assert unknown == "error: unknown workload 'minst': did you mean mnist?" or "mnist" in unknown
    assert none.startswith("error: which workloads?") and "--all" in none
    assert not (tmp_path / "data").exists()


def test_all_means_those_with_real_data() -> None:
    from runner.compose import presets
    from scripts.prepare_data import _names, _parser

    names = _names(_parser().parse_args(["digits", "--all"]))
    assert names[0] == "digits" and {"mnist", "fashion_mnist", "logreg"} <= set(names)
    assert not set(names[1:]) & set(presets.embedded())
