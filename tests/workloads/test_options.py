"""What every workload takes: noisy labels, auxiliary streams, its own loss; what becomes of the target."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from runner.base.errors import UserError
from runner.compose.config import compose
from workloads.base import TensorWorkload
from workloads.options import noisy_labels, set_aside

CPU = torch.device("cpu")


def rows(x: Tensor) -> Counter[bytes]:
    return Counter(row.tobytes() for row in x.numpy())


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 300), classes=st.integers(2, 7), share=st.floats(0, 0.99))
def test_noise_puts_that_many_labels_to_another_class(n: int, classes: int, share: float):
    y = torch.arange(n) % classes
    noisy = noisy_labels(y, classes, share)
    assert int((noisy != y).sum()) == round(share * n)
    assert noisy.dtype == y.dtype and int(noisy.min()) >= 0 and int(noisy.max()) < classes
    assert torch.equal(noisy, noisy_labels(y, classes, share))


def test_noise_has_no_favourite_class():
    noisy = noisy_labels(torch.zeros(6000, dtype=torch.int64), 4, 0.5)
    assert [abs(int((noisy == k).sum()) - 1000) < 120 for k in (1, 2, 3)] == [True] * 3


def test_noise_is_in_the_training_split_alone(make):
    plain, noisy = make("digits"), make("digits", label_noise=0.2)
    torch.manual_seed(0)
    before, evaluate = plain.build(0, CPU)
    after, evaluate_noisy = noisy.build(0, CPU)
    assert int((before.data.y != after.data.y).sum()) == round(0.2 * before.data.n)
    assert torch.equal(before.data.x, after.data.x)
    for split in ("validation", "test"):
        assert torch.equal(evaluate.splits[split].y, evaluate_noisy.splits[split].y)
    assert torch.equal(noisy.build(7, CPU)[0].data.y, after.data.y)  # another cell, the same noise


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_aux_rows_are_taken_from_training(make, name: str):
    workload: TensorWorkload = make(name, aux={"clean": 40, "holdout": 0.1}, label_noise=0.3)
    task, _ = workload.build(0, CPU)
    data = make(name)._data.train
    clean, holdout = task.aux["clean"], task.aux["holdout"]
    assert (clean.n, holdout.n) == (40, round(0.1 * len(data)))
    assert task.info.aux == ("clean", "holdout") and task.info.num_train == task.data.n
    assert rows(torch.cat([task.data.x, clean.x, holdout.x])) == rows(data.x)
    truth = {row.tobytes(): int(label) for row, label in zip(data.x.numpy(), data.y, strict=True)}
    wrong = [
        sum(truth[row.tobytes()] != int(label) for row, label in zip(s.x.numpy(), s.y, strict=True)) / s.n
        for s in (clean, holdout, task.data)
    ]
    assert wrong[0] == 0 and 0.1 < wrong[1] < 0.5 and 0.2 < wrong[2] < 0.4
    assert max(int(i) for _ in range(30) for i in task.data.next().index) < task.info.num_train


def test_no_aux_by_default_and_not_more_than_there_is(make):
    assert make("digits", aux={"clean": 0, "holdout": 0}).build(0, CPU)[0].aux == {}
    with pytest.raises(UserError, match=r"workload.aux takes 900 rows, but the training split has 899"):
        make("digits", aux={"clean": 800, "holdout": 100}).build(0, CPU)


def test_rows_of_many_tokens_are_set_aside_too():
    rest, aside = set_aside(torch.zeros(50, 8, dtype=torch.int64), {"clean": 0.2, "holdout": 5})
    assert [len(aside["clean"]), len(aside["holdout"]), len(rest)] == [10, 5, 35]
    assert sorted(torch.cat([rest, *aside.values()]).tolist()) == list(range(50))


@pytest.mark.parametrize(
    ("overrides", "label", "has_target"),
    [
        (["workload.label_noise=0.2"], "digits_noise20", False),
        (["workload.label_noise=0.25", "workload.target=0.9"], "digits_noise25[target=0.9]", True),
        (["workload.batch_size=16"], "digits[batch_size=16]", True),
        (["workload.precision=bf16"], "digits[precision=bf16]", True),
        (["workload.aux.clean=0.1"], "digits[clean=0.1]", True),
        (["workload.data=other"], "digits[data=other]", False),
    ],
)
def test_another_problem_inherits_no_target(overrides: list[str], label: str, has_target: bool):
    config = compose(overrides)
    assert config["workload_label"] == label
    assert (config["workload"]["target"] is not None) == has_target
    assert config["workload"]["name"] == label.split("[")[0]


def test_bad_options_are_named():
    with pytest.raises(UserError, match=r"workload.label_noise: got 1.0, expected a share of the labels"):
        compose(["workload.label_noise=1.0"])
    with pytest.raises(UserError, match=r"workload.aux.clean: got -1, expected a number of rows"):
        compose(["workload.aux.clean=-1"])


class TwiceWithPenalty:
    """Twice the cross-entropy, plus the mean square of the head; learns the head's name at set-up."""

    def setup(self, task) -> None:
        (self.head,) = [name for name, kind in task.info.param_kind.items() if kind == "head"]

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 2 * torch.nn.functional.cross_entropy(outputs, targets, reduction="none")

    def penalty(self, params) -> Tensor:
        return params[self.head].square().mean()


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_a_workload_may_have_a_loss_of_its_own(make, name: str):
    spec = {"_target_": f"{__name__}.{TwiceWithPenalty.__name__}"}
    torch.manual_seed(0)
    plain, evaluate_plain = make(name).build(0, CPU)
    torch.manual_seed(0)
    task, evaluate = make(name, loss=spec).build(0, CPU)
    head = next(p for n, p in task.model.named_parameters() if task.info.param_kind[n] == "head")
    with torch.no_grad():
        head.add_(0.1)
    plain.model.load_state_dict(task.model.state_dict())
    batch, penalty = task.data.next(8), head.detach().square().mean()
    expected = 2 * plain.losses(batch) + penalty
    assert torch.allclose(task.losses(batch), expected, rtol=1e-5)
    assert torch.allclose(task.backward(batch), expected.mean(), rtol=1e-5)
    assert evaluate(task.model, "test")["loss"] == pytest.approx(
        2 * evaluate_plain(plain.model, "test")["loss"]
    )
    # The penalty's gradient reaches the weights that the loss is taken at, per row too.
    per_row = task.per_sample_grads(batch)
    for (key, mean), p in zip(per_row.items(), task.params, strict=True):
        assert torch.allclose(mean.mean(0), p.grad, rtol=1e-4, atol=1e-6), key
    assert torch.allclose(task.spawn().losses(batch), expected, rtol=1e-5)
    # A method's loss takes its place, penalty and all.
    task.loss = lambda outputs, y: torch.nn.functional.cross_entropy(outputs, y, reduction="none")
    assert torch.allclose(task.losses(batch), plain.losses(batch), rtol=1e-5)
