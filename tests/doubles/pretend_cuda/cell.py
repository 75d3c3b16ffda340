"""``python -m tests.doubles.pretend_cuda.cell FOLDER OVERRIDE…``: a cell there, interrupted and resumed.

Prints its status, how often it was resumed and its evaluations, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    from tests.doubles.pretend_cuda import library

    library.load()

from runner.train.session import run_cell
from tests.doubles.pretend_cuda import device
from tests.small_cells import evaluations, interrupted, submitted


def main() -> int:
    """Train it; returns 0."""
    device.install()
    cell = submitted(Path(sys.argv[1]), *sys.argv[2:], "device=cuda")
    status = [interrupted(cell.folder.path)["status"], run_cell(cell.folder.path)["status"]]
    manifest = cell.folder.manifest()
    facts = {"status": status, "resumes": manifest.get("resumes"), "hardware": manifest["hardware"]}
    print(json.dumps(facts | {"evaluations": evaluations(cell.folder.path)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
