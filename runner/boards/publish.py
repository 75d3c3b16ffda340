"""Published boards: frozen rules, all that the numbers were made of, and a check that makes them again.

``results/leaderboards/<name>/``: ``board.json`` (rules, workloads and targets, versions) ·
``leaderboard.csv`` and ``leaderboard.md`` · ``cells.parquet`` and ``evals.parquet`` · ``configs.jsonl.gz``
(a cell's resolved config a line) · ``manifest.json`` (commits, machines, packages, data, source hashes) ·
``verifications.jsonl`` (cells that were run again, :mod:`runner.verify`).
"""

from __future__ import annotations

import gzip
import io
import json
import shlex
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from runner.base.errors import UserError, one_line
from runner.base.files import read_json, read_lines, write_atomic, write_text
from runner.base.unpack import unpacked
from runner.boards.board import Board, boards, flat
from runner.boards.inputs import (
    BOARD,
    MANIFEST,
    Inputs,
    as_json,
    goals_of,
    read,
    write_csv,
    write_parquet,
    writing,
)
from runner.boards.render import markdown
from runner.boards.rules import BASELINE, Rules
from runner.cells.tables import IMPORTED, csv_text
from runner.compose.commands import CONFIG_DIR, command
from runner.compose.labels import slug
from runner.compose.overrides import name_of
from runner.contract.records import FINISHED, CellFolder

HOME = Path("results/leaderboards")
CONFIGS, VERIFIED = "configs.jsonl.gz", "verifications.jsonl"
# Where things lay on the machine that ran them is no part of what they are.
LOCAL = ("data_dir", "results_dir", "name", "log")
MACHINE = ("host", "job", "folder", "error")  # messages name files
PLACES = ("data_dir", "results_dir")
BRIEF = ("seconds", "report/", "diag/")
FIRST: dict[str, Any] = {"version": 1, "history": []}


def publish(inputs: Inputs, made: Sequence[Board], name: str | None = None, home: Path = HOME) -> list[str]:
    """Write or update a published board; of one that is published, its pages again from its own tables.

    Args:
        inputs: an experiment, an import, or a published board.
        made: its boards.
        name: of the published board; the experiment's by default.
        home: the folder of all published boards.

    Returns:
        What was done, in words.

    Raises:
        UserError: where a board of this name is frozen with other rules, workloads or targets.
    """
    if inputs.kind == "published":
        return _again(inputs, made, name)
    folder = home / slug(name or inputs.name)
    record = _record(inputs, made)
    before = read_json(folder / BOARD)
    if (folder / BOARD).exists() and before is None:
        raise UserError(f"{folder / BOARD} is damaged")
    if before is not None:
        _refuse_other_rules(folder, before, record)
    record |= {key: (before or FIRST)[key] for key in FIRST}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if before is not None and _unchanged(folder, made, before, record):
            return [f"{folder} already holds these numbers, as version {record['version']}"]
        record["version"] += before is not None
        record["history"] = [*record["history"], _event(inputs, record["version"])]
        _write(folder, inputs, made, record)
    return [
        f"published: {folder}, version {record['version']}",
        f"check it: {command('runner.score', folder, '--check')}",
    ]


def check(folder: Path) -> list[str]:
    """Score a published board again from its own tables.

    Returns:
        Every number and line that does not come out as printed; empty where all do.

    Raises:
        UserError: where it is not a published board, or damaged.
    """
    inputs = read(folder)
    if inputs.kind != "published" or inputs.rules is None:
        raise UserError(f"{folder} is not a published leaderboard: it has no {BOARD}")
    made = boards(inputs.cells, inputs.rules, inputs.sources, inputs.workloads)
    wrong = _frozen(inputs.record, made) + ([] if inputs.imported else _unlike_configs(inputs))
    wrong += _unlike_csv(folder / "leaderboard.csv", flat(made))
    return wrong + _unlike_text(folder / "leaderboard.md", page(inputs.record, made, folder))


