"""What optimizers from elsewhere ask for: given as their YAML says, charged, resumed; or a line helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from runner.base.errors import UserError
from runner.cells.cell import Cell
from runner.compose.config import compose
from runner.parts.composed import Composed
from runner.train.session import run_cell
from tests.problems import through_disk
from tests.small_cells import evaluations, interrupted
from tests.tasks import BATCH, classification, make_info, meters, train, weights

FOREIGN = "tests.doubles.foreign"


def foreign(name: str, **keys: Any) -> dict[str, Any]:
    return {"_target_": f"{FOREIGN}.{name}", **keys}


def trained(optimizer: Any, steps: int = 3, **parts: Any) -> tuple[Any, torch.Tensor, Composed]:
    task = classification()
    algorithm = Composed(optimizer, **parts)
    assert algorithm.compatible(task.info) is None
    algorithm.setup(task)
    return task, train(algorithm, task, steps), algorithm


def refusal(optimizer: Any, steps: int = 1, **parts: Any) -> str:
    with pytest.raises(UserError) as refused:
        trained(optimizer, steps, **parts)
    return str(refused.value)


def two_groups() -> Any:
    return lambda task: [{"params": task.params[:1]}, {"params": task.params[1:], "weight_decay": 0.0}]


# -- closures ----------------------------------------------------------------------------------------


def test_a_closure_evaluates_the_same_batch_and_every_evaluation_is_charged() -> None:
    task, losses, _ = trained(foreign("ClosureOnly", lr=0.1), 3)
    assert meters(task) == (6 * BATCH, 6 * BATCH, 0, 3 * BATCH)
    plain, expected, _ = trained({"_target_": "torch.optim.SGD", "lr": 0.1}, 3)
    assert torch.equal(losses, expected)
    assert all(map(torch.equal, weights(task), weights(plain)))


def test_it_is_the_objective_with_transforms_and_weights() -> None:
    def doubled(params: list[Any], grads: list[Any]) -> None:
        torch._foreach_mul_(grads, 2.0)

    parts = {
        "transform": lambda: doubled,
        "reweighting": lambda: lambda task, batch, losses: torch.linspace(0, 2, len(batch)).double(),
        "objective": lambda: lambda task, batch: task.losses(batch) ** 2,
    }
    task, losses, _ = trained(foreign("ClosureOnly", lr=0.1), 3, **parts)
    plain, expected, _ = trained({"_target_": "torch.optim.SGD", "lr": 0.1}, 3, **parts)
    assert torch.equal(losses, expected) and all(map(torch.equal, weights(task), weights(plain)))


def test_lbfgs_does_what_it_does_in_a_loop_of_its_own() -> None:
    arguments: dict[str, Any] = {"line_search_fn": "strong_wolfe", "max_iter": 5}
    task, _, algorithm = trained({"_target_": "torch.optim.LBFGS", **arguments}, 6, groups=two_groups)
    assert len(algorithm.optimizer.param_groups) == 1
    plain = classification()
    optimizer = torch.optim.LBFGS(plain.params, **arguments)
    for _ in range(6):
        batch = plain.data.next()

        def closure(batch: Any = batch) -> torch.Tensor:
            optimizer.zero_grad()
            return plain.backward(batch)

        optimizer.step(closure)  # pyright: ignore
    assert all(map(torch.equal, weights(task), weights(plain)))
    assert meters(task) == meters(plain) and task.cost.forward > 12 * BATCH


def test_a_gradient_first_where_it_is_wanted() -> None:
    said = refusal(foreign("AfterGradient", lr=0.1, closure=True))
    assert "its first step fails" in said and "`closure: after_gradient`" in said
    task, _, _ = trained(foreign("AfterGradient", lr=0.1, closure="after_gradient"))
    assert meters(task) == (6 * BATCH, 6 * BATCH, 0, 3 * BATCH)


def test_where_a_closure_cannot_be() -> None:
    closure = foreign("ClosureOnly", lr=0.1)
    task = classification()
    sgd = {"_target_": "algorithms.wrappers.mechanic.Mechanic"}
    said = Composed(closure, wrapper={"mechanic": sgd}).compatible(task.info)
    assert said is not None and said.startswith("wrapper.mechanic: wraps a step without a closure")
    assert refusal(foreign("ClosureOnly", closure="often")).endswith("expected true, false or after_gradient")


# -- a gradient that can be differentiated -----------------------------------------------------------


@pytest.mark.parametrize(("products", "cost"), [(0, (3, 3, 0)), (1, (0, 0, 3)), (3, (6, 6, 3))])
def test_each_pass_through_the_gradient_is_charged(products: int, cost: tuple[int, ...]) -> None:
    task, losses, _ = trained(foreign("Hutchinson", create_graph=True, products=products))
    assert meters(task)[:3] == tuple(BATCH * count for count in cost)
    plain, expected, _ = trained({"_target_": "torch.optim.SGD", "lr": 0.1})
    assert torch.equal(losses, expected)
    assert all(p.grad is not None and p.grad.grad_fn is None for p in task.params)
    del plain


def test_it_has_to_be_said_and_goes_with_no_part_that_makes_the_gradient() -> None:
    assert "`create_graph: true`" in refusal(foreign("Hutchinson"))
    part = {"_target_": "algorithms.transforms.clip_norm.ClipNorm"}
    spec = foreign("Hutchinson", create_graph=True)
    said = Composed(spec, transform={"clip_norm": part}).compatible(classification().info)
    assert said == "transform.clip_norm: the optimizer differentiates the gradient itself (create_graph)"
    said = Composed(spec).compatible(make_info(compiled=True))
    assert said is not None and said.startswith("optimizer: takes second derivatives")


def test_an_optimizer_may_make_the_backward_pass_itself() -> None:
    task, losses, _ = trained(foreign("FusedBackward", lr=0.1))
    plain, expected, _ = trained({"_target_": "torch.optim.SGD", "lr": 0.1})
    assert torch.allclose(losses, expected) and meters(task) == meters(plain)
    assert all(map(torch.allclose, weights(task), weights(plain)))


# -- groups, rates, other arguments ------------------------------------------------------------------


def test_one_group_where_it_takes_no_more_and_nothing_is_lost() -> None:
    _, _, algorithm = trained(foreign("OneGroup"), groups=two_groups)
    assert len(algorithm.optimizer.param_groups) == 1
    said = refusal(foreign("OneGroupWithDecay"), groups=two_groups)
    assert said.endswith("wants one group; without groups it can be built: algorithm/groups=null")


def test_a_plain_list_where_it_takes_no_groups() -> None:
    _, _, algorithm = trained(foreign("PlainList"), groups=two_groups)
    assert len(algorithm.optimizer.param_groups) == 1 and algorithm.optimizer.entries > 0


def test_parameters_with_names_and_a_rate_that_has_no_value() -> None:
    assert "write `named_parameters: ${setup:named_parameters}` into its YAML" in refusal(foreign("OfNames"))
    spec = foreign("OfNames", named_parameters="${setup:named_parameters}")
    assert "write `lr: …` into its YAML" in refusal(spec)
    assert len(trained(spec | {"lr": 0.1})[1]) == 3


def test_no_rate_is_scaled_where_there_is_none() -> None:
    assert "algorithm/schedule=null" in refusal(foreign("NoRate"), schedule=lambda: lambda progress: 1.0)
    step = {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 1}
    assert "algorithm/schedule=null" in refusal(foreign("NoRate"), schedule=step)
    _, losses, algorithm = trained(foreign("NoRate"), 20)
    assert losses[-1] < losses[0] and "lr" not in algorithm.report()


def test_a_rate_of_none_is_one_that_the_optimizer_finds() -> None:
    assert "algorithm/schedule=null" in refusal(foreign("OwnRate"), schedule=lambda: lambda progress: 1.0)
    _, losses, algorithm = trained(foreign("OwnRate"), 20)
    assert losses[-1] < losses[0] and "lr" not in algorithm.report()
    _, _, scaled = trained(foreign("OwnRate", lr=0.2), 1, schedule=lambda: lambda progress: 0.5)
    assert scaled.report()["lr"] == pytest.approx(0.1)


def test_matrices_alone_and_the_rest_to_others() -> None:
    assert "`others: {_target_: torch.optim.AdamW" in refusal(foreign("MatricesAlone"))
    others = {"_target_": "torch.optim.AdamW", "lr": 0.02}
    _, _, algorithm = trained(
        foreign("MatricesAlone", lr=0.1, others=others),
        10,
        groups=two_groups,
        schedule=lambda: lambda p: 1 - p,
    )
    groups = algorithm.optimizer.param_groups
    assert [[p.ndim for p in group["params"]] for group in groups] == [[2], [2], [1, 1]]
    assert groups[0]["lr"] == pytest.approx(0.1 * 0.91) and groups[-1]["lr"] == pytest.approx(0.02 * 0.91)
    state = through_disk(algorithm.state_dict())
    again = classification()
    fresh = Composed(foreign("MatricesAlone", lr=0.1, others=others), groups=two_groups)
    fresh.setup(again)
    fresh.load_state_dict(state)
    assert fresh.optimizer.param_groups[-1]["lr"] == groups[-1]["lr"]


def test_what_only_set_up_knows() -> None:
    spec = foreign("OfModel", model="${setup:model}", num_iterations="${setup:0.5 * steps}")
    _, _, algorithm = trained(spec, groups=two_groups)
    assert algorithm.optimizer.param_groups[0]["told"] == 50
    assert "write `model: ${setup:model}` into its YAML" in refusal(foreign("OfModel"))


def test_a_growing_batch_has_no_number_of_steps() -> None:
    spec = foreign("OfModel", model="${setup:model}", num_iterations="${setup:steps}")
    grows = {"_target_": "algorithms.samplers.batch_norm_test.BatchNormTest"}
    assert "the number of steps: replace the placeholder" in refusal(spec, sampler=grows)
    _, _, algorithm = trained(
        spec, sampler={"_target_": "algorithms.samplers.uniform.Uniform", "batch_size": 4}
    )
    assert algorithm.optimizer.param_groups[0]["told"] == 200


def test_waits_are_declared_for_parts_that_know_nothing_of_it() -> None:
    transforms = {"one": {"_target_": "algorithms.transforms.clip_norm.ClipNorm", "syncs_every": 4}}
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.1}
    for optimizer, every in ((sgd, 4), (sgd | {"syncs_every": 2}, 2), (sgd | {"syncs_every": 8}, 4)):
        assert trained(optimizer, transform=transforms)[2].syncs_every == every
    assert trained(sgd | {"syncs_every": 0})[2].syncs_every == 0
    loss = {"_target_": "torch.nn.CrossEntropyLoss", "syncs_every": 3}
    assert trained(sgd, loss=loss)[2].syncs_every == 3
    said = refusal(sgd, transform={"one": transforms["one"] | {"syncs_every": "often"}})
    assert said.startswith("algorithm.transform.one.syncs_every: got 'often', expected the steps between")


# -- through a YAML ----------------------------------------------------------------------------------


def write(tmp_path: Path, text: str, kind: str = "optimizer") -> None:
    folder = tmp_path / "conf/algorithm" / kind
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(f"# Mine\n{text}")


def cell(tmp_path: Path, text: str, *overrides: str) -> Cell:
    write(tmp_path, text)
    plain = ["algorithm=mine", "workload=breast_cancer", "log=none", "workload.target=null",
             "workload.budget_samples=3200", "workload.eval_every=640"]  # fmt: skip
    made = Cell.from_overrides([f"results_dir={tmp_path}", *plain, *overrides], [tmp_path / "conf"])
    assert made.submit()
    return made


RESUMED = {
    "closure": "_target_: torch.optim.LBFGS\nlr: 0.1\nmax_iter: 3\n",
    "graph": f"_target_: {FOREIGN}.Hutchinson\ncreate_graph: true\n",
    "random": f"_target_: {FOREIGN}.Random\nlr: 0.1\n",
    "seeded": f"_target_: {FOREIGN}.Seeded\n",
    "double": f"_target_: {FOREIGN}.DoubleState\nlr: 0.1\n",
    "queue": f"_target_: {FOREIGN}.Queueing\nlr: 0.1\n",
    "others": f"_target_: {FOREIGN}.MatricesAlone\nothers:\n  _target_: torch.optim.AdamW\n  lr: 0.01\n",
    "model": f"_target_: {FOREIGN}.OfModel\nmodel: ${{setup:model}}\nnum_iterations: ${{setup:steps}}\n",
}


@pytest.mark.parametrize("text", RESUMED.values(), ids=RESUMED)
def test_a_cell_resumes_bit_for_bit(tmp_path: Path, text: str) -> None:
    whole, cut = (cell(tmp_path, text, f"name={name}") for name in ("whole", "cut"))
    status = run_cell(whole.folder.path)
    assert status["status"] == "done", status
    assert interrupted(cut.folder.path)["status"] == "preempted"
    assert run_cell(cut.folder.path)["status"] == "done"
    assert cut.folder.manifest()["resumes"] == 1
    assert evaluations(cut.folder.path) == evaluations(whole.folder.path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("num_iterations: ${setup:step}", "${setup:step}: no such placeholder: did you mean steps"),
        ("num_iterations: ${setup:2 * model}", "no such placeholder"),
    ],
)
def test_a_placeholder_that_is_none_is_refused_at_once(tmp_path: Path, key: str, message: str) -> None:
    write(tmp_path, f"_target_: {FOREIGN}.OfModel\n{key}\n")
    with pytest.raises(UserError) as refused:
        compose(["algorithm=mine"], [tmp_path / "conf"])
    assert message in str(refused.value)


def test_a_number_in_place_of_a_placeholder_and_the_reverse(tmp_path: Path) -> None:
    write(tmp_path, f"_target_: {FOREIGN}.OfModel\nnum_iterations: ${{setup:steps}}\nlr: 0.1\nround: 3\n")
    said = compose(["algorithm=mine", "algorithm.optimizer.num_iterations=7"], [tmp_path / "conf"])
    assert said["algorithm"]["optimizer"]["num_iterations"] == 7
    said = compose(["algorithm=mine", "algorithm.optimizer.round='${setup:rows}'"], [tmp_path / "conf"])
    assert said["algorithm"]["optimizer"]["round"] == "${setup:rows}"


def test_a_part_that_is_built_before_set_up_has_none(tmp_path: Path) -> None:
    write(tmp_path, "_target_: algorithms.schedules.cosine.Cosine\nwarmup: ${setup:steps}\n", "schedule")
    made = Cell.from_overrides(
        [f"results_dir={tmp_path}", "algorithm/schedule=mine", "log=none"], [tmp_path / "conf"]
    )
    made.submit()
    said = run_cell(made.folder.path)["error"]
    assert said.startswith("algorithm.schedule.warmup: got ${setup:steps}: placeholders are for optimizers")
