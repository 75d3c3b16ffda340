"""Get the data of workloads ready, where there is a network: download, verify, build once, report.

    python scripts/prepare_data.py mnist cifar10
    python scripts/prepare_data.py --all --data-dir /scratch/data

Compute nodes often have no network: run this on the login node first. What is there and right is left alone,
so it can be repeated, and run twice at once. Exit code: 0 all are ready, 1 one is not, 2 bad input.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.base.cli import leave
from runner.base.errors import UserError, nearest, one_line
from runner.base.files import read_json
from runner.base.paths import expanded
from runner.compose import presets
from runner.compose.config import compose, hydra_ready

LONGEST = 1000  # characters of an error


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare every workload asked for; a line each, and one that fails stops no other."""
    arguments = _parser().parse_args(argv)
    try:
        with hydra_ready(arguments.config_dir):
            names = _names(arguments)
            good = [_prepare_one(name, arguments) for name in names]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0 if all(good) else 1


def report(name: str, data_dir: Path | None = None, config_dirs: Sequence[Path] = ()) -> str:
    """Prepare one workload and build it; what there is now, on a line.

    Raises:
        UserError: when its data cannot be had, or is not what it should be.
    """
    started = time.perf_counter()
    config = compose([f"workload={name}"], config_dirs)
    root = Path(config["data_dir"]) if data_dir is None else data_dir
    opened = _opened_files()
    opened.clear()
    rows = _rows(config["workload"], root)
    return f"{rows}; {_files(opened, root)}; {time.perf_counter() - started:.1f} s"


def _prepare_one(name: str, arguments: argparse.Namespace) -> bool:
    from rich.console import Console

    try:
        with Console(stderr=True).status(f"{name} …"):
            line = report(name, arguments.data_dir, arguments.config_dir)
    except UserError as error:
        problem = str(error)
    except Exception as error:  # of a workload of the user's own, say
        problem = f"{type(error).__name__}: {error}"
    else:
        print(f"{name}: ready: {line}", flush=True)
        return True
    print(f"error: {name}: {one_line(problem, LONGEST)}", file=sys.stderr, flush=True)
    return False


def _names(arguments: argparse.Namespace) -> list[str]:
    known = list(presets.workloads(arguments.config_dir))
    for name in arguments.workloads:
        if name not in known:
            raise UserError(f"unknown workload {name!r}: {nearest(name, known)}")
    names = list(dict.fromkeys(arguments.workloads))
    if arguments.all:
        names += [name for name in known if name not in names and _is_real(name, arguments.config_dir)]
    if not names:
        raise UserError("which workloads? Give their names, or --all for those with real data")
    return names


def _is_real(name: str, config_dirs: Sequence[Path]) -> bool:
    return compose([f"workload={name}"], config_dirs)["workload"].get("data") == "real"


def _rows(config: dict[str, Any], root: Path) -> str:
    """``train 55,000, validation 5,000, test 10,000 rows`` of a workload that could be built."""
    import torch

    from runner.contract.instantiate import build_part

    workload = build_part("workload", config, prefix="")
    workload.prepare(root)
    task, evaluate = workload.build(0, torch.device("cpu"))
    sizes = {"train": task.data.n} | {name: stream.n for name, stream in task.aux.items()}
    sizes |= {name: len(split) for name, split in evaluate.splits.items()}
    return ", ".join(f"{name} {rows:,}" for name, rows in sizes.items()) + " rows"


def _files(opened: Sequence[str], root: Path) -> str:
    """``2 files of 3.5 MB, checksums ok``: of the files that were opened, those that lie under ``root``."""
    paths = {Path(name).resolve() for name in opened}
    files = [p for p in paths if p.is_relative_to(root.resolve()) and p.is_file() and p.name[0] != "."]
    if not files:
        return "no files"
    unchecked = sum(not _is_checked(path) for path in files)
    checks = f"{unchecked} without a recorded checksum" if unchecked else "checksums ok"
    size = sum(path.stat().st_size for path in files) / 1e6
    return f"{len(files)} {'file' if len(files) == 1 else 'files'} of {size:,.1f} MB, {checks}"


def _is_checked(path: Path) -> bool:
    from workloads.datafiles import STAMPS

    stamp = (read_json(path.parent / STAMPS) or {}).get(path.name, {})
    return stamp.get("size") == path.stat().st_size and stamp.get("mtime_ns") == path.stat().st_mtime_ns


@functools.cache
def _opened_files() -> list[str]:
    """Names of the files that this process opens from now on: a workload need not say which are its own."""
    names: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            names.append(os.fsdecode(arguments[0]))

    sys.addaudithook(note)
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("workloads", nargs="*", metavar="workload", help="any name that workload= takes")
    add("--all", action="store_true", help="every workload with real data")
    add("--data-dir", type=expanded, help="where data lies; default: as for the runner, $BENCH_DATA or data")
    add("--config-dir", "-cd", action="append", default=[], type=expanded,
        help="a folder of your own workloads")  # fmt: skip
    return parser


if __name__ == "__main__":
    leave(main, tidies=True)
