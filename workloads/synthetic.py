"""Images of CIFAR's shape, drawn from a seed: no files, no network, seconds to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from workloads.cifar import SmallImages
from workloads.splits import Data, Split

SEED = 20240501  # of the images; part of the workload
SIDE = 32
SIZES = (3000, 500, 500)  # training, validation, test
RADIUS = (9, 13)  # of a figure, in pixels; the upper end is not drawn
CONTRAST = (80, 129)  # between figure and ground, in each channel
TILT = 1  # largest slope of the ground's brightness, in levels a pixel
NOISE = 16  # largest deviation of a pixel, in levels
SPECKS = 2  # squares of 3×3 in random colours, anywhere

Ints = np.ndarray  # of int32
# Where a figure is, from a pixel's distance to its centre: right u, down v, and the radius r.
FIGURES: tuple[Callable[[Ints, Ints, Ints], np.ndarray], ...] = (
    lambda u, v, r: u * u + v * v <= r * r,  # disc
    lambda u, v, r: (u * u + v * v <= r * r) & (4 * (u * u + v * v) > r * r),  # ring
    lambda u, v, r: np.maximum(abs(u), abs(v)) <= r - 1,  # square
    lambda u, v, r: (np.maximum(abs(u), abs(v)) <= r - 1) & (2 * np.maximum(abs(u), abs(v)) > r),  # frame
    lambda u, v, r: abs(u) + abs(v) <= r + 1,  # diamond
    lambda u, v, r: (np.maximum(abs(u), abs(v)) <= r) & (3 * np.minimum(abs(u), abs(v)) <= r),  # plus
    lambda u, v, r: (np.maximum(abs(u), abs(v)) <= r) & (3 * abs(abs(u) - abs(v)) <= r),  # cross
    lambda u, v, r: (abs(v) <= r) & (2 * abs(u) <= v + r),  # triangle
    lambda u, v, r: (u * u + v * v <= r * r) & (v % 4 < 2),  # disc of level stripes
    lambda u, v, r: (u * u + v * v <= r * r) & (u % 4 < 2),  # disc of upright stripes
)


class SyntheticCifar(SmallImages):
    """4,000 colour images of 32×32 in ten classes, drawn from a seed; a small ResNet with batch norm.

    An image is a ground of one colour whose brightness slopes in a random direction, and on it one figure
    in another colour, of random size and place. The figure is the class: disc, ring, square, frame,
    diamond, plus, cross, triangle, and discs of level or upright stripes. In each channel the figure is
    brighter or darker than the ground by chance, so that the mean over a class shows nothing and a linear
    model has little to go by. Two specks in random colours and noise in every pixel come on top.

    All of it is integer arithmetic on a frozen random stream: the same bytes on every machine.
    3,000 images are for training, 500 each for validation and test, as many of each class.
    """

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`; nothing is read."""
        x, y = draw_images(sum(SIZES), SEED)
        train, validation, test = (Split(*rows) for rows in zip(x.split(SIZES), y.split(SIZES), strict=True))
        return Data(train, validation, test)


def draw_images(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``n`` images, (n, 3, 32, 32) uint8, and their classes, (n,) int64: 0, 1, …, 9, 0, 1, …"""
    rng = np.random.RandomState(seed)  # rather than a Generator: NumPy has frozen its stream (NEP 19)
    labels = np.arange(n) % len(FIGURES)
    ground = _integers(rng, 64, 192, n, 3, 1, 1)
    tint = _integers(rng, *CONTRAST, n, 3, 1, 1) * (2 * _integers(rng, 0, 2, n, 3, 1, 1) - 1)
    images = ground + _slopes(rng, n) + tint * _figures(rng, labels)
    _speckle(rng, images)
    images += rng.randint(-NOISE, NOISE + 1, images.shape, dtype=np.int16)
    return torch.from_numpy(images.clip(0, 255).astype(np.uint8)), torch.from_numpy(labels)


def _integers(rng: np.random.RandomState, low: int, high: int, *shape: int) -> Ints:
    return rng.randint(low, high, shape, dtype=np.int32)


def _figures(rng: np.random.RandomState, labels: np.ndarray) -> Ints:
    """Ones where each image's figure is, (n, 1, 32, 32); it lies within the image."""
    n = len(labels)
    radius = _integers(rng, *RADIUS, n, 1, 1)
    left, top = (radius + rng.randint(0, SIDE - 2 * radius, dtype=np.int32) for _ in range(2))
    pixel = np.arange(SIDE, dtype=np.int32)
    masks = np.empty((n, 1, SIDE, SIDE), np.int32)
    for label, figure in enumerate(FIGURES):
        rows = labels == label
        masks[rows, 0] = figure(pixel - left[rows], pixel[:, None] - top[rows], radius[rows])
    return masks


def _slopes(rng: np.random.RandomState, n: int) -> Ints:
    """A plane through zero at the centre, (n, 1, 32, 32)."""
    right, down = (_integers(rng, -TILT, TILT + 1, n, 1, 1, 1) for _ in range(2))
    pixel = np.arange(SIDE, dtype=np.int32) - SIDE // 2
    return right * pixel + down * pixel[:, None]


def _speckle(rng: np.random.RandomState, images: Ints) -> None:
    n = len(images)
    for _ in range(SPECKS):
        top, left = (_integers(rng, 0, SIDE - 2, n) for _ in range(2))
        tint = _integers(rng, -CONTRAST[1], CONTRAST[1] + 1, n, 3)
        for i in range(9):
            images[np.arange(n), :, top + i // 3, left + i % 3] += tint
