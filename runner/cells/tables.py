"""An experiment's folder as two tables: ``cells`` (one row per cell), ``evals`` (one row per evaluation)."""

from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.base.errors import UserError
from runner.base.files import read_json
from runner.base.paths import expanded
from runner.base.unpack import check_table
from runner.contract.records import FINISHED, CellFolder

if TYPE_CHECKING:  # the launcher imports this module, and has no use for pandas
    import pandas as pd

Record = dict[str, Any]
KEYS = ("id", "workload", "label", "study", "trial")
IMPORTED, BOARD = "imported.json", "board.json"  # what marks tables that have no cells' folders
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would run
OF_GPU = ("driver", "cuda", "cudnn", "power_limit_w")  # what its seconds hang on, beside its model
UNITS = ("samples", "seconds", "steps", "drawn")
FIRST = (*KEYS, "status", "hit", *(f"{unit}_to_target" for unit in UNITS), "best_metric", "metric", "target")


def load(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All cells of an experiment, finished or not. What moved to ``superseded/`` is left out.

    Args:
        folder: the experiment's folder, ``results/<name>``; or a published board's,
            ``results/leaderboards/<name>``.

    Returns:
        ``cells``: ``id, workload, label, study, trial, status``, the summary of a finished cell
        (``samples_to_target`` and the like are infinite where it missed, NaN where it is unfinished or has
        no target; ``peak_gpu_memory_gb`` on a GPU), ``best_metric`` (validation, so far), ``error``,
        ``host``, ``job``, ``device``, ``threads``, on a GPU ``driver``, ``cuda``, ``cudnn``,
        ``power_limit_w``, ``source``, ``commit``, ``data_checksum``, and hyperparameters as
        ``hparam/<key>``.
        ``evals``: ``id, workload, label, study, trial`` and what was measured, in order. A finished cell
        whose evaluations are not as it wrote them has ``status`` ``"damaged"`` and no evaluations.

    Raises:
        UserError: when there is no such folder, or no cell in it.
    """
    folder = expanded(folder)
    if (folder / BOARD).is_file():
        return _published(folder)
    if (folder / IMPORTED).is_file():
        return _imported(folder)
    found = [(record, rows) for path in cell_paths(folder) for record, rows in _read(path)]
    if not found:
        raise UserError(f"{folder} holds no cells{_experiments_in(folder)}")
    cells = _frame([record for record, _ in found], FIRST)
    evals = _frame([row for _, rows in found for row in rows]).drop(columns=list(KEYS), errors="ignore")
    owner = [place for place, (_, rows) in enumerate(found) for _ in rows]
    for place, key in enumerate(KEYS):
        evals.insert(place, key, cells[key].take(owner).array)
    return cells, evals


def _imported(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables that came from elsewhere as they are, without cells' folders (``runner.import_logs``)."""
    import pandas as pd

    files = folder / "cells.parquet", folder / "evals.parquet"
    try:
        for file in files:
            check_table(file)
        return pd.read_parquet(files[0]), pd.read_parquet(files[1])
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: its tables cannot be read ({error}); import the logs again") from error


def _published(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A published board's tables; its evaluations know their cells by id alone."""
    cells, evals = _imported(folder)
    known = cells.drop_duplicates("id").set_index("id")
    for place, key in enumerate(KEYS[1:], start=1):
        evals.insert(place, key, known[key].reindex(evals["id"]).array)
    return cells, evals


def cell_row(path: Path) -> pd.Series:
    """One cell's row of the ``cells`` table.

    Raises:
        UserError: when ``path`` is no cell's folder.
    """
    for record, _ in _read(path):
        return _frame([record], FIRST).iloc[0]
    raise UserError(f"{path} is not the folder of a cell")


def cell_paths(folder: Path) -> list[Path]:
    """The folders under ``cells/``, by name.

    Raises:
        UserError: when the experiment's folder does not exist.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    try:
        with os.scandir(folder / "cells") as entries:
            return [folder / "cells" / name for name in sorted(e.name for e in entries if e.is_dir())]
    except FileNotFoundError:
        return []


# -- one cell ----------------------------------------------------------------------------------------


def _read(path: Path) -> Iterator[tuple[Record, list[Record]]]:
    """The cell in ``path`` and its evaluations; nothing where there is no cell."""
    folder = CellFolder(path)
    card = _card(folder)
    if card is None:
        return
    rows, status, manifest = folder.evals(), folder.status(), folder.manifest()
    if (damage := folder.damage()) is not None:
        rows, status = [], {**status, "status": "damaged", "error": damage}
    summary = status.get("summary")
    summary = summary if isinstance(summary, dict) else {}
    yield (
        {
            **summary,
            **{key: value for key, value in card.items() if value is not None or key not in summary},
            "status": str(status.get("status", "pending")),
            "budget": status.get("budget"),
            **_to_target(summary, finished=status.get("status") in FINISHED),
            "best_metric": _best(rows, card, summary),
            **{key: status.get(key) or manifest.get(key) for key in ("host", "job")},
            "error": status.get("error"),
            **({"reason": status["reason"]} if "reason" in status else {}),
            **_origin(manifest),
            "folder": path.name,
        },
        rows,
    )


def _card(folder: CellFolder) -> Record | None:
    """Who the cell is: from ``cell.json``, or from the larger and slower ``config.yaml``."""
    card = read_json(folder.path / "cell.json") or {}
    config = {} if {"hparams", "metric"} <= card.keys() else folder.readable_config()
    workload = config.get("workload")
    workload = workload if isinstance(workload, dict) else {}
    both = {**config, **card}
    if any(key not in both for key in ("id", "label", "study", "trial")):
        if folder.status_file.exists() or folder.evals_file.exists():
            warnings.warn(f"{folder.path} is skipped: it has neither cell.json nor config.yaml", stacklevel=2)
        return None
    facts = {key: both.get(key) for key in ("device", "threads", "targets", "ruleset")}
    facts["provisional"] = bool(both.get("provisional", False))
    facts |= {key: card.get(key, workload.get(key)) for key in ("data", "precision", "metric", "minimize")}
    hparams = card.get("hparams")
    hparams = hparams if isinstance(hparams, dict) else hyperparameters(config.get("algorithm"))
    name = both.get("workload_label") or workload.get("name") or card.get("workload")
    return {
        "id": str(both["id"]),
        "workload": str(name),
        "label": str(both["label"]),
        "study": both["study"],
        "trial": both["trial"],
        **facts,
        **{f"hparam/{key}": value for key, value in hparams.items()},
    }


def hyperparameters(algorithm: object, prefix: str = "") -> Record:
    """The numbers, words and lists of an algorithm's config by dotted key; classes are left out."""
    if not isinstance(algorithm, Mapping):
        return {}
    flat: Record = {}
    for key, value in algorithm.items():
        if isinstance(value, Mapping):
            flat |= hyperparameters(value, f"{prefix}{key}.")
        elif key != "_target_":
            flat[f"{prefix}{key}"] = value
    return flat


def _to_target(summary: Mapping[str, Any], finished: bool) -> Record:
    missed = math.inf if finished and summary.get("target") is not None else math.nan
    return {f"{unit}_to_target": _number(summary.get(f"{unit}_to_target"), missed) for unit in UNITS}


def _best(rows: Sequence[Record], card: Record, summary: Mapping[str, Any]) -> float:
    metric = summary.get("metric", card["metric"])
    values = [_number(row.get(f"validation/{metric}"), math.nan) for row in rows]
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return math.nan
    return min(values) if summary.get("minimize", card["minimize"]) else max(values)


def _origin(manifest: Mapping[str, Any]) -> Record:
    """Where the numbers come from: source, commit, data, hardware."""
    found = (manifest.get(key) for key in ("git", "data", "hardware", "gpu"))
    git, data, hardware, gpu = (part if isinstance(part, dict) else {} for part in found)
    return {
        "source": manifest.get("source"),
        "commit": git.get("commit"),
        "dirty": git.get("dirty"),
        "data_checksum": _digest(data) if data else None,
        "hardware": hardware.get("device"),
        **{key: gpu[key] for key in OF_GPU if key in gpu},
        "resumes": manifest.get("resumes", 0),
        "started": manifest.get("started"),
    }


def _digest(checksums: Mapping[str, Any]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()[:16]


def _number(value: Any, otherwise: float) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if good else otherwise


def _experiments_in(folder: Path) -> str:
    names = sorted(path.parent.name for path in folder.glob("*/cells"))
    return f"; did you mean {', '.join(str(folder / name) for name in names[:5])}?" if names else ""


# -- files for spreadsheets --------------------------------------------------------------------------


def csv_text(frame: pd.DataFrame) -> str:
    """The frame as CSV that a spreadsheet shows and never runs: text that would be a formula gets a ``'``.

    Numbers stay as they are, and Parquet holds every text as it is.
    """
    shown = frame.set_axis([_inert(name) for name in frame.columns], axis=1)
    words = [place for place, dtype in enumerate(frame.dtypes) if dtype.kind == "O"]
    for place in words:
        shown.isetitem(place, [_inert(value) for value in frame.iloc[:, place]])
    return shown.to_csv(index=False)


def _inert(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    with contextlib.suppress(ValueError):
        float(value)
        return value
    return f"'{value}"


# -- frames ------------------------------------------------------------------------------------------


def _frame(records: Sequence[Record], first: Iterable[str] = ()) -> pd.DataFrame:
    """One column per key, those in ``first`` in front, each with one dtype whatever the files held."""
    import pandas as pd

    names = dict.fromkeys(first)
    for record in records:
        if not record.keys() <= names.keys():
            names |= dict.fromkeys(record)
    return pd.DataFrame({name: _column([record.get(name) for record in records]) for name in names})


def _column(values: list[Any]) -> pd.Series:
    import pandas as pd

    kinds = set(map(type, values))
    missing = type(None) in kinds
    kinds.discard(type(None))
    dtype = None
    if kinds == {bool}:
        dtype = "boolean" if missing else "bool"
    elif kinds == {int}:
        dtype = "Int64" if missing else "int64"
    elif kinds and kinds <= {int, float}:
        dtype = "float64"
    if dtype is not None:
        with contextlib.suppress(OverflowError):
            return pd.Series(values, dtype=dtype)
    return pd.Series(values if kinds <= {str} else [None if v is None else _text(v) for v in values])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
