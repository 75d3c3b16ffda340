"""How long does it take to import AlgoPerf logs and to score them? ``python -m scripts.bench_import``.

A synthetic tree of run directories, in AlgoPerf's layout and with as many columns as its own, is imported by
the command as a person gives it, a process of its own; then its ``cells.parquet`` is scored in another.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from runner import git
from runner.paths import ROOT

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
SCORE = """
import sys
import pandas as pd
from runner.scoring import medians, scores, study_times
times = medians(study_times(pd.read_parquet(sys.argv[1]), by="seconds"))
print(scores(times, integral="trapezoid"))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4_000)
    parser.add_argument("--evaluations", type=int, default=75, help="per trial")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        logs, results = Path(folder) / "logs", Path(folder) / "results"
        written = tree(logs, options.trials, options.evaluations)
        print(f"{options.trials:,} folders of {options.evaluations:,} rows, {written / 1e6:.0f} MB")
        for _ in range(options.repeats):
            took = seconds("-m", "runner.import_algoperf", str(logs), str(results), "--quiet")
            scored = seconds("-c", SCORE, str(results / "cells.parquet"))
            wall, cpu = (sum(pair) for pair in zip(took, scored, strict=True))
            parts = f"import {took[0]:.2f} s, score {scored[0]:.2f} s"
            print(f"{parts}, together {wall:.2f} s ({cpu:.2f} s of CPU)")
    commit = str(git.facts().get("commit", "?"))[:10]
    cores = len(os.sched_getaffinity(0))
    print(f"commit {commit}, load {os.getloadavg()[0]:.1f}, {cores} of {os.cpu_count()} cores")
    return 0


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


def seconds(*command: str) -> tuple[float, float]:
    """How long ``python COMMAND`` takes, start-up included: by the clock, and of CPU.

    Raises:
        subprocess.CalledProcessError: when it fails.
    """
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


if __name__ == "__main__":
    sys.exit(main())
