"""AlgoPerf's submissions, as they are: a file of PyTorch functions that trains a workload."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algorithms.algoperf.state import Unheld, held, restored
from algorithms.algoperf.submission import Submission, look_at, named_tuple
from algorithms.algoperf.workload import View, set_dropout
from runner.base.errors import Complete, UserError, text_of
from runner.contract.algorithm import Algorithm
from runner.contract.memory_layout import unfuse
from runner.contract.seeding import derive
from runner.contract.targets import arguments
from runner.contract.task import Task
from runner.provenance import scripts

LARGEST = 2**31 - 1


class AlgoPerf(Algorithm):
    """An AlgoPerf submission: its own functions draw the batches and update the model.

    Paper: Benchmarking Neural Network Training Algorithms (Dahl et al. 2023, arXiv 2306.07179).
    Update: ``data_selection``, then ``update_params``, as AlgoPerf's runner calls them in every step;
        ``init_optimizer_state`` at set-up, ``prepare_for_eval`` (where there is one) before an evaluation.
    Defaults: a small submission of this project's own: AdamW, linear warm-up, cosine decay.
        workload is the name of the one that is trained.
    State: what the submission keeps.
    Cost: 1 forward, 1 backward. That is the bundled submission's; every pass of any is counted.
    Pitfalls: a step may wait for the device. Times that a submission reads are steps: a second is one. A
        submission that keeps state in variables of its modules, or where no checkpoint finds it, starts over
        instead of resuming.
    Deviations: rows are drawn within this harness's budget, and evaluations come at its points. Training goes
        on from what ``prepare_for_eval`` leaves, as AlgoPerf has it; the evaluation before the first step is
        not prepared.

    Args:
        submission: its file, seen from the working directory or from this project.
        hyperparameters: what the submission gets as its hyperparameters, by name; none for None.
        sees_evaluations: whether ``eval_results`` holds validation metrics; it is empty otherwise.
        batch_size: rows of a batch; None for what the submission says of the workload, or the workload's.
        workload: the workload's name, for ``get_batch_size``.

    Raises:
        UserError: for a file that is not there, or that is no PyTorch submission.
    """

    syncs_every = 1

    def __init__(
        self,
        submission: str,
        hyperparameters: Mapping[str, Any] | None = None,
        sees_evaluations: bool = False,
        batch_size: int | None = None,
        workload: str = "",
    ) -> None:
        file = scripts.found(submission)
        if file is None:
            raise UserError(f"algorithm.submission: no such file: {submission}")
        look_at(file)
        self._file, self._workload, self._batch_size = file, workload, batch_size
        self._hyperparameters = named_tuple(dict(hyperparameters or {}))
        self.uses_metrics = sees_evaluations

    def setup(self, task: Task) -> None:
        """Load the file afresh, and have it make its optimizer."""
        self.steps, self.evaluations = 0, list[tuple[int, dict[str, float]]]()
        self._swapped: tuple[list[Tensor], list[Tensor]] | None = None
        self._prepared: list[Tensor] | None = None
        self._called = Submission(self._file, task.data.x.device)
        self._view = View(task, self._called.spec, self._rows(task))
        self._queue = self._view.queue()
        self._model = self._trained = task.model
        self._model_state: Any = None
        if (rate := getattr(self._hyperparameters, "dropout_rate", None)) is not None:
            set_dropout(task.model, rate)
        self._wants_train_state = "train_state" in arguments(self._called.module.update_params)
        with self._called.running():
            self._state = self._initial(task)
        for value in self._state.values() if isinstance(self._state, dict) else ():
            unfuse(getattr(value, "param_groups", ()))

    def _initial(self, task: Task) -> Any:
        rng, module = self._rng(task, "init"), self._called.module
        made = functools.partial(
            module.init_optimizer_state, self._view, task.model, None, self._hyperparameters, rng
        )
        try:
            return made()
        except AttributeError as error:
            if self._hyperparameters is not None or error.obj is not None:
                raise
            raise UserError(
                f"{self._file} needs a hyperparameter {error.name}: set algorithm.search_space=… (the file "
                f"of its tuning search space), or algorithm.hyperparameters.{error.name}=…"
            ) from error
        except (RuntimeError, ValueError) as error:
            if "distributed" not in text_of(error):
                raise
            _group_of_one()
            return made()

    def _rows(self, task: Task) -> int:
        """Rows of a batch: as asked for, as the submission has it, or the workload's default."""
        if self._batch_size is not None:
            return self._batch_size
        try:
            with self._called.running():
                rows = self._called.module.get_batch_size(self._workload)
        except Exception:  # each says in its own way that it does not know a workload
            rows = None
        if isinstance(rows, int) and rows >= 1:
            return rows
        known = f"its batch size, {task.info.batch_size}, is used (algorithm.batch_size)"
        self.notices = (f"the submission does not know the workload {self._workload or 'here'}: {known}",)
        return task.info.batch_size

    def step(self, task: Task) -> Tensor:
        """Have the submission select data and update the model; returns the loss of its first pass."""
        self._take_up_prepared(task)
        self._view.begin()
        module, complete = self._called.module, self._called.spec.TrainingCompleteError
        more = {"train_state": self._train_state()} if self._wants_train_state else {}
        with self._called.running():
            batch = module.data_selection(
                self._view, self._queue, self._state, self._trained, self._model_state,
                self._hyperparameters, self.steps, self._rng(task, "data"),
            )  # fmt: skip
            try:
                self._update(module.update_params, task, "update", batch=batch, **more)
            except complete as error:
                raise Complete(str(error)) from error
        self.steps += 1
        if self._view.loss is None:  # of a submission that has a loss of its own
            return torch.zeros((), device=task.data.x.device)
        return self._view.loss

    def _update(self, function: Any, task: Task, name: str, **more: Any) -> None:
        """Call one of the two functions that may change all there is."""
        self._state, self._trained, self._model_state = function(
            workload=self._view,
            current_param_container=self._trained,
            current_params_types=self._view.model_params_types,
            model_state=self._model_state,
            hyperparameters=self._hyperparameters,
            loss_type=self._view.loss_type,
            optimizer_state=self._state,
            eval_results=list(self.evaluations),
            global_step=self.steps,
            rng=self._rng(task, name),
            **more,
        )

    def _rng(self, task: Task, name: str) -> Any:
        """Two numbers, int32, as AlgoPerf's seeds are, of this step."""
        seed = derive(task.seed, "algoperf", name, self.steps)
        return np.array([seed % LARGEST, (seed // LARGEST) % LARGEST], dtype=np.int32)

    def _train_state(self) -> Mapping[str, Any]:
        seen = self.evaluations[-1][0] if self.evaluations else 0
        return MappingProxyType({
            "validation_goal_reached": False,
            "test_goal_reached": False,
            "is_time_remaining": True,
            "training_complete": False,
            "last_eval_time": seen,
            "last_step_end_time": self.steps,
            "accumulated_submission_time": self.steps,
            "accumulated_eval_time": 0,
            "accumulated_logging_time": 0,
        })  # fmt: skip

    # -- evaluations -------------------------------------------------------------------------------

    @torch.no_grad()
    def enter_eval(self, task: Task) -> None:
        """Have the submission prepare the model, and put what it wants evaluated into the task's."""
        prepare = getattr(self._called.module, "prepare_for_eval", None)
        if self._swapped is not None or (prepare is None and self._trained is task.model):
            return
        live = _tensors(task.model)
        self._swapped = [tensor.data for tensor in live], [tensor.clone() for tensor in live]
        if prepare is not None and self.steps:
            with torch.enable_grad(), self._called.running():
                self._update(prepare, task, "prepare")
        if self._trained is not task.model:
            task.model.load_state_dict(self._trained.state_dict())

    @torch.no_grad()
    def exit_eval(self, task: Task) -> None:
        """Put the training weights back; the next step begins from what was prepared."""
        if self._swapped is None:
            return
        live = _tensors(task.model)
        self._prepared = [tensor.clone() for tensor in live] if self.steps else None
        for tensor, memory, weights in zip(live, *self._swapped, strict=True):
            tensor.data = memory.copy_(weights)
        self._swapped = None

    @torch.no_grad()
    def _take_up_prepared(self, task: Task) -> None:
        if self._prepared is not None:
            torch._foreach_copy_([tensor.data for tensor in _tensors(task.model)], self._prepared)
            self._prepared = None

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Let the submission see the evaluation."""
        self.evaluations.append((self.steps, dict(metrics)))

    # -- checkpoints -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Steps, evaluations seen, what was prepared, and the submission's own state; or why it cannot be."""
        facts = {"steps": self.steps, "evaluations": [list(seen) for seen in self.evaluations]}
        try:
            return {**facts, "prepared": self._prepared, "held": self._held()}
        except Unheld as error:
            return {**facts, "lost": str(error)}

    def _held(self) -> dict[str, Any]:
        if (moved := self._called.moved()) is not None:
            raise Unheld(f"the variable {moved} changes in training")
        if self._trained is not self._model:
            raise Unheld("update_params returns another model than it is given")
        own = {"optimizer_state": self._state, "model_state": self._model_state}
        return {name: held(value, self._model, name) for name, value in own.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            UserError: where the submission keeps state that no checkpoint holds.
        """
        if "lost" in state:
            raise UserError(f"of {self._file.name} not all can be kept: {state['lost']}")
        self.steps = state["steps"]
        self.evaluations = [(step, metrics) for step, metrics in state["evaluations"]]
        self._prepared = state["prepared"]
        with self._called.running():
            saved, model = state["held"], self._model
            self._state = restored(saved["optimizer_state"], self._state, model)
            self._model_state = restored(saved["model_state"], self._model_state, model)


def _group_of_one() -> None:
    """Start torch.distributed with this process alone; what the cell leaves of it is put back behind it."""
    dist = torch.distributed
    if dist.is_available() and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                                store=dist.HashStore(), rank=0, world_size=1)  # fmt: skip


def _tensors(model: torch.nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
