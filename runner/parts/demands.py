"""What optimizers from elsewhere ask for, and how they get it: one mechanism each, whoever asks.

Three keys of an optimizer's YAML are the harness's, unless its class takes an argument of that name:

- ``closure: true``: ``step(closure)`` evaluates loss and gradient of the step's batch as often as it calls;
  ``closure: after_gradient`` where it wants a gradient before it calls, as kinds of SAM do,
- ``create_graph: true``: the gradient can itself be differentiated,
- ``others: {_target_: …}``: an optimizer for all that is no matrix.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runner.base.errors import UserError, text_of
from runner.contract.batch import COMPILED, Info
from runner.contract.instantiate import build_part, target_of
from runner.contract.targets import arguments
from runner.parts.hints import hint
from runner.parts.split import Split, split

KEYS = ("closure", "create_graph", "others")
FIRST = "after_gradient"
VALUES = {"closure": (True, False, FIRST), "create_graph": (True, False)}
WANTS = {"closure": f"true, false or {FIRST}", "create_graph": "true or false"}
Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class Demands:
    """What a YAML says an optimizer needs.

    Attributes:
        closure: its step evaluates the loss itself; ``"after_gradient"``: once it has a gradient.
        create_graph: it differentiates the gradient.
        others: config of the optimizer that gets what is no matrix; None where there is none.
        fused: it makes the backward pass itself, in ``fused_backward(loss, lr)``, and updates within.
    """

    closure: bool | str = False
    create_graph: bool = False
    others: Any = None
    fused: bool = False

    @classmethod
    def of(cls, spec: Any) -> Demands:
        """Those of an optimizer's config; a step that cannot be called without a closure demands one."""
        target = target_of(spec)
        said = {key: spec[key] for key in _own(spec, target)} if isinstance(spec, Mapping) else {}
        if "closure" in _required(getattr(target, "step", None)):
            said.setdefault("closure", True)
        for key, values in VALUES.items():
            if said.get(key, False) not in values:
                raise UserError(f"algorithm.optimizer.{key}: got {said[key]!r}, expected {WANTS[key]}")
        return cls(**said, fused=hasattr(target, "fused_backward"))

    def clash(self, parts: Mapping[str, Any], info: Info) -> str | None:
        """Why an optimizer with such demands does not go with other parts, by kind; None where it does."""
        if self.create_graph and info.compiled:
            return f"optimizer: {COMPILED}"
        kinds = {name.partition(".")[0]: name for name in parts}
        remembering = (name for name in parts if name.startswith(("estimator", "transform.")))
        remembering = (name for name in remembering if hasattr(parts[name], "state_dict"))
        if self.closure and (name := kinds.get("wrapper")) is not None:
            return f"{name}: wraps a step without a closure, but the optimizer needs one"
        if self.closure and (name := next(remembering, None)) is not None:
            return f"{name}: remembers one gradient per step, and the optimizer's closure evaluates several"
        for kind in ("estimator", "transform"):
            if self.create_graph and (name := kinds.get(kind)) is not None:
                return f"{name}: the optimizer differentiates the gradient itself (create_graph)"
        for kind in ("estimator", "transform", "wrapper"):
            if self.fused and (name := kinds.get(kind)) is not None:
                return f"{name}: the optimizer makes the backward pass itself (fused_backward)"
        if (self.others is not None) + bool(self.closure) + self.create_graph + self.fused > 1:
            return (
                "optimizer: of closure, create_graph, others and a fused backward pass only one is possible"
            )
        return None


def build_optimizer(spec: Any, groups: Groups) -> Any:
    """An optimizer on ``groups``, or on one group or a plain list where it takes no more and nothing is lost.

    Args:
        spec: its config, without placeholders, or a factory.
        groups: parameter groups. One that is given its first argument by name, such as the model, gets none.

    Raises:
        UserError: where it cannot be built, with what to do where that is known.
    """
    demands, target = Demands.of(spec), target_of(spec)
    if not isinstance(spec, Mapping):
        return build_part("optimizer", spec, groups)
    plain = {key: value for key, value in spec.items() if key not in _own(spec, target)}
    if demands.others is not None:
        mine, rest = split(groups)
        built = [build_optimizer(plain, mine)] if mine else []
        return Split([*built, *([build_part("optimizer.others", demands.others, rest)] if rest else [])])
    if _first_argument(target) in plain:
        return _advised(target, lambda: build_part("optimizer", {**plain, "_partial_": False}))
    return _advised(target, lambda: _on_groups(plain, groups))


def check_optimizer(where: str, optimizer: Any, demands: Demands) -> None:
    """Hold an optimizer or a wrapper against what a composed algorithm does with it.

    Raises:
        UserError: ``where`` names the key.
    """
    given = {"loss"} if getattr(optimizer, "needs_loss", False) else set()
    given |= {"closure"} if demands.closure else set()
    if needed := [name for name in _required(optimizer.step) if name not in given]:
        raise UserError(
            f"algorithm.{where} ({type(optimizer).__name__}): step() needs {', '.join(needed)}, steps here "
            "are called without; an algorithm of its own can do that: docs/adding_a_method/whole.md"
        )


def check_rates(optimizer: Any, groups: Groups, scaling: Mapping[str, str]) -> None:
    """Refuse what would scale learning rates that there are none of.

    Args:
        optimizer: as built.
        groups: as asked for.
        scaling: what scales them -> how to take it out.

    Raises:
        UserError: names the first.
    """
    if all(has_rate(group) for group in optimizer.param_groups):
        return
    scaled = {"algorithm.groups": "algorithm/groups=null"} if any("lr_scale" in g for g in groups) else {}
    for who, without in {**scaling, **scaled}.items():
        raise UserError(
            f"algorithm.optimizer ({type(optimizer).__name__}): has no lr in its groups, which {who} would "
            f"scale: take that out with {without}"
        )


def has_rate(group: Mapping[str, Any]) -> bool:
    """Whether a group has a learning rate; None stands for one that the optimizer finds itself."""
    return group.get("lr") is not None


def _on_groups(spec: Mapping[str, Any], groups: Groups) -> Any:
    try:
        return build_part("optimizer", spec, [dict(group) for group in groups])
    except UserError as error:
        refused = error
    together = [p for group in groups for p in group["params"]]
    optimizer = _first_built(spec, ([{"params": together}], together))
    if optimizer is None:
        raise refused
    lost = {key for group in groups for key in group} & set(optimizer.param_groups[0]) - {"params"}
    if lost and any(optimizer.param_groups[0][key] != g[key] for g in groups for key in lost & set(g)):
        raise UserError(f"{refused}; without groups it can be built: algorithm/groups=null")
    return optimizer


def _first_built(spec: Mapping[str, Any], tried: Iterable[list[Any]]) -> Any:
    """One on the first of these that it takes; None where it takes none of them."""
    for params in tried:
        with contextlib.suppress(UserError):
            return build_part("optimizer", spec, params)
    return None


def _advised(target: Any, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except UserError as error:
        advice = hint(text_of(error), target)
        raise UserError(f"{text_of(error)}; {advice}" if advice else text_of(error)) from error


def _own(spec: Mapping[str, Any], target: Any) -> list[str]:
    """Keys that are the harness's."""
    return [key for key in KEYS if key in spec and key not in arguments(target)]


def _first_argument(target: Any) -> str | None:
    return next(iter(arguments(target)), None)


def _required(function: Any) -> list[str]:
    various = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        name
        for name, arg in arguments(function).items()
        if arg.default is arg.empty and arg.kind not in various and name != "self"
    ]
