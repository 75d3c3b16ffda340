"""Text from elsewhere does nothing to a terminal: no command prints a control character of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.base.files import read_json, write_json
from runner.base.plain import plain
from runner.base.terminal import Console
from tests.conftest import ROOT
from tests.experiments import write_cell

HOSTILE = "a\x1b[31mb\x1b]0;title\x07c\x9b2Jd\u202ee\u2066f\r\x08g\x00h\x7fi\u2028j"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028]")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two algorithms, one with a hostile name, and a cell that failed with a hostile word."""
    experiment = tmp_path_factory.mktemp("hostile") / "exp"
    for study in range(2):
        write_cell(experiment, "adamw", study=study, at=1000.0)
        write_cell(experiment, HOSTILE, study=study, at=500.0, id=f"{study:010x}")
    write_cell(experiment, "sgd", status="failed", error=HOSTILE, id="ab" * 5)
    launch = experiment / "jobs/20260101T000000-abcdef/job.json"
    launch.parent.mkdir(parents=True)
    write_json(launch, {"launcher": HOSTILE, "host": HOSTILE, "submitted": 0, "ended": 1})
    return experiment


def said(module: str, *args: object, colours: bool = False) -> str:
    env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    env |= {"FORCE_COLOR": "1"} if colours else {}
    line = [sys.executable, "-m", module, *map(str, args)]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, env=env, timeout=120)
    return (ended.stdout + ended.stderr).decode()


@pytest.mark.parametrize(
    ("module", "args"),
    [
        ("runner.status", ["--once", "--cells"]),
        ("runner.score", ["--no-report"]),
        ("runner.compare", ["adamw", HOSTILE.replace("\0", "")]),
        ("runner.retry", ["--dry-run"]),
    ],
)
def test_commands_print_none(experiment: Path, module: str, args: list[str]) -> None:
    text = said(module, experiment, *args)
    assert "Traceback" not in text and not CONTROL.search(text), text


def test_colours_of_ones_own_stay(experiment: Path) -> None:
    text = said("runner.status", experiment, "--once", "--cells", colours=True)
    assert COLOURS.search(text) and "a[31mb" in text
    assert not CONTROL.search(COLOURS.sub("", text))


def test_a_board_from_elsewhere(experiment: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "results/leaderboards/embedded-v1", tmp_path / "board")
    record = read_json(tmp_path / "board/board.json") or {}
    write_json(tmp_path / "board/board.json", {**record, "headline": [HOSTILE], "missing": [HOSTILE]})
    text = said("runner.score", tmp_path / "board")
    assert "a[31mb" in text and not CONTROL.search(text)


def test_plain_text_keeps_its_lines() -> None:
    assert plain("a\tb\nc · é 漢 🙂\u200d") == "a\tb\nc · é 漢 🙂\u200d"
    assert plain(HOSTILE) == "a[31mb]0;titlec2Jdefghij"


def test_a_table_is_plain_in_this_process_too(capsys: pytest.CaptureFixture[str]) -> None:
    Console().print(HOSTILE, markup=False)
    assert capsys.readouterr().out == "a[31mb]0;titlec2Jdefghij\n"


BAR = """
from rich.progress import Progress
from runner.base.cli import open_streams
from runner.base.terminal import Console
open_streams()
with Progress(console=Console(stderr=True, force_terminal=True)) as bars:
    bars.advance(bars.add_task("half", total=2))
    print("printed \\x1b[31mbeside\\x9b2J")
"""


def test_a_progress_bar_moves_and_what_is_printed_beside_it_is_plain() -> None:
    done = subprocess.run([sys.executable, "-c", BAR], cwd=ROOT, capture_output=True, timeout=60, check=True)
    shown = done.stderr.decode() + done.stdout.decode()
    assert "\x1b[?25l" in shown and re.search(r"half .*\x1b\[[0-9;]*m", shown)
    assert "beside2J" in shown and "\x9b" not in shown
    assert not re.search(r"(?<!\x1b)\[[0-9;?]+[hlmKA]", shown)  # no half of a sequence
