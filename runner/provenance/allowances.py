"""What this user has allowed to run besides the project: remembered in the user's own settings.

``~/.config/time-to-target/allowed`` (or below ``$XDG_CONFIG_HOME``) holds a line for each package, class and
absolute folder, and for each way in which this user has launched. ``$RUNNER_ALLOW`` holds the same for one
shell, parted as a path is; launchers hand it to their workers and to SLURM's tasks. Nothing is ever read from
a results folder, which may come from elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from runner.base.files import write_text

VARIABLE = "RUNNER_ALLOW"


def names() -> set[str]:
    """Packages and classes: dotted names."""
    return {entry for entry in _entries() if is_name(entry)}


def folders() -> set[str]:
    """Folders of code that this user has run: a cell's manifest may name them."""
    return {entry for entry in _entries() if entry.startswith("/")}


def launches() -> set[str]:
    """Ways of launching that this user has used: SLURM's options hold lines for a shell."""
    return {entry for entry in _entries() if entry.startswith("launched=")}


def remember(entries: Iterable[str]) -> None:
    """Allow names and folders in this process, in those that it starts, and from now on.

    Raises:
        OSError: where the settings cannot be written; this process knows of them all the same.
    """
    wanted, file = set(entries), settings()
    hand_over(wanted)
    if file is not None and not wanted <= (stored := _stored(file)):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_text(file, "".join(f"{entry}\n" for entry in sorted(stored | wanted)))


def hand_over(entries: Iterable[str]) -> None:
    """Allow names and folders in this process, and in those that it starts, alone."""
    if entries := {*handed_over(), *entries}:
        os.environ[VARIABLE] = os.pathsep.join(sorted(entries))


def handed_over() -> set[str]:
    """What this process was told, and the processes that it starts from now on will be."""
    return set(filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)))


def settings() -> Path | None:
    """The file; None where this user has no home. A relative ``$XDG_CONFIG_HOME`` is none."""
    home = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    try:
        home = home if home.is_absolute() else Path.home() / ".config"
    except RuntimeError:
        return None
    return home / "time-to-target" / "allowed"


def _entries() -> set[str]:
    file = settings()
    return handed_over() | (_stored(file) if file is not None else set())


def _stored(file: Path) -> set[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return {line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")}


def is_name(entry: str) -> bool:
    """Whether it is a dotted name, as a package and a class have."""
    return all(part.isidentifier() for part in entry.split("."))
