"""Hidden matrices apart from everything else."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from runner.contract.task import Task


class MuonGroups:
    """Three parameter groups by role: hidden matrices; other matrices; vectors, which do not decay.

    Paper: Muon: An optimizer for hidden layers in neural networks (Jordan et al. 2024, web page, and the
        authors' code, github.com/KellerJordan/Muon).
    Update: use_muon = true for hidden parameters of two or more dimensions (convolutions too), false for the
        others; weight_decay = 0 for parameters with ndim ≤ 1.
    Defaults: none.
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: roles are the workload's: a parameter that a surgery has renamed or added has none, and so is
        not Muon's. Optimizers that know no ``use_muon`` ignore it.
    Deviations: none.
    """

    def __call__(self, task: Task) -> list[dict[str, Any]]:
        """The groups that are not empty."""
        hidden: list[Tensor] = []
        matrices: list[Tensor] = []
        vectors: list[Tensor] = []
        for name, p in task.model.named_parameters():
            if p.requires_grad:
                role = task.info.param_kind.get(name)
                (vectors if p.ndim <= 1 else hidden if role == "hidden" else matrices).append(p)
        groups = [
            {"params": hidden, "use_muon": True},
            {"params": matrices, "use_muon": False},
            {"params": vectors, "use_muon": False, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]
