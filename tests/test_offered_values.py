"""Every value that the comment in a YAML or a card offers is accepted, and trains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from runner.base.errors import UserError
from runner.base.paths import CONF
from runner.check.subjects import SMALL, small_workload, subject
from runner.compose.config import compose
from runner.contract.instantiate import build_part
from runner.methods.catalogue import Method, methods

SETTING = re.compile(r"^ *(\w+): (.*?)\s+# (.*)$", re.MULTILINE)
ARGUMENT = re.compile(r"^    (\w+): (.+(?:\n     +.+)*)", re.MULTILINE)  # below Args: in a docstring
PROSE = re.compile(r"set (\w+) to (null|true|false)")


class Offer(NamedTuple):
    """``name=value``, which the method or workload ``owner`` says may be."""

    owner: str
    key: str
    value: str


def in_a_comment(note: str) -> list[str]:
    """``a | b; null: none`` -> a, b, null."""
    said = [re.match(r"(\w+)(?=$|:| \(| for )", part) for part in re.split(r"\s*[|;]\s*", note)]
    return [found[1] for found in said if found and ("|" in note or found[1] == "null")]


def in_a_card(method: Method) -> Iterator[tuple[str, str]]:
    arguments = method.card.text.partition("\nArgs:")[2].partition("\nRaises:")[0]
    for name, text in ARGUMENT.findall(arguments):
        if re.search(r"\bNone\b", text):
            yield name, "null"
        setting = method.settings.get(name)
        if setting is not None and re.fullmatch(r"[a-z]\w*", setting.default or ""):
            words = re.fullmatch(r"((?:``\w+``|\"\w+\")(?:, | or )?)+\..*", text, re.DOTALL)
            yield from ((name, value) for value in re.findall(r"[`\"](\w+)[`\"]", words[0] if words else ""))
    yield from PROSE.findall(" ".join(method.card.text.split()))


def of_methods() -> Iterator[Offer]:
    for method in methods():
        if method.kind in ("preset", "diagnostic"):
            continue
        group = {"whole": "algorithm"}.get(method.kind, f"algorithm.{method.kind}")
        prefix = f"{group}.{method.name}" if method.kind in ("transform", "wrapper") else group
        offers = {(name, value) for name, s in method.settings.items() for value in in_a_comment(s.note)}
        offers |= {(name, value) for name, value in in_a_card(method) if name in method.settings}
        yield from (Offer(method.name, f"{prefix}.{name}", v) for name, v in sorted(offers))


def of_workloads() -> Iterator[Offer]:
    for path in sorted((CONF / "workload").glob("*.yaml")):
        owner = "digits" if path.stem == "_options" else path.stem
        for name, _, note in SETTING.findall(path.read_text()):
            prefix = "workload.resources" if name in ("cores", "gpus", "device") else "workload"
            yield from (Offer(owner, f"{prefix}.{name}", value) for value in in_a_comment(note))


METHODS, WORKLOADS = list(of_methods()), list(of_workloads())


@pytest.mark.parametrize("offer", METHODS, ids=lambda o: f"{o.owner}-{o.key.rpartition('.')[2]}-{o.value}")
def test_a_method_takes_what_its_card_and_its_yaml_offer(offer: Offer) -> None:
    for workload in SMALL:
        overrides = [f"algorithm={offer.owner}", f"workload={workload}", f"{offer.key}={offer.value}"]
        one = subject(compose(overrides), [small_workload(workload)])
        if one.refusal is None:
            pieces = one.pieces(steps=4)
            pieces.algorithm.step(pieces.task)
            return
    pytest.fail(f"{offer.owner} refuses every small workload")


@pytest.mark.parametrize("offer", WORKLOADS, ids=lambda o: f"{o.owner}-{o.key.rpartition('.')[2]}-{o.value}")
def test_a_workload_takes_what_its_yaml_offers(offer: Offer) -> None:
    config = compose(
        [f"workload={offer.owner}", f"{offer.key}={offer.value}", "device=cuda"]
    )  # takes all of them
    build_part("workload", config["workload"], prefix="")


def test_the_offers_are_found() -> None:
    found = {(offer.owner, offer.key.rpartition(".")[2], offer.value) for offer in (*METHODS, *WORKLOADS)}
    assert {
        ("wgsef", "project_at", "null"),
        ("batch_norm_test", "most", "null"),
        ("quantized_distillation", "bucket", "null"),
        ("sgd", "fused", "null"),
        ("nesterov", "fused", "null"),
        ("gns_newton", "hessian", "fisher"),
        ("lars", "variant", "paper"),
        ("cifar10", "augment", "none"),
        ("digits", "target", "null"),
        ("logreg", "test_file", "null"),
    } <= found


# -- a class says so itself -----------------------------------------------------------------------------

PLUGIN = """\
# A method of one's own
_target_: nullable_of_one.{cls}
level: 0.5
"""
CODE = """\
import typing

import torch


class Plain(torch.optim.SGD):
    def __init__(self, params, level: {annotation} = {default}):
        super().__init__(params, 0.1)


class Inherits(Plain):
    pass


class Passes(Plain):
    def __init__(self, params, **others):
        super().__init__(params, **others)
"""


@pytest.mark.parametrize(
    ("annotation", "default", "accepted"),
    [
        ("float", "0.5", False),
        ("float | None", "0.5", True),
        ("typing.Optional[float]", "0.5", True),
        ("float", "None", True),
    ],
)
@pytest.mark.parametrize("cls", ["Plain", "Inherits", "Passes"])
def test_whether_null_is_taken_is_read_from_the_class(
    annotation: str, default: str, accepted: bool, cls: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "algorithm" / "optimizer").mkdir(parents=True)
    (tmp_path / "nullable_of_one.py").write_text(CODE.format(annotation=annotation, default=default))
    (tmp_path / "algorithm" / "optimizer" / "of_one.yaml").write_text(PLUGIN.format(cls=cls))
    monkeypatch.syspath_prepend(tmp_path)
    overrides = ["algorithm=of_one", "algorithm.optimizer.level=null"]
    if accepted:
        assert compose(overrides, [tmp_path])["algorithm"]["optimizer"]["level"] is None
    else:
        with pytest.raises(UserError, match=r"optimizer\.level: got null, expected a number"):
            compose(overrides, [tmp_path])
