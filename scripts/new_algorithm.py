"""Write the three files of a new method: code, YAML and a test; they train and pass as they are.

python scripts/new_algorithm.py my_method --part optimizer
python -m runner.check algorithm=my_method
python -m runner algorithm=my_method workload=digits
"""

from __future__ import annotations

import argparse
import keyword
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = Path(__file__).resolve().parent / "templates"
ALIKE = ("groups", "surgery", "whole")  # folders that bear their part's name; the others have its plural
PARTS = ("optimizer", "schedule", "loss", "objective", "reweighting", "sampler", "estimator", "transform",
         "wrapper", "average", *ALIKE)  # fmt: skip
FOLDERS = {part: part if part in ALIKE else "losses" if part == "loss" else f"{part}s" for part in PARTS}


def main() -> int:
    """Write the files; returns 2, and writes nothing, when the name will not do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="snake_case, new to the project")
    parser.add_argument(
        "--part", choices=FOLDERS, required=True, help="which idea of an algorithm it replaces"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    problem = objection(arguments.name, arguments.root)
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    for path, text in files(arguments.name, arguments.part).items():
        target = arguments.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    print(f"next: python -m runner.check algorithm={arguments.name}")
    return 0


def objection(name: str, root: Path) -> str | None:
    """Why a method cannot be called ``name``, or None."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        return f"{name!r} is no snake_case name"
    taken = sorted((root / "conf" / "algorithm").glob(f"**/{name}.yaml"))
    return f"{name!r} exists: {taken[0].relative_to(root)}" if taken else None


def files(name: str, part: str) -> dict[str, str]:
    """Relative path -> content."""
    folder, group = FOLDERS[part], "" if part == "whole" else f"{part}/"
    return {
        f"algorithms/{folder}/{name}.py": _filled(f"{part}.py", name, folder),
        f"conf/algorithm/{group}{name}.yaml": _filled(f"{part}.yaml", name, folder),
        f"tests/algorithms/{folder}/test_{name}.py": _filled("test.py.txt", name, folder),
    }


def _filled(template: str, name: str, folder: str) -> str:
    title = "".join(word.capitalize() for word in name.split("_"))
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    text = text.replace("SUMMARY", f"{title}: what it does, in a line").replace("MyMethod", title)
    return text.replace("MODULE", f"algorithms.{folder}.{name}").replace("my_method", name)


if __name__ == "__main__":
    sys.exit(main())
