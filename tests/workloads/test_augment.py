"""Augmentation: what it does to an image, and where its randomness comes from."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.cost import Cost
from runner.stream import Stream
from workloads.augment import shift


def moved(image: Tensor, down: int, right: int) -> Tensor:
    """One image (C, H, W), pixel by pixel."""
    out, (_, height, width) = torch.zeros_like(image), image.shape
    for i in range(height):
        for j in range(width):
            if 0 <= i - down < height and 0 <= j - right < width:
                out[:, i, j] = image[:, i - down, j - right]
    return out


def test_every_image_is_moved_as_a_whole_by_each_shift_equally_often():
    x = torch.rand(900, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    y = shift(x, torch.Generator().manual_seed(1))
    shifts = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    which = [[s for s in shifts if torch.equal(moved(a, *s), b)] for a, b in zip(x, y, strict=True)]
    assert all(len(found) == 1 for found in which)
    counts = torch.tensor([which.count([s]) for s in shifts])
    assert counts.min() > 60 and counts.max() < 140  # 100 each, give or take four standard deviations


def test_type_and_size_are_kept_and_the_input_left_alone():
    x = torch.randint(256, (5, 3, 8, 6), dtype=torch.uint8)
    before = x.clone()
    y = shift(x, torch.Generator().manual_seed(1), pixels=4)
    assert y.dtype == torch.uint8 and y.shape == x.shape and y.is_contiguous()
    assert torch.equal(x, before)


def test_the_given_generator_alone_decides():
    x = torch.rand(20, 1, 8, 8)
    torch.manual_seed(5)
    global_state = torch.get_rng_state()
    first, again = (shift(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(torch.get_rng_state(), global_state)
    assert not torch.equal(first, shift(x, torch.Generator().manual_seed(4)))


def test_a_stream_goes_on_with_the_same_shifts_after_a_checkpoint():
    def stream() -> Stream:
        x, y = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(30)
        return Stream(x, y, 7, 1, Cost(), augment=shift, generator=torch.Generator().manual_seed(2))

    whole, cut = stream(), stream()
    for one in (whole, cut):
        one.next()
    resumed = stream()
    resumed.load_state_dict(cut.state_dict())
    for _ in range(5):
        here, there = whole.next(), resumed.next()
        assert torch.equal(here.x, there.x) and torch.equal(here.y, there.y)
