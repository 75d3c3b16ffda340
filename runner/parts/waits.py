"""How often a part from elsewhere waits for the device: ``syncs_every`` in its YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.base.errors import UserError
from runner.contract.instantiate import target_of
from runner.contract.targets import arguments

KEY = "syncs_every"


def take_waits(specs: Mapping[str, Any], where: str = "algorithm") -> tuple[dict[str, Any], list[int]]:
    """Configs of parts by name without what they say of waits, which their classes know nothing of; and that.

    Raises:
        UserError: for a number of steps that is none; names the key.
    """
    rest: dict[str, Any] = {}
    found: list[int] = []
    for name, spec in specs.items():
        rest[name], declared = _taken(f"{where}.{name}", spec)
        found += declared
    return rest, found


def _taken(where: str, spec: Any) -> tuple[Any, list[int]]:
    if not isinstance(spec, Mapping):
        return spec, []
    if "_target_" not in spec:  # several of a kind
        return take_waits(spec, where)
    if KEY not in spec or KEY in arguments(target_of(spec)):
        return spec, []
    every = spec[KEY]
    if type(every) is not int or every < 0:
        raise UserError(
            f"{where}.{KEY}: got {every!r}, expected the steps between two waits, an integer of at least 0"
        )
    return {key: value for key, value in spec.items() if key != KEY}, [every]
