"""What a freshly built workload is, as checksums: the same wherever and whenever it is built."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from runner.check.workload_rows import cut, evaluated
from runner.check.workload_subject import SPLITS, Built, WorkloadSubject

DATA = ("the training rows", "the validation rows", "the test rows")
BATCHES, ROWS = 3, 64


def trace(built: Built) -> dict[str, str]:
    """Checksums of data, initial weights, first batches and first metrics; draws from the stream."""
    splits = {name: built.evaluate.splits[name] for name in SPLITS}
    few = cut(built.evaluate, ROWS)
    weights = list(built.task.model.state_dict().values())
    batches = [built.task.data.next() for _ in range(BATCHES)]
    return {
        DATA[0]: _digest(built.task.data.x, built.task.data.y),
        **{f"the {name} rows": _digest(rows.x, rows.y) for name, rows in splits.items()},
        "the initial weights": _digest(*weights),
        "the first batches": _digest(*(t for batch in batches for t in (batch.x, batch.y, batch.index))),
        "the first metrics": json.dumps({name: evaluated(built, few, name).metrics for name in SPLITS}),
    }


def _digest(*tensors: Tensor | None) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        if tensor is not None:
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def elsewhere(subjects: Sequence[WorkloadSubject]) -> list[dict[str, str]]:
    """The traces that another process finds, in which strings hash differently.

    Raises:
        RuntimeError: when it fails; with the last line of what it said.
    """
    facts = json.dumps([subject.facts() for subject in subjects])
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1",
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
    }
    line = [sys.executable, "-m", __name__, str(torch.get_num_threads())]
    done = subprocess.run(line, input=facts, env=environment, capture_output=True, encoding="utf-8")
    if done.returncode != 0:
        raise RuntimeError(f"in another process: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """``python -m runner.check.workload_trace THREADS``: subjects on stdin, their traces on stdout."""
    torch.set_num_threads(int(sys.argv[1]))
    subjects = [
        WorkloadSubject(facts["workload"], device=facts["device"], data_dir=Path(facts["data_dir"]))
        for facts in json.load(sys.stdin)
    ]
    print(json.dumps([trace(subject.build()) for subject in subjects]))


if __name__ == "__main__":
    main()
