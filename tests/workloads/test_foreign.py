"""Models from elsewhere: named in a config, held against the rows before anything trains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runner import UserError, run
from runner.cells.cell import Cell
from runner.compose.config import compose

HERE = "tests.workloads.test_foreign"
CPU = torch.device("cpu")


class InAnObject(nn.Module):
    """Logits of tokens in an object, as of a config that is an object too."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.table = nn.Embedding(config.tokens, config.tokens)

    def forward(self, tokens: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table(tokens), cache=None)


class Config(SimpleNamespace):
    """A config object."""


class AnImageNet(nn.Module):
    """Of any image size and number of channels; batch norm over one position a channel."""

    def __init__(self, classes: int, channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.LazyConv2d(channels, 3)
        self.norm = nn.BatchNorm1d(channels)
        self.position = nn.Parameter(torch.zeros(1, channels))
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x).mean((2, 3))) + self.position)


def model(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, **arguments}


def built(make: Any, name: str, **changes: Any) -> Any:
    torch.manual_seed(1)
    workload = make(name, **changes)
    workload.prepare(Path())
    return workload.build(1, CPU)[0]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("breast_cancer", model("torch.nn.Linear", in_features=30, out_features=1)),
        ("least_squares", model("torch.nn.Linear", in_features=100, out_features=1)),
        ("digits", model(f"{HERE}.AnImageNet", classes=10)),
        ("cifar10_synthetic", model("torchvision.models.shufflenet_v2_x0_5", num_classes=10)),
        ("tiny_lm_pydocs", model(f"{HERE}.InAnObject", config=model(f"{HERE}.Config", tokens=None))),
    ],
)
def test_a_model_trains_in_the_place_of_the_workloads_own(make: Any, name: str, other: dict) -> None:
    if "config" in other:
        other = model(
            other["_target_"], config={**other["config"], "tokens": built(make, name).info.num_classes}
        )
    first, again = (built(make, name, model=other) for _ in range(2))
    for one, two in zip(first.params, again.params, strict=True):
        assert torch.equal(one, two)
    before = [p.detach().clone() for p in first.params]
    first.backward(first.data.next())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in first.params)
    first.reset_model()
    assert not all(torch.equal(p, q) for p, q in zip(first.params, before, strict=True))
    assert first.info.param_kind.keys() >= {name for name, _ in first.model.named_parameters()}


def test_parameters_have_their_roles(make: Any) -> None:
    kinds = built(make, "digits", model=model(f"{HERE}.AnImageNet", classes=10)).info.param_kind
    assert kinds == {
        "position": "embedding", "conv.weight": "hidden", "conv.bias": "bias", "norm.weight": "norm",
        "norm.bias": "bias", "head.weight": "head", "head.bias": "bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model": model(f"{HERE}.AnImageNet", classes=7)},
            r"gives \(2, 7\) for rows \(2, 1, 8, 8\), and \(2, 10\)",
        ),
        (
            {"model": model("torchvision.models.shufflenet_v2_x0_5", num_classes=10)},
            r"rows \(2, 1, 8, 8\) fail in evaluation: .* 3 channels",
        ),
        (
            {"model": model(f"{HERE}.AnImageNet", classes=10), "batch_size": 1},
            r"rows \(1, 1, 8, 8\) fail in training: Expected more than 1 value per channel",
        ),
        ({"model": model(f"{HERE}.Config")}, "is no torch.nn.Module but Config"),
        ({"model": model("torch.nn.Linear")}, r"workload.model \(torch.nn.Linear\): .*missing"),
        ({"model": model("no_such_package.Net")}, "no_such_package"),
        ({"model": {"num_classes": 10}}, "names no class"),
        ({"model": "resnet18"}, "model must be null or {_target_: .*}, got 'resnet18'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(make: Any, changes: dict, words: str) -> None:
    with pytest.raises(UserError, match=words) as said:
        built(make, "digits", **changes)
    assert "\n" not in str(said.value)


def test_the_trial_leaves_no_trace(make: Any) -> None:
    """Weights and batch-norm statistics are as the model's constructor leaves them."""
    task = built(make, "digits", model=model(f"{HERE}.AnImageNet", classes=10))
    norm = task.model.norm
    assert norm.num_batches_tracked == 0 and bool((norm.running_mean == 0).all()) and task.model.training


def test_without_one_a_cell_is_what_it_was() -> None:
    assert "model" not in compose(["workload=digits"])["workload"]
    plain, said = (Cell.from_overrides(["workload=digits", *more]) for more in ([], ["workload.model=null"]))
    assert plain.id == said.id


def test_a_workload_that_names_its_own_keeps_it() -> None:
    with pytest.raises(UserError, match=r"workload\.model: got null, expected text"):
        compose(["workload=cifar10_synthetic", "workload.model=null"])


def test_another_is_in_the_label() -> None:
    said = compose(["workload=digits", "workload.model={_target_: my.Net, width: 3}"])
    assert said["workload_label"] == "digits[model=my.Net,width=3]" and said["workload"]["target"] is None


def test_on_the_command_line(tmp_path: Path) -> None:
    few = [f"results_dir={tmp_path}", "algorithm=adamw", "log=none", "workload=digits"]
    few += ["workload.budget_samples=4800", f"workload.model={{_target_: {HERE}.AnImageNet, classes: 10}}"]
    row = run(few, inline=True)
    assert row["status"] == "done" and row["best_metric"] > 0.15
