"""What a YAML sets against what its class takes: the defaults, and where ``null`` is taken or refused."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from runner.base.errors import UserError
from runner.compose.config import compose, workload_names
from runner.methods.catalogue import Method, methods

INTERPOLATED = re.compile(r"\$\{")
NULL = re.compile(r"\b(None|Any)\b")
METHODS = [method for method in methods() if method.kind not in ("preset", "diagnostic")]
OURS = [method for method in METHODS if method.target.startswith(("algorithms.", "runner."))]  # no library's
OPTIONS = compose(["workload=digits"])["workload"]


def parameters(target: str) -> dict[str, inspect.Parameter]:
    """Of a class, those of the classes that it inherits from included; or of a function."""
    found: dict[str, inspect.Parameter] = {}
    made = get_object(target)
    for one in made.__mro__ if inspect.isclass(made) else [made]:
        function = vars(one).get("__init__") if inspect.isclass(one) else one
        if inspect.isfunction(function):
            found = {**inspect.signature(function).parameters, **found}
    return found


def takes_none(parameter: inspect.Parameter) -> bool:
    return parameter.default is None or NULL.search(str(parameter.annotation)) is not None


def accepted(*overrides: str) -> bool:
    try:
        compose(overrides)
    except UserError as error:
        assert "got null, expected " in str(error)
        return False
    return True


def prefix(method: Method) -> str:
    """Where its settings stand in a config."""
    group = {"whole": "algorithm"}.get(method.kind, f"algorithm.{method.kind}")
    return f"{group}.{method.name}" if method.kind in ("transform", "wrapper") else group


def written(method: Method) -> dict[str, Any]:
    """Setting -> its value in the YAML."""
    content = OmegaConf.to_container(OmegaConf.load(method.yaml), resolve=False)
    assert isinstance(content, dict)
    return {str(name): value for name, value in content.items() if name in method.settings}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.kind}-{method.name}")
def test_null_goes_where_the_class_of_a_method_takes_it(method: Method) -> None:
    """A YAML's own null can be said again, whatever the class."""
    taken, own = parameters(method.target), written(method)
    expected = {name: value is None or takes_none(taken[name]) for name, value in own.items()}
    line = f"algorithm={method.name}", "workload=digits"
    assert {name: accepted(*line, f"{prefix(method)}.{name}=null") for name in own} == expected


@pytest.mark.parametrize("workload", workload_names())
def test_null_goes_where_the_class_of_a_workload_takes_it(workload: str) -> None:
    """Options that every workload has are tried on one."""
    config = compose([f"workload={workload}"])["workload"]
    names = [name for name in config if workload == "digits" or name not in OPTIONS]
    taken = parameters(config["_target_"])
    expected = {name: config[name] is None or (name in taken and takes_none(taken[name])) for name in names}
    assert {name: accepted(f"workload={workload}", f"workload.{name}=null") for name in names} == expected


@pytest.mark.parametrize("method", OURS, ids=lambda method: f"{method.kind}-{method.name}")
def test_a_class_has_the_defaults_of_its_yaml(method: Method) -> None:
    """Where it has one, and the YAML a plain value: parts, and what another key says, are no defaults."""
    defaults = {name: one.default for name, one in parameters(method.target).items()}
    stated = {name: value for name, value in written(method).items() if not INTERPOLATED.match(str(value))}
    own = {name: plain(defaults[name]) for name in stated if defaults[name] is not inspect.Parameter.empty}
    assert own == {name: plain(stated[name]) for name in own}
    assert "YAML" not in method.card.fields["Defaults"]  # a card has no second default


def plain(value: Any) -> Any:
    """An empty mapping is none."""
    return list(value) if isinstance(value, tuple) else None if value == {} else value
