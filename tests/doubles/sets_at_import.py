"""A method that sets what concerns every method while it is imported."""

from __future__ import annotations

import torch

from tests.doubles.faults import Plain

torch.set_float32_matmul_precision("medium")


class Sets(Plain):
    pass
