"""Checks that training, validation and test are three, and that a task holds the first alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner.check.reach import extent, reachable
from runner.check.result import Result, failed, ok
from runner.check.workload_hashes import GRAM, grams, piece_size, pieces, row_hashes, share_known, share_twice
from runner.check.workload_rows import cut, evaluated, some
from runner.check.workload_subject import SPLITS, Built, WorkloadSubject

MOST_SHARED = 0.01  # of a scored split, where training has few twins of its own
TIMES = 3  # the share of training that has a twin, which scored rows may have as well; those come in clumps
SAMPLE = 64  # scored rows that are looked for in all that a task holds
TWINS = 20_000  # training rows whose twins are counted


def check_splits(subject: WorkloadSubject) -> Result:
    """Training, validation and test share no rows (or text), beyond what the data itself has twice."""
    built = subject.build()
    hashes = Hashes(built)
    twins = hashes.twins()
    remarks = []
    for name, other in (("validation", "training"), ("test", "training"), ("test", "validation")):
        count, share = hashes.shared(name, other)
        line = f"{share:.2%} of the {count} {hashes.what} of {name} are in {other} too"
        if share > max(MOST_SHARED, TIMES * twins):
            return failed(f"{line}; {twins:.2%} of training have a twin there: the splits overlap")
        remarks += [line] if share else []
    return ok("; ".join(remarks))


class Hashes:
    """Rows of the splits (pieces of text, for language models), and which of them are in others."""

    def __init__(self, built: Built) -> None:
        streams = [built.task.data, *built.task.aux.values()]
        self.rows = {"training": streams, **{name: [built.evaluate.splits[name]] for name in SPLITS}}
        self.size = piece_size(*self.rows["validation"], streams[0]) if built.kind == "lm" else 0
        self.what = f"{self.size}-token pieces" if self.size else "rows"
        self._all = {name: self._of(name, every=True) for name in self.rows}

    def _of(self, name: str, every: bool) -> Tensor:
        if self.size:
            return torch.cat([pieces(rows, self.size, every) for rows in self.rows[name]])
        return torch.cat([row_hashes(rows.x, rows.y) for rows in self.rows[name]])

    def shared(self, name: str, other: str) -> tuple[int, float]:
        """How many a split has, and what share of them is in another."""
        found = self._of(name, every=False) if self.size else self._all[name]
        return len(found), share_known(found, self._all[other])

    def twins(self) -> float:
        """Share of training that is there more than once."""
        found = self._of("training", every=False) if self.size else self._all["training"]
        return share_twice(found[some(len(found), TWINS)], self._all["training"])


# -- reach -------------------------------------------------------------------------------------------


def check_reach(subject: WorkloadSubject) -> Result:
    """Nothing that a task holds, however deep, leads to a row of the scored splits."""
    built = subject.build()
    built.task.backward(built.task.data.next())
    for split in SPLITS:
        evaluated(built, cut(built.evaluate, 8), split)  # it may leave something behind
    fault = next(_reached(built), None)
    return ok() if fault is None else failed(fault)


def _reached(built: Built) -> Iterator[str]:
    scored = {
        path: t for path, t in reachable({"scored": dict(built.evaluate.splits)}) if isinstance(t, Tensor)
    }
    extents = {path: extent(rows) for path, rows in scored.items() if rows.numel() > 1}
    search = Search(built)
    for path, item in reachable({"task": built.task}):
        if item is built.evaluate:
            yield f"{path} is the evaluation of the scored splits"
        tensor = _as_tensor(item)
        if tensor is None or tensor.numel() < 2:
            continue
        start, end = extent(tensor)
        if any(start < high and low < end for low, high in extents.values()) or search.finds(tensor):
            yield f"{path} holds rows of a scored split: give the task tensors of the training rows alone"


def _as_tensor(item: Any) -> Tensor | None:
    if isinstance(item, Tensor):
        return item.detach()
    if isinstance(item, np.ndarray) and item.dtype.kind in "fiub":
        return torch.from_numpy(np.ascontiguousarray(item.astype(_known_dtype(item), copy=False)))
    return None


def _known_dtype(item: np.ndarray) -> Any:
    """torch lacks some of numpy's unsigned types."""
    return np.int64 if item.dtype.kind == "u" and item.dtype != np.uint8 else item.dtype


class Search:
    """Looks for copies of some scored rows, alone or among others."""

    def __init__(self, built: Built) -> None:
        self.language = built.kind == "lm"
        split = built.evaluate.splits["validation"]
        x = split.x.index_select(0, some(len(split.x), SAMPLE).to(split.x.device))
        self.shape, self.dtype, self.size = x.shape[1:], x.dtype, min(GRAM, x.shape[-1])
        self.wanted = grams(x, self.size)[:, 0] if self.language else row_hashes(x).unique()

    def finds(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` holds most of them."""
        if self.language:
            whole = not tensor.is_floating_point() and not tensor.is_complex() and tensor.numel() >= self.size
            return whole and self._known(grams(tensor.reshape(1, -1), self.size).flatten())
        fits = tensor.dim() > 0 and tensor.shape[1:] == self.shape and tensor.dtype == self.dtype
        return fits and self._known(row_hashes(tensor))

    def _known(self, found: Tensor) -> bool:
        return share_known(self.wanted, found) > 0.5
