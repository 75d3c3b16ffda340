"""Rows that are learned late, twice in the training set, once a short first run has told which they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from algorithms.objectives._common import logits_of
from algorithms.samplers.rho_loss import CHUNK
from runner.contract.algorithm import Algorithm
from runner.contract.batch import Batch, Info
from runner.contract.cost import Cost
from runner.contract.kinds import NO_CLASSES
from runner.contract.task import Task
from runner.parts.composed import Composed

STARTS, ROUNDS = 10, 50  # of k-means
LEAST_EPOCHS = 2  # of the separating run


class UsefulUpsample(Algorithm):
    """USEFUL: train briefly, find the rows learned late in each class, begin anew with these rows twice.

    Paper: Changing the Training Data Distribution to Reduce Simplicity Bias Improves In-distribution
        Generalization (NeurIPS 2024). Its abstract and captions were to be had, no code.
    Update: after the separating run, with the network in evaluation mode and without augmentation, cluster
        the logits of each class's rows by k-means, k = 2; the cluster of the higher mean loss is learned
        late, and its rows come ``copies`` times into the training set. Then new initial weights, a fresh
        optimizer.
    Defaults: copies 2, from memory; separate 0.04, at least 2 epochs (the paper: about epoch 8 of 200 for a
        ResNet-18 on CIFAR-10; the floor is ours).
    State: the order of the rows; beside that of the parts.
    Cost: 1.2 forward, 1 backward. One more pass over the training rows, once: 1 + 1/E forward in a budget of
        E epochs; the figure is for E = 5.
    Pitfalls: in a budget of a few epochs the separating run costs much of it; where that is more than half,
        as in fewer than 4 epochs, there is no second run. Wrong labels are learned late. A schedule goes on
        where the first run leaves it. As many steps as without USEFUL are fewer epochs of the larger set, and
        the training loss is that set's. The control is to double as many rows at random.
    Deviations: the second run goes on in the same budget. k-means is Lloyd's, 50 rounds from each of 10
        pairs of rows, drawn with k-means++; a class of one cluster (all logits the same) has none.

    Args:
        optimizer: as for the composed algorithm, and so are all other ``parts`` but the sampler.
        separate: share of the budget for the separating run, in (0, 1), of no fewer than 2 epochs.
        copies: how often a row that is learned late is in the training set; at least 1.
        parts: the other parts.

    Raises:
        ValueError: for a value outside its range, or for a sampler.
    """

    def __init__(self, optimizer: Any, separate: float = 0.04, copies: int = 2, **parts: Any) -> None:
        if not 0 < separate < 1:
            raise ValueError(f"separate must lie in (0, 1), got {separate}")
        if not copies >= 1 or copies != int(copies):
            raise ValueError(f"copies must be an integer of at least 1, got {copies}")
        if parts.pop("sampler", None) is not None:
            raise ValueError("sampler must be null: which rows come is what USEFUL decides")
        self.separate, self.copies = separate, int(copies)
        self.rows: Tensor | None = (
            None  # positions in the training set, with repetitions; after the first run
        )
        self.order: Tensor | None = None
        self.position = 0
        self.inner = Composed(optimizer, sampler=lambda: self._sample, **parts)
        self.predict, self.uses_metrics = self.inner.predict, self.inner.uses_metrics
        self.open_division = self.inner.open_division

    def compatible(self, info: Info) -> str | None:
        """Needs classes, and their logits; then the parts' reason."""
        if info.task == "lm":
            return "clusters the rows of each class by their logits; a row of tokens has no class"
        if info.task == "regression":
            return f"clusters the rows of each class by their logits; {NO_CLASSES}"
        return self.inner.compatible(info)

    def setup(self, task: Task) -> None:
        """Set the parts up, and remember what they begin with."""
        self.inner.setup(task)
        self._beginning = self.inner.beginning(task)
        self.first = max(LEAST_EPOCHS * task.data.n, round(self.separate * task.info.budget_samples))
        self.second = 2 * self.first <= task.info.budget_samples
        steps = max(1, self.first // task.data.batch_size)  # it waits when it clusters, once
        self.syncs_every = min(self.inner.syncs_every or steps, steps)

    def cycle(self, info: Info) -> int:
        """Twice the shortest separating run, without which there is no second; and the parts' in either."""
        shortest = math.ceil(2 * LEAST_EPOCHS * info.num_train / info.batch_size)
        return max(shortest, 2 * self.inner.cycle(info))

    def step(self, task: Task) -> Tensor:
        """A step of the run that it is the turn of."""
        if self.second and self.rows is None and task.cost.drawn >= self.first:
            self._begin_second(task)
        return self.inner.step(task)

    def _begin_second(self, task: Task) -> None:
        late = self._late(task)
        everything = torch.arange(task.data.n, device=late.device)
        self.rows = torch.cat([everything, everything[late].repeat(self.copies - 1)])
        self.inner.restart(task, self._beginning)

    def _late(self, task: Task) -> Tensor:
        """Which rows of the training set are learned late, (n,) bool."""
        logits, losses = predictions(task)
        y, generator = task.data.y.long(), task.rng("useful k-means")
        late = torch.zeros(task.data.n, dtype=torch.bool, device=y.device)
        for label in y.unique().tolist():
            members = (y == label).nonzero().flatten()
            late[members] = slow_cluster(logits[members], losses[members], generator)
        return late

    def _sample(self, task: Task) -> Batch:
        if self.rows is None:
            return task.data.next()
        size, generator = task.data.batch_size, task.rng("useful order")
        parts, missing = [], size
        while missing > 0:
            if self.order is None or self.position == len(self.order):
                shuffle = torch.randperm(len(self.rows), generator=generator, device=generator.device)
                self.order, self.position = self.rows[shuffle], 0
            parts.append(self.order[self.position : self.position + missing])
            self.position += len(parts[-1])
            missing -= len(parts[-1])
        return task.data.take(torch.cat(parts), augment=True)

    def enter_eval(self, task: Task) -> None:
        """See :class:`Algorithm`."""
        self.inner.enter_eval(task)

    def exit_eval(self, task: Task) -> None:
        """See :class:`Algorithm`."""
        self.inner.exit_eval(task)

    def observe(self, metrics: Mapping[str, float]) -> None:
        """See :class:`Algorithm`."""
        self.inner.observe(metrics)

    def report(self) -> dict[str, float]:
        """The parts' scalars, and how many rows are in the training set more than once."""
        late = 0 if self.rows is None else int((torch.bincount(self.rows) > 1).sum())
        return {**self.inner.report(), "late": float(late)}

    def state_dict(self) -> dict[str, Any]:
        """The rows and their order, and the parts' state."""
        own = {"rows": self.rows, "order": self.order, "position": self.position}
        return own | {"inner": self.inner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.rows, self.order, self.position = state["rows"], state["order"], state["position"]
        self.inner.load_state_dict(state["inner"])


@torch.no_grad()
def predictions(task: Task) -> tuple[Tensor, Tensor]:
    """Logits, (n, C), and losses, (n,), of all training rows in evaluation mode, without augmentation.

    Both are as the loss in force reads the outputs: the logits are those that an evaluation sees.
    The forward passes are charged; the rows, which nothing is trained on, do not count as drawn.
    """
    predict = getattr(task.loss, "predict", None)
    rows = task.data.clone("useful")
    rows.cost = Cost()
    modes = [(module, module.training) for module in task.model.modules()]
    task.model.eval()
    logits, losses = [], []
    for chunk in rows.all().chunks(CHUNK):
        outputs = task.outputs(chunk)
        losses.append(task.losses_of(outputs, chunk))
        logits.append(logits_of(outputs if predict is None else task.kind.predict(outputs, predict)))
    for module, training in modes:
        module.training = training
    return torch.cat(logits), torch.cat(losses)


def slow_cluster(points: Tensor, losses: Tensor, generator: torch.Generator) -> Tensor:
    """Which of ``points``, (n, d), are in that of two clusters whose mean loss is the higher, (n,) bool."""
    second = two_means(points, generator)
    sizes = second.sum(), (~second).sum()
    if min(sizes) == 0:
        return torch.zeros_like(second)
    return second if losses[second].mean() > losses[~second].mean() else ~second


def two_means(points: Tensor, generator: torch.Generator) -> Tensor:
    """Which points, (n, d), are in the second of two clusters, (n,) bool; the best of 10 starts."""
    points = points.double()
    n = len(points)
    first = torch.randint(n, (STARTS,), generator=generator, device=generator.device)
    gaps = torch.cdist(points[first], points).square() + torch.finfo(points.dtype).tiny
    other = torch.multinomial(gaps, 1, generator=generator).flatten()  # k-means++: far points more likely
    centres = torch.stack([points[first], points[other]], 1)  # (starts, 2, d)
    for _ in range(ROUNDS):
        nearest = torch.cdist(centres, points.expand(STARTS, n, -1)).argmin(1)  # (starts, n)
        share = torch.stack([nearest == 0, nearest == 1], 1).double()  # (starts, 2, n)
        count = share.sum(2, keepdim=True)
        centres = torch.where(count > 0, share @ points / count.clamp(min=1), centres)
    distances, nearest = torch.cdist(centres, points.expand(STARTS, n, -1)).square().min(1)
    return nearest[distances.sum(1).argmin()] == 1
