"""From a resolved config to objects. Hydra's ``_target_`` is the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.errors import UserError

NOT_ARGUMENTS = ("search_space", "bounds")


def build_part(where: str, spec: Any, *args: Any, prefix: str = "algorithm.") -> Any:
    """Instantiate a part from its config (or call its factory) with ``args`` in front.

    Raises:
        UserError: when the constructor refuses a value or an argument; ``where`` names the key.
    """
    if not isinstance(spec, Mapping):
        return spec(*args)
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    config = {key: value for key, value in spec.items() if key not in NOT_ARGUMENTS}
    try:
        return instantiate(config, *args, _convert_="all", _recursive_=False)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, (ValueError, TypeError, AssertionError, ImportError, AttributeError)):
            raise UserError(f"{prefix}{where} ({spec['_target_']}): {cause}") from error
        raise
