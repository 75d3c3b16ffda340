"""Batch-norm statistics: finding and freezing them; modules in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The modules that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def running_statistics(model: nn.Module) -> list[Tensor]:
    """Running means and variances, which an average of the weights takes an average of, too."""
    both = [s for norm in batch_norms(model) for s in (norm.running_mean, norm.running_var)]
    return [statistic for statistic in both if statistic is not None]


@contextmanager
def frozen_statistics(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Normalise by batch statistics inside, but leave the running ones as they are (SAM's second pass).

    Modules in evaluation mode go on normalising by their running statistics.
    """
    # Not momentum = 0: that still counts the batch, and 0 · inf of an overflowing one would be NaN.
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def evaluation_mode(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, each of ``modules`` (not its children) is in evaluation mode: no dropout."""
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training
