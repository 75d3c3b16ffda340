"""Tables for reports: hand-made cells and evaluations, hostile names among them."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from runner.boards.inputs import Inputs

EVIL = "<script>alert('x')</script>\"&\n--><img src=x onerror=alert(1)>\x01" + "ä" * 250


def tables(
    labels: Sequence[str] = ("adamw", "lion", "sgd"),
    workloads: Sequence[str] = ("digits", "text"),
    studies: int = 5,
    trials: int = 3,
    points: int = 12,
    seed: int = 0,
    missing: float = 0.25,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells that hit at a point of the grid, a share of them missing; later algorithms are slower."""
    rng = np.random.default_rng(seed)
    cells: list[dict[str, Any]] = []
    evals: list[dict[str, Any]] = []
    for w, workload in enumerate(workloads):
        minimize = bool(w % 2)
        for speed, label in enumerate(labels):
            for study in range(studies):
                for trial in range(1, trials + 1) if trials > 1 else [0]:
                    miss = rng.random() < missing
                    at = points if miss else int(np.clip(rng.integers(3, 7) + speed, 1, points - 1))
                    cell = f"c{len(cells)}"
                    goal = 0.9 if not minimize else 0.1
                    for k in range(at + (not miss)):
                        value = 0.9 * k / at if at else 0.9
                        value = goal if k == at else min(value, 0.89)
                        value = value if not minimize else 1.0 - value if k < at else goal
                        evals.append({
                            "id": cell, "eval_index": k, "drawn": 100 * k, "samples": 100.0 * k,
                            "steps": 10 * k,
                            "seconds": 0.5 * k, "validation/accuracy": value if not minimize else np.nan,
                            "validation/loss": value if minimize else np.nan, "diag/grad_norm": 1.0 / (k + 1),
                        })  # fmt: skip
                    cells.append({
                        "id": cell, "workload": workload, "label": label, "study": study, "trial": trial,
                        "status": "done", "hit": not miss, "metric": "loss" if minimize else "accuracy",
                        "minimize": minimize, "target": goal, "ended": "budget" if miss else "target",
                        "best_metric": (0.89 if not minimize else 0.11) if miss else goal,
                        "budget": 100 * points,
                        "samples_to_target": np.inf if miss else 100.0 * at,
                        "seconds_to_target": np.inf if miss else 0.5 * at,
                        "steps_to_target": np.inf if miss else 10.0 * at,
                        "eval_index_to_target": np.nan if miss else at,
                        "samples": 100.0 * at, "seconds": 0.5 * at, "steps": 10 * at, "clock/train": 0.4 * at,
                        "clock/eval": 0.1 * at, "data": "embedded",
                        "ruleset": "external_tuning" if trials > 1 else None,
                        "targets": "v1", "open_division": False, "error": None,
                        "hparam/optimizer.lr": float(10 ** rng.uniform(-4, -1)),
                        "hparam/optimizer.weight_decay": float(10 ** rng.uniform(-5, -2)),
                    })  # fmt: skip
    return pd.DataFrame(cells), pd.DataFrame(evals)


def inputs(folder: Path, cells: pd.DataFrame, evals: pd.DataFrame, **more: Any) -> Inputs:
    """As an import gives them: no folders of cells."""
    folder.mkdir(parents=True, exist_ok=True)
    return Inputs(folder, "imported", cells, evals, **more)


