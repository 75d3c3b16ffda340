"""The folder of one cell: what is in it, and how it is read and written.

``config.yaml`` the resolved config · ``manifest.json`` how the numbers were made · ``evals.jsonl`` a
line an evaluation · ``status.json`` where the cell stands · ``checkpoint.pt`` while it runs ·
``error.txt`` the traceback of a failure · ``log.txt`` what the cell printed · ``lock.1`` who works on it.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from runner.base.errors import one_line
from runner.base.files import (
    append,
    discard,
    exists,
    no_link,
    read_json,
    read_lines,
    staged,
    write_json,
    write_text,
)

STATUSES = ("pending", "running", "done", "diverged", "failed", "oom", "timeout", "preempted", "stopped")
FINISHED = ("done", "diverged")
ENDED = (*FINISHED, "stopped")  # the last: early and on purpose, to be gone on with on request alone


class Hold(Protocol):
    """What a writer needs of the lock that it holds (:class:`runner.cells.lock.Lock`)."""

    stage: Path

    def check(self) -> None:
        """Raise where the lock is lost."""
        ...


class CellFolder:
    """Reads and writes one cell's files. One writer, who holds the cell's lock; any number of readers.

    What a writer could do that has lost the lock is fenced: files are replaced and deleted by way of the
    lock's stage, and evaluations are appended to a file that whoever takes over replaces.

    Args:
        path: the folder.
        hold: the writer's lock; None for readers, and for who makes the folder.
    """

    def __init__(self, path: Path, hold: Hold | None = None) -> None:
        self.path, self._hold = path, hold
        self._appending: BinaryIO | None = None
        self.config_file = path / "config.yaml"
        self.manifest_file = path / "manifest.json"
        self.evals_file = path / "evals.jsonl"
        self.status_file = path / "status.json"
        self.checkpoint_file = path / "checkpoint.pt"
        self.error_file = path / "error.txt"
        self.log_file = path / "log.txt"

    # -- reading -----------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """The resolved config that the cell was submitted with."""
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        with open(self.config_file, encoding="utf-8", opener=no_link) as file:
            return yaml.load(file.read(), Loader=loader)

    def readable_config(self) -> dict[str, Any]:
        """The same; empty where it cannot be read."""
        try:
            config = self.config()
        except Exception:  # absent, unreadable or damaged YAML: all the same here
            return {}
        return config if isinstance(config, dict) else {}

    def manifest(self) -> dict[str, Any]:
        """How the numbers were made; empty when not written yet."""
        return read_json(self.manifest_file) or {}

    def status(self) -> dict[str, Any]:
        """Status record; ``{"status": "pending"}`` when there is none or it is damaged."""
        record = read_json(self.status_file) or {}
        return record if isinstance(record.get("status"), str) else {"status": "pending"}

    def evals(self) -> list[dict[str, Any]]:
        """One record an evaluation; a torn last line is left out."""
        return read_lines(self.evals_file)

    def damage(self) -> str | None:
        """What has become of a finished cell's records since; None where they are as it wrote them.

        Held against the digest in its status; a folder of before there were digests has a count to go by.
        """
        status = self.status()
        if status["status"] not in FINISHED:
            return None
        if not isinstance(status.get("summary"), dict):
            return f"{self.status_file.name} has no summary"
        if (made := status["summary"].get("evals")) is None:
            return None
        name = self.evals_file.name
        if not exists(self.evals_file):
            return f"{name} is gone"
        if (held := len(self.evals())) != made:
            return f"{name} holds {held:,} evaluations of the {made:,} that were made"
        recorded = status.get("evals_sha256")
        torn = recorded is not None and recorded != self._digest()["evals_sha256"]
        return f"{name} is not what the cell wrote" if torn else None

    # -- writing -----------------------------------------------------------------------------------

    def guard(self) -> None:
        """Make sure that the writer still holds the lock; called before every write."""
        if self._hold is not None:
            self._hold.check()

    @property
    def stage(self) -> Path:
        """Where files are written before they are renamed into place."""
        return self.path if self._hold is None else self._hold.stage

    def create(self, config: dict[str, Any], manifest: dict[str, Any]) -> None:
        """Make the folder, or take it over as it is, with this config and the submitter's manifest."""
        import yaml

        self.path.mkdir(parents=True, exist_ok=True)
        self.guard()
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        write_text(self.config_file, text, self.stage)
        write_json(self.manifest_file, {**self.manifest(), **manifest}, self.stage)

    def update_manifest(self, facts: dict[str, Any]) -> None:
        """Add what the worker knows: packages, hardware, data checksums."""
        self.guard()
        write_json(self.manifest_file, {**self.manifest(), **facts}, self.stage)

    def set_status(self, status: str, **facts: Any) -> None:
        """Replace the status record.

        Raises:
            ValueError: for a word that is no status.
        """
        if status not in STATUSES:
            raise ValueError(f"no such status: {status}")
        self.guard()
        write_json(self.status_file, {"status": status, "updated": time.time(), **facts}, self.stage)

    def finish(self, status: str, **facts: Any) -> None:
        """The cell's last word, with what tells later whether its evaluations are as it wrote them."""
        self.set_status(status, **self._digest(), **facts)

    def _digest(self) -> dict[str, Any]:
        data = b""
        if self.evals_file.exists():
            with open(self.evals_file, "rb", opener=no_link) as file:
                data = file.read()
        return {"evals_bytes": len(data), "evals_sha256": hashlib.sha256(data).hexdigest()}

    def append_eval(self, row: dict[str, Any]) -> None:
        """Append one evaluation, flushed to disk."""
        self.guard()
        if self._appending is None:
            self._renew_evals(self.evals())
        assert self._appending is not None
        append(self._appending.fileno(), f"{json.dumps(row)}\n".encode())

    def keep_evals(self, count: int) -> None:
        """Cut all evaluations behind the first ``count``: those after the checkpoint one resumes from."""
        kept = self.evals()[:count]
        if len(kept) < count:
            raise ValueError(f"{self.evals_file} holds {len(kept)} evaluations, the checkpoint {count}")
        self.guard()
        self._renew_evals(kept)

    def _renew_evals(self, rows: list[dict[str, Any]]) -> None:
        # A file of our own: what a former holder may still append goes to the one that it had open.
        self.close()
        with staged(self.evals_file, self.stage, keep_open=True) as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        self._appending = file

    def discard(self, file: Path) -> None:
        """Delete one of the cell's files, if it is there."""
        self.guard()
        discard(file, self.stage)

    def close(self) -> None:
        """Let go of the file that evaluations are appended to; another one begins anew."""
        if self._appending is not None:
            self._appending.close()
            self._appending = None

    def tidy(self) -> None:
        """A finished cell keeps no checkpoint, unless it was asked to."""
        if self.status()["status"] not in FINISHED:
            return
        if self.checkpoint_file.exists() and not self.config().get("keep_checkpoint", False):
            self.discard(self.checkpoint_file)

    def fail(self, error: str, traceback: str, status: str = "failed", **facts: Any) -> None:
        """Record a failure: the traceback in its own file, one line of it in the status."""
        self.guard()
        write_text(self.error_file, traceback, self.stage)
        self.set_status(status, error=one_line(error), **facts)
