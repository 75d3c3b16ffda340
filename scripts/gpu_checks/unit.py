"""What a part is: named units, each of which does one thing on a device and says how it went."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Facts = dict[str, Any]


class NotRunHere(Exception):  # noqa: N818 - an outcome, not a fault
    """Why a unit says nothing on this device."""


class Broken(Exception):  # noqa: N818 - as above
    """What is wrong, in a line."""


@dataclass(frozen=True)
class Place:
    """Where units run.

    Attributes:
        device: ``cuda``, or ``cpu`` to try the units themselves.
        folder: for files, empty at first.
    """

    device: str
    folder: Path

    @property
    def torch_device(self) -> torch.device:
        """The device as torch has it."""
        return torch.device(self.device)

    def needs_gpu(self, why: str) -> None:
        """Leave a unit where there is nothing to see without a GPU.

        Raises:
            NotRunHere: on a CPU.
        """
        if self.device != "cuda":
            raise NotRunHere(why)


# Returns what it found, or raises Broken or NotRunHere; any other exception is a fault, too.
Unit = Callable[[Place], Facts]
Units = Callable[[], Mapping[str, Unit]]