def page(record: Mapping[str, Any], made: Sequence[Board], folder: Path) -> str:
    """A published board's ``leaderboard.md``."""
    title = f"{record['name']}, version {record['version']}"
    text = markdown(title, marked(made, folder), [*record["headline"], *disputes(folder)], record["missing"])
    return text + "\n" + _origin(record, folder)


def marked(made: Sequence[Board], folder: Path) -> list[Board]:
    """The boards with a word beside those whose cells are disputed."""
    marks = dict.fromkeys(disputed(folder), "disputed")
    return [replace(board, marks=marks) for board in made]


def disputes(folder: Path) -> list[str]:
    """``disputed: digits · lion · study 0 · trial 1 (…)``, for every cell whose last rerun did not agree."""
    return [
        f"disputed: {row['title']}: {row['why']} ({row['machine']}, {row['date']})"
        for row in _disputed(folder)
    ]


def disputed(folder: Path) -> list[str]:
    """Labels of the cells whose last rerun did not agree."""
    return sorted({row["label"] for row in _disputed(folder)})


def _disputed(folder: Path) -> list[dict[str, Any]]:
    last = {row["id"]: row for row in verifications(folder)}
    return [row for row in last.values() if row["verdict"] == "disputed"]


def verifications(folder: Path) -> list[dict[str, Any]]:
    """Cells that were run again, oldest first."""
    file = folder / VERIFIED
    needed = {"id", "label", "title", "verdict", "why", "machine", "date"}
    return [row for row in read_lines(file) if needed <= row.keys()] if file.exists() else []


def configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Cell id -> resolved config of a published board.

    Raises:
        UserError: where they are absent or damaged.
    """
    try:
        with unpacked(folder / CONFIGS, gzip.open) as file:
            return {config["id"]: config for config in map(json.loads, file)}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / CONFIGS} cannot be read: {one_line(str(error))}") from error


def refresh(folder: Path) -> None:
    """Write ``leaderboard.csv`` and ``.md`` again: cells have been verified, or boards show other columns."""
    inputs = read(folder)
    if inputs.rules is not None:
        made = boards(inputs.cells, inputs.rules, inputs.sources, inputs.workloads)
        with writing(folder):
            write_csv(folder / "leaderboard.csv", flat(made))
            write_text(folder / "leaderboard.md", page(inputs.record, made, folder))


# -- writing ---------------------------------------------------------------------------------------


def _again(inputs: Inputs, made: Sequence[Board], name: str | None) -> list[str]:
    if name not in (None, inputs.name):
        raise UserError(f"{inputs.folder} is already published, as {inputs.name}")
    if _asked(made) != inputs.rules:
        raise UserError(f"{inputs.folder} is frozen with different rules: publish the experiment --as NAME")
    refresh(inputs.folder)
    return [f"leaderboard.csv and leaderboard.md of {inputs.folder} rewritten from its own tables"]


def _record(inputs: Inputs, made: Sequence[Board]) -> dict[str, Any]:
    headline, missing = _lasting(inputs)
    return {
        "name": inputs.name,
        "rules": _asked(made).to_dict(),
        "boards": goals_of(made),
        "targets": _targets(inputs.cells),
        "cells": len(inputs.cells),
        "headline": headline,
        "missing": [_portable(line, inputs) for line in missing],
        "imported": inputs.imported,
    }


def _asked(made: Sequence[Board]) -> Rules:
    """The rules that were asked for: a part that lacks the baseline has none."""
    known = [board.rules.baseline for board in made if board.rules.baseline is not None]
    return replace(made[0].rules, baseline=(known or [BASELINE])[0])


def _portable(line: str, inputs: Inputs) -> str:
    """A line of what is missing whose command names no folder of this machine."""
    said, mark, typed = line.rpartition(": python ")
    if not mark:
        return line
    words = [word for word in shlex.split(typed) if name_of(word) not in PLACES]
    pairs = zip(["", *words], words, strict=False)
    words = [Path(word).name if before == CONFIG_DIR else word for before, word in pairs]
    here = f"results/{inputs.name}"
    return said + mark + shlex.join(here if word == str(inputs.folder) else word for word in words)


def _lasting(inputs: Inputs) -> tuple[list[str], list[str]]:
    gaps = inputs.lasting
    return (inputs.headline, inputs.missing) if gaps is None else (gaps.headline, gaps.lines)


def _targets(cells: pd.DataFrame) -> list[str]:
    return sorted({str(version) for version in cells["targets"].dropna()}) if "targets" in cells else []


def _refuse_other_rules(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for what in ("rules", "boards", "targets"):
        # Compared as JSON holds them: a number that was read back equals one that was not.
        if json.loads(as_json(now[what])) != before.get(what):
            words = "workloads and targets" if what == "boards" else what
            raise UserError(
                f"{folder} is frozen, and its {words} differ: publish under another name, --as NAME"
            )


def _unchanged(
    folder: Path, made: Sequence[Board], before: Mapping[str, Any], now: Mapping[str, Any]
) -> bool:
    file = folder / "leaderboard.csv"
    return before.get("headline") == now["headline"] and file.exists() and not _unlike_csv(file, flat(made))


def _event(inputs: Inputs, version: int) -> dict[str, Any]:
    finished = sum(status in FINISHED for status in inputs.cells["status"])
    return {
        "version": version,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "finished": finished,
        "complete": not _lasting(inputs)[0],
    }


def _write(folder: Path, inputs: Inputs, made: Sequence[Board], record: dict[str, Any]) -> None:
    """The tables first, the record of what they are last."""
    record["name"] = folder.name
    cells = inputs.cells.drop(columns=[name for name in MACHINE if name in inputs.cells])
    write_parquet(folder / "cells.parquet", cells)
    write_parquet(folder / "evals.parquet", _lean(inputs.evals))
    if inputs.kind == "experiment":
        _write_configs(folder / CONFIGS, inputs)
        manifest = _manifest(inputs)
    else:
        manifest = read_json(inputs.folder / IMPORTED) or {}
        manifest |= {key: Path(str(manifest[key])).name for key in ("source", "targets") if key in manifest}
    write_text(folder / MANIFEST, as_json(manifest))
    write_csv(folder / "leaderboard.csv", flat(made))
    write_text(folder / "leaderboard.md", page(record, made, folder))
    write_text(folder / BOARD, as_json(record))


def _lean(evals: pd.DataFrame) -> pd.DataFrame:
    """Without what the cell's id and row say already; what no score hangs on to seven digits.

    Metrics, losses and costs stay as they are, to the last bit.
    """
    known = ["workload", "label", "study", "trial", *(name for name in evals if name.startswith("clock/"))]
    kept = evals.drop(columns=known, errors="ignore")
    return kept.astype({name: "float32" for name in kept if str(name).startswith(BRIEF)})


def _write_configs(path: Path, inputs: Inputs) -> None:
    lines = []
    for name in inputs.cells["folder"]:
        try:
            config = CellFolder(inputs.folder / "cells" / name).config()
        except Exception as error:  # damaged YAML can fail anywhere
            raise UserError(f"{name}/config.yaml cannot be read: {one_line(str(error))}") from error
        kept = {key: value for key, value in config.items() if key not in LOCAL}
        lines.append(json.dumps(kept, default=str))
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:  # the same cells give the same file
        file.write(("\n".join(lines) + "\n").encode())
    write_atomic(path, lambda file: file.write(raw.getvalue()))


def _manifest(inputs: Inputs) -> dict[str, Any]:
    """How the numbers were made: each kind of machine, set of packages and commit, and how many cells."""
    manifests = [CellFolder(inputs.folder / "cells" / name).manifest() for name in inputs.cells["folder"]]
    used = dict(zip(inputs.cells["workload"], manifests, strict=True))
    return {
        "commits": _counted(m.get("git") for m in manifests),
        "machines": _counted(m.get("hardware") for m in manifests),
        "packages": _counted(m.get("packages") for m in manifests),
        "python": _counted(m.get("python") for m in manifests),
        "data": {workload: manifest.get("data") for workload, manifest in used.items()},
        "sources": inputs.sources,
    }


def _counted(values: Iterable[Any]) -> list[dict[str, Any]]:
    counts: dict[str, int] = {}
    for value in values:
        if value is not None:
            text = json.dumps(value, sort_keys=True)
            counts[text] = counts.get(text, 0) + 1
    return [{"value": json.loads(text), "cells": count} for text, count in sorted(counts.items())]


def _origin(record: Mapping[str, Any], folder: Path) -> str:
    """Where the numbers come from, and how to make them again."""
    manifest = read_json(folder / MANIFEST) or {}
    commits = [f"{e['value'].get('commit', '?')[:10]}" for e in manifest.get("commits", [])]
    machines = [
        f"{e['value'].get('device')} ({e['value'].get('platform')})" for e in manifest.get("machines", [])
    ]
    lines = [f"{record['cells']:,} cells, targets {', '.join(record['targets']) or 'of the logs'}"]
    lines += [f"commit {', '.join(commits)}"] * bool(commits) + [", ".join(machines)] * bool(machines)
    home = (HOME / record["name"]).as_posix()
    rerun = f"`{command('runner.verify', home, '--cells', '5')}`"
    again = f"Recompute the numbers from the tables: `{command('runner.score', home, '--check')}`"
    again += "" if record["imported"] else f"; rerun cells: {rerun}"
    rows = list({row["id"]: row for row in verifications(folder)}.values())
    checked = f" Rerun so far: {_tally(rows)}." if rows else ""
    return f"{'; '.join(lines)}. {again}.{checked}\n"


def _tally(rows: Sequence[Mapping[str, Any]]) -> str:
    kinds = [row["verdict"] for row in rows]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


# -- checking ----------------------------------------------------------------------------------------


def _frozen(record: Mapping[str, Any], made: Sequence[Board]) -> list[str]:
    now = json.loads(as_json(goals_of(made)))
    return [] if now == record["boards"] else ["workloads and targets are not those of board.json"]


def _unlike_configs(inputs: Inputs) -> list[str]:
    published, cells = set(configs(inputs.folder)), set(map(str, inputs.cells["id"]))
    return [] if published == cells else [f"{CONFIGS}: does not match the cells"]


def _unlike_csv(path: Path, now: pd.DataFrame) -> list[str]:
    """Numbers that differ, exactly: the same arithmetic on the same tables gives the same digits."""
    try:
        before = pd.read_csv(path, dtype=str, keep_default_na=False)
    except Exception as error:
        raise UserError(f"{path} cannot be read: {one_line(str(error))}") from error
    again = pd.read_csv(io.StringIO(csv_text(now)), dtype=str, keep_default_na=False)
    if list(before.columns) != list(again.columns) or before["label"].tolist() != again["label"].tolist():
        return [f"{path.name}: rows or columns differ"]
    return list(_unlike(path.name, before, again))


def _unlike(name: str, before: pd.DataFrame, again: pd.DataFrame) -> Iterator[str]:
    for column in before.columns:
        for label, old, new in zip(before["label"], before[column], again[column], strict=True):
            if old != new and not _close(old, new):
                yield f"{name}: {column} of {label} is {old}, but recomputes to {new}"


def _close(old: str, new: str) -> bool:
    """Equal to 12 digits: the last ones of a mean may differ between machines."""
    try:
        a, b = float(old), float(new)
    except ValueError:
        return False
    return a == b or abs(a - b) <= 1e-12 * max(abs(a), abs(b))


def _unlike_text(path: Path, now: str) -> list[str]:
    try:
        before = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {one_line(str(error))}") from error
    lines = zip(before.splitlines(), now.splitlines(), strict=False)
    wrong = [f"{path.name}: “{old}” is now “{new}”" for old, new in lines if old != new]
    if before.count("\n") != now.count("\n"):
        wrong.append(f"{path.name}: number of lines differs")
    return wrong
