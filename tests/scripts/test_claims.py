"""The page of claims comes from the kept evidence, and evidence comes from an experiment as users run it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from scripts.claims import __main__ as claims
from scripts.claims import _claim
from tests.conftest import ROOT

Capture = pytest.CaptureFixture[str]
NAMES = sorted(_claim.known())


def test_every_claim_has_an_experiment_of_its_name_and_every_experiment_a_claim() -> None:
    experiments = {path.stem: path for path in (ROOT / "conf" / "experiment" / "claims").glob("*.yaml")}
    assert sorted(experiments) == NAMES
    for name, path in experiments.items():
        assert OmegaConf.load(path)["name"] == f"claims-{name}"


def test_the_page_is_that_of_the_kept_evidence() -> None:
    assert claims.PAGE.read_text() == claims.page(), "renew it: python -m scripts.claims --write"


def test_all_evidence_is_kept() -> None:
    assert [name for name in NAMES if not _claim.by_name(name).rows.exists()] == []


def test_from_the_experiment_to_the_verdict(
    tmp_path: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    """The worst case of logistic regression: the kept rows come out again, digit for digit."""
    kept = _claim.by_name("lr_gd").rows.read_text()
    done = command("-m", "+experiment=claims/lr_gd", f"results_dir={tmp_path}", "workers=1")
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.setattr(_claim, "KEPT", tmp_path / "kept")
    assert claims.main(["lr_gd", "--keep", str(tmp_path / "claims-lr_gd")]) == 0
    assert "**Reproduced: the same counts, all five.**" in capsys.readouterr().out
    assert (tmp_path / "kept" / "lr_gd.csv").read_text() == kept
    rows = kept.replace(",157", ",158")
    (tmp_path / "kept" / "lr_gd.csv").write_text(rows)
    assert claims.main(["lr_gd"]) == 0
    assert "**Not reproduced: the counts differ.**" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lr_dg"], "error: unknown claim 'lr_dg': did you mean lr_gd?"),
        (["--keep", "nowhere"], "error: --keep takes the folder of one experiment: name its claim"),
    ],
)
def test_bad_input_is_a_line(arguments: list[str], said: str, capsys: Capture) -> None:
    assert claims.main(arguments) == 2
    assert capsys.readouterr().err.startswith(said)
