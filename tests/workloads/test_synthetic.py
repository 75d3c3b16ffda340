"""The drawn images: the same bytes everywhere, even in classes, and nothing for a linear model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from runner.compose.config import compose
from runner.contract.instantiate import build_part
from workloads.base import TensorWorkload
from workloads.splits import Split
from workloads.synthetic import SEED, SIZES, draw_images

SHA256 = "2d3263f9c52fd1ce9652609571f6fe2de023153d0428ae21d9765011c6ce69ef"


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> TensorWorkload:
    config = compose(["workload=cifar10_synthetic"])["workload"]
    made: TensorWorkload = build_part("workload", config, prefix="")
    made.prepare(tmp_path_factory.mktemp("empty"))
    return made


def test_the_bytes_are_the_known_ones_whatever_the_global_generators_say() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    x, y = draw_images(sum(SIZES), SEED)
    assert hashlib.sha256(x.numpy().tobytes()).hexdigest() == SHA256
    assert y.tolist() == [i % 10 for i in range(4000)] and torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(draw_images(20, 1)[0], draw_images(20, 2)[0])


def test_splits_are_even_in_classes_and_share_no_image(workload: TensorWorkload) -> None:
    data = workload._data
    assert data is not None
    seen: set[bytes] = set()
    for split, each in zip((data.train, data.validation, data.test), (300, 50, 50), strict=True):
        assert split.x.shape == (10 * each, 3, 32, 32) and split.x.dtype == torch.uint8
        assert torch.bincount(split.y).tolist() == [each] * 10
        seen |= {row.numpy().tobytes() for row in split.x}
    assert len(seen) == 4000


def test_it_needs_no_file_and_leaves_none(tmp_path: Path) -> None:
    config = compose(["workload=cifar10_synthetic"])["workload"]
    build_part("workload", config, prefix="").prepare(tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())
    assert config["data"] == "synthetic"


def test_a_linear_model_sees_little_and_the_small_resnet_much(workload: TensorWorkload) -> None:
    torch.set_num_threads(1)
    data = workload._data
    assert data is not None
    assert ridge(data.train, data.validation) < 0.35
    torch.manual_seed(0)
    task, evaluate = workload.build(0, torch.device("cpu"))
    assert task.info.has_batchnorm
    optimizer = torch.optim.SGD(task.params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * min(1.0, (200 - step) / 100)
        optimizer.zero_grad()
        task.backward(task.data.next())
        optimizer.step()
    task.model.eval()
    assert evaluate(task.model, "validation")["accuracy"] > 0.6


def ridge(train: Split, scored: Split) -> float:
    """Accuracy of ridge regression on pixels, the strength chosen on the scored split itself."""
    mean = train.x.double().mean(0)
    fit, new = ((split.x.double() - mean).flatten(1) / 64 for split in (train, scored))
    gram, kernel, wanted = fit @ fit.T, new @ fit.T, F.one_hot(train.y).double() - 0.1
    right = []
    for strength in (1e2, 1e3, 1e4):
        factor = torch.linalg.cholesky(gram + strength * torch.eye(len(gram), dtype=torch.float64))
        predicted = (kernel @ torch.cholesky_solve(wanted, factor)).argmax(1)
        right.append(float((predicted == scored.y).double().mean()))
    return max(right)
