"""GPUs that are not there: what torch's probe and nvidia-smi say of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner.machine import gpus

UUID = "{:08x}-0000-0000-0000-000000000000"


class FakeGpus:
    """``count`` GPUs, as torch and nvidia-smi show them from now on.

    Args:
        patch: the test's own.
        folder: where the fake nvidia-smi goes.
        count: how many.
    """

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, count: int = 4) -> None:
        self._patch, self._tool = patch, folder / "bin" / "nvidia-smi"
        self._tool.parent.mkdir(exist_ok=True)
        self.asked = 0
        patch.setenv("PATH", str(self._tool.parent), prepend=os.pathsep)
        for variable in gpus.VARIABLES.values():
            patch.delenv(variable, raising=False)
        self.torch_says(gpus=[self.one(index) for index in range(count)])
        self.smi_says(free=dict.fromkeys(range(count), 80000))

    @staticmethod
    def one(index: int, **changes: Any) -> dict[str, Any]:
        """The facts of one GPU."""
        facts = {"uuid": UUID.format(index), "model": "Fake H100", "memory_gb": 80.0, "error": None}
        return facts | changes

    def torch_says(self, **changes: Any) -> None:
        """The probe's answer; ``problem``: why it gives none."""
        problem = changes.pop("problem", None)
        facts = {"torch": "9.9.9+cu999", "built": "cuda", "instructions": "AVX2", "error": None, "gpus": []}
        facts |= changes

        def asked() -> tuple[dict[str, Any], str | None]:
            self.asked += 1
            return facts, problem

        gpus.find.cache_clear()
        self._patch.setattr(gpus, "_asked", asked)

    def smi_says(
        self,
        free: Mapping[int, int] | None = None,
        apps: Sequence[tuple[int, int]] = (),
        driver: str = "999.99",
        watts: str = "700.00",
    ) -> None:
        """``free``: MiB of each GPU; ``apps``: (GPU, process id). None: it says that there are no devices."""
        rows = "No devices were found" if free is None else _rows(free.items())
        set_up = rows if free is None else _rows((gpu, f"{driver}, {watts}") for gpu in free)
        self._tool.write_text(
            f"#!/bin/sh\ncase \"$1\" in\n*compute-apps*) printf '%s\\n' '{_rows(apps)}' ;;\n"
            f"*power*) printf '%s\\n' '{set_up}' ;;\n"
            f"*) printf '%s\\n' '{rows}' ;;\nesac\n"
        )
        self._tool.chmod(0o755)


def _rows(pairs: Any) -> str:
    return "\n".join(f"GPU-{UUID.format(index)}, {value}" for index, value in pairs)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Four GPUs that nobody uses."""
    yield FakeGpus(monkeypatch, tmp_path)
    gpus.find.cache_clear()
