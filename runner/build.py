"""From a resolved config to objects. Hydra's ``_target_`` is the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.errors import UserError, one_line

NOT_ARGUMENTS = ("_target_", "search_space", "bounds", "time_factor")


def build_part(where: str, spec: Any, *args: Any, prefix: str = "algorithm.") -> Any:
    """Instantiate a part from its config (or call its factory) with ``args`` in front.

    Raises:
        UserError: when the constructor refuses a value or an argument; ``where`` names the key.
    """
    if not isinstance(spec, Mapping):
        return spec(*args)
    from hydra.utils import get_object

    arguments = {key: value for key, value in spec.items() if key not in NOT_ARGUMENTS}
    try:
        part = get_object(spec["_target_"])(*args, **arguments)
    except (ValueError, TypeError, RuntimeError, ImportError, AttributeError) as error:
        raise UserError(f"{prefix}{where} ({spec['_target_']}): {one_line(str(error))}") from error
    if hasattr(part, "param_groups"):  # an optimizer, or what wraps one
        from runner.layout import unfuse

        unfuse(part.param_groups)
    return part
