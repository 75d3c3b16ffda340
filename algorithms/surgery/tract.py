"""First-layer weight gradients that move the pre-activations as a gradient step on them would."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.base.errors import UserError
from runner.contract.batch import Info
from runner.contract.task import Task


class TrAct:
    """Precondition the weight gradient of the first linear or convolutional layer by its inputs.

    Paper: Petersen et al. 2024, TrAct (arXiv 2410.23970), and the authors' code.
    Update: ΔW = Gᵀ a (aᵀa / b + λ I)⁻¹ for inputs a, (b, n), and the gradient G, (b, m), of the layer's
        outputs; for b < n the equal Gᵀ (a aᵀ / b + λ I)⁻¹ a. Of a convolution the patches are the rows.
        The bias's and the inputs' gradients stay what they are.
    Defaults: lam 0.1 (authors' code, inputs standardised).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: the first layer's gradient norm changes, so clipping interacts. Patches of a convolution are
        laid out in memory: k² times its input. The first layer is the first one registered. Pieces of a
        batch would be preconditioned one by one: what splits batches is refused. Second derivatives see the
        changed gradient.
    Deviations: none. The authors' ``cholesky_inverse`` option is wrong and left out.

    Forward passes are bit for bit those of the model; parameters keep their names and identity.

    Args:
        lam: damping λ, above 0.

    Raises:
        ValueError: for a damping not above 0.
    """

    function_preserving: ClassVar[bool] = True
    batch_level: ClassVar[bool] = True
    changes_gradient: ClassVar[bool] = True

    def __init__(self, lam: float = 0.1) -> None:
        if not lam > 0:
            raise ValueError(f"lam must be above 0, got {lam}")
        self.lam = lam

    def compatible(self, info: Info) -> str | None:
        """Needs a layer that reads the inputs as numbers."""
        return "the model reads tokens, its first layer is a table" if info.task == "lm" else None

    def __call__(self, model: nn.Module, task: Task) -> nn.Module:
        """The same model, its first layer of another class.

        Raises:
            UserError: when there is no such layer, or it is one that has no TrAct gradient.
        """
        found = (m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
        layer = cast(Any, next(found, None))
        if layer is None:
            raise UserError("surgery tract: the model has no Linear or Conv2d layer")
        if type(layer) is nn.Linear:
            layer.__class__ = TrActLinear
        elif type(layer) is nn.Conv2d:
            _require_plain(layer)
            layer.__class__ = TrActConv2d
        else:
            raise UserError(f"surgery tract: the first layer is a {type(layer).__name__}, a class of its own")
        cast(Any, layer).tract_lam = self.lam
        return model


class TrActLinear(nn.Linear):
    """A linear layer with the TrAct gradient; ``tract_lam`` is its damping."""

    tract_lam: float

    def forward(self, input: Tensor) -> Tensor:
        """As :class:`torch.nn.Linear`, (..., n) -> (..., m)."""
        outputs = F.linear(input, self.weight.detach(), self.bias)
        return _WeightGradient.apply(outputs, self.weight, input, self)

    def tract_rows(self, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs, (b, n), and output gradients, (b, m)."""
        return x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])


class TrActConv2d(nn.Conv2d):
    """A convolution with the TrAct gradient; ``tract_lam`` is its damping."""

    tract_lam: float

    def forward(self, input: Tensor) -> Tensor:
        """As :class:`torch.nn.Conv2d`, (B, C, H, W) -> (B, m, H', W')."""
        outputs = self._conv_forward(input, self.weight.detach(), self.bias)
        return _WeightGradient.apply(outputs, self.weight, input, self)

    def tract_rows(self, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Patches, (B·H'·W', C·kh·kw), and output gradients, (B·H'·W', m)."""
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
        stride: Any = self.stride
        patches = F.unfold(padded, self.kernel_size, stride=stride)  # (B, n, H'·W')
        return patches.transpose(1, 2).flatten(0, 1), grad.flatten(2).transpose(1, 2).flatten(0, 1)


class _WeightGradient(torch.autograd.Function):
    """Identity on a layer's outputs; backward, it hands the TrAct gradient to the layer's weight.

    The layer itself ran on the detached weight, so the plain weight gradient is never computed, while
    the inputs' and the bias's gradients are autograd's own.
    """

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, weight: Tensor, x: Tensor, layer: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer, ctx.shape, ctx.dtype = layer, weight.shape, weight.dtype
        ctx.mark_dirty(outputs)  # handed through as it is: a view would forbid in-place activations
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (grad,), (x,) = grads, ctx.saved_tensors
        update = None
        if ctx.needs_input_grad[1]:
            dtype = torch.promote_types(ctx.dtype, torch.float32)
            with torch.autocast(grad.device.type, enabled=False):
                a, g = ctx.layer.tract_rows(x.to(dtype), grad.to(dtype))
                update = tract_gradient(a, g, ctx.layer.tract_lam).view(ctx.shape).to(ctx.dtype)
        return grad, update, None, None


def tract_gradient(a: Tensor, g: Tensor, lam: float) -> Tensor:
    """Gᵀ a (aᵀa / b + λ I)⁻¹, (m, n), by way of the smaller of its two equal systems.

    Args:
        a: inputs, (b, n).
        g: gradient of the outputs, (b, m).
        lam: damping, above 0.
    """
    b, n = a.shape
    gram = (a @ a.T if b < n else a.T @ a) / b
    gram.diagonal().add_(lam)
    # Damped, so positive definite: no need to read the factorisation's verdict, which would be a wait.
    factor = torch.linalg.cholesky_ex(gram).L
    if b < n:
        return torch.cholesky_solve(g, factor).T @ a
    return torch.cholesky_solve(a.T @ g, factor).T


def _require_plain(layer: nn.Conv2d) -> None:
    if layer.groups != 1 or any(d != 1 for d in layer.dilation):
        raise UserError(
            f"surgery tract: the first convolution has groups={layer.groups} and dilation={layer.dilation}; "
            "only 1 and (1, 1) have a TrAct gradient"
        )
