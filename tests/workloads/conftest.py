"""Workloads as they are shipped: built from their YAML, with their data where it is at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.compose.config import compose
from runner.contract.instantiate import build_part
from workloads.base import TensorWorkload

REPO = Path(__file__).parents[2]
REAL = {
    "mnist": "MNIST/raw",
    "mnist_svm": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
}  # workload -> where its files lie

Make = Callable[..., TensorWorkload]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    return Path(os.environ.get("BENCH_DATA", REPO / "data"))


def read_config(name: str) -> dict[str, Any]:
    """conf/workload/<name>.yaml with the options it takes in, but without its target."""
    return {**compose([f"workload={name}"])["workload"], "target": None}


@pytest.fixture(scope="session")
def make(data_dir: Path) -> Make:
    """``make(name, **changes)``: that workload, prepared; skips where its files are not at hand."""
    loaded: dict[str, Any] = {}

    def workload(name: str, **changes: Any) -> TensorWorkload:
        config = read_config(name) | ({"download": False} if name in REAL else {}) | changes
        made: TensorWorkload = build_part("workload", config, prefix="")
        if name in REAL and not any((data_dir / REAL[name]).glob("*-ubyte")):
            pytest.skip(
                f"no {REAL[name]}/*-ubyte in {data_dir}: set BENCH_DATA to the folder that holds them"
            )
        if name not in loaded:
            made.prepare(data_dir)
            loaded[name] = made._data, made.num_classes
        made._data, made.num_classes = loaded[name]
        return made

    return workload
