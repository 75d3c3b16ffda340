"""One training run: its identity, its folder, and whether it has to run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.base.errors import UserError, one_line
from runner.base.files import exists, read_json, write_json
from runner.base.paths import shown
from runner.cells.lock import Lock, LostLock, holder
from runner.cells.superseded import KEY, supersede
from runner.cells.tables import hyperparameters
from runner.compose.config import compose
from runner.compose.labels import UNNAMED, slug
from runner.compose.overrides import cell_overrides
from runner.contract.moved import as_ever
from runner.contract.records import FINISHED, CellFolder
from runner.contract.seeding import cell_seed
from runner.provenance import data_files, git, source, trust

# Where a cell logs to and where it runs does not change what it computes.
NOT_IDENTITY = (
    "name", "results_dir", "data_dir", "label", "workload_label", "log", "checkpoint_every",
    "keep_checkpoint", "search_space", "id", "provisional", "resources", "ruleset",
    "diagnostics",
)  # fmt: skip
ID = re.compile(r"[0-9a-f]{10}")


@dataclass(frozen=True)
class Cell:
    """A cell with its resolved config and the hash of the source that it would run.

    Attributes:
        config: the resolved config, with its ``id``.
        folder: where its files are.
        sources: project module -> hash.
        overrides, config_dirs: what it was composed from; empty where nobody knows any more.
    """

    config: dict[str, Any]
    folder: CellFolder
    sources: dict[str, str]
    overrides: Sequence[str] = ()
    config_dirs: Sequence[Path] = ()

    @classmethod
    def from_overrides(cls, overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> Cell:
        """Compose the cell that ``overrides`` describe.

        Raises:
            UserError: for bad input.
        """
        cell = cls.from_config(compose(overrides, config_dirs))
        return replace(cell, overrides=tuple(cell_overrides(overrides)), config_dirs=tuple(config_dirs))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Cell:
        """A cell from a config that :func:`runner.compose.config.compose` resolved.

        Raises:
            UserError: where it comes with an id that is none.
        """
        config = {"id": identity(config), **config}
        if not ID.fullmatch(str(config["id"])):
            raise UserError(f"{one_line(str(config['id']), 40)!r} is not a cell id (ten hexadecimal digits)")
        name = f"{slug(config['workload_label'])}.{slug(config['label'])}"
        name += f".s{config['study']}.t{config['trial']}.{config['id']}"
        folder = CellFolder(experiment_folder(config) / "cells" / name)
        if not all(map(source.is_there, source.targets(config["algorithm"]))):
            source.reach(folder.manifest().get("paths"))
        return cls(config, folder, source.source_hashes(config))

    @property
    def id(self) -> str:
        """Hash of everything that the result depends on, but for the source code."""
        return self.config["id"]

    @property
    def source(self) -> str:
        """Hash of the project's source that the cell uses."""
        return source.combined(self.sources)

    @property
    def title(self) -> str:
        """``digits · lion · study 0 · trial 0``."""
        c = self.config
        return f"{c['workload_label']} · {c['label']} · study {c['study']} · trial {c['trial']}"

    def state(self) -> str:
        """Where the cell stands: a status, or one of the words of :func:`folder_state`.

        Raises:
            UserError: where its folder is that of another label, spelled alike.
        """
        self._refuse_other_label()
        status = self.folder.status()["status"]
        if status in FINISHED:
            return _finished_state(self.folder, status, self._standing())
        return _unfinished_state(self.folder, status)

    def _refuse_other_label(self) -> None:
        card = read_json(self.folder.path / "cell.json") or {}
        there = [card.get(key, self.config[key]) for key in ("workload_label", "label")]
        if there != [self.config["workload_label"], self.config["label"]]:
            raise UserError(
                f"{self.folder.path} is the folder of {there[0]} · {there[1]}; it cannot also hold "
                f"{self.config['workload_label']} · {self.config['label']}: rename one of them"
            )

    def unreachable(self) -> list[str]:
        """Modules that the cell was trained with, and that cannot be imported here."""
        return source.unreachable(self.folder.manifest().get("sources") or {}, self.config)

    def can_resume(self) -> bool:
        """Whether there is a checkpoint, and the source has not changed since."""
        return exists(self.folder.checkpoint_file) and self.folder.manifest().get("source") == self.source

    def _standing(self) -> str | None:
        made_by = self.folder.manifest()
        if made_by.get("source") == self.source and not data_files.changed(made_by.get("files") or {}):
            return None
        return source.UNAVAILABLE if self.unreachable() else "stale"

    def submit(self, again: bool = False, supersedes: Path | None = None) -> bool:
        """Write the folder that a worker needs; a stale or damaged result moves to ``superseded/`` first.

        It comes back where the new run cannot start (:mod:`runner.cells.superseded`).

        Args:
            again: train a finished cell once more.
            supersedes: where its result went that this run replaces.

        Returns:
            False, and nothing is changed, where the cell is finished, cannot be imported here, or somebody
            works on it.
        """
        self.folder.path.mkdir(parents=True, exist_ok=True)
        try:
            lock = Lock.acquire(self.folder.path)
        except FileNotFoundError:  # moved to superseded/ by another launcher just now
            return self.submit(again, supersedes)
        if lock is None:
            return False
        try:
            with lock:
                finished = (status := self.folder.status()["status"]) in FINISHED
                state = self.state() if finished else status
                doubted = finished and state != status
                if doubted and self.unreachable():
                    return False
                if doubted:
                    supersedes = supersede(self.folder.path)
                elif finished and not again:
                    return False
                else:
                    self._write(CellFolder(self.folder.path, lock), supersedes)
        except LostLock:  # taken over meanwhile
            return False
        return self.submit(supersedes=supersedes) if doubted else True

    def _write(self, folder: CellFolder, supersedes: Path | None) -> None:
        if self.overrides:
            trust.own(self.config, self.sources)
        replaces = {KEY: supersedes.name} if supersedes else {}
        folder.create(self.config, self._manifest() | replaces)
        write_json(folder.path / "cell.json", self._card(), folder.stage)
        folder.set_status("pending")

    def tidy(self) -> None:
        """Sweep up what a process left that was killed between the cell's last word and its own end."""
        names = os.listdir(self.folder.path)  # noqa: PTH208 - for every finished cell of a grid
        if any(name.startswith(("lock.", ".")) or name == "checkpoint.pt" for name in names):
            lock = Lock.acquire(self.folder.path)
            if lock is not None:
                with lock:
                    CellFolder(self.folder.path, lock).tidy()

    def _manifest(self) -> dict[str, Any]:
        paths = source.homes(self.sources)
        folders = [str(Path(folder).resolve()) for folder in self.config_dirs]
        return {
            "id": self.id,
            "seed": cell_seed(self.config["workload"]["name"], self.config["study"], self.config["trial"]),
            "source": self.source,
            "sources": self.sources,
            "git": git.facts(),
            "submitted": time.time(),
            **({"overrides": list(self.overrides)} if self.overrides else {}),
            **({"config_dirs": folders} if folders else {}),
            **({"paths": paths} if paths else {}),
        }

    def _card(self) -> dict[str, Any]:
        keys = ("id", "label", "workload_label", "study", "trial", "device", "threads", "targets")
        return {key: self.config[key] for key in keys} | {
            "provisional": self.config.get("provisional", False),
            "ruleset": self.config.get("ruleset"),
            "workload": self.config["workload"]["name"],
            **{key: self.config["workload"].get(key) for key in ("data", "precision", "metric", "minimize")},
            "hparams": hyperparameters(self.config["algorithm"]),
        }


