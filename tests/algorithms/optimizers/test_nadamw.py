import math

import pytest
import torch

from algorithms.optimizers.nadamw import NadamW
from tests.problems import PROBLEMS, Problem, Update, run_optimizer, run_reference


def literal_nadamw(lr: float, beta1: float, beta2: float, eps: float, decay: float) -> Update:
    """The rule as AlgoPerf's class documents it, one float at a time."""
    moments: dict[tuple[int, int], tuple[float, float]] = {}

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        for i in range(len(x)):
            for j in range(len(x[i])):
                m, v = moments.get((i, j), (0.0, 0.0))
                x[i][j] *= 1 - lr * decay
                m = beta1 * m + (1 - beta1) * g[i][j]
                v = beta2 * v + (1 - beta2) * g[i][j] ** 2
                ahead = beta1 * m + (1 - beta1) * g[i][j]
                x[i][j] -= lr * (ahead / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + eps)
                moments[i, j] = m, v

    return update


def test_spec_quad():
    got = run_optimizer(lambda p: NadamW(p, lr=0.1, weight_decay=0.1), 3)
    expected = [[0.8, 0.8], [0.65974032, 0.6544657], [0.54186241, 0.5280469]]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("eps", [1e-8, 0.1])
def test_reference(problem: Problem, eps: float):
    got = run_optimizer(lambda p: NadamW(p, 0.02, (0.8, 0.95), eps, weight_decay=0.3), 50, problem)
    expected = run_reference(literal_nadamw(0.02, 0.8, 0.95, eps, 0.3), 50, problem)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_spec_is_not_torchs_nadam():
    def nadam(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.NAdam(params, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True)

    assert run_optimizer(nadam, 1)[0, 0].item() == pytest.approx(0.88435482, abs=1e-7)


def test_without_momentum_it_is_adamw():
    ours = run_optimizer(lambda p: NadamW(p, 0.05, (0.0, 0.9), 1e-8, 0.1), 20)
    torchs = run_optimizer(lambda p: torch.optim.AdamW(p, 0.05, (0.0, 0.9), 1e-8, 0.1), 20)
    torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-12)


def test_bias_correction_counts_the_steps_of_each_parameter():
    early, late = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = NadamW([early, late], lr=0.1, weight_decay=0.0)
    path = []
    for _ in range(3):
        early.grad = torch.ones(2)
        optimizer.step()
        path.append(early.detach().clone())
    late.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(late.detach(), path[0])
