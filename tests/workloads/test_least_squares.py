"""Least squares: the rows that were meant, the same everywhere, and a problem that can be solved."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from runner.base.errors import UserError
from runner.contract.task import Task
from workloads.evaluation import Evaluation
from workloads.least_squares import SIZES, draw_rows

CPU = torch.device("cpu")


def build(make, **changes) -> tuple[Task, Evaluation]:
    torch.manual_seed(1)
    workload = make("least_squares", **changes)
    workload._data = None  # the fixture shares data between makes, and here it depends on the options
    workload.prepare(Path())
    return workload.build(1, CPU)


def test_rows_are_those_of_the_formula() -> None:
    x, y, weights = draw_rows(50, 7, decay=1.5, noise=0.0)
    for row, target in zip(x.tolist(), y.tolist(), strict=True):
        assert target == pytest.approx(sum(v * w for v, w in zip(row, weights.tolist(), strict=True)))
    assert sum(w**2 * i**-1.5 for i, w in enumerate(weights.tolist(), start=1)) == pytest.approx(1)


def test_spectrum_signal_and_noise_are_as_asked_for() -> None:
    x, y, weights = draw_rows(20_000, 10, decay=2.0, noise=0.5)
    np.testing.assert_allclose(x.var(0), np.arange(1, 11) ** -2.0, rtol=0.05)
    assert np.abs(np.corrcoef(x.T) - np.eye(10)).max() < 0.03
    assert (x @ weights).var() == pytest.approx(1, rel=0.05)
    assert (y - x @ weights).std() == pytest.approx(0.5, rel=0.02)


def test_rows_are_the_same_on_every_machine() -> None:
    x, y, weights = draw_rows(3, 4, decay=1.0, noise=0.1)
    np.testing.assert_allclose(weights, WEIGHTS, rtol=1e-12)
    np.testing.assert_allclose(x[2], ROW, rtol=1e-12)
    np.testing.assert_allclose(y, TARGETS, rtol=1e-12)


WEIGHTS = [0.3293913965567815, -0.5286585036523026, 1.156856977407822, 1.1057221695767399]
ROW = [-0.4229757283112606, -0.04764409397813902, 1.212183055869811, 1.7771651528589787]
TARGETS = [0.16519605759877543, -0.20021745663638313, 3.152402417096578]


def test_the_task_is_a_regression_with_the_loss_alone(make) -> None:
    task, evaluate = build(make)
    info = task.info
    assert (info.task, info.model, info.num_classes, info.metric) == ("regression", "linear", 0, "loss")
    assert (task.data.n, *(len(evaluate.splits[s]) for s in ("validation", "test"))) == SIZES
    assert info.param_kind == {"linear.weight": "head", "linear.bias": "bias"}
    assert task.data.x.dtype == task.data.y.dtype == torch.float32
    assert task.outputs(task.data.next()).shape == (32,)


def test_metrics_are_the_mean_squared_error_whatever_the_batch_size(make) -> None:
    task, evaluate = build(make)
    rows = evaluate.splits["validation"]
    with torch.no_grad():
        task.params[0].normal_(generator=torch.Generator().manual_seed(2))
        guesses = task.model(rows.x).tolist()
    wanted = math.fsum((g - t) ** 2 for g, t in zip(guesses, rows.y.tolist(), strict=True)) / len(rows)
    for size in (2048, 100, 7):
        evaluate.batch_size = size
        assert evaluate(task.model, "validation") == {"loss": pytest.approx(wanted, rel=1e-5)}


def test_the_loss_begins_at_one_and_ends_at_the_noise(make) -> None:
    task, evaluate = build(make, noise=0.1)
    assert evaluate(task.model, "validation")["loss"] == pytest.approx(1.01, rel=0.1)
    x = torch.cat([task.data.x, torch.ones(task.data.n, 1)], 1).double()
    solution = torch.linalg.lstsq(x, task.data.y.double()[:, None]).solution.flatten().float()
    with torch.no_grad():
        task.params[0].copy_(solution[:-1])
        task.params[1].copy_(solution[-1:])
    assert evaluate(task.model, "validation")["loss"] == pytest.approx(0.01, rel=0.1)


def test_steeper_spectra_are_worse_conditioned(make) -> None:
    found = []
    for decay in (0.0, 1.0, 2.0):
        x = build(make, decay=decay, features=20)[0].data.x
        values = torch.linalg.eigvalsh(x.T @ x / len(x))
        found.append((values[-1] / values[0]).item())
    assert found == [pytest.approx(20.0**decay, rel=0.4) for decay in (0.0, 1.0, 2.0)]


def test_rows_can_be_set_aside(make) -> None:
    task, _ = build(make, aux={"holdout": 0.1, "clean": 64})
    sizes = {name: stream.n for name, stream in task.aux.items()}
    assert sizes == {"holdout": 819, "clean": 64} and task.data.n == SIZES[0] - 819 - 64
    everything = torch.cat([task.data.y, *(stream.y for stream in task.aux.values())])
    assert torch.equal(everything.sort().values, build(make)[0].data.y.sort().values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_noise": 0.1}, "label_noise must be 0, got 0.1: a regression task predicts numbers"),
        ({"metric": "accuracy"}, "metric must be one of loss, mae, rmse, r2 .*got accuracy"),
        ({"features": 0}, "features must be an integer of at least 1, got 0"),
        ({"features": 2.5}, "features must be an integer of at least 1, got 2.5"),
        ({"decay": -1.0}, "decay must be at least 0, got -1.0"),
        ({"noise": -0.1}, "noise must be at least 0, got -0.1"),
    ],
)
def test_a_bad_value_is_named(make, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make("least_squares", **change)
