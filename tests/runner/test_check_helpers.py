"""What the checks stand on: bitwise comparison, the walk over objects, fresh modules, cards, costs."""

from __future__ import annotations

import functools
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import get_object
from torch import nn

from runner.check import cards, costs
from runner.check.cards import COST, SECTIONS, Rows
from runner.check.modules import fresh_modules
from runner.check.origin import is_library, is_project, method_modules
from runner.check.reach import extent, reachable
from runner.check.same import copied, difference
from runner.contract.targets import locate

NAN = float("nan")
STATE: dict[str, Any] = {"w": torch.tensor([1.0, NAN]), "n": 3, "x": NAN, "l": [1, {"s": "a"}]}


def test_equal_states_have_no_difference_even_with_nan() -> None:
    assert difference(STATE, copied(STATE)) is None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"w": torch.tensor([1.0 + 2e-7, NAN])}, "w: "),
        ({"w": torch.tensor([1.0, NAN], dtype=torch.float64)}, "w: "),
        ({"w": torch.tensor([[1.0, NAN]])}, "w: "),
        ({"n": 3.0}, "n: "),
        ({"n": True}, "n: "),
        ({"x": 0.0}, "x: "),
        ({"l": [1, {"s": "b"}]}, "l[1].s: "),
        ({"l": [1]}, "l: "),
        ({"more": 1}, ": only one"),
    ],
)
def test_a_difference_is_found_and_named(change: dict[str, Any], where: str) -> None:
    found = difference(STATE, STATE | change)
    assert found is not None
    assert found.startswith(where)


def test_minus_zero_is_not_zero() -> None:
    assert difference(torch.tensor(0.0), torch.tensor(-0.0)) is not None
    assert difference(0.0, -0.0) is not None


class Slotted:
    __slots__ = ("inside",)

    def __init__(self, inside: object) -> None:
        self.inside = inside

    def method(self) -> None: ...


def _closure(secret: object) -> Any:
    return lambda: secret


def _generator(secret: object) -> Any:
    yield secret
    yield


def _started(secret: object) -> Any:
    generator = _generator(secret)
    next(generator)
    return generator


def _in_module(secret: torch.Tensor) -> nn.Module:
    module = nn.Sequential(nn.Linear(1, 1))
    module[0].register_buffer("secret", secret)
    return module


HIDING = {
    "list": lambda s: [[s]],
    "dict key": lambda s: {s: 1},
    "slot": Slotted,
    "closure": _closure,
    "bound method": lambda s: Slotted(s).method,
    "builtin method": lambda s: s.sum,
    "partial": lambda s: functools.partial(print, end=s),
    "default": lambda s: eval("lambda x=s: x", {"s": s}),
    "generator": _started,
    "module": _in_module,
    "optimizer state": lambda s: torch.optim.SGD([s.requires_grad_()], lr=0.1),
    "class attribute": lambda s: type("Holder", (), {"held": s, "__module__": __name__})(),
}


@pytest.mark.parametrize("how", HIDING)
def test_the_walk_finds_what_is_hidden(how: str) -> None:
    secret = torch.randn(3)
    assert any(item is secret for _, item in reachable({"root": HIDING[how](secret)}))


def test_the_walk_names_the_way_and_bears_cycles() -> None:
    tree: dict[str, Any] = {"a": [torch.zeros(1)]}
    tree["self"] = tree
    paths = [path for path, item in reachable({"root": tree}) if isinstance(item, torch.Tensor)]
    assert paths == ["root['a'][0]"]


def test_views_touch_the_memory_of_their_base() -> None:
    base = torch.zeros(10)
    low, high = extent(base)
    assert extent(base[2:4]) == (low + 8, low + 16)
    assert extent(base[::3])[1] == high
    assert extent(torch.zeros(0)) == (0, 0)


def test_fresh_modules_are_fresh_inside_and_put_back_outside() -> None:
    target = "tests.doubles.planted.Counts"
    before = get_object(target)
    before.calls = 17
    with fresh_modules([target]):
        inside = get_object(target)
        assert inside is not before
        assert inside.calls == 0
    assert get_object(target) is before
    assert sys.modules["tests.doubles"].planted.Counts is before  # pyright: ignore[reportAttributeAccessIssue]
    assert before.calls == 17
    before.calls = 0


