"""Muon: momentum, orthogonalised, for the hidden matrices; AdamW for all other parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from algorithms.optimizers._base import Base, plain
from algorithms.optimizers._common import Closure, ParamsT, decay_rates, evaluate, non_negative, with_grad
from runner.contract.memory_layout import unfuse

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz polynomial: the steepest at zero
NS_EPS = 1e-7


class Muon(Base):
    """Muon on groups with ``use_muon``, AdamW on those without.

    Paper: Muon: An optimizer for hidden layers in neural networks (Jordan et al. 2024, web page, and the
        authors' code, github.com/KellerJordan/Muon, MuonWithAuxAdam).
    Update: m ← β·m + (1 − β)·g; u = (1 − β)·g + β·m; O = five Newton-Schulz steps from u / ‖u‖, which bring
        every singular value near 1; x ← x·(1 − lr·λ) − lr·√max(1, rows / columns)·O. Convolutions are
        matrices (out, in·kh·kw). The other groups: AdamW with ``adamw_lr``, ``betas`` and ``eps``.
    Defaults: lr 0.02, momentum 0.95, betas (0.9, 0.95), eps 1e-10, weight_decay 0 (authors' code); adamw_lr
        3e-3 (ours, as our AdamW; theirs is 3e-4, for longer runs).
    State: 1 tensor per hidden matrix (m), 2 and a step count per other parameter.
    Cost: 1 forward, 1 backward.
    Pitfalls: the step does not shrink with the gradient, so the schedule has to. Singular values end
        between about 0.7 and 1.2, tiny ones below: on purpose. On a model without hidden matrices (logistic
        regression) this is AdamW with other betas. A step costs fifteen matrix products for each matrix:
        dear where matrices are large and batches small, above all on a CPU.
    Deviations: Newton-Schulz runs in bfloat16, as the authors', on CUDA alone; elsewhere in the parameters'
        own type, bfloat16 being up to tens of times slower on CPUs that lack it. For convolutions the
        authors' code takes rows / columns of the kernel, which is 1; here, of the matrix. Parameters without
        a gradient are skipped, and gradients are not overwritten.

    Args:
        params: parameter groups, each with ``use_muon`` true or false. A group's own values go first; one
            without Muon has ``adamw_lr`` for its lr.
        lr: step size of Muon, in units of the spectral norm.
        momentum: decay rate β, in [0, 1).
        nesterov: whether u looks one momentum step ahead; otherwise u = m.
        ns_steps: Newton-Schulz steps.
        weight_decay: decoupled weight decay λ of all groups.
        adamw_lr: step size of AdamW.
        betas: decay rates of AdamW's moments, in [0, 1).
        eps: added to the root of AdamW's second moment.

    Raises:
        ValueError: for a hyperparameter outside its range, a group without ``use_muon``, or a vector in a
            group with it.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        weight_decay: float = 0.0,
        adamw_lr: float = 3e-3,
        betas: Sequence[float] = (0.9, 0.95),
        eps: float = 1e-10,
    ) -> None:
        non_negative(lr=lr, weight_decay=weight_decay, adamw_lr=adamw_lr, eps=eps)
        decay_rates(betas)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        if not ns_steps >= 1:
            raise ValueError(f"ns_steps must be at least 1, got {ns_steps}")
        defaults = {
            "lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps,
            "weight_decay": weight_decay, "adamw_lr": adamw_lr, "betas": betas, "eps": eps,
        }  # fmt: skip
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See :meth:`torch.optim.Optimizer.add_param_group`."""
        if not isinstance(param_group.get("use_muon"), bool):
            raise ValueError("each group must say use_muon, true or false: try algorithm/groups=muon_groups")
        if not param_group["use_muon"]:
            # fused: where a loaded state's step counts go to is up to it.
            lr = param_group.get("adamw_lr", self.defaults["adamw_lr"])
            param_group = {"lr": lr, "fused": True} | param_group
        super().add_param_group(param_group)
        unfuse(self.param_groups[-1:])

    def check(self, group: dict[str, Any]) -> None:
        """See :class:`Base`; also vectors in a group of Muon's."""
        super().check(group)
        shapes = [tuple(p.shape) for p in group["params"] if p.ndim < 2]
        if group["use_muon"] and shapes:
            raise ValueError(f"a group with use_muon must hold matrices, got shape {shapes[0]}")

    def _unpack(self, state: dict[str, Any]) -> None:
        super()._unpack(state)
        for p, entries in self.state.items():
            if "step" in entries:  # torch's step counts have been numbers, its kernels want tensors
                entries["step"] = torch.as_tensor(entries["step"], dtype=torch.float32, device=p.device)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Update every parameter that has a gradient; returns what ``closure`` gives."""
        loss = evaluate(closure)
        for group in self.param_groups:
            params, grads = with_grad(group, "Muon")
            if params:
                (self._muon if group["use_muon"] else self._adamw)(plain(group), params, grads)
        return loss

    def _muon(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        lr, beta, decay = group["lr"], group["momentum"], group["weight_decay"]
        momenta = [self._momentum(p) for p in params]
        torch._foreach_lerp_(momenta, grads, 1 - beta)
        directions = list(torch._foreach_lerp(grads, momenta, beta)) if group["nesterov"] else momenta
        if decay != 0:
            torch._foreach_mul_(params, 1 - lr * decay)
        for indices in _alike(params):
            stack = torch.stack([directions[i].flatten(1) for i in indices])
            rows, columns = stack.shape[1:]
            updates = orthogonalise(stack, group["ns_steps"]).to(stack.dtype)
            pieces = [u.reshape(params[i].shape) for i, u in zip(indices, updates, strict=True)]
            torch._foreach_add_(
                [params[i] for i in indices], pieces, alpha=-lr * max(1, rows / columns) ** 0.5
            )

    def _adamw(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        states = [self._moments(p) for p in params]
        beta1, beta2 = group["betas"]
        adamw(
            params,
            grads,
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=bool(group["fused"]),
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _momentum(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        return state["momentum_buffer"]

    def _moments(self, p: Tensor) -> dict[str, Tensor]:
        state = self.state[p]
        if not state:
            step = torch.zeros((), dtype=torch.float32, device=p.device)
            state |= {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        return state


def orthogonalise(u: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz: matrices with the singular vectors of ``u``, their singular values near 1.

    Args:
        u: a stack of matrices, (n, rows, columns).
        steps: iterations X ← aX + (bA + cA²)X, A = XXᵀ.

    Returns:
        The stack, in bfloat16 on CUDA, else in the type of ``u``.
    """
    a, b, c = COEFFICIENTS
    x = u / (torch.linalg.vector_norm(u, dim=(1, 2), keepdim=True) + NS_EPS)
    x = x.bfloat16() if u.is_cuda else x
    tall = u.shape[1] > u.shape[2]  # then the other Gram matrix is the smaller one
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _alike(params: list[Tensor]) -> list[list[int]]:
    """Positions of parameters that make one stack: matrices of the same shape, type and device; not empty."""
    alike: dict[Any, list[int]] = {}
    for i, p in enumerate(params):
        if p.numel() > 0:
            alike.setdefault((p.shape[0], p.shape[1:].numel(), p.dtype, p.device), []).append(i)
    return list(alike.values())
