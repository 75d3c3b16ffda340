"""Small deterministic problems in float64, and drivers that follow an optimizer on them.

The drivers return every iterate as one tensor, (steps, N): row t holds all parameters, flattened and
concatenated, after step t + 1. An optimizer, a wrapped one and a literal reference can so be compared
with one ``torch.testing.assert_close``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONF = Path(__file__).parents[1] / "conf" / "algorithm"

Make = Callable[[list[nn.Parameter]], Any]  # parameters -> optimizer
Update = Callable[[int, list[list[float]], list[list[float]]], None]  # t = 1, 2, …; x and g, flat, per tensor


@dataclass(frozen=True)
class Problem:
    """A function of a list of float64 tensors.

    Attributes:
        name: for test ids.
        start: initial values, one tensor a parameter.
        loss: parameters -> scalar.
    """

    name: str
    start: tuple[Tensor, ...]
    loss: Callable[[list[Tensor]], Tensor]

    def params(self) -> list[nn.Parameter]:
        """Fresh parameters at the start."""
        return [nn.Parameter(value.clone()) for value in self.start]

    def gradient(self, params: list[nn.Parameter]) -> Tensor:
        """Fill ``.grad`` (from nothing) and return the loss, detached."""
        for p in params:
            p.grad = None
        loss = self.loss(list(params))
        loss.backward()
        return loss.detach()

    def __str__(self) -> str:
        return self.name


def quad() -> Problem:
    """½xᵀAx − bᵀx with A = [[3, 1], [1, 2]], b = (1, −1), from x = (1, 1): gradient (3, 4), loss 3.5 there.

    The minimum is at (0.6, −0.8). One 1-D parameter.
    """
    return quadratic("quad", [[3.0, 1.0], [1.0, 2.0]], [1.0, -1.0], [1.0, 1.0])


def quadratic(name: str, a: list[list[float]], b: list[float], start: list[float]) -> Problem:
    """½xᵀAx − bᵀx as a function of one 1-D parameter."""
    matrix, vector, x0 = (torch.tensor(v, dtype=torch.float64) for v in (a, b, start))
    return Problem(name, (x0,), lambda p: 0.5 * p[0] @ matrix @ p[0] - vector @ p[0])


def _normal(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def least_squares() -> Problem:
    """Mean squared error of XW + c over 20 rows: a matrix, (4, 3), and a vector, (3,)."""
    x, y, w, c = _normal(1, (20, 4), (20, 3), (4, 3), (3,))
    return Problem("least_squares", (w, c), lambda p: ((x @ p[0] + p[1] - y) ** 2).mean())


def mlp() -> Problem:
    """Cross-entropy of a 4-5-3 tanh network on 12 rows: (5, 4), (5,), (3, 5), (3,)."""
    x, w1, b1, w2, b2 = _normal(2, (12, 4), (5, 4), (5,), (3, 5), (3,))
    y = torch.arange(12) % 3

    def loss(p: list[Tensor]) -> Tensor:
        return F.cross_entropy(F.linear(torch.tanh(F.linear(x, p[0], p[1])), p[2], p[3]), y)

    return Problem("mlp", (w1, b1, w2, b2), loss)


STEEP = quadratic(
    "quadratic",
    [[9.0, 1.0, 0.0, 0.0], [1.0, 3.0, 0.5, 0.0], [0.0, 0.5, 1.0, 0.1], [0.0, 0.0, 0.1, 0.2]],
    [1.0, -2.0, 0.5, 1.0],
    [1.0, 1.0, -1.0, 2.0],
)
PROBLEMS = (STEEP, least_squares(), mlp())


def run_optimizer(make: Make, steps: int, problem: Problem | None = None) -> Tensor:
    """Iterates of an optimizer on ``problem`` (default: :func:`quad`), (steps, N) float64.

    An optimizer with ``needs_loss = True`` gets ``step(loss=...)``.
    """
    problem = problem or quad()
    params = problem.params()
    return continue_optimizer(make(params), params, steps, problem)


def continue_optimizer(optimizer: Any, params: list[nn.Parameter], steps: int, problem: Problem) -> Tensor:
    """Iterates of ``steps`` further steps from where ``params`` and ``optimizer`` are, (steps, N)."""
    rows = []
    for _ in range(steps):
        loss = problem.gradient(params)
        if getattr(optimizer, "needs_loss", False):
            optimizer.step(loss=loss)
        else:
            optimizer.step()
        rows.append(flat(params))
    return torch.stack(rows)


def run_reference(update: Update, steps: int, problem: Problem | None = None) -> Tensor:
    """Iterates of a literal reference, (steps, N): ``update(t, x, g)`` changes the lists ``x`` in place.

    ``x`` and ``g`` hold one flat list of Python floats a parameter; their shapes are those of
    ``problem.start``. The gradient is taken anew at the updated ``x``.
    """
    problem = problem or quad()
    params = problem.params()
    rows = []
    for t in range(1, steps + 1):
        problem.gradient(params)
        x = [p.detach().flatten().tolist() for p in params]
        update(t, x, [_grad(p).flatten().tolist() for p in params])
        with torch.no_grad():
            for p, values in zip(params, x, strict=True):
                p.copy_(torch.tensor(values, dtype=torch.float64).view_as(p))
        rows.append(flat(params))
    return torch.stack(rows)


def assert_resumes(make: Make, problem: Problem | None = None, before: int = 3, after: int = 5) -> None:
    """A saved state, loaded with ``weights_only=True`` into a fresh optimizer, goes on bit for bit."""
    problem = problem or quad()
    params = problem.params()
    optimizer = make(params)
    continue_optimizer(optimizer, params, before, problem)
    state = through_disk({"optimizer": optimizer.state_dict(), "params": [p.detach() for p in params]})
    expected = continue_optimizer(optimizer, params, after, problem)

    fresh = problem.params()
    resumed = make(fresh)
    with torch.no_grad():
        for p, value in zip(fresh, state["params"], strict=True):
            p.copy_(value)
    resumed.load_state_dict(state["optimizer"])
    got = continue_optimizer(resumed, fresh, after, problem)
    gap = (got - expected).abs().max().item()
    assert torch.equal(got, expected), f"differs by {gap:g} after resuming"


def through_disk(state: Any) -> Any:
    """``state`` as a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def part_config(kind: str, name: str, **changes: Any) -> dict[str, Any]:
    """The plain mapping of ``conf/algorithm/<kind>/<name>.yaml``, for ``build_part``."""
    from omegaconf import OmegaConf

    config = OmegaConf.load(CONF / kind / f"{name}.yaml")
    plain: Any = OmegaConf.to_container(config)
    return plain | changes


def flat(params: Sequence[Tensor]) -> Tensor:
    """All parameters as one vector, detached copies."""
    return torch.cat([p.detach().flatten() for p in params])


def _grad(p: nn.Parameter) -> Tensor:
    return torch.zeros_like(p) if p.grad is None else p.grad
