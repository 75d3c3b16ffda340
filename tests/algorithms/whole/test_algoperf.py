"""AlgoPerf's submissions: what they are called with, what they cost, how they resume, what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from algorithms.algoperf.state import Unheld, held, restored
from algorithms.whole.algoperf import AlgoPerf
from runner import UserError
from runner.base.errors import Complete
from runner.cells.cell import Cell
from runner.compose.config import compose
from runner.contract.batch_norm import running_statistics
from runner.contract.task import Task
from runner.machine.switches import read
from runner.provenance import allowances
from runner.train.session import run_cell
from tests.small_cells import evaluations, interrupted, submitted
from tests.tasks import (
    BATCH,
    CLASSES,
    assert_resumes,
    binary,
    classification,
    conv_net,
    images,
    language,
    train,
)

STEPS = 4
SUBMISSION = '''
"""A submission in AlgoPerf's form."""
from typing import Dict, Iterator, List, Tuple

import torch
{imports}
from {package} import spec
from {package}.pytorch_utils import pytorch_setup

USE_PYTORCH_DDP, RANK, DEVICE, N_GPUS = pytorch_setup()
{globals}

def init_optimizer_state(workload: spec.Workload, model_params: spec.ParameterContainer,
                         model_state: spec.ModelAuxiliaryState, hyperparameters: spec.Hyperparameters,
                         rng: spec.RandomState) -> spec.OptimizerState:
  {init}


def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                  batch, loss_type, optimizer_state, eval_results, global_step, rng{extra}):
  def closure():
    optimizer_state['optimizer'].zero_grad()
    logits, _ = workload.model_fn(
        params=current_param_container, augmented_and_preprocessed_input_batch=batch,
        model_state=model_state, mode=spec.ForwardPassMode.TRAIN, rng=rng, update_batch_norm=True)
    loss = workload.loss_fn(
        label_batch=batch['targets'], logits_batch=logits, mask_batch=batch.get('weights'))
    mean = loss['summed'] / loss['n_valid_examples']
    mean.backward()
    return mean
  {update}
  return optimizer_state, current_param_container, None


def data_selection(workload, input_queue: Iterator[Dict[str, spec.Tensor]], optimizer_state,
                   current_param_container, model_state, hyperparameters, global_step, rng):
  return {select}


def get_batch_size(workload_name: str) -> int:
  {size}

