"""An optimizer that wants more memory than there is, to see what becomes of its cell and of the next one."""

from __future__ import annotations

from typing import Any

import torch

MORE_THAN_ANY = 1 << 50  # bytes


class Greedy(torch.optim.SGD):
    """Plain SGD up to its second step, which asks for a petabyte on the device of the weights."""

    asked = 0

    def step(self, closure: Any = None) -> Any:
        """Update, and ask."""
        self.asked += 1
        if self.asked > 1:
            device = self.param_groups[0]["params"][0].device
            torch.empty(MORE_THAN_ANY, dtype=torch.uint8, device=device)
        return super().step(closure)
