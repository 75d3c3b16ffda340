"""The parts of ``scripts.gpu_check``, in order; :mod:`scripts.gpu_checks.unit` is their contract."""

from __future__ import annotations

from scripts.gpu_checks import bits, clocks, grids, numbers, parity, preflight, waits
from scripts.gpu_checks.unit import Units

PARTS: dict[str, Units] = {
    "preflight": preflight.units,
    "parity": parity.units,
    "waits": waits.units,
    "bits": bits.units,
    "grid": grids.units,
    "clock": clocks.units,
    "numbers": numbers.units,
}
