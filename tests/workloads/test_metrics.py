"""Metrics beyond loss and accuracy, and tables whose features have no range, as a user meets both."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor, nn

from algorithms.objectives.trades import TRADES
from runner import run
from runner.base.errors import UserError
from runner.check import WorkloadSubject, run_workload_check
from runner.check.__main__ import main
from runner.compose.config import compose
from runner.contract.metrics import METRICS
from tests.doubles.workloads import config
from workloads.evaluation import Evaluation
from workloads.splits import Split

ROWS = 60
MEASURED = ("f1", "auc", "balanced_accuracy", "mae", "rmse", "r2")
TABLE = '''
import torch
from torch import nn
from workloads.base import Data, Split, TensorWorkload


class Table(TensorWorkload):
    """A table with standardised features, and nothing said of their range."""

    task, model_kind, num_classes = "{task}", "linear", {classes}

    def load(self, root):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(900, 4, generator=generator)
        y = x @ torch.tensor([1.0, -1.0, 0.5, 0.0]) + 0.3 * torch.randn(900, generator=generator)
        return Data(*map(Split, x.split(300), {targets}.split(300)))

    def model(self):
        model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
        for p in model.parameters():
            nn.init.zeros_(p)
        return model
'''
YAML = """# A table of one's own
defaults: [_options, _self_]
_target_: own_{name}.Table
name: own_{name}
data: embedded
batch_size: 20
budget_samples: 4000
eval_every: 400
metric: {metric}
max_seconds: 60
threads: 1
"""


class Given(nn.Module):
    """Outputs that are given: a row's input says which of them it is."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs[x[:, 0].long()]


def scored(kind: str, metric: str, outputs: Tensor, y: Tensor, batch_size: int = 7) -> dict[str, float]:
    rows = {"validation": Split(torch.arange(len(y)).float()[:, None], y)}
    return Evaluation(kind, rows, batch_size, metric=metric)(Given(outputs), "validation")


