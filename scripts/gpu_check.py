"""An acceptance run on a machine with a GPU: ``python -m scripts.gpu_check --json gpu.json``.

It asks whether the GPU computes what the CPU does, whether steps wait for it, whether runs are the same to
the bit where they should be, whether grids take their turns and failures, whether the clock is right, and
what the harness costs. What has run is kept in the JSON: the same command again goes on with what is
missing, so that shards (``--shard 1/3``) and parts (``--only bits,clock``) add up to one result.
``--device cpu`` tries the units themselves, as far as they go without a GPU.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from runner.base.errors import UserError, described, nearest, one_line
from runner.base.files import read_json, write_json
from runner.base.paths import expanded
from runner.machine import machine
from runner.provenance import git
from scripts.gpu_checks import PARTS
from scripts.gpu_checks.unit import Broken, NotRunHere, Place, Unit

OK, FAILED, NOT_RUN = "ok", "failed", "not run"
INCOMPLETE = 3
EPILOG = """\
exit code: 0 where every unit is ok; 1 where one failed; 3 where none failed, and some have not run; 2 for bad
input. Units are named part/unit; --only takes parts, units and patterns (bits, 'parity/a*', clock/events).
"""


@dataclass
class Record:
    """What is known of every unit; written behind each.

    Attributes:
        of: device, commit and hardware, which a file keeps to.
        units: name -> ``status``, and ``text``, ``seconds``, ``facts`` as far as there are any.
    """

    of: dict[str, Any]
    units: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def at(cls, file: Path | None, of: dict[str, Any], names: Sequence[str]) -> Record:
        """As ``file`` has it, every unit that it does not name not run.

        Raises:
            UserError: where it is of another machine, device or commit.
        """
        known = (read_json(file) if file is not None else None) or {}
        if known and known.get("of") != of:
            raise UserError(f"{file} is of another machine, device or commit: name another file")
        missing = {"status": NOT_RUN, "text": "not chosen so far"}
        return cls(of, {name: known.get("units", {}).get(name, missing) for name in names})

    @property
    def exit_code(self) -> int:
        """Of the whole."""
        found = {unit["status"] for unit in self.units.values()}
        return 1 if FAILED in found else INCOMPLETE if NOT_RUN in found else 0

    def write(self, file: Path | None) -> None:
        """To the file, if one is wanted."""
        if file is not None:
            write_json(file, {"of": self.of, "exit_code": self.exit_code, "units": self.units})


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is chosen and missing, print a line for each unit, and count."""
    options = _parser().parse_args(argv)
    try:
        return _check(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _check(options: argparse.Namespace) -> int:
    units = {f"{part}/{name}": unit for part, made in PARTS.items() for name, unit in made().items()}
    chosen = shard(choose(list(units), options.only), options.shard)
    if options.list:
        print("\n".join(chosen))
        return 0
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, at cuBLAS's first call
    record = Record.at(options.json, _of(options.device), list(units))
    until = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            if record.units[name]["status"] == NOT_RUN:
                place = Place(options.device, Path(folder) / name.replace("/", "."))
                record.units[name] = attempt(units[name], place, until)
                record.write(options.json)
                _say(name, record.units[name])
    record.write(options.json)
    counts = Counter(unit["status"] for unit in record.units.values())
    print(", ".join(f"{counts[status]} {status}" for status in (OK, FAILED, NOT_RUN)) + f" of {len(units)}")
    return record.exit_code


def attempt(unit: Unit, place: Place, until: float) -> dict[str, Any]:
    """Run a unit, unless time is up: what it found, what is wrong, or why it says nothing."""
    started = time.monotonic()
    if started >= until:
        return {"status": NOT_RUN, "text": "out of time (--minutes)"}
    try:
        facts = unit(place)
    except NotRunHere as reason:
        return {"status": NOT_RUN, "text": str(reason)}
    except Broken as fault:
        found = {"status": FAILED, "text": one_line(str(fault), 500)}
    except Exception as error:
        found = {"status": FAILED, "text": one_line(described(error), 500)}
    else:
        found = {"status": OK, "facts": facts}
    return {**found, "seconds": round(time.monotonic() - started, 2)}


def choose(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """The units that the patterns name, each at least one; all without a pattern.

    Raises:
        UserError: for one that names none.
    """
    patterns = [pattern if "/" in pattern else f"{pattern}/*" for pattern in only] or ["*"]
    for pattern, said in zip(patterns, only, strict=False):
        if not fnmatch.filter(names, pattern):
            raise UserError(f"--only {said}: no such part or unit; {nearest(said, [*PARTS, *names])}")
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def shard(names: Sequence[str], which: str) -> list[str]:
    """Every n-th unit, from the i-th on, of ``i/n``.

    Raises:
        UserError: for anything else.
    """
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", which)
    if found is None or int(found[1]) > int(found[2]):
        raise UserError(f"--shard {which}: expected i/n, such as 1/3")
    return list(names[int(found[1]) - 1 :: int(found[2])])


def _of(device: str) -> dict[str, Any]:
    """What the result is of.

    Raises:
        UserError: where torch has no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "torch has no GPU here (python -m runner.doctor says why); --device cpu tries the units"
        )
    name = torch.cuda.get_device_name() if device == "cuda" else machine.cpu_name()
    facts = git.facts()
    return {
        "device": device,
        "hardware": name,
        "torch": torch.__version__,
        **{k: facts.get(k) for k in ("commit", "dirty")},
    }


def _say(name: str, unit: dict[str, Any]) -> None:
    text = unit.get("text") or json.dumps(unit.get("facts", {}), default=str)
    print(f"{unit['status']:>7}  {name}  {one_line(text, 160)}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.gpu_check",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--only", type=lambda text: text.split(","), default=[], help="parts and units, by commas")
    add("--shard", default="1/1", metavar="i/n", help="every n-th of them, from the i-th on")
    add("--minutes", type=float, default=8.0, help="what has not begun by then is not run (8)")
    add("--json", type=expanded, metavar="FILE", help="keep the result here, and go on from what is there")
    add("--list", action="store_true", help="name the units and do nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
