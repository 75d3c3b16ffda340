"""``ttt``: the commands under one name. ``ttt run algorithm=lion`` is ``python -m runner algorithm=lion``."""

from __future__ import annotations

import runpy
import sys

COMMANDS = {
    "run": "runner",
    "score": "runner.score",
    "report": "runner.report",
    "compare": "runner.compare",
    "status": "runner.status",
    "retry": "runner.retry",
    "cancel": "runner.cancel",
    "verify": "runner.verify",
    "check": "runner.check",
    "methods": "runner.methods",
    "doctor": "runner.doctor",
    "new": "runner.new",
    "import": "runner.import_logs",
}


def main() -> None:
    """Run a command as ``python -m`` would; a name that is none ends with code 2."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-V", "--version"):
        name, rest = "run", ["--version"]
    if name not in COMMANDS:
        from runner.base.cli import leave

        leave(lambda: _told(name))
    sys.argv = [sys.argv[0], *rest]
    runpy.run_module(COMMANDS[name], run_name="__main__", alter_sys=True)


def _told(name: str) -> int:
    """What to say of a name that is no command."""
    from runner.base.errors import UserError, nearest, one_line

    if name not in ("-h", "--help"):
        raise UserError(f"{one_line(name)!r} is not a command; {nearest(name, COMMANDS)}")
    print(usage())
    return 0


def usage() -> str:
    """What there is, with the module behind each."""
    lines = (f"  {name:<9}python -m {module}" for name, module in COMMANDS.items())
    return "\n".join(["usage: ttt COMMAND …", "", *lines, "", "Each has its own --help. ttt --version"])
