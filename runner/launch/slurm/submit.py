"""Hand arrays of tasks to SLURM, through submitit."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from runner.base.errors import UserError, one_line
from runner.base.paths import shown
from runner.cells import slurm_queue
from runner.launch.slurm.options import SlurmOptions
from runner.launch.slurm.pack import Array, CellSpec, arrays, parameters, sbatch_lines, setup_lines
from runner.launch.slurm.task import FollowUp, Task

SBATCH_SECONDS = 120
FOLLOW_UP = {"time": 60, "mem": "2048M", "cpus_per_task": 1}
OWN = ("PYTHON", "RUNNER_", "WANDB_")  # variables of the environment that a task needs
SECRET = ("_KEY", "_TOKEN")  # and that are not to be written to a script
MANY = 10**9  # submitit counts timeouts too; our tasks do their own


class Launch(Protocol):
    """The folder and the record of a launch."""

    path: Path
    record: dict[str, Any]

    def update(self, **facts: Any) -> None:
        """Add facts to the record on disk."""


def submit(experiment: Path, cells: Sequence[CellSpec], options: SlurmOptions, launch: Launch) -> list[str]:
    """Queue the cells, whose folders are ready, in as many arrays as their resources ask for.

    Every array is in the launch's record as soon as SLURM has it.

    Returns:
        The arrays' ids, and that of the follow-up job if there is one.

    Raises:
        UserError: where there is no SLURM, or it refuses a job.
    """
    ids: list[str] = []
    try:
        for array in arrays(cells, options, max_tasks()):
            ids.append(_submit_array(experiment, array, options, launch))
        if ids and options.then is not None:
            ids.append(_submit_follow_up(experiment, ids, options, launch))
    except UserError as error:
        raise UserError(f"{error}; queued before: {', '.join(ids)}" if ids else str(error)) from error
    return ids


def max_tasks() -> int:
    """Tasks that the cluster takes in one array."""
    value = slurm_queue.config_value("MaxArraySize", "1000")
    return max(1, int(value)) if value.isdigit() else 1000


def _submit_array(experiment: Path, array: Array, options: SlurmOptions, launch: Launch) -> str:
    functions = [_task(experiment, array, names, options, launch) for names in array.tasks]
    array_id = _sbatch(functions, parameters(array, options, experiment.name), options, launch)
    tasks = {str(index): names for index, names in enumerate(array.tasks)}
    record = {"id": array_id, "tasks": tasks, "resources": array.resources()}
    launch.update(arrays=[*(launch.record.get("arrays") or []), record])
    return array_id


def _task(experiment: Path, array: Array, names: list[str], options: SlurmOptions, launch: Launch) -> Task:
    return Task(str(experiment.resolve()), names, str(_folder(launch)), array.minutes, options.max_requeues)


def _submit_follow_up(experiment: Path, ids: Sequence[str], options: SlurmOptions, launch: Launch) -> str:
    """A job that scores the experiment once every array has ended, well or not."""
    function = FollowUp(f"runner.{options.then}", str(experiment.resolve()))
    after = f"afterany:{':'.join(ids)}"
    where = {k: getattr(options, k) for k in ("partition", "account", "qos", "constraint")}
    told = {
        "job_name": f"{experiment.name}.{options.then}",
        **FOLLOW_UP,
        **{key: value for key, value in where.items() if value is not None},
        "dependency": after,
        "setup": setup_lines(options.setup),
        "stderr_to_stdout": True,
        "srun_args": ["--export=ALL"],
        "additional_parameters": {"requeue": True, **sbatch_lines(options.sbatch)},
    }
    job = _sbatch([function], told, options, launch)
    launch.update(then={"id": job, "module": function.module})
    return job


def _sbatch(
    functions: Sequence[Callable[[], Any]], told: dict[str, Any], options: SlurmOptions, launch: Launch
) -> str:
    if "%" in str(_folder(launch)):
        raise UserError(
            f"{shown(launch.path)}: SLURM reads % in a path as a pattern; choose another name or results_dir"
        )
    with explained(), outside_of_job():
        executor = _executor_class()(_folder(launch), max_num_timeout=MANY, python=options.python)
        executor.update_parameters(**{**told, "setup": [*_exports(), *told["setup"]]})
        return executor.submit_array(list(functions))[0].job_id.partition("_")[0]


def _exports() -> list[str]:
    """Shell lines that set our own variables, for clusters whose jobs begin with an empty environment."""
    own = {k: v for k, v in sorted(os.environ.items()) if k.startswith(OWN) and not k.endswith(SECRET)}
    return [f"export {key}={shlex.quote(value)}" for key, value in own.items()]


def _folder(launch: Launch) -> Path:
    return launch.path.resolve() / "slurm"


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What goes wrong at submission, as one line.

    Raises:
        UserError: where there is no SLURM, or sbatch refuses.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
            yield
    except (FailedJobError, FailedSubmissionError) as error:
        reason = one_line(str(error).replace("sbatch: error: ", "")) or f"no answer within {SBATCH_SECONDS} s"
        raise UserError(f"sbatch refused the job: {reason}") from error
    except RuntimeError as error:
        raise UserError(f"hydra/launcher=slurm: {one_line(str(error))}") from error


@contextlib.contextmanager
def outside_of_job() -> Iterator[None]:
    """Hide the job that this process may run in: the new one would inherit its limits."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    import submitit

    conf = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield


@functools.cache
def _executor_class() -> Any:
    """submitit's executor, with three changes: one task is an array too, sbatch cannot hang, and the
    environment goes along.
    """
    import submitit

    class ArrayExecutor(submitit.SlurmExecutor):
        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            command, *rest = super()._make_submission_command(submission_file_path)
            # On the command line, which goes before SBATCH_EXPORT.
            export = self.parameters["additional_parameters"].get("export", "ALL")
            return ["timeout", str(SBATCH_SECONDS), command, f"--export={export}", *rest]

        def _internal_process_submissions(self, delayed_submissions: list[Any]) -> list[Any]:
            self.folder.mkdir(parents=True, exist_ok=True)
            pickles = [self.folder / f"{index}.pkl" for index in range(len(delayed_submissions))]
            for delayed, path in zip(delayed_submissions, pickles, strict=True):
                delayed.set_timeout(self.parameters["time"], self.max_num_timeout)
                delayed.dump(path)
            self.parameters["map_count"] = len(pickles)
            array_id = self._submit_command(self._submitit_command_str).job_id
            jobs = [submitit.SlurmJob(self.folder, f"{array_id}_{i}") for i in range(len(pickles))]
            for job, path in zip(jobs, pickles, strict=True):
                job.paths.move_temporary_file(path, "submitted_pickle")
            return jobs

    return ArrayExecutor
