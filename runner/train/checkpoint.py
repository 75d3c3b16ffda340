"""Checkpoints: all that training has changed, loadable with ``weights_only=True``."""

from __future__ import annotations

import functools
import io
import pickle
import sys
import zipfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from runner.base.errors import UserError, described, one_line
from runner.base.files import discard, write_atomic
from runner.contract.generators import global_rng, set_global_rng
from runner.provenance import trust

QUEUE = "a queue"
HOST = "kept on the host"
CPU = torch.device("cpu")
OPTIMIZER = {"state", "param_groups"}  # keys of an optimizer's state, as torch has it

if TYPE_CHECKING:
    from runner.train.loop import Loop


def snapshot(loop: Loop) -> dict[str, Any]:
    """All that training has changed so far, generators and clock included; tensors are shared, not copied."""
    progress, device = loop.progress, loop.task.data.x.device
    return {
        "progress": {
            "boundary": progress.boundary,
            "losses": torch.stack(progress.losses) if progress.losses else None,
            "rows": progress.rows,
            "hit": progress.hit,
        },
        "task": loop.task.state_dict(),
        "algorithm": packed(loop.algorithm.state_dict(), device),
        "cost": loop.task.cost.state_dict(),
        "clock": loop.clock.state_dict(),
        "diagnostics": packed(loop.diagnostics.state_dict(), device),
        "rng": global_rng(device),
    }


def restore(loop: Loop, state: dict[str, Any]) -> None:
    """Go on where :func:`snapshot` was taken; ``loop`` is freshly built and its algorithm set up.

    The tensors of ``state`` are on the host, where :func:`read` leaves them. Each goes back to where it was:
    the step counters of torch's optimizers stay there, or every step would wait for the device to read them.
    """
    kept, progress, device = state["progress"], loop.progress, loop.task.data.x.device
    progress.boundary, progress.rows, progress.hit = kept["boundary"], kept["rows"], kept["hit"]
    progress.losses = [] if kept["losses"] is None else list(kept["losses"].to(device).unbind())
    loop.task.load_state_dict(state["task"])
    loop.algorithm.load_state_dict(unpacked(state["algorithm"], device))
    put_back(loop.algorithm.state_dict(), state["algorithm"], device)
    loop.task.cost.load_state_dict(state["cost"])
    loop.clock.load_state_dict(state["clock"])
    loop.diagnostics.load_state_dict(unpacked(state.get("diagnostics", {}), device))
    set_global_rng(state["rng"], device)


def packed(tree: Any, device: torch.device) -> Any:
    """The same state without queues, which torch's safe reader does not fill.

    Tensors that are not on ``device``, the cell's, are marked.
    """
    if isinstance(tree, torch.Tensor):
        return tree if tree.device.type == device.type else {HOST: tree}
    if type(tree) is dict:
        return {key: packed(value, device) for key, value in tree.items()}
    if type(tree) is deque:
        return {QUEUE: [packed(value, device) for value in tree], "maxlen": tree.maxlen}
    return type(tree)(packed(value, device) for value in tree) if type(tree) in (list, tuple) else tree


def unpacked(tree: Any, device: torch.device, held: bool = False) -> Any:
    """What :func:`packed` was given, each tensor where it was; ``held``: left on the host.

    What an optimizer knows of its parameters is held: to bring it to them is the optimizer's business, and
    one that copies what it is given would else have it on the device twice.
    """
    if isinstance(tree, torch.Tensor):
        return tree if held else tree.to(device)
    if _is_mark(tree):
        return tree[HOST]
    if type(tree) is dict and set(tree) == {QUEUE, "maxlen"}:
        return deque((unpacked(value, device, held) for value in tree[QUEUE]), tree["maxlen"])
    if type(tree) is dict:
        holds = {"state"} if tree.keys() >= OPTIMIZER else ()
        return {key: unpacked(value, device, held or key in holds) for key, value in tree.items()}
    if isinstance(getattr(tree, "__dict__", None), dict):  # an object of an allowed package
        _bring(tree, device, set())
    return type(tree)(unpacked(v, device, held) for v in tree) if type(tree) in (list, tuple) else tree


def put_back(live: Any, tree: Any, device: torch.device) -> None:
    """Have each tensor of ``live`` where it was when ``tree`` was packed: loading may have moved it."""
    if type(live) is dict and type(tree) is dict:
        places = [(key, tree[key]) for key in live if key in tree]
    else:
        places = [*enumerate(tree)][: len(live)] if type(live) is list and type(tree) is list else []
    for key, saved in places:
        if _is_mark(saved):
            live[key] = saved[HOST]
        elif isinstance(saved, torch.Tensor):
            live[key] = live[key].to(device)
        else:
            put_back(live[key], saved, device)


def _bring(thing: Any, device: torch.device, seen: set[int]) -> Any:
    """``thing`` with the tensors that it holds, somewhere within, on ``device``; it may hold itself."""
    if isinstance(thing, torch.Tensor):
        return thing.to(device)
    if id(thing) in seen:
        return thing
    seen.add(id(thing))
    if isinstance(held := getattr(thing, "__dict__", thing), dict):
        held.update({key: _bring(value, device, seen) for key, value in held.items()})
    elif type(thing) is list:
        thing[:] = [_bring(value, device, seen) for value in thing]
    return tuple(_bring(value, device, seen) for value in thing) if type(thing) is tuple else thing


