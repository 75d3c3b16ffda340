"""Folders of cells, written as the harness writes them, without training."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from runner.base.files import write_json
from runner.compose.labels import slug
from runner.contract.records import CellFolder

UNITS = ("samples", "seconds", "steps", "drawn")
CARD = {
    "device": "cpu", "threads": 1, "targets": "v1", "data": "embedded", "ruleset": None, "precision": "fp32",
    "provisional": False,
}  # fmt: skip
OF_WORKLOAD = ("data", "precision")
MANIFEST = {
    "source": "abc",
    "sources": {},  # of no module: never stale
    "git": {"commit": "c0ffee", "dirty": False},
    "data": {"train": "1"},
    "hardware": {"device": "a processor", "platform": "Linux"},
    "gpu": {},
}


def write_cell(
    experiment: Path,
    label: str = "adamw",
    workload: str = "digits",
    study: int = 0,
    trial: int = 0,
    at: float | None = 1000.0,
    status: str = "done",
    **more: Any,
) -> CellFolder:
    """A finished cell that hit after ``at`` samples; None for a miss.

    ``more`` goes to its card, manifest or status record where a key is one of theirs (:data:`CARD`,
    :data:`MANIFEST`, ``budget``), otherwise to its summary.
    """
    cell = more.pop("id", f"{label}{study}{trial}{workload}")
    names = f"{slug(workload)}.{slug(label)}.s{study}.t{trial}.{slug(cell)}"
    folder = CellFolder(experiment / "cells" / names)
    card = {"id": cell, "label": label, "workload_label": workload, "study": study, "trial": trial}
    card |= {**CARD, **{key: more.pop(key) for key in CARD if key in more}}
    manifest = {**MANIFEST, **{key: more.pop(key) for key in (*MANIFEST, "overrides") if key in more}}
    algorithm = {"optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.001, "betas": [0.9, 0.999]}}
    config = {
        **card,
        "workload": {
            "name": workload.split("[")[0],
            "metric": "accuracy",
            **{k: card[k] for k in OF_WORKLOAD},
        },
        "algorithm": algorithm,
    }
    folder.create(config, manifest)
    write_json(folder.path / "cell.json", card)
    finished = status in ("done", "diverged")
    facts = {"budget": more.pop("budget", 2000)}
    folder.set_status(
        status, host="node1", **facts, **({"summary": summary(at, **more)} if finished else more)
    )
    return folder


def summary(at: float | None, **more: Any) -> dict[str, Any]:
    """The summary of a cell that hit after ``at`` samples, or missed; a step is 10 samples and 0.01 s."""
    hit = {} if at is None else dict(zip(UNITS, (at, at / 1000, int(at) // 10, int(at)), strict=True))
    goal = {"metric": "accuracy", "target": 0.97, "minimize": False, "open_division": False}
    spent = {"steps": 200, "samples": 2000.0, "seconds": 2.0, "drawn": 2000}
    return {"hit": at is not None, **goal, **spent, **{f"{u}_to_target": v for u, v in hit.items()}, **more}


def write_grid(
    experiment: Path, times: Mapping[tuple[str, str], Sequence[float | None]], **more: Any
) -> list[CellFolder]:
    """From (workload, label) -> samples to target of each study, a trial each."""
    return [
        write_cell(experiment, label, workload, study, at=at, **more)
        for (workload, label), own in times.items()
        for study, at in enumerate(own)
    ]


class Said(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def row(self, label: str, place: int = 0) -> list[str]:
        """The words of one of the table rows in which ``label`` stands second; its rank without a mark."""
        rows = [[word.strip() for word in line.strip("|").split("|")] for line in self.lines if "|" in line]
        found = [row for row in rows if len(row) > 1 and row[1] == label][place]
        return [found[0].rstrip("≈"), *found[1:]]


def call(main: Callable[..., int], capsys: pytest.CaptureFixture[str], *args: object) -> Said:
    """A command's ``main``, in this process; ``score`` without its report, which has tests of its own."""
    capsys.readouterr()
    quick = ["--no-report"] if main.__module__ == "runner.score" else []
    code = main([*map(str, args), *quick])
    return Said(code, *capsys.readouterr())


def refusal(main: Callable[..., int], capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line with which a command refuses bad input; nothing else may be said."""
    said = call(main, capsys, *args)
    assert (said.code, said.out) == (2, ""), said
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    return said.err.removeprefix("error: ").rstrip("\n")


def commands(said: Said) -> list[list[str]]:
    """The commands that a board ends with, as a shell would take them apart."""
    return [
        shlex.split("python " + line.rpartition(": python ")[2]) for line in said.lines if ": python " in line
    ]
