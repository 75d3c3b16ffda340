"""Is there a GPU that computes what a CPU does, and which?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.machine import machine
from scripts.gpu_checks.unit import Broken, Facts, Place, Unit

SIDE = 256
ROUNDED = 1e-5  # of a product of fp32; TF32 is off by a hundred times that


def units() -> Mapping[str, Unit]:
    """One."""
    return {"device": device}


def device(place: Place) -> Facts:
    """Products and convolutions of fp32, TF32 off, against those of the same numbers in double precision."""
    machine.configure(1, deterministic=False)
    at, generator = place.torch_device, torch.Generator().manual_seed(0)
    a, b = torch.rand(2, SIDE, SIDE, generator=generator)
    images = torch.rand(4, 16, 32, 32, generator=generator)
    filters = torch.rand(64, 16, 3, 3, generator=generator)
    errors = {
        "product": worst(a.to(at) @ b.to(at), a.double() @ b.double()),
        "convolution": worst(
            F.conv2d(images.to(at), filters.to(at)), F.conv2d(images.double(), filters.double())
        ),
    }
    for what, error in errors.items():
        if error > ROUNDED:
            raise Broken(f"a {what} of fp32 is off by {error:.1e}: TF32 is on, or the device is wrong")
    facts = machine.facts(at, None)
    return {key: facts[key] for key in ("hardware", "gpu", "packages") if key in facts} | errors


def worst(found: Tensor, wanted: Tensor) -> float:
    """The largest relative error; numbers above 0."""
    return float(((found.cpu().double() - wanted).abs() / wanted).max())
