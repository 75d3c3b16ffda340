"""Jobs that cannot start say why; a job's environment does not depend on the cluster's habits."""

from __future__ import annotations

import pytest

from runner import UserError
from runner.cells.cell import Cell
from runner.launch.scheduler import Job, Silent
from runner.launch.slurm.watch import watch
from tests.slurm.cluster import Experiment
from tests.slurm.test_slurm import OTHERS


class Ends(Silent):
    """Remembers how cells ended."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def ended(self, job: Job, status: dict[str, object]) -> None:
        self.errors.append(str(status.get("error")))

    def notice(self, text: str) -> None:
        pass


def reason(experiment: Experiment, cell: Cell) -> str:
    """What ``wait=true`` says of a cell whose job has gone."""
    ends = Ends()
    assert experiment.launch is not None
    watch([experiment.launch], [Job(cell.folder.path)], ends, poll=0.5)
    (error,) = ends.errors
    return error


@pytest.mark.parametrize("options", [{}, {"sbatch": {"export": "NONE"}}])
def test_an_environment_that_is_not_passed_on(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    (cell,) = experiment.cells()
    experiment.submit([cell], exclude=OTHERS, **options)
    experiment.until_gone()
    assert cell.state() == "done", experiment.logs()


def test_a_setup_line_that_fails_ends_the_job_and_is_named(experiment: Experiment) -> None:
    (cell,) = experiment.cells()
    experiment.submit([cell], exclude=OTHERS, setup=["true", "ls /not/here", "export GOOD=1"])
    assert "“setup failed, exit code 2: ls /not/here”" in reason(experiment, cell)
    assert cell.state() == "pending"


def test_setup_lines_that_do_work(experiment: Experiment) -> None:
    (cell,) = experiment.cells()
    setup = ["# a comment", "if true; then", "  export GOOD='it is'", "fi", "false || true", 'echo "$GOOD"']
    experiment.submit([cell], exclude=OTHERS, setup=setup)
    experiment.until_gone()
    assert cell.state() == "done" and "it is" in experiment.logs(), experiment.logs()


def test_a_python_that_is_not_there_is_named(experiment: Experiment) -> None:
    (cell,) = experiment.cells()
    experiment.submit([cell], exclude=OTHERS, python="/not/here/python")
    assert "/not/here/python" in reason(experiment, cell)


def test_a_percent_sign_in_a_path_is_refused(experiment: Experiment) -> None:
    experiment.path = experiment.path.with_name("a%j")
    (cell,) = experiment.cells("name=a%j")
    with pytest.raises(UserError, match="SLURM reads % in a path"):
        experiment.submit([cell])