def test_libraries_and_the_harness_hold_no_methods() -> None:
    assert is_library(torch.__file__)
    assert is_library(functools.__file__)
    assert is_library("<string>")
    assert not is_library(__file__)
    others = "torch.optim", "torch.ops", "runner.contract.task", "workloads.base", "__main__"
    assert not any(map(is_project, others))
    assert method_modules(iter(["torch.optim.AdamW"])) == []


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("Cost: 1 forward, 1 backward.", ("1", "1", None)),
        ("Cost: 1.1 forward, 0.1 backward, 0.5 hvp.", ("1.1", "0.1", "0.5")),
        ("Cost: two forward, 1 backward.", None),
        ("Cost: 1 forward, 1 backward, 1 hvp", None),
    ],
)
def test_cost_lines(text: str, rows: tuple[str | None, ...] | None) -> None:
    found = COST.search(text)
    assert (found.groups() if found else None) == rows


def test_parts_multiply_and_add_their_hvp() -> None:
    assert costs.composed([]) == Rows(1, 1, 0)
    assert costs.composed([Rows(2, 2, 0), Rows(1.5, 1, 0.1), Rows(1, 1, 0.2)]) == pytest.approx((3, 2, 0.3))


@pytest.mark.parametrize("missing", SECTIONS)
def test_a_card_names_the_sections_it_lacks(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "\n".join(f"{name}: 1 forward, 1 backward." for name in SECTIONS if name != missing)
    monkeypatch.setattr(cards, "_docstring", lambda _target: f"A method.\n\n{body}")
    assert cards._card_fault("algorithms.x.X") == f"algorithms.x.X: its card lacks {missing}"


def test_a_yaml_needs_a_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("_target_: torch.optim.SGD\n")
    monkeypatch.setattr(cards, "_by_target", lambda _: {"torch.optim.SGD": [path]})
    assert cards._fault("optimizer", "torch.optim.SGD") == (
        "mine.yaml: the first line must be a comment that sums the method up"
    )
    path.write_text("# Plain gradient descent\n_target_: torch.optim.SGD\n")
    assert cards._fault("optimizer", "torch.optim.SGD") is None


class Plain:
    """Knows no equality."""

    def __init__(self, value: float) -> None:
        self.value, self.queue = torch.tensor(value), deque([torch.ones(2)], maxlen=3)


def test_queues_and_objects_are_compared_by_what_is_in_them() -> None:
    assert difference({"a": Plain(1.0)}, {"a": Plain(1.0)}) is None
    assert difference({"a": Plain(1.0)}, {"a": Plain(2.0)}) == "a.value: tensors differ by 1"
    kept = copied({"a": Plain(1.0)})
    other = Plain(1.0)
    other.queue.append(torch.zeros(2))
    assert difference(kept, {"a": other}) == "a.queue: 1 entries against 2"
    assert kept["a"].queue.maxlen == 3
    assert difference(np.arange(2), np.arange(2)) is None and difference(np.arange(2), np.ones(2)) is not None


class Ring:
    """Refers to itself, as an object with a parent or an owner does."""

    def __init__(self, value: float) -> None:
        self.value, self.own, self.others = torch.tensor(value), self, [self]


def test_what_lies_within_itself_is_looked_at_once() -> None:
    assert difference(Ring(1.0), Ring(1.0)) is None
    assert difference(Ring(1.0), Ring(2.0)) == "value: tensors differ by 1"
    one, other = ([1.0], [1.0])
    one.append(one)  # pyright: ignore
    other.append(other)  # pyright: ignore
    assert difference(one, other) is None
    other[0] = 2.0
    assert difference(one, other) == "[0]: 1.0 against 2.0"
    part = {"x": 1.0}
    assert difference([part, part], [{"x": 1.0}, {"x": 2.0}]) == "[1].x: 1.0 against 2.0"


def test_a_class_in_a_module_of_its_name_is_a_class_ever_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "named_alike"
    package.mkdir()
    (package / "__init__.py").write_text("from named_alike.Mine import Mine\n")
    (package / "Mine.py").write_text("class Mine: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = locate("named_alike.Mine")
    with fresh_modules(["named_alike.Mine"]):
        assert locate("named_alike.Mine") is not before
    assert locate("named_alike.Mine") is before