def folder_state(folder: CellFolder) -> str:
    """Where a cell stands, by its folder alone: a status, or what only shows from outside.

    ``damaged``: finished, but its evaluations are not as it wrote them · ``stale``: finished, but the source
    code or a data file has changed since · ``unavailable``: finished, but its algorithm cannot be imported
    here · ``running``: somebody works on it · ``killed``: says that it runs, but nobody works on it.
    """
    status = folder.status()["status"]
    if status in FINISHED:
        return _finished_state(folder, status, source.standing(folder.manifest(), folder.readable_config))
    return _unfinished_state(folder, status)


def _finished_state(folder: CellFolder, status: str, standing: str | None) -> str:
    return "damaged" if folder.damage() is not None else standing or status


def _unfinished_state(folder: CellFolder, status: str) -> str:
    if holder(folder.path) is not None:
        return "running"
    return "killed" if status == "running" else status


def identity(config: Mapping[str, Any]) -> str:
    """The cell id: a hash of the resolved config less where to log and where to run."""
    kept = {key: value for key, value in config.items() if key not in NOT_IDENTITY}
    kept["workload"] = {key: value for key, value in config["workload"].items() if key not in UNNAMED}
    return hashlib.sha256(json.dumps(as_ever(kept), sort_keys=True).encode()).hexdigest()[:10]


def experiment_folder(config: Mapping[str, Any]) -> Path:
    """``results_dir/name``."""
    return Path(config["results_dir"]) / config["name"]


def ensure_writable(folder: Path) -> None:
    """Make the experiment's folder.

    Raises:
        UserError: where that, or writing in it, is not possible.
    """
    probe = folder / ".writable"
    try:
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # another launch may have come first
    except OSError as error:
        raise UserError(
            f"results folder {shown(folder)} cannot be written ({error.strerror}); set results_dir"
        ) from error
