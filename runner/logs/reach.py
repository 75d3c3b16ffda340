"""Can a server be used, without a prompt and without a long wait: credentials, network, bounded calls."""

from __future__ import annotations

import functools
import netrc
import os
import socket
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
PORTS = {"https": 443, "http": 80}


def bounded(seconds: float, call: Callable[[], T]) -> T:
    """``call()``, given up after ``seconds``: it then goes on in a thread that nobody waits for.

    Raises:
        TimeoutError: when it took longer; else whatever ``call`` raises.
    """
    box: dict[str, Any] = {}

    def run() -> None:
        try:
            box["value"] = call()
        except BaseException as error:  # raised again where it is waited for
            box["error"] = error

    thread = threading.Thread(target=run, daemon=True, name="logger")
    thread.start()
    thread.join(seconds)
    if "error" in box:
        raise box["error"]
    if "value" not in box:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return box["value"]


def logged_in(settings: Any) -> bool:
    """Whether wandb will find credentials: in the environment, its settings or a netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    if getattr(settings, "api_key", None) or getattr(settings, "identity_token_file", None):
        return True
    named = os.environ.get("NETRC")
    paths = [Path(named)] if named else [Path("~/.netrc"), Path("~/_netrc")]
    return any(_has_entry(path.expanduser(), urlsplit(settings.base_url).netloc) for path in paths)


def _has_entry(path: Path, host: str) -> bool:
    try:
        entry = netrc.netrc(path).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return False
    return entry is not None and bool(entry[2])


@functools.lru_cache(maxsize=8)
def reachable(url: str, seconds: float = 3.0) -> bool:
    """Whether something listens at ``url``, or at the proxy that leads there; asked once a process."""
    place = urlsplit(url)
    proxy = urllib.request.getproxies().get(place.scheme)
    if proxy and place.hostname and not urllib.request.proxy_bypass(place.hostname):
        place = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    address = (place.hostname or "", place.port or PORTS.get(place.scheme, 443))
    try:
        # The look-up of the name has no time limit of its own.
        bounded(seconds, lambda: socket.create_connection(address, timeout=seconds).close())
    except (OSError, ValueError):  # TimeoutError is an OSError
        return False
    return True
