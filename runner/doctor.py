"""``python -m runner.doctor``: what this machine is, and what of it will not do, each with its remedy."""

from __future__ import annotations

import argparse
import importlib.util
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from runner.base.cli import add_json, leave, print_json
from runner.base.errors import one_line
from runner.base.paths import expanded
from runner.machine import gpus
from runner.machine.slots import physical_cores, usable_cpus

if TYPE_CHECKING:
    from runner.machine.gpus import Found

Status = Literal["ok", "warning", "wrong"]
LOOKS = {"ok": "green", "warning": "yellow", "wrong": "red"}
ROOM_GB = 5.0  # of free disk, below which a grid's checkpoints may fill it
SKEW_SECONDS = 5.0
NETWORKED = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "fuse.sshfs", "9p", "afs")
EPILOG = """\
exit code: 0, also with warnings; 1 when something is wrong; 2 for bad input
"""


class Finding(NamedTuple):
    """One line: what was looked at, how it is, in words, and what to do about it."""

    what: str
    status: Status
    text: str
    remedy: str = ""


class Asked(NamedTuple):
    """Where to look: the folders of results and of data; and torch's answer, once it is there."""

    results: Path
    data: Path
    torch: Future[Found]


def main(argv: Sequence[str] | None = None) -> int:
    """Look, print, and say by the exit code whether something is wrong."""
    options = _parser().parse_args(argv)
    with ThreadPoolExecutor(1) as pool:  # torch is imported meanwhile, in a process of its own
        asked = Asked(options.results_dir, options.data_dir, pool.submit(gpus.find))
        found = [finding for check in CHECKS for finding in _answers(check, asked)]
    if options.json:
        print_json([finding._asdict() for finding in found])
    else:
        _show(found)
    return int(any(finding.status == "wrong" for finding in found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.doctor",
        description="Report what this machine offers and what will not work on it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--results-dir",
        type=expanded,
        default=Path("results"),
        metavar="FOLDER",
        help="folder for results (default: results)",
    )
    add("--data-dir", type=expanded, default=Path(os.environ.get("BENCH_DATA", "data")), metavar="FOLDER",
        help="folder with data (default: $BENCH_DATA or data)")  # fmt: skip
    add_json(parser)
    return parser


def _answers(check: Callable[[Asked], Iterator[Finding]], asked: Asked) -> list[Finding]:
    """A check that fails is a finding, too."""
    try:
        return list(check(asked))
    except Exception as error:
        what = check.__name__.replace("_", " ")
        return [Finding(what, "wrong", one_line(f"could not be checked: {type(error).__name__}: {error}"))]


def _show(found: Sequence[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from runner.base.terminal import Console

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found:
        mark = f"[{LOOKS[finding.status]}]{finding.status}[/]"
        table.add_row(escape(finding.what), mark, _cell(finding, escape))
    Console().print(table)


def _cell(finding: Finding, escape: Callable[[str], str]) -> str:
    remedy = f" [bold]→ {escape(finding.remedy)}[/]" if finding.remedy else ""
    return escape(one_line(finding.text, 300)) + remedy


# -- what is looked at -------------------------------------------------------------------------------


def cores(_asked: Asked) -> Iterator[Finding]:
    """Cores that cells will get, and threads that torch would take without us."""
    usable = usable_cpus()
    physical = len(physical_cores(usable))
    text = f"{physical} of them to compute on, {len(usable)} logical"
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is not None and threads.isdigit() and int(threads) > len(usable):
        yield Finding(
            "cores", "warning", f"{text}; OMP_NUM_THREADS={threads}", "set it to at most that number"
        )
    else:
        yield Finding("cores", "ok", text)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > len(usable):
        yield Finding("load", "warning", f"{load:.1f} on {len(usable)}: seconds will be marked as contended",
                      "measure on an idle machine")  # fmt: skip


def results_folder(asked: Asked) -> Iterator[Finding]:
    """The file system under the results: writable, exclusive, in time, with room."""
    folder = _existing(asked.results)
    if not os.access(folder, os.W_OK):
        yield Finding(
            "results", "wrong", f"{folder} cannot be written", "choose another with results_dir=FOLDER"
        )
        return
    kind = file_system(folder)
    free = shutil.disk_usage(folder).free / 2**30
    text = f"{asked.results} on {kind or 'an unknown file system'}, {free:,.0f} GB free"
    if free < ROOM_GB:
        yield Finding(
            "results", "warning", text, "free some space, or choose another disk with results_dir=FOLDER"
        )
    elif kind in NETWORKED:
        yield Finding("results", "warning", f"{text}: a network file system",
                      "locks rely on exclusive creation (docs/reliability.md)")  # fmt: skip
    else:
        yield Finding("results", "ok", text)
    if not exclusive(folder):
        yield Finding("locks", "wrong", f"two processes can create one file in {folder}: cells train twice",
                      "choose another disk with results_dir=FOLDER")  # fmt: skip
    skew = clock_skew(folder)
    if abs(skew) > SKEW_SECONDS:
        text = f"the disk's is {skew:+.0f} s from this machine's: locks use one clock, records the other"
        yield Finding("clock", "warning", text, "synchronise them (NTP)")


def data_folder(asked: Asked) -> Iterator[Finding]:
    """What data there is."""
    names = sorted(p.name for p in asked.data.iterdir()) if asked.data.is_dir() else []
    if names:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        yield Finding("data", "ok", f"{asked.data}: {shown}")
    else:
        yield Finding("data", "ok", f"{asked.data} is empty, which is fine for embedded workloads",
                      "python scripts/prepare_data.py --all downloads the rest")  # fmt: skip


def wandb(_asked: Asked) -> Iterator[Finding]:
    """Whether runs would be logged to W&B online."""
    if importlib.util.find_spec("wandb") is None:
        yield Finding("W&B", "warning", "wandb is not installed", "pip install wandb, or log=none")
        return
    import wandb as library

    from runner.logs.reach import logged_in

    settings = library.Settings()
    if settings.mode in ("offline", "dryrun", "disabled"):
        yield Finding("W&B", "ok", f"{settings.mode}, as set in its settings")
    elif logged_in(settings):
        yield Finding("W&B", "ok", f"logged in to {settings.base_url}")
    else:
        yield Finding("W&B", "ok", f"not logged in to {settings.base_url}: runs are logged offline",
                      "wandb login, or log=none")  # fmt: skip


def slurm(_asked: Asked) -> Iterator[Finding]:
    """Whether jobs can be submitted from here."""
    if shutil.which("sbatch") is None:
        yield Finding("SLURM", "ok", "none here (hydra/launcher=local is the default)")
        return
    from runner.cells.slurm_queue import command

    nodes, reason = command(["sinfo", "--noheader", "--format=%D %T"])
    if reason is not None:
        yield Finding(
            "SLURM",
            "warning",
            f"sbatch exists, but sinfo reports: {one_line(reason, 100)}",
            "ask the cluster's administrators",
        )
    else:
        states = ", ".join(line.strip() for line in nodes.splitlines() if line.strip()) or "no nodes"
        yield Finding("SLURM", "ok", f"nodes: {states}")


def torch(asked: Asked) -> Iterator[Finding]:
    """The build, and the instructions of the processor that it uses."""
    found = asked.torch.result()
    if not found.instructions:
        yield Finding("torch", "wrong", f"{found.torch}: {found.why}", "python -c 'import torch' says more")
    else:
        yield Finding(
            "torch", "ok", f"{found.torch}, built for {found.built}, {found.instructions} instructions"
        )


def gpu(asked: Asked) -> Iterator[Finding]:
    """Every GPU that torch knows, and who uses it."""
    found = asked.torch.result()
    use = gpus.uses(found.gpus)
    for one in found.gpus:
        text = f"{one.model}, {one.name}, {one.memory_gb:.0f} GB"
        if one.name not in use:
            yield Finding("GPU", "ok", f"{text}; nvidia-smi does not report who is using it")
        elif use[one.name].processes:
            pids = ", ".join(map(str, use[one.name].processes))
            yield Finding("GPU", "warning", f"{text}, {use[one.name].free_gb:.0f} GB free, used by {pids}",
                          "cells on it will be marked as contended")  # fmt: skip
        else:
            yield Finding("GPU", "ok", f"{text}, {use[one.name].free_gb:.0f} GB free")
    for one in found.unusable:
        yield Finding("GPU", "wrong", f"{one.model} {one.name}: {one.error}", "it is left out")
    if not found.gpus and not found.unusable:
        yield _no_gpu(found)


def _no_gpu(found: Found) -> Finding:
    if gpus.hidden():
        return Finding("GPU", "ok", "hidden by the environment: cells run on the CPU")
    signs = set(gpus.signs_of_one())
    if found.built in signs:
        return Finding("GPU", "wrong", f"there is one, but torch cannot use it: {found.why}",
                       "fix the driver, or use device=cpu")  # fmt: skip
    if signs:
        return Finding("GPU", "warning", f"there is one, but this torch is built for {found.built}",
                       "install a build of torch for it (pytorch.org)")  # fmt: skip
    return Finding("GPU", "ok", "none: cells run on the CPU")


CHECKS = (cores, results_folder, data_folder, slurm, wandb, torch, gpu)  # what needs torch's answer last


# -- the file system -----------------------------------------------------------------------------------


def file_system(folder: Path) -> str:
    """The type of a folder's file system, as /proc/mounts names it; "" where it does not say."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    path, best, kind = str(folder.resolve()), "", ""
    for line in lines:
        _, mount, found, *_ = line.split(" ")
        mount = mount.replace("\\040", " ")
        if len(mount) >= len(best) and (path == mount or path.startswith(mount.rstrip("/") + "/")):
            best, kind = mount, found
    return kind


def exclusive(folder: Path) -> bool:
    """Whether the second of two that create one file is refused, by opening and by linking."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor.") as scratch:
        first, second = Path(scratch, secrets.token_hex(4)), Path(scratch, "other")
        for path in (first, second):
            path.touch(exist_ok=False)
        return all(map(_refused, (lambda: first.touch(exist_ok=False), lambda: second.hardlink_to(first))))


def _refused(create: Callable[[], Any]) -> bool:
    try:
        create()
    except FileExistsError:
        return True
    return False


def clock_skew(folder: Path) -> float:
    """Seconds by which the file system's clock is ahead of this machine's."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor.") as file:
        before = time.time()
        file.write(b"now")
        file.flush()
        return os.fstat(file.fileno()).st_mtime - before


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that there is."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())


if __name__ == "__main__":
    leave(main)