def _is_mark(tree: Any) -> bool:
    return type(tree) is dict and set(tree) == {HOST}


def save(path: Path, state: dict[str, Any], stage: Path | None = None) -> None:
    """Write ``state`` so that a kill at any instant leaves the old checkpoint or the new one.

    What was written is read back at once, but for the tensors' contents: a cell that could never be resumed
    says so now, and not when its work is lost.

    Args:
        path: the checkpoint.
        state: what to keep.
        stage: as of :func:`runner.base.files.write_atomic`.

    Raises:
        OSError: where it cannot be written.
        UserError: where a part keeps something that no checkpoint can hold: which part, and of what type.
    """
    try:
        write_atomic(path, lambda file: torch.save(state, file), stage)
        read(path, mmap=True)
    except OSError:
        raise
    except Exception as error:
        discard(path, stage or path.parent)  # nobody could go on from it
        if (found := _unholdable(state)) is None:
            raise
        where, kind = found
        raise UserError(
            f"{where} is a {kind.__name__}, which a checkpoint cannot hold: keep tensors, numbers, strings, "
            f"and lists, tuples, sets and dicts of them in a part's state{_unless_allowed(kind)}"
        ) from error


def read(file: Path | BinaryIO, mmap: bool = False) -> Any:
    """What was saved, on the host, by torch's reader that runs no code; NumPy's numbers are data, too.

    Objects of packages that the user has allowed (:mod:`runner.provenance.trust`) are made by their code.

    Raises:
        Exception: of any kind, for a file that is damaged or holds something else.
    """
    with torch.serialization.safe_globals(_numpy_types()):
        try:
            return torch.load(file, map_location=CPU, weights_only=True, mmap=mmap)
        except pickle.UnpicklingError:
            types = _allowed_types(file)
            if not types:
                raise
    with torch.serialization.safe_globals([*_numpy_types(), *types]):
        return torch.load(_from_start(file), map_location=CPU, weights_only=True, mmap=mmap)


def _allowed_types(file: Path | BinaryIO) -> list[Any]:
    """What the file names beside data, where all of that is allowed; else nothing."""
    names = torch.serialization.get_unsafe_globals_in_checkpoint(_from_start(file))
    return [trust.resolved(name) for name in names] if all(map(trust.allowed, names)) else []


def _from_start(file: Path | BinaryIO) -> Any:
    if not isinstance(file, Path):
        file.seek(0)
    return file


def damage(path: Path) -> str | None:
    """What is wrong with a file that should be a checkpoint; None where every byte that counts is as written.

    The file is a zip archive with a CRC-32 of each record, which torch writes and does not check. Whose
    checkpoint it is, is for :func:`load`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(record.compress_type for record in archive.infolist()):
                return "its records are compressed, which checkpoints never are"
            torn = archive.testzip()
    except Exception as error:  # what a damaged archive brings about depends on where it is damaged
        return one_line(described(error), 120)
    return None if torn is None else f"its record {torn} is damaged"


def load(path: Path, expected: Mapping[str, Any]) -> dict[str, Any]:
    """The state in ``path``, its tensors on the host.

    Args:
        path: the checkpoint, which exists.
        expected: keys and values that a checkpoint to go on from has.

    Raises:
        Unusable: for one that is damaged, or is not such a checkpoint.
    """
    if (torn := damage(path)) is not None:
        raise Unusable(torn)
    try:
        state = read(path)
    except Exception as error:
        raise Unusable(one_line(described(error), 120)) from error
    if not isinstance(state, dict):
        raise Unusable(f"it holds a {type(state).__name__}, not a checkpoint")
    for key, value in expected.items():
        if state.get(key) != value:
            raise Unusable(f"its {key} differs" if key in state else f"it has no {key}")
    return state


class Unusable(Exception):  # noqa: N818 - an outcome, not a fault
    """A checkpoint that cannot be gone on from; the message says why."""


def _unless_allowed(kind: type) -> str:
    """What else would help, where a package brings the type."""
    package = kind.__module__.partition(".")[0]
    if package in sys.stdlib_module_names or trust.allowed(f"{kind.__module__}.{kind.__qualname__}"):
        return ""
    return f"; or, if you trust {package}, add --allow {package} ({trust.MODEL})"


def _unholdable(value: Any, where: str = "") -> tuple[str, type] | None:
    """``("algorithm.optimizer.state.0.mode", Mode)``: the first thing that cannot be read back, its type."""
    if type(value) is dict:
        steps = [(f"{where}.{key}".lstrip("."), item) for key, item in value.items()]
    elif type(value) in (list, tuple):
        steps = [(f"{where}.{place}", item) for place, item in enumerate(value)]
    else:
        steps = []
    for path, item in steps:
        if (found := _unholdable(item, path)) is not None:
            return found
    return None if steps or _comes_back(value) else (where, type(value))


def _comes_back(value: Any) -> bool:
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        read(file)
    except Exception:
        return False
    return True


@functools.cache
def _numpy_types() -> list[Any]:
    codes = np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"
    dtypes = {type(np.dtype(code)) for code in codes}
    return [np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0], np.ndarray, np.dtype, *dtypes]
