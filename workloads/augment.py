"""Augmentation of image batches on their device, from a given generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shift(x: Tensor, generator: torch.Generator, pixels: int = 1) -> Tensor:
    """Move each image by up to ``pixels`` in both directions, at random; what moves in is zero.

    Args:
        x: images, (B, C, H, W), of any type.
        generator: on the device of ``x``.
        pixels: largest shift; each of the (2·pixels + 1)² shifts is equally likely.

    Returns:
        The moved images, same shape and type.
    """
    rows, channels, height, width = x.shape
    wide, device = width + 2 * pixels, x.device
    padded = F.pad(x, (pixels,) * 4).flatten(2)
    # One gather by position in the padded image: the corner of the window, and the way from there.
    corner = torch.randint(2 * pixels + 1, (2, rows, 1), generator=generator, device=device)
    window = torch.arange(height, device=device)[:, None] * wide + torch.arange(width, device=device)
    position = corner[0] * wide + corner[1] + window.flatten()
    moved = padded.gather(2, position[:, None].expand(rows, channels, height * width))
    return moved.view(x.shape)
