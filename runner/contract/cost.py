"""What training costs, in samples: counted where the work happens, whoever asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Cost:
    """Counters of one cell. A *sample* is one row that passes once through the whole model.

    Attributes:
        forward: rows passed forward.
        backward: rows passed backward.
        hvp: rows passed through a Hessian-vector product (its own forward and backward included).
        bytes_sent: bytes that simulated workers sent.
        drawn: rows drawn from training data: the unit of the budget and of the evaluation grid.
        steps: calls of ``Algorithm.step``.
    """

    forward: int = 0
    backward: int = 0
    hvp: int = 0
    bytes_sent: int = 0
    drawn: int = 0
    steps: int = 0
    enabled: bool = True

    @property
    def samples(self) -> float:
        """Gradient equivalents: (forward + 2·backward + 6·hvp) / 3; a plain gradient of one row costs 1."""
        return (self.forward + 2 * self.backward + 6 * self.hvp) / 3

    def state_dict(self) -> dict[str, int]:
        """The counters as plain integers."""
        return {k: v for k, v in vars(self).items() if k != "enabled"}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Set the counters to what :meth:`state_dict` gave."""
        for key, value in state.items():
            setattr(self, key, value)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count no forward and backward inside: the harness's own passes, or work counted by hand."""
        before, self.enabled = self.enabled, False
        try:
            yield
        finally:
            self.enabled = before
