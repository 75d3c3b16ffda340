import pytest
import torch

from algorithms.optimizers.lion import Lion
from tests.problems import PROBLEMS, Problem, Update, run_optimizer, run_reference


def literal_lion(lr: float, beta1: float, beta2: float, decay: float) -> Update:
    """Algorithm 2 of the paper, one float at a time."""
    momenta: dict[tuple[int, int], float] = {}

    def update(_t: int, x: list[list[float]], g: list[list[float]]) -> None:
        for i in range(len(x)):
            for j in range(len(x[i])):
                m = momenta.get((i, j), 0.0)
                c = beta1 * m + (1 - beta1) * g[i][j]
                sign = (c > 0) - (c < 0)
                x[i][j] -= lr * (sign + decay * x[i][j])
                momenta[i, j] = beta2 * m + (1 - beta2) * g[i][j]

    return update


def test_spec_quad():
    got = run_optimizer(lambda p: Lion(p, lr=0.1, betas=(0.9, 0.99), weight_decay=0.1), 3)
    expected = torch.tensor([[0.89, 0.89], [0.7811, 0.7811], [0.673289, 0.673289]], dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.5, 0.8)])
def test_reference(problem: Problem, betas: tuple[float, float]):
    got = run_optimizer(lambda p: Lion(p, lr=0.03, betas=betas, weight_decay=0.2), 50, problem)
    torch.testing.assert_close(got, run_reference(literal_lion(0.03, *betas, 0.2), 50, problem))


def test_a_zero_gradient_does_not_move_a_weight_without_momentum():
    p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = Lion([p], lr=0.5)
    p.grad = torch.tensor([0.0, -3.0])
    optimizer.step()
    assert p.tolist() == [1.0, 2.5]


def test_a_zero_gradient_still_moves_a_weight_with_momentum():
    p = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = Lion([p], lr=0.5)
    for gradient in (4.0, 0.0):
        p.grad = torch.tensor([gradient])
        optimizer.step()
    assert p.tolist() == [0.0]
