"""Parts that go wrong on a GPU alone, or cost time there alone: one fault each."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.contract.batch import Batch
from runner.contract.task import Task


class TensorElsewhere:
    """Makes its noise where torch makes tensors by default."""

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        for grad in grads:
            grad.add_(torch.zeros(grad.shape))


class StateElsewhere:
    """Makes its state once, at set-up, on the CPU."""

    def setup(self, task: Task) -> None:
        self.scales = [torch.ones(p.shape) for p in task.params]

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        torch._foreach_mul_(grads, self.scales)


class GeneratorElsewhere:
    """Draws on the device from a generator of the CPU."""

    def setup(self, task: Task) -> None:
        self.generator = torch.Generator().manual_seed(1)

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        for grad in grads:
            grad.add_(torch.randn(grad.shape, generator=self.generator, device=grad.device), alpha=1e-6)


class DeviceGenerator:
    """Draws on the CPU from a generator of the device."""

    def setup(self, task: Task) -> None:
        self.generator = task.rng("noise")

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        torch.rand(1, generator=self.generator)


class CopiesIn:
    """Brings a number to the device, at each step."""

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        torch._foreach_mul_(grads, torch.tensor(0.5, device=params[0].device))


class CopiesRowsIn:
    """Brings positions to the device, at each step: from memory that is not pinned, the host waits."""

    def __call__(self, task: Task) -> Batch:
        rows = torch.arange(task.info.batch_size)
        return task.data.take(rows.to(task.data.x.device, non_blocking=True))


class IndexesFromHost:
    """Has positions on the CPU, which indexing brings to the device."""

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        for grad in grads:
            grad[torch.tensor([0])] *= 0.5


class ReadsNorm:
    """Waits at each step, for a number."""

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        if float(grads[0].norm()) > 1e9:
            torch._foreach_mul_(grads, 0.5)


class CopiesOut:
    """Takes a tensor to memory that is not pinned: asking not to wait changes nothing."""

    def setup(self, task: Task) -> None:
        self.seen = torch.zeros(task.params[0].shape)

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        self.seen.copy_(params[0].detach(), non_blocking=True)


class Synchronizes:
    """Waits for all that the device was asked for."""

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        torch.cuda.synchronize()


class RestoresElsewhere:
    """Takes up its state from a checkpoint on the CPU."""

    def setup(self, task: Task) -> None:
        self.mean = torch.zeros_like(task.params[0])

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        self.mean.lerp_(grads[0], 0.1)

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.mean = state["mean"].cpu()
