"""Presets of torch's own classes: built from their YAML, they are the variant that the card says."""

import math

import pytest
import torch

from runner.contract.instantiate import build_part
from tests.problems import PROBLEMS, Problem, Update, part_config, run_optimizer, run_reference


def from_yaml(name: str, **changes: object):
    return lambda params: build_part("optimizer", part_config("optimizer", name, **changes), params)


def literal_momentum(lr: float, mu: float, decay: float, nesterov: bool) -> Update:
    buffers: dict[tuple[int, int], float] = {}

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        for i in range(len(x)):
            for j in range(len(x[i])):
                gradient = g[i][j] + decay * x[i][j]
                buffer = gradient if t == 1 else mu * buffers[i, j] + gradient
                buffers[i, j] = buffer
                x[i][j] -= lr * (gradient + mu * buffer if nesterov else buffer)

    return update


def literal_adam(
    lr: float, beta1: float, beta2: float, eps: float, decay: float, decoupled: bool = False
) -> Update:
    """Algorithm 1 of the paper, one float at a time, with coupled or decoupled weight decay."""
    moments: dict[tuple[int, int], tuple[float, float]] = {}

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        for i in range(len(x)):
            for j in range(len(x[i])):
                m, v = moments.get((i, j), (0.0, 0.0))
                gradient = g[i][j] + (0.0 if decoupled else decay * x[i][j])
                x[i][j] *= 1 - lr * decay if decoupled else 1
                m = beta1 * m + (1 - beta1) * gradient
                v = beta2 * v + (1 - beta2) * gradient**2
                x[i][j] -= lr * (m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + eps)
                moments[i, j] = m, v

    return update


SPECS = {
    "nesterov": (
        {"weight_decay": 0.01},
        [[0.4281, 0.2381], [0.08422061, -0.44897939], [0.04927077, -0.93028624]],
    ),
    "adamw": ({"weight_decay": 0.1}, [[0.89, 0.89], [0.78182297, 0.78141652], [0.67613061, 0.67448492]]),
    # Algorithm 1 of the paper with the decay in the gradient, in decimals of 50 digits.
    "adam": ({"weight_decay": 0.1}, [[0.9, 0.9], [0.80061804, 0.80028177], [0.70242654, 0.70106875]]),
    # Exact fractions of x ← x − lr·g + μ·(x − x_before), Polyak's two-term form.
    "sgd": ({"weight_decay": 0.01}, [[0.699, 0.599], [0.257801, -0.052199], [-0.111656301, -0.753566201]]),
}


@pytest.mark.parametrize("name", SPECS)
def test_spec_quad(name: str):
    changes, expected = SPECS[name]
    got = run_optimizer(from_yaml(name, lr=0.1, **changes), 3)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("name", ["sgd", "nesterov"])
def test_reference_momentum(name: str, problem: Problem):
    got = run_optimizer(from_yaml(name, lr=0.02, weight_decay=0.05), 50, problem)
    reference = literal_momentum(0.02, 0.9, 0.05, nesterov=name == "nesterov")
    torch.testing.assert_close(got, run_reference(reference, 50, problem), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_reference_adam(name: str, decay: float, problem: Problem):
    got = run_optimizer(from_yaml(name, lr=0.02, weight_decay=decay), 50, problem)
    reference = literal_adam(0.02, 0.9, 0.999, 1e-8, decay, decoupled=name == "adamw")
    torch.testing.assert_close(got, run_reference(reference, 50, problem), rtol=1e-9, atol=1e-12)
