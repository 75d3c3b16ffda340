"""Modular addition without weight decay: softmax, StableMax and ⊥Grad."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scripts.claims._claim import Claim, Row, Run, grouped, table

TARGET = 0.95
SOFTMAX, STABLEMAX, PERPGRAD = "softmax", "StableMax", "softmax, ⊥Grad"
LONG, EVERY = 100, 10  # runs with more evaluations than LONG keep every tenth
HEAD = ("pairs", "method", "study", "epochs", "to 95 %", "accuracy", "training loss", "gradient of softmax")
NOTES = """The paper's network and AdamW (lr 0.01, ε 1e-25, no weight decay, constant), full batches,
float32; StableMax's loss in float64, as in the paper. β₂ is 0.999, with ⊥Grad 0.99. The paper's main runs
train on 40 % of the pairs, some others on 70 %. The table shows the end of each run and the number of
epochs until validation accuracy reached 95 %; runs on 40 % stop there. The last column is the norm of the
softmax loss's gradient on the training rows, whichever loss is trained. A 0 is exact: no row would change
the weights under softmax any more."""


def evidence(runs: Sequence[Run]) -> Iterable[Row]:
    """Validation accuracy, training loss and gradient norm along each run."""
    for run in sorted(runs, key=lambda run: (_share(run), _method(run), run.cell["study"])):
        for place, row in enumerate(run.evals):
            if len(run.evals) > LONG and place % EVERY and row is not run.evals[-1]:
                continue
            yield {
                "share": _share(run),
                "method": _method(run),
                "study": run.cell["study"],
                "epochs": row["steps"],
                "validation": row["validation/accuracy"],
                "train_loss": row["train/loss"],
                "grad_norm": row["diag/grad_norm"],
            }


def judge(rows: Sequence[Row]) -> str:
    """Epochs to 95 % validation accuracy, and where the runs ended."""
    runs = grouped(rows, "share", "method", "study").values()
    last = [
        run[-1] | {"hit": next((row["epochs"] for row in run if row["validation"] >= TARGET), 0)}
        for run in runs
    ]
    parts = [_told(share, name, own) for (share, name), own in grouped(last, "share", "method").items()]
    lines = [
        (f"{row['share']:.0%}", str(row["method"]), str(row["study"]), f"{row['epochs']:,}",
         f"{row['hit']:,}" if row["hit"] else "", f"{row['validation']:.4f}", f"{row['train_loss']:.1e}",
         f"{row['grad_norm']:.1e}")
        for row in last
    ]  # fmt: skip
    verdict = f"{_lead(last)}: {'; '.join(parts)}."
    return "\n".join([verdict, "", NOTES, "", table(HEAD, lines)])


def _lead(last: Sequence[Row]) -> str:
    by_method = grouped(last, "method")
    generalised = {name: all(row["hit"] for row in own) for name, own in by_method.items()}
    if generalised[SOFTMAX] or not generalised[PERPGRAD]:
        return "Not reproduced"
    if generalised[STABLEMAX]:
        return "Reproduced"
    apart = all(
        min(row["validation"] for row in own[STABLEMAX]) > 2 * max(row["validation"] for row in own[SOFTMAX])
        for own in (grouped(rows, "method") for rows in grouped(last, "share").values())
    )
    return "Reproduced in part, StableMax only in direction" if apart else "Reproduced in part"


def _told(share: float, name: str, last: Sequence[Row]) -> str:
    hit = [row["hit"] for row in last if row["hit"]]
    where = f"{name} on {share:.0%} of the pairs"
    if not hit:
        ends, epochs = sorted(row["validation"] for row in last), max(row["epochs"] for row in last)
        span = f"{ends[0]:.3f}" if len(ends) == 1 else f"{ends[0]:.3f} to {ends[-1]:.3f}"
        return f"{where} ends at a validation accuracy of {span} after {epochs:,} epochs"
    when = f"{min(hit):,}" if min(hit) == max(hit) else f"{min(hit):,} to {max(hit):,}"
    return f"{where} generalises in {len(hit)} of {len(last)} runs, after {when} epochs"


def _share(run: Run) -> float:
    return 0.7 if "train_fraction=0.7" in run.cell["workload"] else 0.4


def _method(run: Run) -> str:
    label = run.cell["label"]
    return STABLEMAX if "stablemax" in label else PERPGRAD if "perpgrad" in label else SOFTMAX


CLAIM = Claim(
    "modular_addition",
    "Without weight decay, softmax stalls on modular addition; StableMax and ⊥Grad generalise",
    "Prieto et al. 2025, arXiv 2501.04697: without regularisation float32 softmax never generalises here;\n"
    "StableMax does within 80,000 epochs, AdamW with ⊥Grad within 300 (run lines of the authors' code).",
    evidence,
    judge,
)
