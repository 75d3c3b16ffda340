"""The stub of the device's hooks: compiled once for a version of torch, loaded before torch is."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("hooks.cpp")
CACHE = Path(__file__).resolve().parents[3] / ".pytest_cache" / "pretend_cuda"  # git ignores it
COMPILER = shutil.which("g++")


def load() -> None:
    """Give torch the hooks of a device, which it asks for once, while it is imported.

    Raises:
        RuntimeError: where torch has been imported already.
    """
    if "torch" in sys.modules:
        raise RuntimeError("torch is imported already: load the pretended device's library before it")
    ctypes.CDLL(str(built()), ctypes.RTLD_GLOBAL)


def built() -> Path:
    """The compiled library; made where this version of torch has none yet.

    Raises:
        subprocess.CalledProcessError: where the compiler refuses it; what it says is on standard error.
    """
    version = importlib.metadata.version("torch")
    library = CACHE / f"{version}-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:8]}.so"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = library.with_suffix(f".{os.getpid()}")  # others may be at it
        subprocess.run(_command(fresh), check=True)
        fresh.replace(library)
    return library


def _command(target: Path) -> list[str]:
    spec = importlib.util.find_spec("torch")
    assert COMPILER is not None and spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent
    include, libraries = folder / "include", folder / "lib"
    return [
        COMPILER, "-std=c++20", "-O1", "-fPIC", "-shared", str(SOURCE), "-o", str(target),
        f"-I{include}", f"-I{include}/torch/csrc/api/include",
        f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-ltorch_cpu", "-lc10",
    ]  # fmt: skip
