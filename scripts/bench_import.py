"""How long does it take to import AlgoPerf logs, to score and to report? ``python -m scripts.bench_import``.

A tree of run directories is imported by the command as a person gives it, a process of its own; then
``runner.score`` makes its board and ``report.html`` in another. The tree is synthetic, in AlgoPerf's layout
and with as many columns as its own; with ``--logs`` it holds copies of real logs, each with other times,
metrics and points. ``--against`` measures another checkout of the project in turns with this one.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.base.paths import ROOT
from runner.importing import logs as archives
from runner.importing.logs import Folders
from runner.importing.notices import Notices

WORKLOADS = {
    "criteo1tb": ("loss", 0.123735),
    "fastmri": ("ssim", 0.723653),
    "imagenet_resnet": ("accuracy", 0.77431),
    "imagenet_vit": ("accuracy", 0.77309),
    "librispeech_conformer": ("wer", 0.085884),
    "librispeech_deepspeech": ("wer", 0.119936),
    "ogbg": ("mean_average_precision", 0.28098),
    "wmt": ("bleu", 30.8491),
}
TIMES = (
    "accumulated_eval_time", "accumulated_logging_time", "accumulated_submission_time", "global_step",
    "preemption_count", "score", "total_duration",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4_000)
    parser.add_argument("--evaluations", type=int, default=75, help="per trial")
    parser.add_argument("--logs", type=Path, help="copies of these logs in place of synthetic ones")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="measured in turns with this one")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    sides = [ROOT, *([options.against.resolve()] if options.against else [])]
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder) / "logs"
        if options.logs:
            print(f"{copies(options.logs, logs, options.trials):,} folders, copies of {options.logs.name}")
        else:
            written = tree(logs, options.trials, options.evaluations)
            print(f"{options.trials:,} folders of {options.evaluations:,} rows, {written / 1e6:.0f} MB")
        runs = {side: [] for side in sides}
        for turn in range(options.repeats):
            for side in sides[:: -1 if turn % 2 else 1]:
                runs[side].append(run(side, logs, Path(folder) / f"results{turn}{sides.index(side)}"))
    print("| commit | import, CPU s | score and report, CPU s | together | wall, s |\n|---|--:|--:|--:|--:|")
    for side in sides:
        print(f"| {_commit(side)} | {' | '.join(map(_median, zip(*runs[side], strict=True)))} |")
    cores = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"
    print(f"medians (range) of {options.repeats}; load {os.getloadavg()[0]:.1f}, {cores}")
    return 0


def run(side: Path, logs: Path, results: Path) -> tuple[float, float, float, float]:
    """CPU seconds of the import, of score with report, of both; seconds of both by the clock."""
    imported = seconds(side, "-m", "runner.import_logs", str(logs), str(results), "--quiet")
    scored = seconds(side, "-m", "runner.score", str(results), "--by", "seconds")
    return imported[1], scored[1], imported[1] + scored[1], imported[0] + scored[0]


def copies(source: Path, logs: Path, trials: int) -> int:
    """Real logs over and over under other names, until there are so many trials; how many there are."""
    found = archives.read(source, Notices())
    shared = len(source.resolve().parent.parts) + 1
    count = 0
    for copy in range(-(-trials // len(found))):
        count += _copy(found, shared, logs, copy)
    return count


def _copy(found: Folders, shared: int, logs: Path, copy: int) -> int:
    for parts, files in found.items():
        *above, submission, study, workload, trial = parts[shared:]
        folder = logs.joinpath(*above, f"{submission}_{copy}", study, workload, trial)
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(_changed(name, content, folder, copy))
    return len(found)


def _changed(name: str, content: bytes, folder: Path, copy: int) -> bytes:
    """A file of a copy: its evaluations by a factor and some noise, its point the same in every study."""
    if name == "hparams.json":
        draw = random.Random(f"{copy} {folder.name}")
        point = {key: _near(value, draw, 0.3) for key, value in json.loads(content or b"{}").items()}
        return json.dumps(point, indent=2).encode()
    if name != "eval_measurements.csv":
        return content
    draw = random.Random(str(folder.parts[-5:]))
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    slower = draw.lognormvariate(0, 0.1)
    for row in rows:
        row["score"] = row["accumulated_submission_time"] = str(float(row["score"]) * slower)
        row |= {key: str(_near(float(row[key]), draw, 0.002)) for key in row if "/" in key and row[key]}
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


def _near(value: Any, draw: random.Random, spread: float) -> Any:
    return value * draw.lognormvariate(0, spread) if isinstance(value, float) else value


def tree(logs: Path, trials: int, evaluations: int) -> int:
    """Run directories of 5 studies of 5 trials on 8 workloads each; how many bytes."""
    draw, written = random.Random(0), 0
    for number in range(trials):
        workload = list(WORKLOADS)[number // 25 % 8]
        place = f"submission_{number // 200}/study_{number // 5 % 5}/{workload}_jax/trial_{number % 5 + 1}"
        folder = logs / "external_tuning" / place
        folder.mkdir(parents=True)
        metric, target = WORKLOADS[workload]
        files = {
            "eval_measurements.csv": _evaluations(draw, metric, target, evaluations, number // 200),
            "hparams.json": json.dumps({"learning_rate": draw.random(), "weight_decay": draw.random()}),
            "meta_data_0.json": _metadata(metric, target),
        }
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
            written += len(text)
    return written


def _evaluations(draw: random.Random, metric: str, target: float, count: int, order: int) -> str:
    metrics = [
        f"{split}/{m}" for split in ("test", "train", "validation") for m in ("num_examples", "extra", metric)
    ]
    header = [*TIMES, *metrics]
    random.Random(order).shuffle(header)
    lines = [",".join(header)]
    last = 1.05 if metric in ("loss", "wer") else 0.95  # of the target, where there is no luck
    for k in range(1, count + 1):
        row = {name: k * 100 * (1 + 0.01 * draw.random()) for name in TIMES} | {"global_step": k * 500}
        row["score"] = row["accumulated_submission_time"] = k * 100 + draw.random()
        row |= {name: target * (1 + (last - 1) * count / k + 0.1 * draw.gauss(0, 1)) for name in metrics}
        lines.append(",".join(str(row[name]) for name in header))
    return "\n".join(lines) + "\n"


def _metadata(metric: str, target: float) -> str:
    gpus = {f"gpu.{k}.{what}": 0.05 * k for k in range(8) for what in ("util", "total", "used", "temp")}
    goal = {"workload.target_metric_name": metric, "workload.validation_target_value": target}
    return json.dumps({**gpus, **goal, "gpu_model_name": "V100", "gpu_count": 8}, indent=2)


def seconds(side: Path, *command: str) -> tuple[float, float]:
    """How long ``python COMMAND`` takes in a checkout, start-up included: by the clock, and of CPU.

    Raises:
        subprocess.CalledProcessError: when it fails.
    """
    start, before = time.perf_counter(), os.times()
    environment = os.environ | {"PYTHONPATH": str(side)}
    subprocess.run(
        [sys.executable, *command], check=True, cwd=side, env=environment, stdout=subprocess.DEVNULL
    )
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _commit(side: Path) -> str:
    command = ["git", "-C", str(side), "describe", "--always", "--dirty", "--abbrev=10"]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