{more}
'''
DEFAULTS = {
    "package": "algoperf", "imports": "", "globals": "", "extra": "", "select": "next(input_queue)",
    "more": "",
    "init": "return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.1, momentum=0.9)}",
    "update": "closure(); optimizer_state['optimizer'].step()",
    "size": "raise ValueError(f'Unsupported workload name: {workload_name}.')",
}  # fmt: skip
AVERAGED = """
def prepare_for_eval(workload, current_param_container, current_params_types, model_state, hyperparameters,
                     loss_type, optimizer_state, eval_results, global_step, rng):
  with torch.no_grad():
    for p in current_param_container.parameters():
      p.mul_(0.5)
  return optimizer_state, current_param_container, model_state
"""


def written(folder: Path, **pieces: str) -> str:
    file = folder / "submission.py"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(SUBMISSION.format(**(DEFAULTS | pieces)))
    return str(file)


def trained(
    file: str, task: Task | None = None, steps: int = STEPS, **arguments: Any
) -> tuple[AlgoPerf, Task]:
    task, algorithm = task or classification(), AlgoPerf(file, **arguments)
    algorithm.setup(task)
    if steps:
        train(algorithm, task, steps)  # type: ignore[arg-type]
    return algorithm, task


def refused(file: str | Path, **arguments: Any) -> str:
    with pytest.raises(UserError) as error:
        AlgoPerf(str(file), **arguments).setup(classification())
    assert "\n" not in str(error.value)
    return str(error.value)


def seen(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


# -- the update, and what it costs -------------------------------------------------------------------


@pytest.mark.parametrize("package", ["algoperf", "algorithmic_efficiency"])
def test_it_trains_as_the_loop_that_it_writes(tmp_path: Path, package: str) -> None:
    _, task = trained(written(tmp_path, package=package))
    plain = classification()
    optimizer = torch.optim.SGD(plain.model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        batch = plain.data.next()
        optimizer.zero_grad()
        (F.cross_entropy(plain.model(batch.x), batch.y, reduction="none").sum() / len(batch)).backward()
        optimizer.step()
    for ours, theirs in zip(task.params, plain.params, strict=True):
        assert torch.equal(ours, theirs)


def test_every_pass_and_every_row_is_charged(tmp_path: Path) -> None:
    _, once = trained(written(tmp_path / "a"))
    assert (once.cost.drawn, once.cost.forward, once.cost.backward) == (STEPS * BATCH,) * 3
    twice = "closure(); optimizer_state['optimizer'].step(closure)"
    _, task = trained(written(tmp_path / "b", update=twice))
    assert (task.cost.forward, task.cost.backward) == (2 * STEPS * BATCH,) * 2
    several = "(next(input_queue), next(input_queue))[1]"
    _, task = trained(written(tmp_path / "c", select=several))
    assert (task.cost.drawn, task.cost.forward) == (2 * STEPS * BATCH, STEPS * BATCH)


def test_the_queue_itself_may_be_selected(tmp_path: Path) -> None:
    step = "closure(); optimizer_state['optimizer'].step()"
    update = f"queue = batch\n  for batch in (next(queue), next(queue)):\n    {step}"
    _, task = trained(written(tmp_path, select="input_queue", update=update))
    assert task.cost.drawn == task.cost.backward == 2 * STEPS * BATCH


@pytest.mark.parametrize("build", [classification, binary, lambda: language(lambda: nn.Embedding(3, 3))])
def test_the_loss_is_a_dictionary_of_sums(tmp_path: Path, build: Any) -> None:
    algorithm, task = trained(written(tmp_path), build(), steps=1)
    view, batch = algorithm._view, next(algorithm._queue)
    logits, _ = view.model_fn(
        task.model, batch, None, algorithm._called.spec.ForwardPassMode.EVAL, None, False
    )
    assert not logits.requires_grad and not task.model.training
    loss = view.loss_fn(batch["targets"], logits, batch["weights"])
    assert loss["per_example"].shape == batch["targets"].shape == batch["weights"].shape
    assert loss["n_valid_examples"] == batch["targets"].numel()
    assert torch.allclose(loss["summed"] / loss["n_valid_examples"], task.kind.mean(logits, batch["targets"]))
    mask = torch.zeros_like(batch["weights"])
    mask[0] = 1
    masked = view.loss_fn(batch["targets"], logits, mask)
    assert (
        torch.allclose(masked["summed"], loss["per_example"][0].sum())
        and masked["n_valid_examples"] == mask.sum()
    )
    smoothed = view.loss_fn(batch["targets"], logits, None, 0.2)
    assert not torch.allclose(smoothed["summed"], loss["summed"])


def test_batch_norm_keeps_its_statistics_where_it_is_not_to_update_them(tmp_path: Path) -> None:
    algorithm, task = trained(written(tmp_path), images(conv_net), steps=1)
    before = [statistic.clone() for statistic in running_statistics(task.model)]
    mode, batch = algorithm._called.spec.ForwardPassMode.TRAIN, next(algorithm._queue)
    algorithm._view.model_fn(task.model, batch, None, mode, None, update_batch_norm=False)
    assert all(map(torch.equal, before, running_statistics(task.model))) and task.model.training
    algorithm._view.model_fn(task.model, batch, None, mode, None, update_batch_norm=True)
    assert not any(map(torch.equal, before, running_statistics(task.model)))


def test_facts_of_the_workload(tmp_path: Path) -> None:
    algorithm, task = trained(written(tmp_path), images(conv_net), steps=0)
    view, spec = algorithm._view, algorithm._called.spec
    assert view.step_hint == -(-task.info.budget_samples // BATCH) == view.max_allowed_runtime_sec
    assert view.loss_type is spec.LossType.SOFTMAX_CROSS_ENTROPY and view.target_metric_name == "loss"
    kinds = [kind.name for kind in view.model_params_types.values()]
    assert kinds == ["CONV_WEIGHT", "BIAS", "BATCH_NORM_SCALE", "BATCH_NORM_BIAS", "WEIGHT", "BIAS"]
    shapes = [shape.shape_tuple for shape in view.param_shapes.values()]
    assert shapes == [p.shape for p in task.params] and shapes[-1] == (CLASSES,)


def test_dropout_is_as_a_pass_or_the_hyperparameters_say(tmp_path: Path) -> None:
    drops = classification(lambda: nn.Sequential(nn.Dropout(0.0), nn.Linear(5, CLASSES)).double())
    algorithm, task = trained(written(tmp_path), drops, steps=0, hyperparameters={"dropout_rate": 0.25})
    assert task.model[0].p == 0.25  # type: ignore[index]
    mode, batch = algorithm._called.spec.ForwardPassMode.TRAIN, next(algorithm._queue)
    algorithm._view.model_fn(task.model, batch, None, mode, None, True, dropout_rate=0.5)
    assert task.model[0].p == 0.5  # type: ignore[index]


def test_the_batch_size_is_the_submissions_or_the_workloads(tmp_path: Path) -> None:
    known = written(tmp_path, size="return {'digits': 4}[workload_name]")
    algorithm, task = trained(known, workload="digits")
    assert task.cost.drawn == 4 * STEPS and not algorithm.notices
    algorithm, task = trained(known, workload="others")
    assert task.cost.drawn == BATCH * STEPS and "others: its batch size, 8, is used" in algorithm.notices[0]
    assert trained(known, workload="digits", batch_size=6)[1].cost.drawn == 6 * STEPS


def test_a_submission_may_end_training(tmp_path: Path) -> None:
    update = "\n  ".join(["if global_step >= 2:", "  raise spec.TrainingCompleteError('done')", "closure()"])
    with pytest.raises(Complete, match="done"):
        trained(written(tmp_path, update=update))
    cell = small(tmp_path, "workload.budget_samples=640", "workload.eval_every=320")
    assert run_cell(cell.folder.path)["status"] == "done"
    summary = cell.folder.status()["summary"]
    assert (summary["ended"], summary["steps"], summary["hit"]) == ("complete", 2, False)


# -- evaluations -------------------------------------------------------------------------------------


def test_what_is_prepared_is_evaluated_and_trained_on_as_algoperf_has_it(tmp_path: Path) -> None:
    algorithm, task = trained(written(tmp_path, more=AVERAGED), steps=2)
    before = [p.detach().clone() for p in task.params]
    for _ in range(2):
        algorithm.enter_eval(task)
        assert all(torch.equal(p, 0.5 * q) for p, q in zip(task.params, before, strict=True))
    algorithm.exit_eval(task)
    assert all(map(torch.equal, task.params, before))
    algorithm._take_up_prepared(task)
    assert all(torch.equal(p, 0.5 * q) for p, q in zip(task.params, before, strict=True))


def test_the_first_evaluation_is_of_the_initial_weights(tmp_path: Path) -> None:
    algorithm, task = trained(written(tmp_path, more=AVERAGED), steps=0)
    before = [p.detach().clone() for p in task.params]
    algorithm.enter_eval(task)
    assert all(map(torch.equal, task.params, before))


@pytest.mark.parametrize("shown", [False, True])
def test_evaluations_are_seen_only_where_that_is_asked_for(tmp_path: Path, shown: bool) -> None:
    log = tmp_path / "seen.txt"
    told = f"print(json.dumps([global_step, eval_results]), file=open({str(log)!r}, 'a'))"
    update = f"import json; {told}; closure()"
    written(tmp_path, update=update)
    asked = f"algorithm.sees_evaluations={shown}"
    cell = small(tmp_path, asked, "warmup_steps=0", "workload.budget_samples=640", "workload.eval_every=320")
    assert run_cell(cell.folder.path)["status"] == "done"
    assert cell.folder.status()["summary"]["uses_metrics"] is shown
    assert ("sees_evaluations" in cell.config["label"]) is shown
    step, results = seen(log)[-1]
    assert step == 19 and [at for at, _ in results] == ([0, 10] if shown else [])
    assert not shown or [key for key in results[0][1] if "accuracy" in key] == ["validation/accuracy"]


def test_the_train_state_is_handed_over_where_it_is_asked_for(tmp_path: Path) -> None:
    update = "assert train_state['accumulated_submission_time'] == global_step; closure()"
    trained(written(tmp_path, extra=", train_state=None", update=update))


# -- checkpoints -------------------------------------------------------------------------------------

ADAM = (
    "optimizer = torch.optim.Adam(model_params.parameters(), lr=0.01)\n"
    "  sched = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, workload.step_hint)\n"
    "  import collections\n"
    "  return {'optimizer': optimizer, 'sched': sched, 'n': 0, 'last': collections.deque(maxlen=2),\n"
    "          'params': list(model_params.parameters()), 'mean': None}"
)
KEEPS = (
    "closure(); optimizer_state['optimizer'].step(); optimizer_state['sched'].step()\n"
    "  optimizer_state['n'] += 1; optimizer_state['last'].append(torch.randn(1).item())\n"
    "  with torch.no_grad():\n"
    "    for p in optimizer_state['params']: p.add_(1e-3 * optimizer_state['last'][0])\n"
    "  optimizer_state['mean'] = [p.detach().clone() for p in optimizer_state['params']]"
)


def test_it_resumes_bit_for_bit(tmp_path: Path) -> None:
    update = KEEPS.replace("torch.randn(1).item()", "float(rng[0] % 7)")
    file = written(tmp_path, init=ADAM.replace("collections.deque(maxlen=2)", "[]"), update=update)
    assert_resumes(lambda: AlgoPerf(file), classification)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("prepares", ["", AVERAGED])
def test_a_cell_goes_on_where_it_was_interrupted(tmp_path: Path, prepares: str) -> None:
    written(tmp_path, init=ADAM, update=KEEPS, more=prepares)
    whole, cut = (small(tmp_path, f"results_dir={tmp_path / name}") for name in ("whole", "cut"))
    run_cell(whole.folder.path)
    assert interrupted(cut.folder.path)["status"] == "preempted"
    assert run_cell(cut.folder.path)["status"] == "done"
    assert "started_over" not in cut.folder.manifest()
    assert evaluations(whole.folder.path) == evaluations(cut.folder.path)


def test_state_in_other_types_than_the_weights_stays_in_them(tmp_path: Path) -> None:
    init = "return {'optimizer': Half(model_params.parameters(), lr=0.1)}"
    half = (
        "class Half(torch.optim.SGD):\n  def step(self, closure=None):\n"
        "    for p in self.param_groups[0]['params']:\n"
        "      v = self.state[p].setdefault('v', torch.zeros_like(p, dtype=torch.bfloat16))\n"
        "      v.mul_(0.9).add_(p.grad)\n      p.data.sub_(0.1 * v)\n"
    )
    file = written(tmp_path, init=init, globals=half)
    assert_resumes(lambda: AlgoPerf(file), classification)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ({"globals": "COUNT = [0]", "update": "COUNT[0] += 1; closure()"},
         "the variable submission.COUNT changes"),
        ({"init": "return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.1), 'g': iter([1])}"},
         "optimizer_state.g is a list_iterator"),
    ],
)  # fmt: skip
def test_a_submission_that_keeps_other_state_starts_over(
    tmp_path: Path, pieces: dict[str, str], why: str
) -> None:
    written(tmp_path, **pieces)
    cell = small(tmp_path)
    assert interrupted(cell.folder.path)["status"] == "preempted"
    assert run_cell(cell.folder.path)["status"] == "done"
    assert why in cell.folder.manifest()["started_over"]


def test_objects_that_set_up_does_not_make_cannot_come_back() -> None:
    model = nn.Linear(2, 2)
    saved = held({"sgd": torch.optim.SGD(model.parameters(), lr=0.1), "p": model.weight}, model)
    assert restored({"p": saved["p"]}, {}, model)["p"] is model.weight
    with pytest.raises(Unheld, match="set-up does not make"):
        restored(saved, {}, model)


# -- search spaces -----------------------------------------------------------------------------------

SETS = "torch.set_float32_matmul_precision('high')"
LR = "return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=hyperparameters.learning_rate)}"


def spaced(folder: Path, space: Any, *overrides: str) -> dict[str, Any]:
    file = folder / "space.json"
    file.write_text(json.dumps(space))
    return compose(["algorithm=algoperf", "workload=digits", f"algorithm.search_space={file}", *overrides])


def test_ranges_are_drawn_from(tmp_path: Path) -> None:
    space = {
        "learning_rate": {"min": 1e-4, "max": 1e-2, "scaling": "log"},
        "beta": {"min": 0, "max": 1, "scaling": "linear"},
        "warmup": {"feasible_points": [0.05, 0.1]},
    }
    middle = spaced(tmp_path, space)
    assert middle["algorithm"]["hyperparameters"] == pytest.approx(
        {"learning_rate": 1e-3, "beta": 0.5, "warmup": 0.05}
    )
    drawn = [spaced(tmp_path, space, f"trial={k}")["algorithm"]["hyperparameters"] for k in range(1, 9)]
    assert all(1e-4 <= one["learning_rate"] <= 1e-2 and 0 <= one["beta"] <= 1 for one in drawn)
    assert len({one["learning_rate"] for one in drawn}) == 8 and {one["warmup"] for one in drawn} == {
        0.05,
        0.1,
    }
    assert middle["label"] == f"algoperf[search_space={tmp_path / 'space.json'}]"


def test_listed_points_are_taken_in_turn(tmp_path: Path) -> None:
    points = [{"learning_rate": 0.1, "nesterov": False}, {"learning_rate": 3, "nesterov": True}]
    of = [spaced(tmp_path, points, f"trial={k}")["algorithm"]["hyperparameters"] for k in range(3)]
    assert of == [points[0], *points]
    with pytest.raises(UserError, match=r"trial=3: .*lists 2 points"):
        spaced(tmp_path, points, "trial=3")
    fixed = spaced(tmp_path, points, "trial=2", "algorithm.hyperparameters.learning_rate=7")
    assert fixed["algorithm"]["hyperparameters"] == {"learning_rate": 7, "nesterov": True}
    assert "learning_rate=7" in fixed["label"]


def test_a_file_takes_the_place_of_any_algorithms_own_space(tmp_path: Path) -> None:
    file = tmp_path / "space.json"
    file.write_text(json.dumps({"optimizer.lr": {"feasible_points": [0.5]}}))
    config = compose(["algorithm=adamw", f"algorithm.search_space={file}", "trial=1"])
    assert config["search_space"] == {"optimizer.lr": {"choices": [0.5]}}
    assert config["algorithm"]["optimizer"]["lr"] == 0.5 and config["label"].startswith("adamw[search_space=")
    file.write_text(json.dumps({"optimizer.lrr": {"feasible_points": [0.5]}}))
    with pytest.raises(UserError, match=r"optimizer\.lrr: no such hyperparameter"):
        compose(["algorithm=adamw", f"algorithm.search_space={file}", "trial=1"])


@pytest.mark.parametrize(
    ("space", "why"),
    [
        ({}, "neither named ranges nor a list"),
        ([{"a": 1}, {"b": 1}], "every point of the list must have the same names"),
        ({"a": {"min": 1}}, "a: expected min, max and scaling, or feasible_points"),
        ({"a": {"min": 1, "max": 2, "scaling": "cubic"}}, "scaling: got 'cubic', expected linear or log"),
        ({"a": {"min": 0, "max": 2, "scaling": "log"}}, "a number above 0 on a log scale"),
    ],
)
def test_what_is_no_search_space_is_refused(tmp_path: Path, space: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        spaced(tmp_path, space)
    with pytest.raises(UserError, match="no such file"):
        compose(["algorithm=algoperf", "algorithm.search_space=nowhere.json"])


def test_hyperparameters_reach_the_submission_by_name(tmp_path: Path) -> None:
    file = written(tmp_path, init=LR)
    algorithm, _ = trained(file, hyperparameters={"learning_rate": 0.25})
    assert algorithm._state["optimizer"].param_groups[0]["lr"] == 0.25
    assert "algorithm.hyperparameters.learning_rate=…" in refused(file)


# -- what is refused, and what is left behind ----------------------------------------------------------


def test_a_file_that_is_no_submission_is_refused(tmp_path: Path) -> None:
    assert "no such file: nowhere.py" in refused("nowhere.py")
    file = tmp_path / "jax_one.py"
    file.write_text("import jax\nfrom algoperf import spec\ndef update_params(): pass\n")
    assert "is a JAX submission" in refused(file)
    file.write_text("import torch\ndef init_optimizer_state(): pass\ndef data_selection(): pass\n")
    assert "defines no update_params, get_batch_size" in refused(file)
    file.write_text("def update_params(:\n")
    assert "no Python that can be read" in refused(file)


def test_what_does_not_load_is_named(tmp_path: Path) -> None:
    assert "needs absent_package, which is not installed: pip install absent_package" in refused(
        written(tmp_path / "a", imports="import absent_package")
    )
    assert "needs algoperf.checkpoint_utils, which only AlgoPerf itself has" in refused(
        written(tmp_path / "b", imports="import algoperf.checkpoint_utils")
    )
    assert "does not load: ZeroDivisionError" in refused(written(tmp_path / "c", globals="1 / 0"))


def test_a_worker_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "submission.py").write_text("import jax\n")
    status = run_cell(small(tmp_path).folder.path)
    assert status["status"] == "failed" and status["user_error"] and "JAX submission" in status["error"]


@pytest.fixture
def neighbours(tmp_path: Path) -> Iterator[str]:
    helper = tmp_path / "sub/deep/tools"
    helper.mkdir(parents=True)
    (helper / "rates.py").write_text("import constants\nRATE = constants.RATE\n")
    (helper.parent / "constants.py").write_text("RATE = 0.3\n")
    imports = "from their.place.deep.tools.rates import RATE\nimport deep.tools.rates as again"
    init = "assert again.RATE is RATE\n  " + LR.replace("hyperparameters.learning_rate", "RATE")
    yield written(tmp_path / "sub", imports=imports, init=init, update="import constants; closure()")


def test_modules_of_its_folder_are_found_under_the_names_that_it_uses(neighbours: str) -> None:
    path, found, modules = [*sys.path], [*sys.meta_path], {*sys.modules}
    algorithm, _ = trained(neighbours)
    assert algorithm._state["optimizer"].param_groups[0]["lr"] == 0.3
    assert (sys.path, sys.meta_path) == (path, found)
    left = {name.partition(".")[0] for name in {*sys.modules} - modules}
    assert not left & {"submission", "their", "deep", "constants", "algoperf", "algorithmic_efficiency"}


def test_a_mere_folder_of_that_name_does_not_hide_them(
    neighbours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their/place").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    cell = small_cell(Path(neighbours).parent, f"results_dir={tmp_path}")
    assert str(Path(neighbours).parent / "deep/tools/rates.py") in cell.sources


def test_a_submission_edited_is_stale_and_so_is_one_whose_helper_is(neighbours: str, tmp_path: Path) -> None:
    cell = small(Path(neighbours).parent, f"results_dir={tmp_path}")
    run_cell(cell.folder.path)
    again = small_cell(Path(neighbours).parent, f"results_dir={tmp_path}")
    assert again.state() == "done" and neighbours in again.sources
    constants = Path(neighbours).parent / "deep/constants.py"
    assert str(constants) in again.sources
    constants.write_text("RATE = 0.1\n")
    edited = small_cell(Path(neighbours).parent, f"results_dir={tmp_path}")
    assert edited.id == cell.id and edited.state() == "stale"


def test_two_submissions_in_one_process_are_strangers(tmp_path: Path) -> None:
    before = read()
    for name, rate in (("a", 0.5), ("b", 0.25)):
        init, imports = LR.replace("hyperparameters.learning_rate", "rates.RATE"), "import rates\n" + SETS
        file = Path(written(tmp_path / name, imports=imports, init=init))
        file.with_name("rates.py").write_text(f"RATE = {rate}\n")
        cell = small(file.parent, f"results_dir={tmp_path / name}")
        status = run_cell(cell.folder.path)
        assert status["status"] == "done" and "left" not in status, status
    assert {k: v for k, v in read().items() if v != before[k]}.keys() <= {"os.environ"}


def test_torch_distributed_is_there_where_it_is_wanted_and_gone_afterwards(tmp_path: Path) -> None:
    init = (
        "if not torch.distributed.is_initialized(): raise RuntimeError('torch.distributed is needed')\n"
        "  return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.1)}"
    )
    written(tmp_path, init=init)
    status = run_cell(small(tmp_path).folder.path)
    assert status["status"] == "done" and "left" not in status
    assert not torch.distributed.is_initialized()


def test_a_stored_cell_runs_no_file_that_this_user_has_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.delenv(allowances.VARIABLE, raising=False)
    written(tmp_path / "theirs")
    config = small_cell(tmp_path / "theirs", f"results_dir={tmp_path}").config
    stored = Cell.from_config(config)
    assert stored.submit()
    status = run_cell(stored.folder.path)
    assert "code you have not run" in status["error"] and status["user_error"]
    run_again = small(tmp_path / "theirs", f"results_dir={tmp_path}")
    assert run_cell(run_again.folder.path)["status"] == "done"


def small_cell(folder: Path, *overrides: str) -> Cell:
    own = ["log=none", "workload.target=null", "workload.budget_samples=1280", "workload.eval_every=320"]
    file = folder / "submission.py"
    return Cell.from_overrides([
        "algorithm=algoperf", f"algorithm.submission={file}", "workload=digits", f"results_dir={folder}",
        *own, *overrides,
    ])  # fmt: skip


def small(folder: Path, *overrides: str) -> Cell:
    cell = small_cell(folder, *overrides)
    assert cell.submit()
    return cell


def test_the_bundled_one_trains_by_the_name_of_the_algorithm_alone(tmp_path: Path) -> None:
    cell = submitted(tmp_path, "algorithm=algoperf", "workload=digits")
    assert run_cell(cell.folder.path)["status"] == "done"
    assert cell.config["algorithm"]["submission"] == "algorithms/algoperf/example.py" in cell.sources
    assert "does not know the workload digits" in cell.folder.manifest()["notices"][0]
    assert cell.folder.evals()[-1]["validation/accuracy"] > 0.5
