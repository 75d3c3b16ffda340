"""Compressed gradients of unlike workers: error feedback against EControl."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scripts.claims._claim import Claim, Row, Run, grouped, mean, spread, table, values

SHOWN = {"sgd": "uncompressed", "ef": "EF", "ef21": "EF21", "econtrol": "EControl"}
STALLS = 10  # times EControl's gradient
SETTING = """Logistic regression on a9a, with its 29,305 training rows sorted by label and split among
five workers: three have only negative rows, one has a fifth of positive rows, and one has only positive
rows. In each step, a worker sends its largest coordinate out of 124. SGD without momentum at a constant
learning rate; η is 1e-3. EControl and EF21 send their first gradient in full.

Norm of the gradient over all training rows after 2,000 steps, with each worker's full shard at every step
(deterministic, n = 1), and megabytes sent by all workers:"""
LOSSES = "Validation loss after 10,000 steps of 32 rows per worker, mean (range) of three studies:"


def evidence(runs: Sequence[Run]) -> Iterable[Row]:
    """Where each run ended: gradient norm (of all rows, where a step sees all), loss, bytes."""
    rows = [
        {
            "rows_a_step": "all" if "batch_size=29305" in run.cell["workload"] else "160",
            "method": run.cell["label"].split("[")[0].split("+")[0],
            "lr": run.setting("lr"),
            "study": run.cell["study"],
            "grad_norm": run.along("diag/grad_norm")[-1],
            "validation_loss": run.along("validation/loss")[-1],
            "megabytes": run.cell["cost/bytes_sent"] / 1e6,
        }
        for run in runs
    ]
    return sorted(rows, key=lambda row: tuple(row.values())[:4])


def judge(rows: Sequence[Row]) -> str:
    """Final gradient norms with whole shards, final validation losses with 32 rows a worker."""
    whole = [row for row in rows if row["rows_a_step"] == "all"]
    part = grouped((row for row in rows if row["rows_a_step"] != "all"), "method", "lr")
    rates = sorted({row["lr"] for row in rows})
    norm = {(row["method"], row["lr"]): row["grad_norm"] for row in whole}
    times = [norm["ef", lr] / norm["econtrol", lr] for lr in rates]
    behind = [norm["econtrol", lr] / norm["sgd", lr] for lr in rates]
    best = {method: min(mean(part[method, lr], "validation_loss") for lr in rates) for method in SHOWN}
    verdict = (
        f"{'Reproduced' if min(times) > STALLS else 'Reproduced in part'}: with full shards, error feedback "
        f"ends at "
        f"a gradient {min(times):.1f} to {max(times):.1f} times EControl's, which is {min(behind):.2f} to "
        f"{max(behind):.2f} times that of uncompressed gradients. With 32 rows per worker, the best "
        f"validation losses "
        f"are {', '.join(f'{best[method]:.4f} ({name})' for method, name in SHOWN.items())}."
    )
    sent = {method: mean(own, "megabytes") for method, own in grouped(whole, "method").items()}
    norms = [
        (name, *(f"{norm[method, lr]:.1e}" for lr in rates), f"{sent[method]:.2f}")
        for method, name in SHOWN.items()
    ]
    losses = [
        (name, *(spread(values(part[method, lr], "validation_loss")) for lr in rates))
        for method, name in SHOWN.items()
    ]
    head = ["", *(f"lr {lr:g}" for lr in rates)]
    lines = [verdict, "", SETTING, "", table([*head, "MB"], norms), "", LOSSES, "", table(head, losses)]
    return "\n".join(lines)


CLAIM = Claim(
    "error_feedback",
    "Error feedback stalls if workers' data differ; EControl converges",
    "EControl: Fast Distributed Optimization with Compression and Error Control (2023), arXiv 2311.05645 "
    "(abstract):\n"
    "error feedback fails under heterogeneous data, EControl converges without assumptions on it.",
    evidence,
    judge,
)
