"""How curved is the loss along the direction in which the optimizer goes, and along others that it might?

The methods are measured at one point each, the weights of their own run: directions of one point can be
compared with one another, those of different runs only at like losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from runner.contract.batch import Batch
from runner.contract.diagnostic import Diagnostic, Probe

Direction = list[Tensor]  # one tensor per parameter, shaped like it


class DirectionalSharpness(Diagnostic):
    """Curvature of the loss along the next update, S(u) = uᵀ∇²f(x)u / ‖u‖², and what a step along u can gain.

    Paper: Toward Understanding Why Adam Converges Faster Than SGD for Transformers (Pan & Li 2023, arXiv
        2306.00204), and the authors' code (panyan7/adam-vs-sgd); the last three columns are ours.
    Update: none; it measures. u is what the next training step adds to the weights, all parameters end to
        end, momentum and preconditioner included, weight decay left out. f is the workload's mean loss on
        ``batches`` fixed training batches, the model in evaluation mode. ``directional_sharpness``: S(u). At
        the same point, from the gradient g of the next training batch: ``…_gradient``: S(g); ``…_sign``:
        S(sign(g)); ``…_clipped``: S of g with the share ``fraction`` of its largest coordinates clipped.
        ``update_cosine``: cos(−∇f, u); ``update_scale``: η* = −∇fᵀu / uᵀ∇²fu, the multiple of u that is best
        in the quadratic model of f (1: the step is as long as it should be); ``update_gain``:
        (∇fᵀu)² / 2uᵀ∇²fu, how much it gains.
    Defaults: fraction 0.1 (authors' code, for SGD); batches 4 (ours).
    State: none. While it measures, a second cell (model, optimizer) and some five more copies of the weights.
    Cost: 0 in samples, off the clock: four Hessian-vector products of each batch, one training step, and the
        method's set-up, which is repeated as for a resume.
    Pitfalls: few rows overestimate sharpness. The sign of u does not matter; momentum SGD differs from g.
        Batch norm has another Hessian in training mode. ReLUs hide the curvature at their kinks. Where the
        curvature along u is not positive, scale and gain do not exist and are left out. At a very small
        learning rate u is rounded, and where nothing moves there is no S(u). A sampler that chooses rows
        trains on others than those of g.
    Deviations: u has the learning rate in it, on which S does not depend. A method whose weight decay is no
        ``weight_decay`` of its optimizer's groups has it in u, and an update that is normalised behind its
        decay (LAMB's, LARS's) is normalised without it. The gain is the quadratic model's; the authors
        search a grid of steps.

    Args:
        batches: training batches that f is averaged over, at least 1.
        fraction: share of the coordinates to clip, in [0, 1).

    Raises:
        ValueError: for a value outside its range.
    """

    def __init__(self, batches: int = 4, fraction: float = 0.1) -> None:
        if not batches >= 1 or batches != int(batches):
            raise ValueError(f"batches must be an integer of at least 1, got {batches}")
        if not 0 <= fraction < 1:
            raise ValueError(f"fraction must lie in [0, 1), got {fraction}")
        self.batches, self.fraction = int(batches), fraction

    def measure(self, probe: Probe) -> Mapping[str, float | Tensor]:
        """The seven columns, as far as they exist."""
        step = probe.next_step()  # first: it makes the step with the generators where training left them
        g, length = step.gradient, norm(step.update)
        signs = list(torch._foreach_sign(g))
        directions = [unit(u) for u in (step.update, g, signs, clipped(g, self.fraction))]
        probe.task.model.eval()
        gradient, forms = quadratic_model(probe, probe.batches(self.batches), directions)
        slope, curvature = dot(gradient, directions[0]), forms[0]
        convex = torch.where(curvature > 0, curvature, math.nan)
        return {
            "directional_sharpness": curvature,
            "directional_sharpness_gradient": forms[1],
            "directional_sharpness_sign": forms[2],
            "directional_sharpness_clipped": forms[3],
            "update_cosine": -slope / norm(gradient),
            "update_scale": -slope / (convex * length),
            "update_gain": slope.square() / (2 * convex),
        }


def quadratic_model(
    probe: Probe, batches: Sequence[Batch], directions: Sequence[Direction]
) -> tuple[Direction, Tensor]:
    """Gradient, and uᵀ∇²f u for each of ``directions``, (k,) float64, of the mean loss over ``batches``.

    In the mode that the model is in.
    """
    total: Direction = [torch.zeros_like(p) for p in probe.params]
    rows = []
    # Attention's fused kernels and compiled code have no second derivative.
    with sdpa_kernel(SDPBackend.MATH), torch.compiler.set_stance("force_eager"):
        for batch in batches:
            first = torch.autograd.grad(
                probe.loss(batch), probe.params, create_graph=True, materialize_grads=True
            )
            torch._foreach_add_(total, [f.detach() for f in first], alpha=1 / len(batches))
            rows.append(torch.stack([_form(first, probe.params, u) for u in directions]))
    return total, torch.stack(rows).mean(0)


def _form(first: Sequence[Tensor], params: Sequence[Tensor], u: Direction) -> Tensor:
    curved = [(f, v) for f, v in zip(first, u, strict=True) if f.requires_grad]
    if not curved:
        return dot(u, u) * 0  # the loss is linear, and NaN stays NaN
    outputs, vectors = zip(*curved, strict=True)
    product: Any = torch.autograd.grad(
        outputs, params, grad_outputs=vectors, retain_graph=True, materialize_grads=True
    )
    return dot(product, u)


def clipped(g: Direction, fraction: float) -> Direction:
    """``g`` with the ⌊fraction·N⌋ largest of its N coordinates clipped at the next one below."""
    everything = torch.cat([t.flatten() for t in g])
    count = int(fraction * everything.numel())
    threshold = everything.abs().topk(count + 1, sorted=False).values.min()
    everything = everything.clamp(-threshold, threshold)
    pieces = everything.split([t.numel() for t in g])
    return [piece.view_as(t) for piece, t in zip(pieces, g, strict=True)]


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Inner product, a float64 scalar."""
    return torch.stack([(s.double() * t.double()).sum() for s, t in zip(a, b, strict=True)]).sum()


def norm(u: Sequence[Tensor]) -> Tensor:
    """Euclidean norm, a float64 scalar."""
    return dot(u, u).sqrt()


def unit(u: Direction) -> Direction:
    """``u`` at length 1; NaN where it is 0."""
    length = norm(u)
    return [t / length for t in u]
