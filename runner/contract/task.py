"""Everything an algorithm may touch: model, training data, facts, generators, meters.

A task holds no clock and no scored split. The harness builds it, an algorithm trains on it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from runner.base.errors import UserError
from runner.contract.batch import COMPILED, Batch, Info
from runner.contract.batch_norm import batch_norms, frozen_statistics
from runner.contract.cost import Cost
from runner.contract.kinds import KINDS, LanguageModel, LossFn
from runner.contract.precision import autocasts
from runner.contract.seeding import derive
from runner.contract.stream import Stream

ObjectiveFn = Callable[["Task", Batch], Tensor]
ReweightingFn = Callable[["Task", Batch, Tensor], Tensor]
Params = Mapping[str, Tensor]


class Task:
    """One training problem on one device.

    Args:
        build_model: a fresh model with fresh random weights at each call.
        data: the training stream.
        info: facts about the workload.
        seed: seed of every named generator.
        aux: further training streams by name: ``"clean"``, ``"holdout"``, ``"pool"``.
        model: use this model rather than a fresh one.
        own_loss: the workload's own per-example loss; cross-entropy when None.

    Raises:
        UserError: for a model with complex parameters.

    Attributes:
        model: the network; replaced only by surgery, at set-up.
        params: its trainable parameters.
        data: the training stream.
        aux: further training streams.
        info: facts about the workload.
        cost: the meters, shared with every sub-task.
        loss: per-example loss in place of the workload's own, or None.
        objective: a loss that owns its forward passes, or None.
        reweighting: per-example weights, or None.
    """

    def __init__(
        self,
        build_model: Callable[[], nn.Module],
        data: Stream,
        info: Info,
        *,
        seed: int,
        aux: Mapping[str, Stream] | None = None,
        model: nn.Module | None = None,
        own_loss: LossFn | None = None,
    ) -> None:
        self._build_model = build_model
        self._surgeries: list[Callable[[nn.Module, Task], nn.Module]] = []
        self.data, self.aux, self.info, self.seed = data, dict(aux or {}), info, seed
        self.cost: Cost = data.cost
        self.kind = KINDS[info.task]
        self.own_loss = own_loss
        self.loss: LossFn | None = None
        self.objective: ObjectiveFn | None = None
        self.reweighting: ReweightingFn | None = None
        self._generators: dict[str, torch.Generator] = {}
        self._children: dict[str, Task] = {}
        self._pending: dict[str, Any] = {"generators": {}, "children": {}}
        self._resets = 0
        self._install(build_model() if model is None else model)

    # -- the model ---------------------------------------------------------------------------------

    def operate(self, surgery: Callable[[nn.Module, Task], nn.Module]) -> None:
        """Replace the model by ``surgery(model, task)``; :meth:`reset_model` repeats it."""
        self._surgeries.append(surgery)
        model = surgery(self.model, self)
        for module in model.modules():
            _uncount(module)  # the old model, where the new one wraps it
        self._install(model)

    def reset_model(self) -> None:
        """Draw new initial weights in place, for a second phase. What the first one cost still counts.

        The draw is a function of the cell's seed and of how many came before. An optimizer that remembers the
        initial weights has to be built anew.
        """
        self._resets += 1
        devices = [self.data.x.device] if self.data.x.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(derive(self.seed, "reset", self._resets))
            fresh = self._build_model()
            for surgery in self._surgeries:
                fresh = surgery(fresh, self)
        self.model.load_state_dict(fresh.state_dict())

    # -- losses and gradients ----------------------------------------------------------------------

    def outputs(self, batch: Batch, params: Params | None = None) -> Tensor:
        """Model outputs, (B,) for one logit, (B, C), or (B, T, V); at other ``params`` if given."""
        if params is None:
            return self.model(batch.x)
        return functional_call(self.model, dict(params), (batch.x,))

    def losses(self, batch: Batch, params: Params | None = None) -> Tensor:
        """Per-example losses, (B,), unweighted; for language models the mean over a row's tokens.

        A loss with a ``penalty(params)`` adds it to each row, so that a mean over rows has it once.
        """
        rows, penalty = self.losses_of(self.outputs(batch, params), batch), self._penalty(params)
        return rows if penalty is None else rows + penalty

    def losses_of(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Per-example losses, (B,), of the model's outputs on ``batch``, by the loss in force; no penalty."""
        return self.kind.rows(outputs, batch.y, self._active_loss)

    def weighted_loss(self, batch: Batch, weights: Tensor) -> Tensor:
        """Σ wᵢ ℓᵢ / B for weights (B,), 0-d; a penalty of the loss, which is no row's, counts once."""
        losses, penalty = weights * self.losses_of(self.outputs(batch), batch), self._penalty()
        return losses.mean() if penalty is None else losses.mean() + penalty

    def token_losses(self, batch: Batch, params: Params | None = None) -> Tensor:
        """Per-token losses, (B, T).

        Raises:
            TypeError: on a task that has no tokens.
        """
        if not isinstance(self.kind, LanguageModel):
            raise TypeError(f"a {self.info.task} task has no token losses")
        return self.kind.tokens(self.outputs(batch, params), batch.y, self._active_loss)

    def backward(self, batch: Batch, denominator: int | None = None, create_graph: bool = False) -> Tensor:
        """Add the gradient of Σ wᵢ ℓᵢ / B to ``.grad``; returns that loss, a detached device scalar.

        Args:
            batch: the rows; their weights are computed here, once, where reweighting is present.
            denominator: B, where ``batch`` is a piece (of ``split`` or ``chunks``) of a batch of B rows. Its
                first piece has a reweighting weigh the whole batch, by :meth:`weigh`.
            create_graph: let the gradient be differentiated in turn; the caller frees it.

        Raises:
            UserError: for a piece whose loss is no mean over rows, or whose weights cannot be found.
        """
        if self._plain and batch.weights is None and denominator is None:
            # The common case: one fused loss, counted by hand rather than by hooks.
            rows = batch.x.shape[0]
            loss = self.kind.mean(self._forward(batch.x), batch.y)
            if self.cost.enabled:
                self.cost.forward += rows
                self.cost.backward += rows
        else:
            loss = self._reduce(batch, denominator)
        loss.backward(create_graph=create_graph)
        return loss.detach()

    def loss_with_graph(self, batch: Batch) -> Tensor:
        """The loss that :meth:`backward` takes the gradient of, 0-d, for whoever makes that pass itself."""
        return self._reduce(batch, None)

    @torch.no_grad()
    def mean_loss(self, batch: Batch) -> Tensor:
        """The loss that :meth:`backward` returns, Σ wᵢ ℓᵢ / B, by a forward pass alone; a device scalar."""
        if self._plain and batch.weights is None:
            return self.kind.mean(self.outputs(batch), batch.y)
        return self._reduce(batch, None)

    @torch.no_grad()
    def weigh(self, batch: Batch, chunk: int | None = None) -> None:
        """Compute the weights of ``batch`` ahead of a backward pass; pieces cut from it later have them too.

        Nothing happens without a reweighting, or where the batch has weights. Costs a forward pass, ``chunk``
        rows at a time, which leaves batch-norm statistics alone.
        """
        if self.reweighting is None or batch.weights is not None:
            return
        with frozen_statistics(batch_norms(self.model)):
            pieces = [self._row_losses(piece) for piece in batch.chunks(chunk or len(batch))]
        batch.weights = self.reweighting(self, batch, torch.cat(pieces))

    def backward_all(self, chunk: int = 1024) -> Tensor:
        """Add the gradient of the mean loss over the whole training split, ``chunk`` rows at a time.

        Raises:
            UserError: where the loss of a batch is no mean over its rows, and there are several pieces.
        """
        parts = self.data.all().chunks(chunk)
        return torch.stack([self.backward(part, denominator=self.data.n) for part in parts]).sum()

    def per_sample_grads(self, batch: Batch) -> dict[str, Tensor]:
        """Gradient of each row's loss: parameter name -> (B, *shape). Counted as one pass over the rows.

        A batch with weights (:meth:`weigh`) has them in: the mean over rows is the gradient of the batch.

        Raises:
            TypeError: in training mode on a model with batch norm, where a row's loss hangs on the others.
        """
        if batch_norms(self.model) and self.model.training:
            raise TypeError("batch norm mixes rows: per-example gradients need the model in evaluation mode")
        params = {k: p.detach() for k, p in self.model.named_parameters() if p.requires_grad}

        def loss_of(at: dict[str, Tensor], x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
            row, penalty = Batch(x.unsqueeze(0), y.unsqueeze(0)), self._penalty(at)
            loss = self.losses_of(self.outputs(row, at), row).squeeze(0)
            loss = loss if weight is None else weight * loss
            return loss if penalty is None else loss + penalty

        # The plain kernel alone has a batching rule, but mixes types under autocast: take the slow way there.
        kernel = contextlib.nullcontext() if autocasts(self.model) else sdpa_kernel(SDPBackend.MATH)
        with kernel, self.cost.paused():
            weighed = None if batch.weights is None else 0
            per_row = vmap(grad(loss_of), in_dims=(None, 0, 0, weighed), randomness="different")
            grads = per_row(params, batch.x, batch.y, batch.weights)
        self.cost.forward += len(batch)
        self.cost.backward += len(batch)
        return grads

    def hvp(self, batch: Batch, v: Sequence[Tensor]) -> list[Tensor]:
        """Hessian of the mean loss over ``batch`` times ``v``, one tensor per parameter, shaped like it.

        Batch-norm statistics stay as they are: this measures, it does not train.

        Raises:
            UserError: of a compiled model; a part that calls this says so before, by ``second_order = True``.
        """
        if self.info.compiled:
            raise UserError(f"task.hvp {COMPILED}")
        frozen = frozen_statistics(batch_norms(self.model))
        with sdpa_kernel(SDPBackend.MATH), self.cost.paused(), frozen:
            loss = self.losses(batch).mean()
            first = torch.autograd.grad(loss, self.params, create_graph=True)
            product = torch.autograd.grad(first, self.params, grad_outputs=list(v))
        self.cost.hvp += len(batch)
        return list(product)

    # -- generators, sub-tasks, state --------------------------------------------------------------

    @property
    def progress(self) -> float:
        """Trained samples over the budget, in [0, 1]."""
        return min(1.0, self.cost.drawn / self.info.budget_samples)

    def rng(self, name: str) -> torch.Generator:
        """The generator of that name on the cell's device: seeded by the cell, kept in checkpoints."""
        if name not in self._generators:
            generator = torch.Generator(self.data.x.device).manual_seed(derive(self.seed, "rng", name))
            if name in self._pending["generators"]:
                generator.set_state(self._pending["generators"].pop(name).cpu())
            self._generators[name] = generator
        return self._generators[name]

    def spawn(self, model: nn.Module | None = None, data: Stream | None = None, name: str = "sub") -> Task:
        """A sub-task (guide, teacher, proxy, probe) on the same meters, kept in the same checkpoint.

        Args:
            model: its model; a copy of the present one, weights included, when None.
            data: its stream; the training rows in an order of their own when None.
            name: unique within this task; a resumed cell finds the sub-task's state under it.

        Raises:
            ValueError: when a sub-task of that name exists.
        """
        if name in self._children:
            raise ValueError(f"a sub-task named {name!r} exists already")
        data = self.data.clone(name) if data is None else data
        data.cost = self.cost
        surgeries = list(self._surgeries) if model is None else []
        model = copy.deepcopy(self.model) if model is None else model
        seed = derive(self.seed, "spawn", name)
        child = Task(self._build_model, data, self.info, seed=seed, model=model, own_loss=self.own_loss)
        child._surgeries = surgeries
        if name in self._pending["children"]:
            child.load_state_dict(self._pending["children"].pop(name))
        self._children[name] = child
        return child

    def state_dict(self) -> dict[str, Any]:
        """Model, streams, generators and sub-tasks: all that training changes here."""
        return {
            "model": self.model.state_dict(),
            "resets": self._resets,
            "data": self.data.state_dict(),
            "aux": {name: stream.state_dict() for name, stream in self.aux.items()},
            "generators": {name: g.get_state() for name, g in self._generators.items()}
            | self._pending["generators"],
            "children": self.subtasks_state() | self._pending["children"],
        }

    def subtasks_state(self) -> dict[str, Any]:
        """The states of the sub-tasks there are, by name."""
        return {name: child.state_dict() for name, child in self._children.items()}

    def load_subtasks_state(self, state: Mapping[str, Any]) -> None:
        """Put those sub-tasks back to where :meth:`subtasks_state` was taken."""
        for name, of_child in state.items():
            self._children[name].load_state_dict(of_child)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Generators and sub-tasks that do not exist yet take up their state when they are asked for.
        """
        self.model.load_state_dict(state["model"])
        self._resets = state["resets"]
        self.data.load_state_dict(state["data"])
        for name, stream in self.aux.items():
            stream.load_state_dict(state["aux"][name])
        self._pending = {"generators": dict(state["generators"]), "children": dict(state["children"])}
        for name, generator in self._generators.items():
            if name in self._pending["generators"]:
                generator.set_state(self._pending["generators"].pop(name).cpu())
        for name, child in self._children.items():
            if name in self._pending["children"]:
                child.load_state_dict(self._pending["children"].pop(name))

    # -- inside ------------------------------------------------------------------------------------

    @property
    def _plain(self) -> bool:
        return self._active_loss is None and self.objective is None and self.reweighting is None

    @property
    def _active_loss(self) -> LossFn | None:
        return self.own_loss if self.loss is None else self.loss

    def _reduce(self, batch: Batch, denominator: int | None) -> Tensor:
        if denominator not in (None, len(batch)) and batch.weights is None and self.reweighting is not None:
            self._weigh_piece(batch)
        losses = self._row_losses(batch)
        if losses.dim() == 0:
            if denominator not in (None, len(batch)):
                raise UserError("the loss of a whole batch is no mean over rows: it cannot come in pieces")
            return losses
        if batch.weights is None and self.reweighting is not None:
            with torch.no_grad():
                batch.weights = self.reweighting(self, batch, losses.detach())
        if batch.weights is not None:
            losses = losses * batch.weights
        if self.objective is None and (penalty := self._penalty()) is not None:
            losses = losses + penalty  # once, whatever the rows weigh
        return losses.mean() if denominator is None else losses.sum() / denominator

    def _row_losses(self, batch: Batch) -> Tensor:
        """What is trained on, of each row, (B,), or of the batch, 0-d; without weights and penalty."""
        if self.objective is not None:
            return self.objective(self, batch)
        return self.losses_of(self.outputs(batch), batch)

    def _weigh_piece(self, piece: Batch) -> None:
        """Give a piece its share of the weights of the batch that it was cut from."""
        if piece.cut_from is None:
            raise UserError(
                "a reweighting weighs a whole batch, and this piece does not know its own: cut it with "
                "split() or chunks(), or call task.weigh(batch) before"
            )
        whole, rows = piece.cut_from
        self.weigh(whole, len(piece))
        assert whole.weights is not None
        piece.weights = whole.weights[rows]

    def _penalty(self, params: Params | None = None) -> Tensor | None:
        """The penalty on weights of the loss in force, 0-d, where it has one."""
        penalty = getattr(self._active_loss, "penalty", None)
        if penalty is None:
            return None
        return penalty(dict(self.model.named_parameters()) if params is None else params)

    def _forward(self, x: Tensor) -> Tensor:
        # Skips Module.__call__ where only our own counting hook would run there.
        model = self.model
        if len(model._forward_hooks) == 1 and not model._forward_pre_hooks:
            return model.forward(x)
        with self.cost.paused():
            return model(x)

    def _install(self, model: nn.Module) -> None:
        for name, p in model.named_parameters():
            if p.is_complex():
                raise UserError(
                    f"the model's {name} is complex: make it real (torch.view_as_real), as methods are"
                )
        self.model = model
        self.params: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        _uncount(model)  # it may be a copy of a counted model
        model.register_forward_hook(_CallCounter(self.cost))


def _uncount(module: nn.Module) -> None:
    for key, hook in list(module._forward_hooks.items()):
        if isinstance(hook, _CallCounter):
            del module._forward_hooks[key]


class _CallCounter:
    """Forward hook that counts the rows of direct calls, and of the backward passes through them."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost

    def __call__(self, _module: nn.Module, _args: object, outputs: Tensor) -> None:
        if not self.cost.enabled:
            return
        rows = outputs.shape[0]
        self.cost.forward += rows
        if outputs.requires_grad:
            outputs.register_hook(lambda _grad: self._backward(rows))

    def _backward(self, rows: int) -> None:
        if self.cost.enabled:
            self.cost.backward += rows

    def __deepcopy__(self, _memo: object) -> _CallCounter:
        return self  # a copied model (a teacher, an average) runs on the same meters
