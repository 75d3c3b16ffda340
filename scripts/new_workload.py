"""Write the two files of a new workload: code and YAML; they train and pass the checks as they are.

python scripts/new_workload.py my_workload
python -m runner.check workload=my_workload
python -m runner algorithm=adamw workload=my_workload
"""

from __future__ import annotations

import argparse
import keyword
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = Path(__file__).resolve().parent / "templates"


def main() -> int:
    """Write the files; returns 2, and writes nothing, when the name will not do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="snake_case, new to the project")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    problem = objection(arguments.name, arguments.root)
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    for path, text in files(arguments.name).items():
        target = arguments.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    print(f"next: python -m runner.check workload={arguments.name}")
    return 0


def objection(name: str, root: Path) -> str | None:
    """Why a workload cannot be called ``name``, or None."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        return f"{name!r} is no snake_case name"
    taken = [path for path in files(name) if (root / path).exists()]
    return f"{name!r} exists: {taken[0]}" if taken else None


def files(name: str) -> dict[str, str]:
    """Relative path -> content."""
    return {
        f"workloads/{name}.py": _filled("workload.py", name),
        f"conf/workload/{name}.yaml": _filled("workload.yaml", name),
    }


def _filled(template: str, name: str) -> str:
    title = "".join(word.capitalize() for word in name.split("_"))
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    text = text.replace("SUMMARY", f"{title}: what is learnt from which data, in a line")
    return text.replace("MyWorkload", title).replace("my_workload", name)


if __name__ == "__main__":
    sys.exit(main())
