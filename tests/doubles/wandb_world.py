"""A world for wandb with nothing of the developer's in it, and what its offline files hold."""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.logs import reach, wandb_log

KEY = "0" * 40
BLOCK, FULL, LAST = 32768, 1, 4


def enter(monkeypatch: pytest.MonkeyPatch, home: Path, **environment: str) -> None:
    """wandb on, logged out, with ``home`` for its files; ``environment`` on top."""
    home.mkdir(exist_ok=True)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(home / name.lower()))
    monkeypatch.setenv("HOME", str(home))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(wandb_log, "_offline_from_now_on", False)
    reach.reachable.cache_clear()


def leave() -> None:
    """End wandb's service, which remembers its environment."""
    if "wandb" in sys.modules:
        wandb_log.reset()


class Offline:
    """One offline run as wandb wrote it.

    Attributes:
        run: id, project, names, tags, group.
        config: the config at its last update.
        history: the rows in the order in which they were written, without wandb's own keys but ``_step``.
        summary: what was put into the summary beside the rows.
        exit_code: None where the run was not finished.
    """

    def __init__(self, folder: Path) -> None:
        from wandb.proto import wandb_internal_pb2

        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.metrics: list[Any] = []
        self.exit_code: int | None = None
        (path,) = folder.glob("*.wandb")
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            self._take(record)

    def _take(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.run = record.run
            self.config |= _items(record.run.config.update)
        elif kind == "config":
            self.config |= _items(record.config.update)
        elif kind == "history":
            row = _items(record.history.item)
            self.history.append({k: v for k, v in row.items() if k == "_step" or not k.startswith("_")})
        elif kind == "summary":
            self.summary |= _items(record.summary.update)
        elif kind == "metric":
            self.metrics.append(record.metric)
        elif kind == "exit":
            self.exit_code = record.exit.exit_code


def records(data: bytes) -> Iterator[bytes]:
    """The records of a ``.wandb`` file: LevelDB's log format behind a header of seven bytes."""
    assert data[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(data):
        room = BLOCK - at % BLOCK
        if room < 7:
            at += room
            continue
        _checksum, length, kind = struct.unpack("<IHB", data[at : at + 7])
        piece = data[at + 7 : at + 7 + length]
        if len(piece) < length or kind == 0:
            return  # torn: the writer was killed
        at, whole = at + 7 + length, whole + piece
        if kind in (FULL, LAST):
            yield whole
            whole = b""


def _items(items: Any) -> dict[str, Any]:
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for item in items
        if not (item.key or item.nested_key[0]).startswith("_wandb")
    }


def offline_runs(experiment: Path, seconds: float = 60) -> list[Offline]:
    """An experiment's finished offline runs, oldest first; the end of a run is on disk a little later."""
    deadline = time.monotonic() + seconds
    while True:
        runs = [Offline(folder) for folder in sorted((experiment / "wandb").glob("offline-run-*"))]
        if all(run.exit_code is not None for run in runs):
            return runs
        assert time.monotonic() < deadline, "a run was not finished"
        time.sleep(0.02)
