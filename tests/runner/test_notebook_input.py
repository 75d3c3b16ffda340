"""What ``runner.run`` takes, without training: bad input, grids, text."""

from __future__ import annotations

import pytest

from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.launch.notebook import _of_one_cell, run


@pytest.mark.parametrize(
    "overrides", [["+experiment=demo"], ["+experiment=linked"], "ruleset=external_tuning"]
)
def test_a_grid_is_not_one_cell(overrides: list[str] | str) -> None:
    with pytest.raises(UserError, match="trains one cell, but this is a grid"):
        run(overrides)


def test_a_cell_of_a_ruleset_is_one_cell() -> None:
    given = ["ruleset=external_tuning", "study=1", "trial=2"]
    assert _of_one_cell(given, []) == given


def test_a_text_is_taken_apart_as_a_shell_does_it() -> None:
    with pytest.raises(UserError, match=r"did you mean algorithm\.optimizer\.lr=1e-3"):
        run("algorithm=adamw label='a b' lr=1e-3")


def test_hydras_own_keys_are_no_arguments() -> None:
    spec = {"_target_": "builtins.dict", "_partial_": True, "_convert_": "all", "_recursive_": False, "a": 1}
    assert build_part("schedule", spec)(b=2) == {"a": 1, "b": 2}
    assert build_part("optimizer", spec, {"b": 2}) == {"a": 1, "b": 2}
