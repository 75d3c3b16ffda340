"""What every workload can do to its training split: wrong labels, and rows set aside for other uses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from runner.base.errors import UserError
from workloads.splits import stratified_split

# The same in every cell. Two of them: one permutation for both would put all wrong labels among the rows set
# aside.
NOISE_SEED, ASIDE_SEED = 20240502, 20240503


def noisy_labels(y: Tensor, num_classes: int, share: float) -> Tensor:
    """``y`` with that share of its entries replaced by another class, each other class equally likely.

    Args:
        y: class ids, of any shape and type; for language models each token is an entry.
        num_classes: classes.
        share: of the entries, in [0, 1); how many is exact, up to rounding.

    Returns:
        A new tensor, like ``y``; the same for the same arguments, in every cell.
    """
    generator = torch.Generator().manual_seed(NOISE_SEED)
    wrong = torch.randperm(y.numel(), generator=generator)[: round(share * y.numel())]
    by = torch.randint(1, num_classes, wrong.shape, generator=generator)
    flat = y.flatten().clone()
    flat[wrong] = ((flat[wrong].long() + by) % num_classes).to(y.dtype)
    return flat.view(y.shape)


def set_aside(y: Tensor, wanted: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
    """Rows for training, and rows for each named auxiliary stream; disjoint, classes in equal shares.

    Args:
        y: targets of the training split, (n, ...).
        wanted: name -> number of rows, or a share of them below one. Zero: no such stream.

    Returns:
        Row ids for training, and name -> row ids; the same in every cell.

    Raises:
        UserError: when no row is left for training.
    """
    sizes = {name: round(size * len(y)) if size < 1 else int(size) for name, size in wanted.items() if size}
    if sum(sizes.values()) >= len(y):
        raise UserError(
            f"workload.aux takes {sum(sizes.values())} rows, but the training split has {len(y)}: take fewer"
        )
    strata = y if y.dim() == 1 else torch.zeros(len(y))
    *parts, rest = stratified_split(strata, tuple(sizes.values()), ASIDE_SEED)
    return rest, dict(zip(sizes, parts, strict=True))
