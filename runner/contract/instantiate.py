"""From a resolved config to objects. Hydra's ``_target_`` is the registry."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from runner.base.errors import UserError, one_line, text_of
from runner.contract.placeholders import left_open
from runner.contract.targets import locate

NOT_ARGUMENTS = (
    "_target_",
    "_args_",
    "_partial_",
    "_convert_",
    "_recursive_",
    "search_space",
    "bounds",
    "time_factor",
)
NO_TARGET = "names no class; write _target_: package.module.Class into its YAML"
TOO_EARLY = "placeholders are for optimizers, wrappers and schedules from elsewhere, built at set-up"
WHOLE = "an algorithm of its own can do that: docs/adding_a_method/whole.md"


def build_part(where: str, spec: Any, *args: Any, prefix: str = "algorithm.") -> Any:
    """Instantiate a part from its config (or call its factory) with ``args`` in front.

    An optimizer loses fused kernels where these would go wrong (:mod:`runner.contract.memory_layout`).

    Raises:
        UserError: without a ``_target_``, or when the constructor refuses a value or an argument; ``where``
            names the key.
    """
    if not isinstance(spec, Mapping):
        return spec(*args)
    if "_target_" not in spec:
        raise UserError(f"{prefix}{where}: {NO_TARGET}")
    arguments = {key: value for key, value in spec.items() if key not in NOT_ARGUMENTS}
    if (early := next(filter(lambda key: left_open(arguments[key]), arguments), None)) is not None:
        raise UserError(f"{prefix}{where}.{early}: got {arguments[early]}: {TOO_EARLY}")
    try:
        part: Any = functools.partial(locate(spec["_target_"]), *args, *spec.get("_args_", ()), **arguments)
        # What is called with the parameters, as an optimizer is, is complete: _partial_ says the same of it.
        part = part if spec.get("_partial_") and not args else part()
    except (ValueError, TypeError, RuntimeError, ImportError, AttributeError) as error:
        raise UserError(f"{prefix}{where} ({spec['_target_']}): {one_line(text_of(error))}") from error
    if hasattr(part, "param_groups"):  # an optimizer, or what wraps one
        from runner.contract.exact import keep_types
        from runner.contract.memory_layout import unfuse

        unfuse(part.param_groups)
        keep_types(part)
    return part


def target_of(spec: Any) -> Any:
    """What a config names, or the factory itself; None where it cannot be imported: building says why."""
    if not isinstance(spec, Mapping):
        return spec
    try:
        return locate(spec["_target_"])
    except Exception:
        return None
