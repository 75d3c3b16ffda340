"""What a message tells people to write can be written: every hint is tried."""

from __future__ import annotations

import re
import shlex

import pytest

from runner.base.errors import UserError
from runner.compose.commandline import split
from runner.compose.config import compose

# What people type, and the part of the answer that they are to paste.
TYPED = [
    ("lr=1e-3", "algorithm.optimizer.lr=1e-3"),
    ("learning_rate=1e-3", "algorithm.optimizer.lr=1e-3"),
    ("weight_decay=0.1", "algorithm.optimizer.weight_decay=0.1"),
    ("betas=[0.9,0.99]", "'algorithm.optimizer.betas=[0.9,0.99]'"),
    ("batch_size=64", "workload.batch_size=64"),
    ("bs=64", "workload.batch_size=64"),
    ("target=0.9", "workload.target=0.9"),
    ("warmup=0.1", "algorithm.schedule.warmup=0.1"),
    ("algorithm.lr=1e-3", "algorithm.optimizer.lr=1e-3"),
    ("seed=3", "study=3"),
    ("seed=0,1", "-m study=0,1"),
    ("seeds=5", "-m study=0,1,2"),
    ("data=digits", "workload=digits"),
    ("gpus=1", "device=cuda"),
    ("+lr=1e-3", "algorithm.optimizer.lr=0.001"),
    ("optimizer=lion", "algorithm=lion"),
    ("optimizer=lion", "algorithm/optimizer=lion"),
    ("loss=label_smoothing", "algorithm/loss=label_smoothing"),
    ("scheduler=constant", "algorithm/schedule=constant"),
    ("algorithm.optimizer=lion", "algorithm/optimizer=lion"),
    ("algorithm.loss=label_smoothing", "algorithm/loss=label_smoothing"),
    ("algorithm.schedule=null", "algorithm/schedule=null"),
    ("dataset=digits", "workload=digits"),
    ("+exp=demo", "+experiment=demo"),
    ("output_dir=there", "results_dir=there"),
    ("study=0..4", "-m study=0,1,2"),
    ("study=[0,1,2]", "-m study=0,1,2"),
    ("study=0,1", "-m study=0,1"),
    ("algorithm=lion,sgd", "-m algorithm=lion,sgd"),
    ("workload=[digits,breast_cancer]", "-m workload=digits,breast_cancer"),
    ("label=a,b", "-m label=a,b"),
    ("label=a,b", "\"label='a,b'\""),
    ("algorithm.optimizer.betas=0.9,0.99", "'algorithm.optimizer.betas=[0.9,0.99]'"),
    ("algorithm.optimizer.betas=(0.9,0.99)", "'algorithm.optimizer.betas=[0.9,0.99]'"),
    ("algorithm.optimizer.lr=1e-3,", "algorithm.optimizer.lr=1e-3"),
    ("algorithm.optimizer.lr=1e−3", "algorithm.optimizer.lr=1e-3"),
    ("label=“a”", "'label=\"a\"'"),
    ("label=李明", "\"label='李明'\""),
    ("name=ü", "\"name='ü'\""),
    ("label=it's", shlex.quote("label='it\\'s'")),
    ("label=a(b)", "\"label='a(b)'\""),
    ("label=a=b", "\"label='a=b'\""),
    ("algorithm:lion", "algorithm=lion"),
    ("algorithm lion", "algorithm=lion"),
    ("--algorithm=lion", "algorithm=lion"),
    ("lion", "algorithm=lion"),
    ("breast_cancer", "workload=breast_cancer"),
    ("+algorithm=lion", "algorithm=lion"),
    ("ruleset.studies=3", "ruleset=external_tuning"),
]


@pytest.mark.parametrize(("typed", "hint"), TYPED)
def test_a_mistake_is_answered_by_what_does_it(typed: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        compose([typed])
    message = str(caught.value)
    assert "\n" not in message and re.search(rf"(^|[\s(]){re.escape(hint)}([\s,;?)]|$)", message), message
    flags, overrides = [], []
    for argument in shlex.split(hint):
        (flags if argument == "-m" else overrides).append(argument)
    for job in split(overrides):
        assert flags or job == overrides
        compose(job)


@pytest.mark.parametrize("typed", ["epochs=10", "steps=1000", "max_steps=1000"])
def test_a_length_in_another_unit_names_the_key_alone(typed: str) -> None:
    with pytest.raises(UserError, match=r"did you mean workload\.budget_samples=<samples>\?"):
        compose([typed])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("experiment=demo", "+experiment=demo"),
        ("algorithm=lion.yaml", "algorithm=lion"),
        ("algorithm/loss=none", "algorithm/loss=null"),
        ("diagnostics=none", "diagnostics=null"),
        ("log=null", "log=none"),
        ("ruleset=none", "ruleset=null"),
    ],
)
def test_two_spellings_of_one_choice(typed: str, meant: str) -> None:
    assert compose([typed]) == compose([meant])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("~algorithm", "algorithm: one file is needed"),
        ("~workload", "workload: one file is needed"),
        ("~targets", "targets: one file is needed"),
        ("workload=null", "workload=null: expected the name of a file"),
        ("~workload.name", r"~workload\.name: keys cannot be deleted"),
        ("~device", "~device: keys cannot be deleted"),
        ("~workload.batch_size", "cannot be deleted"),
        ("~algorithm.schedule", "algorithm.schedule: a part is removed by algorithm/schedule=null"),
        ("workload=_options", "unknown workload '_options': known: breast_cancer"),
        ("algorithm={optimizer: {lrr: 1}}", r"unknown key 'algorithm\.optimizer\.lrr'.*\.lr,"),
        ("+workloads=digits", "unknown key 'workloads': did you mean workload"),
        ("+ruleset.trails=3", "ruleset: choose one"),
        ("+workload.aux.hold=3", r"unknown key 'workload\.aux\.hold'.*holdout"),
        ("algorithm=LION", "did you mean lion"),
        ("algorithm=optimizer/lion", "unknown algorithm 'optimizer/lion': did you mean lion"),
        ("workload=../workload/digits", "did you mean digits"),
        ("workload.budget_samples=10k", r"workload\.budget_samples: got '10k', expected an integer"),
        ("workload.budget_samples=null", r"workload\.budget_samples: got null, expected an integer"),
        ("workload.batch_size=64k", r"workload\.batch_size: got '64k', expected an integer"),
        ("", "settings are key=value"),
        ("data_dir=null", "data_dir: got null, expected a folder"),
    ],
)
def test_what_hydra_takes_and_no_cell_can_use(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose([override])
