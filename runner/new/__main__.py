"""``python -m runner.new algorithm my_method --part loss``: the files of a new method or workload."""

from __future__ import annotations

import argparse
import keyword
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.base.cli import leave
from runner.base.errors import UserError
from runner.base.paths import ROOT, expanded
from runner.compose.commands import command
from runner.new.layout import FOLDERS, Layout

TEMPLATES = Path(__file__).resolve().parent / "templates"
EPILOG = """\
examples:
  python -m runner.new algorithm my_method --part optimizer     in a checkout of the project
  python -m runner.new algorithm my_method --part loss --into my_pkg
                        in a package of your own: my_pkg/my_method.py, my_pkg/conf/…
  python -m runner.new workload my_task --into my_pkg

exit code: 0, or 2 for bad input; then nothing is written
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files; 2, and nothing is written, where the name will not do."""
    options = _parser().parse_args(argv)
    try:
        layout = _layout(options)
        _refuse(options, layout)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _write(options, layout)
    check = command("runner.check", f"{options.kind}={options.name}", config_dirs=layout.config_dirs)
    print(f"next: {check}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.new",
        description="Create the files of a new method or workload, ready to train and passing the checks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=("algorithm", "workload"))
    parser.add_argument("name", help="new name in snake_case")
    parser.add_argument("--part", choices=FOLDERS, help="for an algorithm: the kind of part")
    parser.add_argument("--into", metavar="PACKAGE", help="your own package in the current folder")
    parser.add_argument("--root", type=expanded, help=argparse.SUPPRESS)
    return parser


def _layout(options: argparse.Namespace) -> Layout:
    if options.into is not None:
        if not all(map(_is_name, options.into.split("."))) or "." in options.into:
            raise UserError(f"--into {options.into}: a package's name in snake_case, in the current folder")
        return Layout(options.root or Path.cwd(), options.into)
    root = options.root or ROOT
    if not (root / "conf").is_dir():
        raise UserError(
            "the project is installed rather than checked out: pass --into my_pkg, a package of your own"
        )
    return Layout(root)


def _refuse(options: argparse.Namespace, layout: Layout) -> None:
    if options.kind == "algorithm" and options.part is None:
        raise UserError(f"--part is missing: one of {', '.join(FOLDERS)}")
    if options.kind == "workload" and options.part is not None:
        raise UserError("--part is for algorithms")
    if not _is_name(options.name):
        raise UserError(f"{options.name!r} is not in snake_case")
    written = [layout.root / path for path in _files(options, layout)]
    taken = [*layout.taken(options.kind, options.name), *filter(Path.exists, written)]
    if taken:
        raise UserError(f"{options.name!r} exists: {_shown(taken[0], layout.root)}")


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[a-z][a-z0-9_]*", text) is not None and not keyword.iskeyword(text)


def _shown(path: Path, root: Path) -> str:
    home = next((home for home in (root, ROOT) if path.is_relative_to(home)), None)
    return str(path if home is None else path.relative_to(home))


def _files(options: argparse.Namespace, layout: Layout) -> Mapping[str, tuple[str, str]]:
    if options.kind == "workload":
        return layout.workload(options.name)
    return layout.algorithm(options.name, options.part)


def _write(options: argparse.Namespace, layout: Layout) -> None:
    if (marker := layout.marker()) is not None:
        _put(layout.root / marker, "", marker)
    for path, (template, module) in _files(options, layout).items():
        _put(layout.root / path, _filled(template, options, layout, module), path)


def _put(target: Path, text: str, path: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    print(f"wrote {path}")


def _filled(template: str, options: argparse.Namespace, layout: Layout, module: str) -> str:
    title = "".join(word.capitalize() for word in options.name.split("_"))
    what = "what it does" if options.kind == "algorithm" else "what is learnt from which data"
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    text = text.replace("SUMMARY", f"{title}: {what}, in a line").replace("MODULE", module)
    text = (
        text.replace("PACKAGE", layout.package or "").replace("MyMethod", title).replace("MyWorkload", title)
    )
    return text.replace("my_method", options.name).replace("my_workload", options.name)


if __name__ == "__main__":
    leave(main)
