"""An algorithm put together from parts: the shape of nearly every method.

surgery, groups | schedule → sampler → loss or objective, reweighting → estimator → transforms →
wrapped optimizer → average
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from runner.base.errors import UserError
from runner.contract.algorithm import Algorithm
from runner.contract.batch import Batch, Info
from runner.contract.instantiate import build_part, target_of
from runner.contract.placeholders import filled
from runner.contract.task import Task
from runner.parts.averages import build_average
from runner.parts.curvature import products, with_graph
from runner.parts.demands import FIRST, Demands, build_optimizer, check_optimizer, check_rates, has_rate
from runner.parts.guards import clash
from runner.parts.hints import advised, early
from runner.parts.losses import build_loss
from runner.parts.modes import Modes, has_modes
from runner.parts.step_rows import step_rows
from runner.parts.stepped import Stepped, optimizer_argument
from runner.parts.waits import take_waits

Spec = Mapping[str, Any] | Callable[..., Any] | None
SUBTASKS = "sub-tasks"
GENERATORS = "generators of the optimizer"
SEVERAL = ("transform", "wrapper")
KINDS = (
    "surgery", "groups", "schedule", "sampler", "loss", "objective", "reweighting", "estimator",
    "transform", "wrapper", "optimizer", "average",
)  # fmt: skip


# Kinds that come from elsewhere in another form than ours.
BUILT_BY: dict[str, Callable[[Spec], Any]] = {"loss": build_loss, "average": build_average}


class Composed(Algorithm):
    """Parts in the fixed order of the design; an absent part costs nothing.

    Each argument is a config with a ``_target_``, a factory, or None. ``optimizer`` is called with
    parameter groups, each ``wrapper`` with the optimizer, the others with no arguments.
    ``transform`` and ``wrapper`` also take a mapping of name -> config, applied in order.

    Hooks (``setup``, ``report``, ...) run in the order of :data:`KINDS`; ``after_step`` begins with the
    optimizer, whose step it completes. Of a wrapped optimizer the outermost wrapper has the hooks. Optimizers
    and wrappers are built at set-up only, so their ``compatible`` and ``uses_metrics`` are read from the
    class: ``compatible`` is a static method there.

    For an evaluation the part with a ``swap_in`` puts its weights in place, or else an optimizer with
    ``eval()`` and ``train()`` does (an average stands in for either), then the part with a ``map_evaluated``
    changes the weights that are there (quantisation, a mask). Two of a sort exclude each other.
    """

    def __init__(
        self,
        optimizer: Spec,
        schedule: Spec = None,
        loss: Spec = None,
        objective: Spec = None,
        reweighting: Spec = None,
        sampler: Spec = None,
        estimator: Spec = None,
        transform: Spec = None,
        wrapper: Spec = None,
        groups: Spec = None,
        average: Spec = None,
        surgery: Spec = None,
    ) -> None:
        given = {name: spec for name, spec in locals().items() if name in KINDS and spec is not None}
        given, self._waits = take_waits(given)
        self._optimizer_spec = given.pop("optimizer")
        self._stepped_spec = given.pop("schedule") if optimizer_argument(schedule) is not None else None
        self._wrapper_specs = _several(given.pop("wrapper", None))
        transforms = _several(given.pop("transform", None))
        self.transforms = {name: build_part(f"transform.{name}", spec) for name, spec in transforms.items()}
        self.single = {
            kind: BUILT_BY.get(kind, partial(build_part, kind))(spec) for kind, spec in given.items()
        }
        self.optimizer: Any = None
        self._trained: list[Tensor] | None = None  # while an evaluation lasts
        self.predict = getattr(self.single.get("loss"), "predict", None)
        self.uses_metrics = any(getattr(part, "uses_metrics", False) for _, part in self._declared())
        self.open_division = "surgery" in self.single and not getattr(
            self.single["surgery"], "function_preserving", False
        )

    # -- set-up ------------------------------------------------------------------------------------

    def compatible(self, info: Info) -> str | None:
        """The first part's reason why not; parts that exclude each other are named too."""
        reasons = (
            f"{kind}: {reason}"
            for kind, part in self._declared()
            if hasattr(part, "compatible") and (reason := part.compatible(info)) is not None
        )
        parts, demands = dict(self._declared()), Demands.of(self._optimizer_spec)
        return clash(parts, info) or demands.clash(parts, info) or next(reasons, None)

    def setup(self, task: Task) -> None:
        """Build the optimizer on the (operated) model and let every part set itself up."""
        if "surgery" in self.single:
            task.operate(self.single["surgery"])
        task.loss = self.single.get("loss")
        task.objective = self.single.get("objective")
        task.reweighting = self.single.get("reweighting")
        groups = self.single["groups"](task) if "groups" in self.single else [{"params": task.params}]
        self._build_optimizer(task, groups)
        for _, part in self._named_parts():
            if hasattr(part, "setup"):
                part.setup(task)
        self._bind(task)

    def _build_optimizer(self, task: Task, groups: list[dict[str, Any]]) -> None:
        """The optimizer, what steps its learning rates, and what wraps it."""

        def fill(spec: Spec) -> Any:
            return filled(spec, task, lambda: step_rows(task.info, dict(self._named_parts())))

        self._demands = Demands.of(self._optimizer_spec)
        self.optimizer = build_optimizer(fill(self._optimizer_spec), groups)
        check_optimizer("optimizer", self.optimizer, self._demands)
        check_rates(self.optimizer, groups, dict(self._scaling()))
        _scale(self.optimizer.param_groups)
        if self._stepped_spec is not None:
            self.single["schedule"] = Stepped(fill(self._stepped_spec), self.optimizer)
        for name, spec in self._wrapper_specs.items():
            self.optimizer = build_part(f"wrapper.{name}", fill(spec), self.optimizer)
            check_optimizer(f"wrapper.{name}", self.optimizer, self._demands)

    def _scaling(self) -> Iterator[tuple[str, str]]:
        """What scales learning rates, and what takes it out."""
        if self._stepped_spec is not None or "schedule" in self.single:
            yield "the schedule", "algorithm/schedule=null"
        if self._wrapper_specs:
            yield f"the wrapper {next(iter(self._wrapper_specs))}", "algorithm/wrapper=null"

    def beginning(self, task: Task) -> dict[str, Any]:
        """States of parts and sub-tasks, copied behind :meth:`setup` for :meth:`restart` to go back to."""
        return copy.deepcopy(self.state_dict() | {SUBTASKS: task.subtasks_state()})

    def restart(self, task: Task, beginning: Mapping[str, Any]) -> None:
        """Begin a second phase: new initial weights, and every part as it was set up, its sub-tasks too.

        A part that starts at the present weights has a ``restart(task)``, which is called last; an average
        is set up again.

        Args:
            task: the cell's.
            beginning: what :meth:`beginning` gave.
        """
        task.reset_model()
        self.load_state_dict(copy.deepcopy(dict(beginning)))
        task.load_subtasks_state(beginning.get(SUBTASKS, {}))
        for _, part in self._named_parts():
            if hasattr(part, "restart"):
                part.restart(task)
        if hasattr(self._average, "setup"):
            self._average.setup(task)  # pyright: ignore[reportOptionalMemberAccess]  it starts at the present weights

    def cycle(self, info: Info) -> int:
        """The longest of the parts'."""
        return max((p.cycle(info) for _, p in self._named_parts() if hasattr(p, "cycle")), default=0)

    def _bind(self, task: Task) -> None:
        # Everything a step calls, looked up once.
        single = self.single
        own = (getattr(part, "syncs_every", 0) for _, part in self._named_parts())
        self.syncs_every = _least_positive(chain(self._waits, own))
        self._params = task.params
        self._groups = self.optimizer.param_groups
        for group in self._groups:
            if has_rate(group):
                group.setdefault("initial_lr", group["lr"])
        schedule = single.get("schedule")
        self._schedule: Callable[[float], float] | None = None if isinstance(schedule, Stepped) else schedule
        self._sampler: Callable[[Task], Batch] = single.get("sampler", _uniform)
        self._estimator: Callable[[Task, Batch], Tensor] = single.get("estimator", _backprop)
        self._advance = self._advance_plainly
        if self._demands.closure:
            self._advance = self._advance_by_closure
        elif self._demands.create_graph:
            self._advance, self._estimator = self._advance_with_graph, with_graph
        elif self._demands.fused:
            self._advance, self._estimator = self._gradient, self._fused
        if isinstance(schedule, Stepped):
            self._estimator = schedule.listening(self._estimator)
        self._transforms = list(self.transforms.values())
        self._needs_loss = getattr(self.optimizer, "needs_loss", False)
        self._average = single.get("average")
        parts = [part for _, part in self._named_parts()]
        completed = sorted(parts, key=lambda part: part is not self.optimizer)  # stable
        self._after = [part.after_step for part in completed if hasattr(part, "after_step")]
        modes = Modes(self.optimizer) if has_modes(self.optimizer) else None
        self._swap = next((part for part in reversed(parts) if hasattr(part, "swap_in")), modes)
        self._map = next((part for part in parts if hasattr(part, "map_evaluated")), None)

    # -- training ----------------------------------------------------------------------------------

    def step(self, task: Task) -> Tensor:
        """One update; returns the training loss, detached."""
        if self._schedule is not None:
            scale = self._schedule(task.progress)
            for group in self._groups:
                group["lr"] = group["initial_lr"] * scale
        loss = self._advance(task, self._sampler(task))
        for after_step in self._after:
            after_step(task)
        if self._average is not None:
            self._average.update(task)
        return loss

    def _gradient(self, task: Task, batch: Batch) -> Tensor:
        """The loss of ``batch``, detached; its gradient, transformed, is in ``.grad``."""
        for p in self._params:
            p.grad = None
        loss = self._estimator(task, batch)
        if self._transforms:
            params = [p for p in self._params if p.grad is not None]
            grads = [p.grad for p in params]
            for transform in self._transforms:
                transform(params, grads)
        return loss

    def _advance_plainly(self, task: Task, batch: Batch) -> Tensor:
        loss = self._gradient(task, batch)
        try:
            if self._needs_loss:
                self.optimizer.step(loss=loss)
            else:
                self.optimizer.step()
        except Exception as error:
            if (advice := advised(error, self.optimizer)) is None:
                raise
            raise UserError(advice) from error
        return loss

    def _advance_with_graph(self, task: Task, batch: Batch) -> Tensor:
        loss = self._gradient(task, batch)
        with products(task, self._params, len(batch)):
            self.optimizer.step()
        return loss

    def _advance_by_closure(self, task: Task, batch: Batch) -> Tensor:
        """The optimizer evaluates the batch as often as it likes; returns what it was at first."""
        losses = [self._gradient(task, batch)] if self._demands.closure == FIRST else []

        @torch.enable_grad()
        def closure() -> Tensor:
            losses.append(self._gradient(task, batch))
            return losses[-1].clone()

        try:
            self.optimizer.step(closure)
        except Exception as error:
            if task.cost.steps or self._demands.closure == FIRST or isinstance(error, torch.OutOfMemoryError):
                raise
            raise UserError(early(error, self.optimizer)) from error
        if not losses:
            raise UserError(f"algorithm.optimizer ({type(self.optimizer).__name__}): calls no closure")
        return losses[0]

    def _fused(self, task: Task, batch: Batch) -> Tensor:
        """An estimator that leaves the backward pass, and the update in it, to the optimizer."""
        loss = task.loss_with_graph(batch)
        self.optimizer.fused_backward(loss, self._groups[0]["lr"])
        return loss.detach()

    @torch.no_grad()
    def enter_eval(self, task: Task) -> None:
        """Put the weights in place that are evaluated; a second call changes nothing."""
        if self._trained is not None:
            return
        self._trained = [p.detach().clone() for p in task.params] if self._map is not None else []
        if self._swap is not None:
            self._swap.swap_in(task)
        if self._map is not None:
            self._map.map_evaluated(task, self._trained)

    @torch.no_grad()
    def exit_eval(self, task: Task) -> None:
        """Undo :meth:`enter_eval`."""
        if self._trained is None:
            return
        if self._swap is not None:
            self._swap.swap_out(task)
        if self._map is not None:  # behind swap_out, which knows nothing of the map
            torch._foreach_copy_(task.params, self._trained)
        self._trained = None

    def broken_promise(self, task: Task) -> str | None:
        """How the evaluated weights break what a part promises of them; the first fault, or None."""
        for kind, part in self._named_parts():
            if hasattr(part, "broken_promise"):
                fault = part.broken_promise(task, self._trained or [])
                if fault is not None:
                    return f"{kind}: {fault}"
        return None

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Hand validation metrics to the parts that declare ``uses_metrics``."""
        for _, part in self._named_parts():
            if getattr(part, "uses_metrics", False):
                part.observe(metrics)

    # -- records -----------------------------------------------------------------------------------

    def report(self) -> dict[str, float]:
        """The learning rate of the first group, and what the parts report."""
        first = self._groups[0]
        scalars = {"lr": float(first["lr"])} if has_rate(first) else {}
        for kind, part in self._named_parts():
            if hasattr(part, "report"):
                scalars |= {f"{kind}/{key}": value for key, value in part.report().items()}
        return scalars

    def found(self) -> dict[str, str]:
        """What parts found out at set-up that nobody had said, by kind."""
        said = {kind: part.found() for kind, part in self._named_parts() if hasattr(part, "found")}
        return {kind: text for kind, text in said.items() if text is not None}

    def state_dict(self) -> dict[str, Any]:
        """State of every part that has any."""
        states = {kind: p.state_dict() for kind, p in self._named_parts() if hasattr(p, "state_dict")}
        own = {name: generator.get_state() for name, generator in self._generators()}
        return states | ({GENERATORS: own} if own else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        for kind, part in self._named_parts():
            if kind in state:
                part.load_state_dict(state[kind])
        for name, generator in self._generators():
            generator.set_state(state[GENERATORS][name].cpu())
        self._groups = self.optimizer.param_groups

    # -- inside ------------------------------------------------------------------------------------

    def _generators(self) -> Iterator[tuple[str, torch.Generator]]:
        """Those that an optimizer holds itself, which its own state leaves out."""
        held = vars(self.optimizer).items() if hasattr(self.optimizer, "__dict__") else ()
        return ((name, item) for name, item in held if isinstance(item, torch.Generator))

    def _named_parts(self) -> Iterator[tuple[str, Any]]:
        for kind in KINDS:
            if kind == "transform":
                yield from ((f"transform.{name}", part) for name, part in self.transforms.items())
            elif kind == "optimizer" and self.optimizer is not None:
                yield kind, self.optimizer
            elif kind in self.single:
                yield kind, self.single[kind]

    def _declared(self) -> Iterator[tuple[str, Any]]:
        """Parts as they can be asked before set-up: of optimizers and wrappers there are classes only."""
        yield from ((kind, part) for kind, part in self._named_parts() if kind != "optimizer")
        yield "optimizer", target_of(self._optimizer_spec)
        yield from ((f"wrapper.{name}", target_of(spec)) for name, spec in self._wrapper_specs.items())


def _several(spec: Spec) -> dict[str, Any]:
    if spec is None:
        return {}
    if isinstance(spec, Mapping) and "_target_" not in spec:
        return {name: part for name, part in spec.items() if part is not None}
    return {"0": spec}


def _least_positive(values: Iterable[int]) -> int:
    return min((v for v in values if v > 0), default=0)


def _uniform(task: Task) -> Batch:
    return task.data.next()


def _backprop(task: Task, batch: Batch) -> Tensor:
    return task.backward(batch)


def _scale(groups: Iterable[dict[str, Any]]) -> None:
    """Take the factors of a group into what the optimizer has filled in."""
    for group in groups:
        for key in ("lr", "weight_decay"):
            if f"{key}_scale" in group and group.get(key) is not None:
                group[key] = group[key] * group[f"{key}_scale"]
