"""Cross-entropy, and staying near what the network said of each row some epochs ago."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from algorithms.objectives._common import cross_entropy, divergence, logits_of
from runner.contract.batch import Batch, Info
from runner.contract.kinds import NO_CLASSES
from runner.contract.task import Task


class SAF:
    """SAF: sharpness-aware training for free, by a distance to the row's own logits E epochs ago.

    Paper: Sharpness-Aware Training for Free (Du et al. 2022, NeurIPS, arXiv 2205.14083), and the authors'
        code.
    Update: ℓ = CE + λ T² · KL(softmax(zₚ / T) ‖ softmax(z / T)), zₚ the logits (as trained on, augmented)
        of the same row E epochs before, in epochs e with start < e < end, counted from 0; before and after,
        ℓ = CE. The last E + 1 logits of every row are kept.
    Defaults: lam 0.3, temperature 5, distance 3, start 5, end 300 (authors' code; its scripts also have 0.16
        for λ and 2 for E). The factor T² is the code's; that the paper leaves it to λ is from memory.
    State: (E + 1) · C numbers and one count a training row.
    Cost: 1 forward, 1 backward.
    Pitfalls: does nothing in cells of fewer epochs than start. E + 1 tables of logits get large with
        many classes. Rows that are seen at random have their pasts at random distances.
    Deviations: a row's epoch is how often it has been seen, which in shuffled epochs is the epoch: rows of a
        batch that straddles two have the right one each, and no row is compared to logits it does not have.
        A row that is twice in a batch counts once.

    Args:
        lam: λ, at least 0.
        temperature: T, above 0.
        distance: E, epochs between a row's logits and those it is held near to; at least 1.
        start: the last epoch without the distance, at least E.
        end: the first epoch without it again.

    Raises:
        ValueError: for a value outside its range.
    """

    def __init__(
        self, lam: float = 0.3, temperature: float = 5.0, distance: int = 3, start: int = 5, end: int = 300
    ) -> None:
        if not lam >= 0:
            raise ValueError(f"lam must be at least 0, got {lam}")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if not distance >= 1 or distance != int(distance):
            raise ValueError(f"distance must be an integer of at least 1, got {distance}")
        if not start >= distance - 1:
            raise ValueError(f"start must be at least distance - 1 = {distance - 1}, got {start}")
        if not end > start:
            raise ValueError(f"end must be above start = {start}, got {end}")
        self.lam, self.temperature = lam, temperature
        self.distance, self.start, self.end = int(distance), start, end

    def compatible(self, info: Info) -> str | None:
        """Needs logits, few enough a row to keep them."""
        if info.task == "regression":
            return f"compares softmaxes of logits; {NO_CLASSES}"
        return (
            "keeps the logits of every row: too many where they are token by token"
            if info.task == "lm"
            else None
        )

    def cycle(self, info: Info) -> int:
        """Until the first epoch of the season is over."""
        return math.ceil((self.start + 2) * info.num_train / info.batch_size)

    def setup(self, task: Task) -> None:
        """Make room for the logits of every row."""
        index, device = task.data.index, task.data.x.device
        rows = task.data.n if index is None else int(index.max()) + 1
        self.seen = torch.zeros(rows, dtype=torch.int64, device=device)
        classes = 2 if task.info.task == "binary" else task.info.num_classes
        self.past = torch.zeros(self.distance + 1, rows, classes, device=device)
        self._last: tuple[Batch | None, int] = None, 0  # a batch, and how many of its rows have been counted

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        """The rows' losses, (B,), in nats."""
        outputs = task.outputs(batch)
        losses = cross_entropy(task, outputs, batch)
        if batch.index is None:
            return losses
        logits = logits_of(outputs)
        if self._comes_first(batch):
            self._keep(logits.detach(), batch.index)
        epoch = self.seen[batch.index] - 1
        # Not by masks as indices, which would wait: rows that are out of season count zero times.
        season = (epoch > self.start) & (epoch < self.end)
        past = self.past[(epoch - self.distance) % (self.distance + 1), batch.index].to(logits.dtype)
        distances = divergence(past, logits, self.temperature)
        return losses + self.lam * self.temperature**2 * season * distances

    def _comes_first(self, batch: Batch) -> bool:
        """Whether its rows are not counted yet: a second pass over a batch, or a piece, is no other epoch."""
        whole, rows = (batch, slice(None)) if batch.cut_from is None else batch.cut_from
        start, stop, _ = rows.indices(len(whole))
        counted = self._last[1] if whole is self._last[0] else 0
        if start >= counted:
            self._last = whole, stop
        return start >= counted

    def _keep(self, logits: Tensor, index: Tensor) -> None:
        epoch = self.seen[index]
        self.past[epoch % (self.distance + 1), index] = logits.to(self.past.dtype)
        self.seen[index] = epoch + 1

    def state_dict(self) -> dict[str, Any]:
        """The logits kept, and how often each row has been seen."""
        return {"seen": self.seen, "past": self.past}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.seen.copy_(state["seen"])
        self.past.copy_(state["past"])
