"""Training on the rows that are not learned yet, but that can be."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from runner.contract.batch import Batch
from runner.contract.batch_norm import batch_norms, frozen_statistics
from runner.contract.cost import Cost
from runner.contract.seeding import derive
from runner.contract.stream import Stream
from runner.contract.task import Task

CHUNK = 1000  # rows that are scored at a time


class RhoLoss:
    """RHO-LOSS: of each large batch, the rows with the largest loss beyond what a holdout model has.

    Paper: Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet Learnt (Mindermann
        et al. 2022, arXiv 2206.07137; title and id from memory), and the authors' code (OATML/RHO-Loss).
    Update: at set-up train a copy of the network on held-out rows alone, and note the irreducible loss ILᵢ of
        every training row under it. A step draws B / select candidates and trains on the B of them with the
        largest ℓᵢ − ILᵢ, by their plain mean.
    Defaults: select 0.1 (authors' code). holdout 0.1, fit 0.1 and fit_lr 1e-3 (AdamW) are ours.
    State: 1 number a training row; the holdout model, a copy of the network.
    Cost: 1.1 forward, 0.1 backward. That is for select 0.1: 1 + select forward and select backward.
    Pitfalls: candidates count as drawn, so with select 0.1 a cell has a tenth of the steps; so do the holdout
        model's rows, and a schedule begins where these leave it. What is noted at set-up is noted again when
        a cell is resumed. Rows that nothing can teach are left out, wrong labels among them: that is the
        point.
    Deviations: the holdout rows come from the stream ``holdout`` where there is one, else the share
        ``holdout`` of the training rows is taken and never trained on, at the price of a copy of the others.
        The holdout model has the network's size and a share of the budget, where the paper stops it at its
        lowest loss. Losses are those of the loss in force, for the holdout model too, without a penalty on
        weights; under an objective the workload's own. As in the code candidates are scored in training
        mode, by the statistics of the large batch; but the running ones do not move.

    Args:
        select: share of the candidates that is trained on, in (0, 1].
        holdout: share of the training rows to hold out where there is no stream for it, in (0, 1).
        fit: share of the budget for the holdout model, in (0, 1).
        fit_lr: its learning rate, above 0.

    Raises:
        ValueError: for a value outside its range.
    """

    def __init__(
        self, select: float = 0.1, holdout: float = 0.1, fit: float = 0.1, fit_lr: float = 1e-3
    ) -> None:
        if not 0 < select <= 1:
            raise ValueError(f"select must lie in (0, 1], got {select}")
        if not 0 < holdout < 1:
            raise ValueError(f"holdout must lie in (0, 1), got {holdout}")
        if not 0 < fit < 1:
            raise ValueError(f"fit must lie in (0, 1), got {fit}")
        if not fit_lr > 0:
            raise ValueError(f"fit_lr must be above 0, got {fit_lr}")
        self.select, self.holdout, self.fit, self.fit_lr = select, holdout, fit, fit_lr

    def setup(self, task: Task) -> None:
        """Train the holdout model and note what it says of every training row."""
        data = task.data
        ids = torch.arange(data.n, device=data.x.device) if data.index is None else data.index
        self._source = data
        if "holdout" in task.aux:
            rows = task.aux["holdout"].clone("rho_loss")
        else:
            out, rest = self._deal(task)
            rows, self._source = _only(task, ids, out, "holdout"), _only(task, ids, rest, "rest")
        holdout = task.spawn(data=rows, name="rho_loss holdout")
        holdout.loss = copy.deepcopy(task.loss)  # whose own set-up comes behind a sampler's
        if hasattr(holdout.loss, "setup"):
            holdout.loss.setup(holdout)  # pyright: ignore
        steps = max(1, round(self.fit * task.info.budget_samples / data.batch_size))
        fit(holdout, steps, self.fit_lr)
        self.irreducible = torch.zeros(int(ids.max()) + 1, device=ids.device)
        self.irreducible[ids] = score(holdout, data)
        self.candidates = math.ceil(data.batch_size / self.select)
        self.size = data.batch_size
        self._norms = batch_norms(task.model)

    def __call__(self, task: Task) -> Batch:
        """The rows to train on."""
        batch = self._source.next(self.candidates)
        assert batch.index is not None
        with torch.no_grad(), frozen_statistics(self._norms):
            reducible = _losses(task, batch) - self.irreducible[batch.index]
        # In the order they were drawn in, not by their losses.
        chosen = torch.topk(reducible, min(self.size, len(batch)), sorted=False).indices
        return batch.select(chosen.sort().values)

    def state_dict(self) -> dict[str, Any]:
        """The irreducible losses, and where the stream of candidates is."""
        return {"irreducible": self.irreducible, "source": self._source.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.irreducible.copy_(state["irreducible"])
        self._source.load_state_dict(state["source"])

    def _deal(self, task: Task) -> tuple[Tensor, Tensor]:
        """Positions of the rows that are held out, and of the others."""
        generator = task.rng("rho_loss holdout")
        order = torch.randperm(task.data.n, generator=generator, device=generator.device)
        size = max(1, round(self.holdout * task.data.n))
        return order[:size], order[size:].sort().values


def fit(task: Task, steps: int, lr: float) -> None:
    """Train ``task`` for ``steps`` steps of AdamW."""
    optimizer = torch.optim.AdamW(task.params, lr=lr)
    task.model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        task.backward(task.data.next())
        optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def score(task: Task, data: Stream) -> Tensor:
    """Losses of all rows of ``data``, (n,), under the model of ``task``, which is left in evaluation mode.

    The forward passes are charged; the rows, which nothing is trained on, do not count as drawn.
    """
    task.model.eval()
    rows = data.clone("scored")
    rows.cost = Cost()
    return torch.cat([_losses(task, chunk).float() for chunk in rows.all().chunks(CHUNK)])


def _losses(task: Task, batch: Batch) -> Tensor:
    return task.losses_of(task.outputs(batch), batch)


def _only(task: Task, ids: Tensor, positions: Tensor, name: str) -> Stream:
    """A stream of the rows at ``positions``."""
    data, seed, generator = task.data, derive(task.seed, "rho_loss", name), None
    if data.generator is not None:
        generator = torch.Generator(data.x.device).manual_seed(derive(seed, "augment"))
    x, y = data.x[positions], data.y[positions]
    return Stream(x, y, data.batch_size, seed, data.cost, ids[positions], data.augment, generator)
