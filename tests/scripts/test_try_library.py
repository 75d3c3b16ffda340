"""How much of a library works by its name alone: a count that may only rise."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.try_library import attempt, main, members

# Module -> kind -> (at least so many work, of so many that there are).
FLOORS = {
    "torch.optim": {"optimizer": (14, 15)},
    "torch.optim.lr_scheduler": {"schedule": (15, 15)},
    "pytorch_optimizer": {"optimizer": (125, 128), "schedule": (4, 4)},
}
NOT = {"SparseAdam", "DeMo", "DistributedMuon", "LoRARite"}  # each with its reason in docs/from_elsewhere.md


@pytest.mark.slow
@pytest.mark.parametrize("module", FLOORS)
def test_as_much_works_as_ever(module: str) -> None:
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
