"""A workload as AlgoPerf's submissions see one: a model function, a loss function, an input queue, facts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from runner.contract.batch_norm import batch_norms, frozen_statistics
from runner.contract.task import Task

LOSS_TYPES = {
    "multiclass": "SOFTMAX_CROSS_ENTROPY", "lm": "SOFTMAX_CROSS_ENTROPY",
    "binary": "SIGMOID_CROSS_ENTROPY", "regression": "MEAN_SQUARED_ERROR",
}  # fmt: skip
EVALUATIONS = 20  # in max_allowed_runtime_sec, as workloads here have
FUSED = ("qkv", "in_proj")
KINDS = {"embedding": "EMBEDDING", "bias": "BIAS"}


class View:
    """What a submission is handed as its workload.

    A submission may not read a clock, and the budget is one of rows, so that a second stands for a step:
    ``max_allowed_runtime_sec`` is ``step_hint``.

    Args:
        task: what it trains.
        spec: the specification that the submission uses.
        batch_size: rows of a batch.

    Attributes:
        metrics_logger: None: what a submission would log is not kept.
        loss: the mean loss of the first pass for training since :meth:`begin`, detached, 0-d; None before.
    """

    metrics_logger: Any = None

    def __init__(self, task: Task, spec: Any, batch_size: int) -> None:
        self._task, self._spec, self._batch_size = task, spec, batch_size
        self._norms = batch_norms(task.model)
        self._ones: dict[tuple[int, ...], Tensor] = {}
        self.loss: Tensor | None = None
        self.step_hint = -(-task.info.budget_samples // batch_size)
        self.max_allowed_runtime_sec = self.step_hint
        self.eval_period_time_sec = max(1, self.step_hint // EVALUATIONS)
        self.num_train_examples = task.info.num_train
        self.target_metric_name = task.info.metric
        self.validation_target_value = task.info.target
        self.loss_type = spec.LossType[LOSS_TYPES[task.info.task]]
        self.param_shapes = {name: spec.ShapeTuple(p.shape) for name, p in task.model.named_parameters()}
        self.model_params_types = types(task.model, task.info.param_kind, spec.ParameterType)

    def is_output_params(self, param_key: str) -> bool:
        """Whether that is a parameter of the last layer."""
        return self._task.info.param_kind.get(param_key) == "head"

    def has_reached_validation_target(self, eval_result: Mapping[str, float]) -> bool:
        """Whether an evaluation is as good as the target."""
        value, target = eval_result[f"validation/{self.target_metric_name}"], self.validation_target_value
        return target is not None and (value <= target if self._task.info.minimize else value >= target)

    def attach_metrics_logger(self, metrics_logger: Any) -> None:
        """Use that logger, which a submission brings itself."""
        self.metrics_logger = metrics_logger

    def init_model_fn(self, rng: Any, *_: Any, **__: Any) -> tuple[nn.Module, None]:
        """The model with fresh weights, and no state beside its own."""
        self._task.reset_model()
        return self._task.model, None

    # -- passes ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A step begins."""
        self.loss = None

    def model_fn(
        self,
        params: nn.Module,
        augmented_and_preprocessed_input_batch: Mapping[str, Tensor],
        model_state: Any,
        mode: Any,
        rng: Any,
        update_batch_norm: bool,
        dropout_rate: float | None = None,
        **_: Any,
    ) -> tuple[Tensor, Any]:
        """The model's outputs, (B, C), (B,) for one logit or number, or (B, T, V), and ``model_state``.

        ``dropout_rate`` is that of the model's dropout layers, where it has any.
        """
        inputs = augmented_and_preprocessed_input_batch["inputs"]
        if mode.name == "EVAL":
            params.eval()
            with torch.no_grad():
                return params(inputs), model_state
        params.train()
        if dropout_rate is not None:
            set_dropout(params, dropout_rate)
        norms = self._norms if params is self._task.model else batch_norms(params)
        with contextlib.nullcontext() if update_batch_norm else frozen_statistics(norms):
            return params(inputs), model_state

    def loss_fn(
        self,
        label_batch: Tensor,
        logits_batch: Tensor,
        mask_batch: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> dict[str, Tensor]:
        """The workload's loss: ``summed``, ``n_valid_examples``, and ``per_example``, (B,), of tokens (B, T).

        A loss of the workload's own has no label smoothing; its penalty on weights is in every row, so that a
        mean has it once.
        """
        losses = self._losses(logits_batch, label_batch, label_smoothing)
        mask = self._weights(losses) if mask_batch is None else mask_batch.to(losses.dtype)
        losses = losses * (mask.unsqueeze(-1) if mask.dim() < losses.dim() else mask)
        valid = mask.sum() if mask.dim() == losses.dim() else mask.sum() * losses.shape[-1]
        summed = losses.sum()
        if self.loss is None and summed.requires_grad:
            self.loss = (summed.detach() / valid).detach()
        return {"summed": summed, "n_valid_examples": valid, "per_example": losses}

    def output_activation_fn(self, logits_batch: Tensor, framework: str = "pytorch") -> Tensor:
        """Probabilities from outputs, or the numbers of a regression."""
        if self._task.info.task == "regression":
            return logits_batch
        return logits_batch.sigmoid() if self._task.info.task == "binary" else logits_batch.softmax(-1)

    def _losses(self, outputs: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        kind, own = self._task.info.task, self._task.own_loss
        if own is not None:
            losses = self._task.kind.rows(outputs, labels, own)
            penalty: Any = getattr(own, "penalty", None)
            return losses if penalty is None else losses + penalty(dict(self._task.model.named_parameters()))
        if kind == "lm":
            flat = F.cross_entropy(
                outputs.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=smoothing
            )
            return flat.view(labels.shape)
        if kind == "multiclass":
            return F.cross_entropy(outputs, labels, reduction="none", label_smoothing=smoothing)
        if kind == "binary" and smoothing:
            labels = labels.to(outputs.dtype) * (1 - smoothing) + smoothing / 2
        return self._task.kind.rows(outputs, labels, None)

    # -- data --------------------------------------------------------------------------------------

    def queue(self) -> Iterator[dict[str, Tensor]]:
        """Batches without end, every row of them charged: inputs, targets, and weights, which are one."""
        while True:
            batch = self._task.data.next(self._batch_size)
            yield {"inputs": batch.x, "targets": batch.y, "weights": self._weights(batch.y)}

    def _weights(self, entries: Tensor) -> Tensor:
        shape = tuple(entries.shape)
        if shape not in self._ones:
            self._ones[shape] = torch.ones(shape, device=entries.device)
        return self._ones[shape]


def set_dropout(model: nn.Module, rate: float) -> None:
    """Have the model's dropout layers drop that share."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = rate


def types(model: nn.Module, kinds: Mapping[str, str], of: Any) -> dict[str, Any]:
    """Parameter name -> what it does, in AlgoPerf's words."""
    modules = dict(model.named_modules())
    found = {}
    for name, parameter in model.named_parameters():
        place, _, last = name.rpartition(".")
        found[name] = of[_type(name, modules[place], last, parameter.dim(), kinds.get(name, ""))]
    return found


def _type(name: str, module: nn.Module, last: str, dimensions: int, kind: str) -> str:
    if kind == "norm" or isinstance(module, (_BatchNorm, nn.LayerNorm, nn.GroupNorm)):
        layer = "BATCH_NORM" if isinstance(module, _BatchNorm) else "LAYER_NORM"
        return f"{layer}_{'BIAS' if 'bias' in last else 'SCALE'}"
    if "attn" in name or "attention" in name or any(part in name for part in FUSED):
        return _attention_type(name, last)
    if kind in KINDS:
        return KINDS[kind]
    if "bias" in last:
        return "BIAS"
    return "CONV_WEIGHT" if dimensions > 2 else "WEIGHT"


def _attention_type(name: str, last: str) -> str:
    if "bias" in last:
        return "ATTENTION_BIAS"
    if any(part in name for part in FUSED):
        return "ATTENTION_QKV"
    letters = {"k_proj": "K", "key": "K", "q_proj": "Q", "query": "Q", "v_proj": "V", "value": "V"}
    found = next((letter for part, letter in letters.items() if part in name), "OUT")
    return f"ATTENTION_{found}"
