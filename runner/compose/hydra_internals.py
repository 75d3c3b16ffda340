"""All that stands on ``hydra._internal``, which Hydra may change without notice: no other file imports it.

Names are looked up when asked for: each costs an import that not every command needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl as ConfigLoaderImpl
    from hydra._internal.config_repository import ConfigRepository as ConfigRepository
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper as BasicSweeper
    from hydra._internal.hydra import Hydra as Hydra
    from hydra._internal.utils import create_config_search_path as create_config_search_path
    from hydra._internal.utils import get_args_parser as get_args_parser

_HOMES = {
    "ConfigLoaderImpl": "config_loader_impl",
    "ConfigRepository": "config_repository",
    "BasicSweeper": "core_plugins.basic_sweeper",
    "Hydra": "hydra",
    "create_config_search_path": "utils",
    "get_args_parser": "utils",
}
__all__ = [
    "BasicSweeper", "ConfigLoaderImpl", "ConfigRepository", "Hydra", "create_config_search_path",
    "get_args_parser",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"hydra._internal.{_HOMES[name]}"), name)