def drawn(kind: str, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    if kind == "multiclass":
        y = torch.arange(rows) % 3
        return torch.randn(rows, 3, generator=generator) + nn.functional.one_hot(y, 3), y
    y = torch.randn(rows, generator=generator)
    outputs = y + torch.randn(rows, generator=generator)
    return (outputs.round(decimals=1), (y > 0.4).float()) if kind == "binary" else (outputs, y)


@pytest.mark.parametrize(
    ("kind", "metric", "reference"),
    [
        ("binary", "f1", lambda s, y: sk.f1_score(y, s > 0)),
        ("binary", "auc", lambda s, y: sk.roc_auc_score(y, s)),
        ("binary", "balanced_accuracy", lambda s, y: sk.balanced_accuracy_score(y, s > 0)),
        ("multiclass", "f1", lambda s, y: sk.f1_score(y, s.argmax(1), average="macro")),
        ("multiclass", "auc", lambda s, y: sk.roc_auc_score(y, _softmax(s), multi_class="ovr")),
        ("multiclass", "balanced_accuracy", lambda s, y: sk.balanced_accuracy_score(y, s.argmax(1))),
        ("regression", "mae", sk.mean_absolute_error),
        ("regression", "rmse", lambda s, y: np.sqrt(np.mean((s - y) ** 2))),
        ("regression", "r2", lambda s, y: sk.r2_score(y, s)),
    ],
)
def test_a_metric_is_what_scikit_learn_calls_so_and_the_others_keep_their_bits(
    kind: str, metric: str, reference: Any
) -> None:
    outputs, y = drawn(kind)
    found, plain = scored(kind, metric, outputs, y), scored(kind, "loss", outputs, y)
    assert found.pop(metric) == pytest.approx(reference(outputs.double().numpy(), y.numpy()), rel=1e-9)
    assert found == plain and set(plain) == {"loss", *(["accuracy"] if kind != "regression" else [])}


def _softmax(s: np.ndarray) -> np.ndarray:
    return np.exp(s) / np.exp(s).sum(1, keepdims=True)


@pytest.mark.parametrize("metric", MEASURED)
def test_outputs_that_are_no_numbers_have_no_metric(metric: str) -> None:
    kind = METRICS[metric].kinds[0]
    outputs, y = drawn(kind)
    outputs[5] = torch.nan
    assert np.isnan(scored(kind, metric, outputs, y)[metric])


def test_there_is_no_auc_of_one_class() -> None:
    assert np.isnan(scored("binary", "auc", torch.randn(9), torch.ones(9))["auc"])


@pytest.mark.parametrize("double", ["Binary", "Blobs", "Line"])
def test_each_is_held_against_plain_python(double: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = {"Binary": "binary", "Blobs": "multiclass", "Line": "regression"}[double]
    for metric in [name for name in MEASURED if kind in METRICS[name].kinds]:
        subject = WorkloadSubject(config(double, metric=metric, minimize=METRICS[metric].minimize))
        for check in ("info", "reference", "batch"):
            result = run_workload_check(check, subject)
            assert (result.status, result.message) == ("ok", "")
        with monkeypatch.context() as patch:
            patch.setitem(METRICS, metric, replace(METRICS[metric], measure=lambda s, y: 0.123))
            result = run_workload_check("reference", subject)
        assert f"validation {metric} is 0.123, a row-by-row reference has" in result.message


@pytest.mark.parametrize(
    ("workload", "metric", "minimize"),
    [
        ("breast_cancer", "accuracy", False), ("breast_cancer", "auc", False), ("digits", "loss", True),
        ("least_squares", "r2", False), ("least_squares", "mae", True),
    ],
)  # fmt: skip
def test_which_way_is_better_goes_with_the_metric(workload: str, metric: str, minimize: bool) -> None:
    config = compose([f"workload={workload}", f"workload.metric={metric}"])
    assert config["workload"]["minimize"] is minimize
    assert config["workload_label"] == f"{workload}[metric={metric}]"


def test_a_direction_that_contradicts_the_metric_is_refused() -> None:
    with pytest.raises(UserError, match="minimize=true: a larger f1 is better"):
        compose(["workload=digits", "workload.metric=f1", "workload.minimize=true"])
    with pytest.raises(UserError, match="minimize=false: a smaller loss is better"):
        compose(["workload=breast_cancer", "workload.minimize=false"])


@pytest.mark.parametrize(
    ("workload", "metric"), [("digits", "r2"), ("least_squares", "accuracy"), ("tiny_lm", "f1")]
)
def test_a_metric_of_another_kind_of_task_is_refused_with_the_names_that_fit(make, workload, metric) -> None:
    with pytest.raises(UserError, match=rf"metric must be one of .*loss.* task\), got {metric}"):
        make(workload, metric=metric)


# -- a table of one's own --------------------------------------------------------------------------


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with two workloads: classes and numbers."""
    kinds = {"classes": ("binary", 2, "(y > 0).float()", "auc"), "numbers": ("regression", 0, "y", "r2")}
    (tmp_path / "workload").mkdir()
    for name, (task, classes, targets, metric) in kinds.items():
        code = TABLE.format(task=task, classes=classes, targets=targets)
        (tmp_path / f"own_{name}.py").write_text(code, encoding="utf-8")
        yaml = YAML.format(name=name, metric=metric)
        (tmp_path / "workload" / f"own_{name}.yaml").write_text(yaml, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in kinds:
        sys.modules.pop(f"own_{name}", None)


def test_standardised_tables_pass_the_checks(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = "info,init,reference,batch,inert,splits,stream,options"
    code = main(["workload=own_classes,own_numbers", "--only", names, "--config-dir", str(tables)])
    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize(("name", "metric"), [("classes", "auc"), ("numbers", "r2")])
def test_a_target_is_hit_where_the_metric_first_reaches_it(name: str, metric: str, tables: Path) -> None:
    goal = [f"workload=own_{name}", "workload.target=0.8", "log=none", f"results_dir={tables / 'results'}"]
    row = run([*goal, "algorithm.optimizer.lr=0.1"], config_dirs=[tables], inline=True)
    found: dict[str, Any] = row.to_dict()
    assert (found["metric"], found["hit"], found["status"]) == (metric, True, "done")
    assert 0 < found["samples_to_target"] < 4000 and 0.8 <= found["best_metric"] <= 1


def test_what_moves_inputs_within_their_range_gives_its_reason(tables: Path) -> None:
    from runner.contract.instantiate import build_part

    workload = build_part("workload", compose(["workload=own_classes"], [tables])["workload"], prefix="")
    workload.prepare(tables)
    task, _ = workload.build(0, torch.device("cpu"))
    assert task.info.input_range is None
    assert "range" in str(TRADES().compatible(task.info))
