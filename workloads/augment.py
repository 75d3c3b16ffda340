"""Augmentation of image batches on their device, from a given generator."""

from __future__ import annotations

from functools import lru_cache

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


def crop_flip(x: Tensor, generator: torch.Generator, padding: int = 4, flip: bool = True) -> Tensor:
    """Cut a window of the image's size out of each zero-padded image, and mirror every other one.

    The usual augmentation of CIFAR-10 (He et al. 2016, arXiv 1512.03385, section 4.2). One draw decides for
    an image: d in [0, 2·s²) with s = 2·padding + 1; ⌊d / s²⌋ says whether it is mirrored, ⌊d / s⌋ mod s and
    d mod s are the window's top row and left column in the padded image.

    Args:
        x: images, (B, C, H, W), of any type.
        generator: on the device of ``x``.
        padding: zeros on each side; each of the s² windows is equally likely.
        flip: whether to mirror left and right, for half of the images; if not, d is in [0, s²).

    Returns:
        The windows, same shape and type.
    """
    rows, channels, height, width = x.shape
    views = (2 * padding + 1) ** 2 * (2 if flip else 1)
    draws = torch.randint(views, (rows,), generator=generator, device=x.device)
    position = _windows(height, width, padding, x.device).index_select(0, draws)
    padded = F.pad(x, (padding,) * 4).flatten(2)
    return padded.gather(2, position[:, None].expand(rows, channels, height * width)).view(x.shape)


@lru_cache(maxsize=8)
def _windows(height: int, width: int, padding: int, device: torch.device) -> Tensor:
    """Where the pixels of each window lie in the flattened padded image, (2·s², H·W) int64."""
    side, wide = 2 * padding + 1, width + 2 * padding
    draw = torch.arange(2 * side**2)[:, None, None]
    mirrored, top, left = draw // side**2, draw // side % side, draw % side
    row, column = torch.arange(height)[:, None], torch.arange(width)
    column = torch.where(mirrored == 1, width - 1 - column, column)
    return ((top + row) * wide + left + column).flatten(1).to(device)
