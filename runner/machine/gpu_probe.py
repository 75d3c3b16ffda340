"""What torch says of the GPUs here, as a line of JSON, for :mod:`runner.machine.gpus`: run on its own."""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any


def main() -> int:
    """Print the answer on the standard output that we were started with, and nothing else there."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever drivers and libraries print is not the answer
    print(json.dumps(ask()), file=answer, flush=True)
    return 0


def ask() -> dict[str, Any]:
    """For what this ``torch`` is ``built`` (``cuda``, ``rocm``, ``cpu``), its ``error``, its ``gpus``.

    The processor's ``instructions`` are those that its kernels use.

    Each GPU has ``uuid``, ``model``, ``memory_gb``, and ``error``: why torch cannot compute on it, or None.
    """
    import torch

    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "built": built_for(torch),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "error": None,
        "gpus": [],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same is raised
        try:
            torch.cuda.init()
            facts["gpus"] = [one(torch, index) for index in range(torch.cuda.device_count())]
        except Exception as error:
            facts["error"] = said(error)
    return facts


def built_for(torch: Any) -> str:
    """The kind of GPU that this build of torch can use, or ``cpu``."""
    return "rocm" if torch.version.hip else "cuda" if torch.version.cuda else "cpu"


def one(torch: Any, index: int) -> dict[str, Any]:
    """The facts of one GPU, on which a number is computed to see that it can be done."""
    facts: dict[str, Any] = {"uuid": "", "model": "", "memory_gb": 0.0, "error": None}
    try:
        properties = torch.cuda.get_device_properties(index)
        facts["uuid"] = str(getattr(properties, "uuid", ""))
        facts["model"], facts["memory_gb"] = properties.name, properties.total_memory / 2**30
        torch.ones(2, device=f"cuda:{index}").sum().item()
    except Exception as error:
        facts["error"] = said(error)
    return facts


def said(error: Exception) -> str:
    """The first sentence that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
