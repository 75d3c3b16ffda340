"""Where the files of a new method or workload lie: in a checkout, or in a package of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.base.paths import CONF

ALIKE = ("groups", "surgery", "whole")  # folders that bear their part's name; the others have its plural
PARTS = ("optimizer", "schedule", "loss", "objective", "reweighting", "sampler", "estimator", "transform",
         "wrapper", "average", *ALIKE)  # fmt: skip
FOLDERS = {part: part if part in ALIKE else "losses" if part == "loss" else f"{part}s" for part in PARTS}


@dataclass(frozen=True)
class Layout:
    """One place for new files.

    Attributes:
        root: the folder that the paths of :meth:`algorithm` and :meth:`workload` are relative to.
        package: a package of one's own; None: the checkout itself.
    """

    root: Path
    package: str | None = None

    @property
    def conf(self) -> str:
        """The folder of YAMLs."""
        return "conf" if self.package is None else f"{self.package}/conf"

    def algorithm(self, name: str, part: str) -> dict[str, tuple[str, str]]:
        """Path -> its template and the module that it speaks of."""
        group = "" if part == "whole" else f"{part}/"
        if self.package is None:
            folder = FOLDERS[part]
            code, module = f"algorithms/{folder}/{name}.py", f"algorithms.{folder}.{name}"
            test, template = f"tests/algorithms/{folder}/test_{name}.py", "test.py.txt"
        else:
            code, module = self._own(name)
            test, template = f"tests/test_{name}.py", "test_own.py.txt"
        return {
            code: (f"{part}.py", module),
            f"{self.conf}/algorithm/{group}{name}.yaml": (f"{part}.yaml", module),
            test: (template, module),
        }

    def workload(self, name: str) -> dict[str, tuple[str, str]]:
        """Path -> its template and the module that it speaks of."""
        if self.package is None:
            code, module = f"workloads/{name}.py", f"workloads.{name}"
        else:
            code, module = self._own(name)
        return {code: ("workload.py", module), f"{self.conf}/workload/{name}.yaml": ("workload.yaml", module)}

    def marker(self) -> str | None:
        """The file that makes the package one, where it is still missing."""
        if self.package is None or (self.root / self.package / "__init__.py").exists():
            return None
        return f"{self.package}/__init__.py"

    @property
    def config_dirs(self) -> list[str]:
        """The folders that a command has to be given to find the new YAML."""
        return [] if self.package is None else [self.conf]

    def taken(self, kind: str, name: str) -> Iterator[Path]:
        """YAMLs of that name that there are already."""
        others = [] if self.package is None else [CONF]
        for base in (*others, self.root / self.conf):
            yield from sorted((base / kind).glob(f"**/{name}.yaml"))

    def _own(self, name: str) -> tuple[str, str]:
        return f"{self.package}/{name}.py", f"{self.package}.{name}"
