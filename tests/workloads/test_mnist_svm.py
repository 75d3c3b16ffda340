"""CNN-SVM under its own loss, as a workload beside mnist."""

from __future__ import annotations

import pytest
import torch

from runner.compose.config import compose
from runner.provenance.source import source_hashes

CPU = torch.device("cpu")


def test_it_is_mnist_with_another_loss_and_a_name_of_its_own():
    svm, plain = compose(["workload=mnist_svm"]), compose(["workload=mnist"])
    differing = {k for k in {*svm["workload"], *plain["workload"]}
                 if svm["workload"].get(k) != plain["workload"].get(k)}  # fmt: skip
    assert differing == {"name", "loss", "target"}
    assert svm["workload_label"] == "mnist_svm"
    # The loss is part of what the cell's numbers hang on.
    assert "algorithms.losses.l2_svm" in source_hashes(svm)
    assert "algorithms.losses.l2_svm" not in source_hashes(plain)


@pytest.mark.data
def test_the_loss_is_the_papers(make):
    torch.manual_seed(0)
    task, evaluate = make("mnist_svm").build(0, CPU)
    task.model.eval()
    batch = task.data.next(16)
    z, head = task.outputs(batch).detach(), task.model.get_parameter("head.weight").detach()
    hinge = [
        max(0.0, 1 - (1 if k == int(label) else -1) * float(score)) ** 2
        for row, label in zip(z, batch.y, strict=True)
        for k, score in enumerate(row)
    ]
    penalty = float(head.square().mean())
    expected = sum(hinge) / len(hinge) + penalty
    assert float(task.backward(batch)) == pytest.approx(expected, rel=1e-5)
    # The validation loss is the hinge alone; accuracy is that of the largest score.
    part = evaluate.splits["validation"].x[:20], evaluate.splits["validation"].y[:20]
    evaluate.splits["validation"] = type(evaluate.splits["validation"])(*part)
    metrics = evaluate(task.model, "validation")
    scores = task.model(part[0].float() / 255).detach()
    signs = torch.nn.functional.one_hot(part[1], 10) * 2 - 1
    assert metrics["loss"] == pytest.approx(
        float((1 - signs * scores).clamp(min=0).square().mean()), rel=1e-5
    )
    assert metrics["accuracy"] == pytest.approx(float((scores.argmax(1) == part[1]).float().mean()))
