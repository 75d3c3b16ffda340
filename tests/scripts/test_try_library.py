"""How much of a library works by its name alone: a count that may only rise."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.try_library import attempt, main, members
from tests.libraries import needs

# Module -> kind -> (at least so many work, of so many that there are).
FLOORS = {
    "torch.optim": {"optimizer": (14, 15)},
    "torch.optim.lr_scheduler": {"schedule": (15, 15)},
    "torch.optim.swa_utils": {"average": (5, 5), "schedule": (1, 1)},
    "pytorch_optimizer": {"optimizer": (125, 128), "schedule": (4, 4)},
    "torch_optimizer": {"optimizer": (29, 29)},
    "schedulefree": {"optimizer": (9, 9)},
    "prodigyopt": {"optimizer": (1, 1)},
    "timm.optim": {"optimizer": (31, 31)},
    "timm.scheduler": {"schedule": (7, 9)},
    "timm.loss": {"loss": (8, 11)},
    "timm.utils": {"average": (3, 3)},
    "transformers.optimization": {"optimizer": (1, 2), "schedule": (14, 16)},
}
NOT = {  # each with its reason in docs/from_elsewhere.md
    "SparseAdam", "DeMo", "DistributedMuon", "LoRARite", "create_scheduler", "create_scheduler_v2",
    "DistributionBalancedLoss", "JsdCrossEntropy", "TwoWayLoss", "AdafactorSchedule",
    "get_adafactor_schedule", "LayerWiseDummyOptimizer",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("module", FLOORS)
def test_as_much_works_as_ever(module: str) -> None:
    needs(module.partition(".")[0])
    for kind, (floor, of) in FLOORS[module].items():
        outcomes = [attempt(module, name, kind) for name, own in members(module) if own == kind]
        works = [outcome for outcome in outcomes if outcome.fault is None]
        faults = {outcome.name: outcome.fault for outcome in outcomes if outcome.fault is not None}
        assert len(works) >= floor and len(outcomes) >= of and faults.keys() <= NOT, faults


def test_advice_is_followed_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.md"
    assert main(["torch.optim", "--only", "Muon", "SparseAdam", "--markdown", str(table)]) == 1
    said = capsys.readouterr().out
    assert "torch.optim.Muon: ok `others: {…}`" in said and "torch.optim: 1 of 2 work" in said
    text = table.read_text()
    assert "| `torch.optim` | optimizer | 1 | 2 |" in text and "does not support dense gradients" in text
