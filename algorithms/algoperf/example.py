"""A submission in AlgoPerf's form: AdamW with linear warm-up and cosine decay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from algoperf import spec  # pyright: ignore[reportMissingImports]
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

LEARNING_RATE, WEIGHT_DECAY, WARMUP = 2e-3, 0.01, 0.05


def init_optimizer_state(
    workload: Any, model_params: Any, model_state: Any, hyperparameters: Any, rng: Any
) -> dict[str, Any]:
    """Optimizer and schedule."""
    rate = getattr(hyperparameters, "learning_rate", LEARNING_RATE)
    decay = getattr(hyperparameters, "weight_decay", WEIGHT_DECAY)
    optimizer = torch.optim.AdamW(model_params.parameters(), lr=rate, weight_decay=decay)
    steps = max(1, int(WARMUP * workload.step_hint))
    warmup = LinearLR(optimizer, start_factor=1e-3, total_iters=steps)
    cosine = CosineAnnealingLR(optimizer, T_max=max(1, workload.step_hint - steps))
    return {"optimizer": optimizer, "scheduler": SequentialLR(optimizer, [warmup, cosine], [steps])}


def update_params(
    workload: Any,
    current_param_container: Any,
    current_params_types: Any,
    model_state: Any,
    hyperparameters: Any,
    batch: dict[str, Any],
    loss_type: Any,
    optimizer_state: dict[str, Any],
    eval_results: list[tuple[int, Any]],
    global_step: int,
    rng: Any,
) -> tuple[dict[str, Any], Any, Any]:
    """A forward and a backward pass, and a step of the optimizer."""
    optimizer_state["optimizer"].zero_grad()
    logits, model_state = workload.model_fn(
        params=current_param_container,
        augmented_and_preprocessed_input_batch=batch,
        model_state=model_state,
        mode=spec.ForwardPassMode.TRAIN,
        rng=rng,
        update_batch_norm=True,
    )
    loss = workload.loss_fn(batch["targets"], logits, batch.get("weights"))
    (loss["summed"] / loss["n_valid_examples"]).backward()
    optimizer_state["optimizer"].step()
    optimizer_state["scheduler"].step()
    return optimizer_state, current_param_container, model_state


def data_selection(
    workload: Any,
    input_queue: Iterator[dict[str, Any]],
    optimizer_state: dict[str, Any],
    current_param_container: Any,
    model_state: Any,
    hyperparameters: Any,
    global_step: int,
    rng: Any,
) -> dict[str, Any]:
    """The next batch."""
    return next(input_queue)


def get_batch_size(workload_name: str) -> int:
    """Rows of a batch, where the workload is known.

    Raises:
        ValueError: where it is not.
    """
    sizes = {"mnist": 16, "cifar": 128}
    if workload_name not in sizes:
        raise ValueError(f"Unsupported workload name: {workload_name}.")
    return sizes[workload_name]
