"""A part that does something else later on."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.contract.task import Task


class Late:
    """Does something else from a third of the budget on; at an evaluation, another thing."""

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        if self.task.progress > 1 / 3:
            for grad in grads:
                grad.copy_(torch.erfinv(torch.tanh(grad)))

    def setup(self, task: Task) -> None:
        self.task = task

    def swap_in(self, task: Task) -> None:
        torch.special.i0(task.params[0])

    def swap_out(self, task: Task) -> None: ...
