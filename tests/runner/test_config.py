"""Composing a cell: what a user may type, and what comes back when it is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.base.errors import UserError
from runner.cells.cell import identity
from runner.compose.config import algorithm_names, compose, hydra_ready, workload_names
from runner.compose.expand import expand
from runner.compose.presets import implied

Experiments = Callable[..., list[Path]]


@pytest.fixture
def experiments(tmp_path: Path) -> Experiments:
    """Write experiments under a config folder by name; the folder comes back, in a list."""

    def write(**yamls: str) -> list[Path]:
        for name, yaml in yamls.items():
            file = tmp_path / "experiment" / f"{name}.yaml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"# @package _global_\n{yaml}\n")
        return [tmp_path]

    return write


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+experiment=claims/lr_dg"], r"unknown experiment 'claims/lr_dg': did you mean claims/lr_gd"),
        (["algorithm=adamv"], r"unknown algorithm 'adamv': did you mean .*adamw"),
        (["workload=digit"], r"unknown workload 'digit': did you mean .*digits"),
        (["algorithm/optimizer=adamv"], r"unknown algorithm/optimizer 'adamv': did you mean .*adamw"),
        (["algorithm/optimiser=adamw"], r"unknown group 'algorithm/optimiser': did you mean algorithm/opt"),
        (["algorithm.optimizer.lrr=1"], r"unknown key 'algorithm.optimizer.lrr': did you mean .*\.lr"),
        (["algorithm/schedule=step", "algorithm.schedule.gama=1"], r"did you mean .*schedule\.gamma"),
        (["studdy=3"], r"unknown key 'studdy': did you mean study"),
        (["algorithm.optimizer.lr=-1"], r"algorithm.optimizer.lr: got -1, expected a number of at least 0"),
        (["algorithm.optimizer.lr=abc"], r"algorithm.optimizer.lr: got 'abc', expected a number"),
        (["algorithm.optimizer.lr=nan"], r"algorithm.optimizer.lr: got nan, expected"),
        (["algorithm.optimizer.betas=[0.9,1.0]"], r"betas: got \[0.9, 1.0\], expected numbers in \[0, 1\)"),
        (["algorithm.optimizer.betas=0.9"], r"betas: got 0.9, expected a list"),
        (["algorithm.schedule.warmup=1.5"], r"warmup: got 1.5, expected a share of the budget"),
        (["workload.batch_size=0"], r"workload.batch_size: got 0, expected an integer of at least 1"),
        (["workload.batch_size=2.5"], r"workload.batch_size: got 2.5, expected an integer"),
        (["workload.target=high"], r"workload.target: got 'high', expected a number"),
        (["study=x"], r"study: got 'x', expected an integer from 0 to"),
        (["study=-1"], r"study: got -1, expected"),
        (["study=true"], r"study: got True, expected"),
        (["trial=1.5"], r"trial: got 1.5, expected"),
        (["checkpoint_every=0"], r"checkpoint_every: got 0, expected seconds above 0"),
        (["stop_at_target=maybe"], r"stop_at_target: got 'maybe', expected true or false"),
        (["device=tpu"], r"device: got 'tpu', expected one of auto, cpu, cuda"),
        (["workload.precision=fp16"], r"workload.precision: got 'fp16', expected one of fp32, tf32, bf16"),
        (["threads=0"], r"threads: got 0, expected"),
        (["name=../elsewhere"], r"name: got '../elsewhere', expected a folder name"),
        (["trial=1000"], r"trial: got 1000, expected an integer from 0 to 999"),
        (["study=0,1"], r"write -m study=0,1"),
        (["study=1 =="], r"quote the value: write \"study=.1 ==.\""),
        (["log=tensorboard"], r"unknown log 'tensorboard'"),
        (["workers=0"], r"workers: got 0, expected an integer of at least 1, or null"),
        (["per_gpu=null"], r"per_gpu: got null, expected an integer of at least 1"),
        (["cells_per_task=1.5"], r"cells_per_task: got 1.5, expected"),
        (["minutes_per_task=0"], r"minutes_per_task: got 0, expected minutes above 0"),
        (["dry_run=maybe"], r"dry_run: got 'maybe', expected true or false"),
        (["wait=1"], r"wait: got 1, expected true or false"),
        (["then=dance"], r"then: got 'dance', expected score, or null"),
        (["algorithm=3"], r"algorithm=3: expected the name of a file"),
        (["workload.resources.minutes=0"], r"workload.resources.minutes: got 0, expected a number above 0"),
        (["workload.resources.gpus=all"], r"workload.resources.gpus: got 'all', expected 0, 1 \(a cell"),
        (["workload.resources.hours=1"], r"unknown key 'workload.resources.hours'"),
        (["algorithm.optimizer.lr=null"], r"algorithm.optimizer.lr: got null, expected a number"),
        (["algorithm=lars", "algorithm.optimizer.variant=null"], r"variant: got null, expected text"),
        (["workload.batch_size=null"], r"workload.batch_size: got null, expected an integer"),
        (["ruleset=external_tuning", "ruleset.budget_factor=0.00001"],
         r"ruleset.budget_factor: got 1e-05, which leaves less than one of 48,000"),
        (["algorithm=sam", "algorithm.estimator.time_factor=x"], r"time_factor: got 'x', expected a number"),
    ],
)  # fmt: skip
def test_bad_input_says_what_and_what_instead(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        compose(overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "provisional"),
    [
        (["workload=digits"], False),
        (["workload=cifar10"], True),
        (["workload=cifar10", "workload.model=resnet18"], True),
        (["workload=cifar10", "workload.target=0.9"], False),  # that one is the user's
    ],
)
def test_a_target_that_was_not_reproduced_is_marked(overrides: list[str], provisional: bool) -> None:
    config = compose(overrides)
    assert config["provisional"] is provisional and config["workload"]["target"] is not None


@pytest.mark.parametrize(
    ("given", "target"), [([], None), (["workload.target=0.95"], 0.95), (["workload.target=auto"], None)]
)
def test_a_variant_has_the_target_that_is_asked_for(given: list[str], target: float | None) -> None:
    variant = ["workload=grok_modadd", "workload.train_fraction=0.7", "workload.batch_size=8938", *given]
    assert compose(variant)["workload"]["target"] == target


def test_a_target_that_an_experiment_gives_is_the_variants(experiments: Experiments) -> None:
    variant = "defaults: [override /workload: grok_modadd]\nworkload: {target: 0.95, train_fraction: 0.7"
    dirs = experiments(mine=variant + ", batch_size: 8938}")
    assert compose(["+experiment=mine"], dirs)["workload"]["target"] == 0.95
    assert compose(["+experiment=mine", "workload.target=auto"], dirs)["workload"]["target"] is None


def test_a_target_belongs_to_the_data_it_was_set_on(monkeypatch: pytest.MonkeyPatch) -> None:
    known = compose(["workload=tiny_lm_pydocs"])["workload"]
    monkeypatch.setattr("workloads.pydocs.data_id", lambda: "another text")
    other = compose(["workload=tiny_lm_pydocs"])["workload"]
    assert other["data_id"] == "another text" and other["target"] is None
    assert known["data_id"] != other["data_id"]


def test_a_part_that_is_null_is_absent() -> None:
    config = compose(["algorithm=adamw", "algorithm/groups=null"])
    assert set(config["algorithm"]) == {"_target_", "optimizer", "schedule"}
    assert config["label"] == "adamw-groups"


@pytest.mark.parametrize(
    ("overrides", "label", "workload"),
    [
        ([], "adamw", "digits"),
        (["algorithm.optimizer.lr=3e-4"], "adamw[lr=0.0003]", "digits"),
        (["algorithm.optimizer.lr=3e-3"], "adamw", "digits"),  # that is the default
        (["algorithm/schedule=null", "workload=breast_cancer"], "adamw-schedule", "breast_cancer"),
        (["workload.batch_size=16"], "adamw", "digits[batch_size=16]"),
        (["label=mine"], "mine", "digits"),
        (["algorithm/transform=[clip_norm,perpgrad]"], "adamw+clip_norm+perpgrad", "digits"),
        (["workload=mnist", "workload.download=false"], "adamw", "mnist"),
        (["algorithm.optimizer.betas=[0.9,0.99]"], "adamw[betas=0.9/0.99]", "digits"),
        (["algorithm.optimizer.search_space.lr.max=0.3"], "adamw[lr.max=0.3]", "digits"),
        # Numbers in the shortest form that is theirs alone.
        (["algorithm.optimizer.betas=[0.9,0.9999999]"], "adamw[betas=0.9/0.9999999]", "digits"),
        (["algorithm.optimizer.betas=[0.9,0.99999999]"], "adamw[betas=0.9/0.99999999]", "digits"),
        (["workload.label_noise=0.2"], "adamw", "digits_noise20"),
        (["workload.label_noise=0.20000001"], "adamw", "digits_noise20.000001"),
        # What is taken out is named; so is the part, where two of them have the key.
        (["~algorithm.optimizer.weight_decay"], "adamw[weight_decay=None]", "digits"),
        (["algorithm=mechanic", "algorithm.optimizer.eps=1e-7"], "mechanic[optimizer.eps=1e-07]", "digits"),
        (["algorithm=mechanic", "algorithm.wrapper.mechanic.eps=1e-7"],
         "mechanic[wrapper.mechanic.eps=1e-07]", "digits"),
        (["algorithm=lion.yaml", "algorithm/loss=/z_loss.yaml"], "lion+z_loss", "digits"),
    ],
)  # fmt: skip
def test_labels_name_what_was_changed(overrides: list[str], label: str, workload: str) -> None:
    config = compose(overrides)
    assert (config["label"], config["workload_label"]) == (label, workload)


def test_identity_covers_what_matters_and_nothing_else(tmp_path: Path) -> None:
    base = identity(compose([]))
    for same in (["name=x"], [f"results_dir={tmp_path}"], ["data_dir=y"], ["checkpoint_every=1"], ["label=l"],
                 ["diagnostics=null"],
                 ["keep_checkpoint=true"], ["workers=2"], ["per_gpu=3"], ["dry_run=true"],
                 ["wait=true"], ["then=score"], ["cells_per_task=4"], ["minutes_per_task=5"],
                 ["grid=[{study:3}]"], ["ruleset=external_tuning"],
                 ["workload.resources.minutes=7"]):  # fmt: skip
        assert identity(compose(same)) == base, same
    others = [["study=1"], ["trial=1"], ["algorithm.optimizer.lr=2e-3"], ["workload=breast_cancer"],
              ["workload.precision=bf16"], ["threads=2"], ["stop_at_target=false"], ["workload.target=0.5"],
              ["algorithm/schedule=null"]]  # fmt: skip
    ids = [identity(compose(other)) for other in others]
    assert len({base, *ids}) == len(others) + 1


def test_hardware_needs_and_time_factors_are_in_no_label(tmp_path: Path) -> None:
    overrides = [
        "workload.resources.minutes=7",
        "algorithm/estimator=sam",
        "algorithm.estimator.time_factor=3",
    ]
    config = compose(overrides)
    assert (config["label"], config["workload_label"]) == ("adamw+sam", "digits")
    assert "resources" not in config["workload"] and "time_factor" not in config["algorithm"]["estimator"]


def test_the_environment_is_read_anew_by_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", "one")
    assert compose([])["data_dir"] == str(Path.cwd() / "one")
    monkeypatch.setenv("BENCH_DATA", "two")
    assert compose([])["data_dir"] == str(Path.cwd() / "two")


def test_an_edited_file_is_seen_by_the_next_call_and_not_before(tmp_path: Path) -> None:
    file = tmp_path / "algorithm" / "optimizer" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# x\n_target_: torch.optim.SGD\nlr: 0.1\n")
    with hydra_ready([tmp_path]):
        assert compose(["algorithm=mine"], [tmp_path])["algorithm"]["optimizer"]["lr"] == 0.1
        file.write_text("# x\n_target_: torch.optim.SGD\nlr: 0.25\n")
        os.utime(file, (2e9, 2e9))
        assert compose(["algorithm=mine"], [tmp_path])["algorithm"]["optimizer"]["lr"] == 0.1
    assert compose(["algorithm=mine"], [tmp_path])["algorithm"]["optimizer"]["lr"] == 0.25


@pytest.mark.parametrize("shared", [["algorithm=lion", "study=1"], ["+experiment=demo", "workload=digits"]])
def test_cells_that_share_files_share_nothing_else(shared: list[str]) -> None:
    others = [
        ["trial=1"],
        ["trial=2"],
        ["algorithm.schedule.warmup=0.2"],
        ["~algorithm/schedule"],
        ["label=x"],
    ]
    alone = [compose([*shared, *other]) for other in others]
    with hydra_ready():
        forth = [compose([*shared, *other]) for other in others]
        back = [compose([*shared, *other]) for other in reversed(others)]
    assert alone == forth == back[::-1]


@pytest.mark.parametrize(
    ("yaml", "label"),
    [
        ("algorithm: {optimizer: {lr: 0.5}}", "adamw[lr=0.5]"),
        ("defaults: [override /algorithm: lion, _self_]", "lion"),
        ("defaults: [override /algorithm/loss: label_smoothing]", "adamw+label_smoothing"),
    ],
)
def test_a_label_names_what_an_experiment_changes(tmp_path: Path, yaml: str, label: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{yaml}\n")
    assert compose(["+experiment=mine"], [tmp_path])["label"] == label


def test_a_value_made_from_the_study_follows_it(tmp_path: Path) -> None:
    file = tmp_path / "algorithm" / "optimizer" / "drifting.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# x\n_target_: torch.optim.SGD\nlr: ${study}\n")
    with hydra_ready([tmp_path]):
        lrs = [
            compose(["algorithm=drifting", f"study={s}"], [tmp_path])["algorithm"]["optimizer"]["lr"]
            for s in (1, 2)
        ]
    assert lrs == [1, 2]


def test_the_resolved_config_holds_no_search_space_and_no_target_table() -> None:
    config = compose([])
    assert "search_space" not in config["algorithm"]["optimizer"]
    assert "optimizer.lr" in config["search_space"]
    assert config["targets"] == "v1"


def test_trials_are_points_of_the_search_space_and_overrides_win() -> None:
    config = compose(["trial=3", "study=1"])
    space = config["search_space"]["optimizer.lr"]
    lr = config["algorithm"]["optimizer"]["lr"]
    assert space["min"] <= lr <= space["max"] and lr != compose([])["algorithm"]["optimizer"]["lr"]
    assert config["label"] == "adamw"
    fixed = compose(["trial=3", "study=1", "algorithm.optimizer.lr=0.5"])
    assert fixed["algorithm"]["optimizer"]["lr"] == 0.5


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ("algorithm.optimizer.lr=3e-3", "lr", 3e-3),  # each of them the value of its file
        ("algorithm.optimizer.weight_decay=0.01", "weight_decay", 0.01),
        ("algorithm.optimizer={lr: 3e-3}", "lr", 3e-3),
        ("++algorithm.optimizer.lr=0.003", "lr", 3e-3),
        ("+experiment=mine", "lr", 3e-3),
        ("+experiment=outer", "lr", 3e-3),
    ],
)
def test_what_is_given_stays_in_a_trial_also_where_it_is_the_usual_value(
    experiments: Experiments, given: str, key: str, value: float
) -> None:
    dirs = experiments(mine="algorithm: {optimizer: {lr: 3e-3}}", outer="defaults: [mine]\nname: x")
    searched, pinned = compose(["trial=1"]), compose(["trial=1", given], dirs)
    changed = {k: v for k, v in pinned["algorithm"]["optimizer"].items()
               if v != searched["algorithm"]["optimizer"][k]}  # fmt: skip
    assert changed == {key: value}
    assert pinned["label"] == f"adamw[{key}={value:g}]"
    assert compose([given], dirs)["label"] == "adamw"  # without a search there is nothing to tell apart


def test_what_a_sub_grid_gives_stays_in_a_trial(experiments: Experiments) -> None:
    dirs = experiments(mine="grid: [{algorithm.optimizer.lr: [3e-3, 1e-3]}]")
    cells = [compose(o, dirs) for o in expand(["+experiment=mine", "trial=1"], dirs)]
    assert [cell["algorithm"]["optimizer"]["lr"] for cell in cells] == [3e-3, 1e-3]


def test_every_part_is_a_preset_of_its_own_name() -> None:
    names = algorithm_names()
    assert {"adamw", "cosine", "no_decay_1d"} <= set(names) and "composed" not in names
    assert {"digits", "breast_cancer"} <= set(workload_names())


def test_a_name_used_by_two_parts_is_refused(tmp_path: Path) -> None:
    for kind in ("loss", "transform"):
        (tmp_path / "algorithm" / kind).mkdir(parents=True)
        (tmp_path / "algorithm" / kind / "twin.yaml").write_text("# a twin\n_target_: x.Y\n")
    with pytest.raises(UserError, match="two parts are called 'twin'"):
        implied([tmp_path])
    with pytest.raises(UserError, match="two parts are called 'twin'"):
        compose([], [tmp_path])


def test_an_optimizer_from_outside_needs_one_yaml(tmp_path: Path) -> None:
    (tmp_path / "algorithm" / "optimizer").mkdir(parents=True)
    yaml = "# RAdam, as torch has it\n_target_: torch.optim.RAdam\nlr: 1e-3\n"
    (tmp_path / "algorithm" / "optimizer" / "radam.yaml").write_text(yaml)
    config = compose(["algorithm=radam"], [tmp_path])
    assert config["label"] == "radam"
    assert config["algorithm"]["optimizer"] == {"_target_": "torch.optim.RAdam", "lr": 1e-3}
    with pytest.raises(UserError, match=r"unknown algorithm.* 'radam'"):
        compose(["algorithm=radam"])


def test_a_value_outside_a_parts_own_bounds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "algorithm" / "optimizer").mkdir(parents=True)
    yaml = "# x\n_target_: torch.optim.SGD\nlr: 0.1\ndampening: 0.0\nbounds: {dampening: [0, 0.5]}\n"
    (tmp_path / "algorithm" / "optimizer" / "damped.yaml").write_text(yaml)
    with pytest.raises(UserError, match=r"dampening: got 0.9, expected a number from 0 to 0.5"):
        compose(["algorithm=damped", "algorithm.optimizer.dampening=0.9"], [tmp_path])
    config = compose(["algorithm=damped", "algorithm.optimizer.dampening=0.4"], [tmp_path])
    assert "bounds" not in config["algorithm"]["optimizer"]


def test_a_batch_that_is_larger_than_the_budget_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"budget_samples must be at least one batch, workload\.batch_size=1000, got 33"
    ):
        compose(["workload=digits", "workload.batch_size=1000", "workload.budget_samples=33"])
    assert compose(["workload=digits", "workload.batch_size=33", "workload.budget_samples=33"])
