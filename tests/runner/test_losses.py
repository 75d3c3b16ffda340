"""Losses from elsewhere: the number that their own library gives, or a line before training."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner import UserError, run
from runner.base.paths import ROOT
from runner.contract.batch import Info
from runner.parts.composed import Composed
from runner.parts.losses import build_loss
from tests.tasks import assert_resumes, binary, classification, language, make_info
from workloads.least_squares import LeastSquares

C = 10
INFOS: dict[str, Info] = {
    "multiclass": make_info("multiclass", num_classes=C),
    "binary": make_info("binary", num_classes=2),
    "lm": make_info("lm", num_classes=97),
    "numbers": make_info("regression", num_classes=0, target_range=(-3.0, 3.0)),
    "counts": make_info("regression", num_classes=0, target_range=(0.0, 9.0)),
}
Reference = Callable[[Any, Tensor, Tensor], Tensor]


def hot(ids: Tensor, classes: int = C) -> Tensor:
    return F.one_hot(ids, classes).float()


# What one would write by hand: the class with its own reduction, on logits (N, C) and class ids.
CLASSIFIERS: dict[str, Reference] = {
    "CrossEntropyLoss": lambda loss, z, y: loss(z, y),
    "NLLLoss": lambda loss, z, y: loss(z.log_softmax(1), y),
    "MultiMarginLoss": lambda loss, z, y: loss(z, y),
    "KLDivLoss": lambda loss, z, y: loss(z.log_softmax(1), hot(y)),
    "BCELoss": lambda loss, z, y: loss(z.softmax(1), hot(y)),
    "BCEWithLogitsLoss": lambda loss, z, y: loss(z, hot(y)),
    "MultiLabelSoftMarginLoss": lambda loss, z, y: loss(z, hot(y)),
    "SoftMarginLoss": lambda loss, z, y: loss(z, 2 * hot(y) - 1),
    "MSELoss": lambda loss, z, y: loss(z, hot(y)),
    "L1Loss": lambda loss, z, y: loss(z, hot(y)),
    "SmoothL1Loss": lambda loss, z, y: loss(z, hot(y)),
    "HuberLoss": lambda loss, z, y: loss(z, hot(y)),
    "PoissonNLLLoss": lambda loss, z, y: loss(z, hot(y)),
}
BINARY: dict[str, Reference] = {  # one logit s
    "CrossEntropyLoss": lambda loss, s, y: loss(torch.stack([0 * s, s], 1), y),
    "NLLLoss": lambda loss, s, y: loss(torch.stack([0 * s, s], 1).log_softmax(1), y),
    "BCELoss": lambda loss, s, y: loss(s.sigmoid(), y.float()),
    "BCEWithLogitsLoss": lambda loss, s, y: loss(s, y.float()),
    "SoftMarginLoss": lambda loss, s, y: loss(s, 2.0 * y - 1),
    "MSELoss": lambda loss, s, y: loss(s, 2.0 * y - 1),
}
REGRESSIONS = ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")


def torch_loss(name: str, **more: Any) -> dict[str, Any]:
    return {"_target_": f"torch.nn.{name}", **more}


def ready(spec: dict[str, Any], kind: str = "multiclass") -> Any:
    loss = build_loss(spec)
    assert loss.compatible(INFOS[kind]) is None
    return loss


def reason(spec: dict[str, Any], kind: str = "multiclass") -> str:
    found = build_loss(spec).compatible(INFOS[kind])
    assert found is not None and "\n" not in found
    return found


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_on_classes_the_mean_over_rows_is_the_librarys(name: str) -> None:
    loss, z, y = ready(torch_loss(name)), drawn(20, C), torch.arange(20) % C
    rows = loss(z, y)
    assert rows.shape == (20,)
    torch.testing.assert_close(rows.mean(), CLASSIFIERS[name](getattr(nn, name)(), z, y))
    torch.testing.assert_close(torch.cat([loss(z[i : i + 1], y[i : i + 1]) for i in range(20)]), rows)


@pytest.mark.parametrize("name", BINARY)
def test_on_one_logit_as_well(name: str) -> None:
    loss, s, y = ready(torch_loss(name), "binary"), drawn(20), torch.arange(20) % 2
    rows = loss(torch.stack([0 * s, s], 1), y)
    torch.testing.assert_close(rows.mean(), BINARY[name](getattr(nn, name)(), s, y))


@pytest.mark.parametrize("name", REGRESSIONS)
def test_on_numbers_as_well(name: str) -> None:
    rows = ready(torch_loss(name), "numbers")(drawn(20), drawn(20) ** 2)
    torch.testing.assert_close(rows.mean(), getattr(nn, name)()(drawn(20), drawn(20) ** 2))


def test_counts_have_a_loss_that_other_numbers_have_not() -> None:
    ready(torch_loss("PoissonNLLLoss"), "counts")
    assert "does not lead to targets from -3 to 3" in reason(torch_loss("PoissonNLLLoss"), "numbers")


@pytest.mark.parametrize(
    ("spec", "kind", "words"),
    [
        (
            torch_loss("NLLLoss", inputs="logits"),
            "multiclass",
            "falls below zero .*inputs: log_probabilities",
        ),
        (torch_loss("NLLLoss", inputs="probabilities"), "lm", "falls below zero .*inputs: log_probabilities"),
        (torch_loss("KLDivLoss", inputs="logits"), "multiclass", "would fit"),
        (torch_loss("BCELoss", inputs="logits"), "binary", "inputs: probabilities, targets: float would fit"),
        (torch_loss("MSELoss", targets="as_is"), "multiclass", "targets: one_hot would fit"),
        (
            torch_loss("SoftMarginLoss", targets="one_hot", inputs="logits"),
            "multiclass",
            "targets: signs would",
        ),
        (torch_loss("HingeEmbeddingLoss"), "multiclass", "does not lead to the right class"),
        (torch_loss("GaussianNLLLoss"), "multiclass", "missing 1 required positional argument: 'var'"),
        (torch_loss("PoissonNLLLoss"), "binary", "set inputs to choose"),
        (torch_loss("CrossEntropyLoss"), "numbers", "predicts numbers, not classes"),
        (torch_loss("BCEWithLogitsLoss"), "numbers", "predicts numbers, not classes"),
        (torch_loss("MSELoss", targets="one_hot"), "numbers", "words for classes"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_would_fit(spec: dict, kind: str, words: str) -> None:
    assert re.search(words, reason(spec, kind))


@pytest.mark.parametrize("words", [{"inputs": "scores"}, {"targets": 3}])
def test_an_unknown_word_is_answered_with_the_known_ones(words: dict) -> None:
    with pytest.raises(UserError, match=r"expected one of (logits, log_prob|as_is, float)"):
        build_loss(torch_loss("MSELoss", **words))


def test_the_words_choose_where_several_fit() -> None:
    z, y = drawn(20, C), torch.arange(20) % C
    brier = ready(torch_loss("MSELoss", inputs="probabilities"))(z, y).mean()
    torch.testing.assert_close(brier, F.mse_loss(z.softmax(1), hot(y)))
    margins = ready(torch_loss("MSELoss", targets="signs"))(z, y).mean()
    torch.testing.assert_close(margins, F.mse_loss(z, 2 * hot(y) - 1))
    summed = ready(torch_loss("KLDivLoss", reduction="batchmean"))(z, y).mean()
    torch.testing.assert_close(summed, F.cross_entropy(z, y))


def test_a_list_is_a_tensor_where_the_loss_takes_one() -> None:
    loss = ready(torch_loss("CrossEntropyLoss", weight=[1, 2] * 5))
    z, y = drawn(4, C), torch.tensor([0, 1, 2, 3])
    expected = F.cross_entropy(z, y, weight=torch.tensor([1.0, 2.0] * 5), reduction="none")
    torch.testing.assert_close(loss(z, y), expected)


# -- losses that give one number a batch -----------------------------------------------------------


class Mean:
    """As other libraries write it: no module, and a mean."""

    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def __call__(self, pred: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(pred, target, reduction="none").pow(self.power).mean()


class Summed(nn.Module):
    """A sum, and class ids as vectors."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return -(target * pred.log_softmax(-1)).sum()


