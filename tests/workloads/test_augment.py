"""Augmentation: what it does to an image, and where its randomness comes from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from runner.contract.cost import Cost
from runner.contract.stream import Stream
from workloads.augment import crop_flip, shift


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


# -- crop and flip ---------------------------------------------------------------------------------


def windowed(x: Tensor, draws: list[int], padding: int) -> Tensor:
    """Image by image and pixel by pixel, what each draw says."""
    out, (rows, _, height, width), side = torch.zeros_like(x), x.shape, 2 * padding + 1
    for n in range(rows):
        mirrored, top, left = draws[n] // side**2, draws[n] // side % side, draws[n] % side
        for i in range(height):
            for j in range(width):
                # Mirrored: the window is cut first, then read from right to left.
                row, column = top + i - padding, left + (width - 1 - j if mirrored else j) - padding
                if 0 <= row < height and 0 <= column < width:
                    out[n, :, i, j] = x[n, :, row, column]
    return out


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(("shape", "padding"), [((40, 3, 12, 12), 4), ((9, 1, 5, 8), 2), ((3, 2, 4, 3), 0)])
def test_crop_and_flip_equals_a_loop_over_images_bit_for_bit(
    shape: tuple[int, ...], padding: int, flip: bool
) -> None:
    x = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    views = (2 * padding + 1) ** 2 * (2 if flip else 1)
    for seed in range(3):
        y = crop_flip(x, torch.Generator().manual_seed(seed), padding, flip)
        draws = torch.randint(views, shape[:1], generator=torch.Generator().manual_seed(seed)).tolist()
        assert torch.equal(y, windowed(x, draws, padding))
        assert y.dtype == torch.uint8 and y.is_contiguous() and torch.equal(x, before)


def test_every_window_and_both_orientations_are_equally_likely() -> None:
    marked = torch.arange(1, 6 * 6 + 1).view(1, 1, 6, 6).expand(16_200, 1, 6, 6)
    drawn = crop_flip(marked, torch.Generator().manual_seed(0))
    views = torch.unique(drawn.flatten(1), dim=0, return_counts=True)[1]
    # 100 each, give or take four standard deviations; the windows that lie outside the image are all black.
    assert len(views) <= 162 and views[views < 200].min() > 60 and views[views < 200].max() < 140
    assert int(views.sum()) == 16_200
    upright = crop_flip(marked, torch.Generator().manual_seed(0), flip=False)
    assert len(torch.unique(upright.flatten(1), dim=0)) < len(views)


def test_crop_and_flip_draws_from_its_generator_alone() -> None:
    x = torch.rand(50, 3, 32, 32)
    state = torch.get_rng_state()
    first, again = (crop_flip(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, crop_flip(x, torch.Generator().manual_seed(4)))
