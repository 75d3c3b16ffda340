"""From a resolved config to objects. Hydra's ``_target_`` is the registry."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from runner.errors import UserError, one_line
from runner.targets import locate

NOT_ARGUMENTS = ("_target_", "_partial_", "_convert_", "_recursive_", "search_space", "bounds", "time_factor")
NO_TARGET = "names no class; write _target_: package.module.Class into its YAML"
WHOLE = "an algorithm of its own can do that: docs/adding_a_method/whole.md"


def build_part(where: str, spec: Any, *args: Any, prefix: str = "algorithm.") -> Any:
    """Instantiate a part from its config (or call its factory) with ``args`` in front.

    An optimizer loses torch's fused kernels where these would go wrong (:func:`runner.layout.unfuse`).

    Raises:
        UserError: without a ``_target_``, or when the constructor refuses a value or an argument; ``where``
            names the key.
    """
    if not isinstance(spec, Mapping):
        return spec(*args)
    if "_target_" not in spec:
        raise UserError(f"{prefix}{where}: {NO_TARGET}")
    arguments = {key: value for key, value in spec.items() if key not in NOT_ARGUMENTS}
    try:
        part: Any = functools.partial(locate(spec["_target_"]), *args, **arguments)
        # What is called with the parameters, as an optimizer is, is complete: _partial_ says the same of it.
        part = part if spec.get("_partial_") and not args else part()
    except (ValueError, TypeError, RuntimeError, ImportError, AttributeError) as error:
        raise UserError(f"{prefix}{where} ({spec['_target_']}): {one_line(str(error))}") from error
    if hasattr(part, "param_groups"):  # an optimizer, or what wraps one
        from runner.layout import unfuse

        unfuse(part.param_groups)
    return part


def check_optimizer(where: str, optimizer: Any) -> None:
    """Hold an optimizer or a wrapper against what a composed algorithm does with it.

    Raises:
        UserError: ``where`` names the key.
    """
    name = f"algorithm.{where} ({type(optimizer).__name__})"
    if any("lr" not in group for group in optimizer.param_groups):
        raise UserError(f"{name}: has no lr, by which schedules and groups scale its steps; {WHOLE}")
    given = ("loss",) if getattr(optimizer, "needs_loss", False) else ()
    needed = [arg.name for arg in _required(optimizer.step) if arg.name not in given]
    if needed:
        raise UserError(f"{name}: step() needs {', '.join(needed)}, steps here are called without; {WHOLE}")


def _required(function: Any) -> list[inspect.Parameter]:
    arguments = inspect.signature(function).parameters.values()
    various = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [arg for arg in arguments if arg.default is arg.empty and arg.kind not in various]