class Dice(nn.Module):
    """A ratio of sums over the batch."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        p = pred.softmax(-1)
        return 1 - 2 * (p * target).sum() / (p.square().sum() + target.sum())


class Learnt(nn.Module):
    """With a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(self.scale * pred, target)


class AtCall(nn.Module):
    """One that takes its reduction when it is called."""

    def forward(self, pred: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(pred, target, reduction=reduction)


class Pairs(nn.Module):
    """A contrastive loss: how far rows of one class are from each other."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        one, other = torch.where(target.unsqueeze(0) == target.unsqueeze(1))
        return (pred[one] - pred[other]).pow(2).sum(1).mean()


HERE = "tests.runner.test_losses"


@pytest.mark.parametrize("name", ["Mean", "Summed", "AtCall"])
@pytest.mark.parametrize("kind", ["multiclass", "lm"])
def test_one_number_a_batch_becomes_one_a_row(name: str, kind: str) -> None:
    classes = INFOS[kind].num_classes
    z, y = drawn(7, classes), torch.arange(7)
    rows = ready({"_target_": f"{HERE}.{name}"}, kind)(z, y)
    torch.testing.assert_close(rows, F.cross_entropy(z, y, reduction="none"))


def test_a_loss_of_the_whole_batch_is_no_loss_of_rows() -> None:
    assert "is a loss of the whole batch" in reason({"_target_": f"{HERE}.Dice"})
    # It asks which rows are alike, which vmap cannot follow: the reason is the same.
    assert "is a loss of the whole batch" in reason({"_target_": f"{HERE}.Pairs"})
    assert "has weights of its own" in reason({"_target_": f"{HERE}.Learnt"})


def test_functions_are_named_with_partial() -> None:
    z, y = drawn(7, C), torch.arange(7)
    smooth = {"_target_": "torch.nn.functional.cross_entropy", "_partial_": True, "label_smoothing": 0.1}
    torch.testing.assert_close(ready(smooth)(z, y).mean(), F.cross_entropy(z, y, label_smoothing=0.1))
    focal = {"_target_": "torchvision.ops.sigmoid_focal_loss", "_partial_": True, "gamma": 1.0}
    from torchvision.ops import sigmoid_focal_loss

    expected = sigmoid_focal_loss(z, hot(y), gamma=1.0, reduction="mean")
    torch.testing.assert_close(ready(focal)(z, y).mean(), expected)
    normal = {"_target_": "torch.nn.functional.gaussian_nll_loss", "_partial_": True, "var": 1.0}
    torch.testing.assert_close(
        ready(normal, "numbers")(drawn(5), 0 * drawn(5)).mean(), 0.5 * drawn(5).square().mean()
    )
    with pytest.raises(UserError, match="_partial_: true"):
        build_loss({"_target_": "torch.nn.functional.cross_entropy"})


# -- in training -----------------------------------------------------------------------------------

SGD = functools.partial(torch.optim.SGD, lr=0.1)


@pytest.mark.parametrize(
    ("make", "spec"),
    [
        (classification, torch_loss("NLLLoss")),
        (classification, {"_target_": f"{HERE}.Mean"}),
        (binary, torch_loss("BCELoss")),
        (functools.partial(language, lambda: nn.Embedding(3, 3).double()), torch_loss("KLDivLoss")),
    ],
)
def test_parts_that_read_losses_work_with_them(make: Any, spec: dict) -> None:
    """Weights, gradients of single rows and pieces of a batch, and a resumed run that goes the same way."""
    task, algorithm = make(), Composed(SGD, loss=spec)
    assert algorithm.compatible(task.info) is None
    algorithm.setup(task)
    batch = task.data.next()
    losses = task.losses(batch)
    assert losses.shape == (len(batch),) and bool((losses >= 0).all())
    task.backward(batch)
    whole = [p.grad.clone() for p in task.params if p.grad is not None]
    per_row = task.per_sample_grads(batch)
    for mean, grad in zip(whole, per_row.values(), strict=True):
        torch.testing.assert_close(grad.mean(0), mean, rtol=1e-4, atol=1e-6)
    assert_resumes(lambda: Composed(SGD, loss=spec), make)


def test_by_name_in_a_yaml_of_two_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "conf/algorithm/loss"
    folder.mkdir(parents=True)
    (folder / "nll.yaml").write_text("# NLL: torch's own\n_target_: torch.nn.NLLLoss\n")
    few = [f"results_dir={tmp_path}", "algorithm=adamw", "algorithm/loss=nll", "log=none", "warmup_steps=1"]
    few += ["workload=digits", "workload.budget_samples=4800", "stop_at_target=false"]
    row = run(few, [tmp_path / "conf"], inline=True)
    assert row["status"] == "done" and row["best_metric"] > 0.7
    said = "NLLLoss is called with inputs: log_probabilities, targets: as_is"
    assert capsys.readouterr().err.count(f"loss: {said}\n") == 1
    (manifest,) = tmp_path.rglob("manifest.json")
    assert json.loads(manifest.read_text())["found"] == {"loss": said}
    row = run([*few, "+algorithm.loss.inputs=logits"], [tmp_path / "conf"], inline=True)
    assert row["status"] == "failed"
    assert re.search(r"NLLLoss with inputs: logits.* inputs: log_probabilities.* would fit", row["error"])


def test_as_a_workloads_own_on_numbers() -> None:
    """The scored loss is then the mean absolute error."""

    def built(loss: dict[str, Any]) -> Any:
        workload = LeastSquares("least_squares", 32, 320, 32, metric="mae", minimize=True, loss=loss)
        workload.prepare(Path())
        return workload.build(1, torch.device("cpu"))

    task, evaluate = built(torch_loss("L1Loss"))
    scores = evaluate(task.model, "validation")
    assert scores["loss"] == pytest.approx(scores["mae"], rel=1e-5)
    with pytest.raises(UserError, match=r"workload\.loss: takes logits and class ids"):
        built({"_target_": "algorithms.losses.l2_svm.L2SVM"})


# -- the page --------------------------------------------------------------------------------------


def answer(name: str, kind: str) -> str:
    """A cell of the page's table."""
    try:
        loss = build_loss(torch_loss(name))
    except UserError:
        return "no"
    if loss.compatible(INFOS[kind]) is not None:
        return "no"
    return "yes" if kind in ("numbers", "counts") else f"{loss._call.form.inputs}, {loss._call.form.targets}"


def test_the_pages_table_is_what_the_trial_finds() -> None:
    text = (ROOT / "docs/from_elsewhere.md").read_text()
    rows = re.findall(r"^\| `(\w+Loss)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|", text, re.MULTILINE)
    assert len(rows) > 20
    for name, *cells in (row for row in rows if hasattr(nn, row[0])):  # some are of newer versions
        assert cells == [answer(name, kind) for kind in ("multiclass", "binary", "numbers", "counts")], name