def degenerate() -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Tables with something missing or odd, by what that is."""
    cells, evals = tables(studies=3, trials=2)
    times = [f"{unit}_to_target" for unit in ("samples", "seconds", "steps")]
    unfinished = cells.assign(hit=False, **dict.fromkeys(times, np.nan))
    hparams = [name for name in cells if name.startswith("hparam/")]
    no_samples = [name for name in cells if "samples" in name or "steps" in name]
    needed = ["id", "workload", "label", "study", "trial", "status", "best_metric", "samples_to_target"]
    odd = cells.assign(**{f"hparam/{EVIL}": [EVIL + str(k % 3) for k in range(len(cells))]})
    no_metric = evals.assign(**{"validation/accuracy": np.nan, "validation/loss": np.inf})
    far = evals.assign(samples=evals["samples"] * 1e298)
    late = cells["label"] == "sgd"
    waiting = {"status": np.where(late, "pending", "done")}
    waiting |= {name: np.where(late, np.nan, cells[name]) for name in times}
    real = cells.assign(id=cells["id"] + "r", data="real", workload=cells["workload"] + "_real")
    return {
        "one cell": (cells.head(1), evals[evals["id"] == "c0"]),
        "one algorithm": tables(("adamw",), studies=3, trials=2),
        "one study": tables(studies=1, trials=2),
        "defaults alone": tables(studies=1, trials=1),
        "no hits": tables(studies=3, trials=2, missing=1.0),
        "unfinished": (unfinished.assign(status="running"), evals),
        "pending, no evaluations": (unfinished.assign(status="pending"), pd.DataFrame()),
        "failed": (unfinished.assign(status="failed", error=EVIL), evals.head(0)),
        "diverged": (cells.assign(status="diverged", hit=False, **dict.fromkeys(times, np.inf)), evals),
        "no evaluations": (cells, pd.DataFrame({"id": []})),
        "hostile names": tables((EVIL, EVIL + "2", "a\nb", ""), (EVIL, "</title>"), 3, 2),
        "hostile hyperparameter": (odd, evals),
        "no target": (cells.assign(target=np.nan, **dict.fromkeys(times, np.nan)), evals),
        "no hyperparameters": (cells.drop(columns=hparams), evals),
        "seconds alone": (cells.drop(columns=no_samples), evals.drop(columns=["samples", "steps"])),
        "few columns": (cells[needed], evals),
        "metrics that are none": (cells, no_metric),
        "no time at all": (cells.assign(samples_to_target=0.0), evals.assign(samples=0.0)),
        "huge numbers": (cells.assign(samples_to_target=1e300), far),
        "many algorithms": tables([f"a{k}" for k in range(14)], ("digits",), 2, 1),
        "two kinds of data": (pd.concat([cells, real]), evals),
        "an open division": (cells.assign(open_division=cells["label"] == "sgd"), evals),
        "one that has not begun": (cells.assign(**waiting), evals),
        "nothing": (cells.head(0), evals.head(0)),
    }  # fmt: skip


class Page(HTMLParser):
    """A page taken apart: ``tables`` of (key or name of the column, value, words), and what it fetches."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tables: list[list[dict[str, tuple[str, str]]]] = []
        self.css: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.words: dict[str, str] = {}
        self._keys: list[str] = []
        self._cell: tuple[str, str] | None = None
        self._row: list[tuple[str, str]] = []
        self._head, self._section, self._open = False, "", ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.tags.append((tag, own))
        self._open = tag
        if tag == "section":
            self._section = own.get("id") or ""
        elif tag == "table":
            self.tables.append([])
            self.css.append(own.get("class") or "")
            self._keys = []
        elif tag == "thead":
            self._head = True
        elif tag == "tr":
            self._row = []
        elif tag in ("td", "th"):
            if self._head:
                self._keys.append(own.get("data-key") or "")
            self._cell = (own.get("data-v") or "", "")

    def handle_data(self, data: str) -> None:
        if self._open == "h2":
            self.headings.append(data)
        elif self._open not in ("style", "script"):
            self.words[self._section] = self.words.get(self._section, "") + data
        if self._cell is not None:
            self._cell = (self._cell[0], self._cell[1] + data)

    def handle_endtag(self, tag: str) -> None:
        self._open = ""
        if tag == "thead":
            self._head = False
        elif tag in ("td", "th") and self._cell is not None:
            self._row.append(self._cell)
            self._cell = None
        elif tag == "tr" and not self._head:
            names = [key or f"column {k}" for k, key in enumerate(self._keys)]
            self.tables[-1].append(dict(zip(names, self._row, strict=True)))
