"""Every check of workloads catches the bugs it exists for, and lets well-behaved workloads pass."""

from __future__ import annotations

from typing import Any

import pytest

from runner.check import WORKLOAD_CHECKS, WorkloadSubject, run_workload_check, run_workload_checks
from tests.doubles.workloads import config

CLEAN = ("Blobs", "Moving", "Normed", "Hinged", "Loud", "Binary", "Text", "Line", "losses.Scored",
         "losses.Kinded", "facts.Streamed", "regression.Measured")  # fmt: skip
INFO = "facts.Says"

# the planted bug, the check it is for, and words of the message
PLANTED = [
    ("losses.LoudAndSilent", "init", "that of a uniform guess 1.61"),
    ("losses.Sure", "init", "that of a uniform guess 1.61"),
    ("losses.SoftmaxModel", "reference", "outputs are probabilities in evaluation mode"),
    ("losses.SoftmaxText", "reference", "outputs are probabilities"),
    ("losses.SigmoidModel", "reference", "outputs are probabilities"),
    ("losses.SoftmaxInEvaluation", "reference", "outputs are probabilities in evaluation mode"),
    ("losses.SoftmaxInTraining", "reference", "outputs are probabilities in training mode"),
    ("losses.EvaluatesNllOfProbabilities", "reference", "a negative log-likelihood of probabilities"),
    ("losses.EvaluatesEntropyOfProbabilities", "reference", "softmax is applied twice"),
    ("losses.EvaluatesNllOfLogits", "reference", "nll_loss of logits"),
    ("losses.EvaluatesDividedOnceMore", "reference", "a mean is divided once more, by 64"),
    ("losses.EvaluatesDividedOnceMore", "batch", "with all rows in one batch"),
    ("losses.EvaluatesBits", "reference", "a row-by-row reference has"),
    ("losses.EvaluatesPercent", "reference", "is 20.3125, a row-by-row reference has 0.203125"),
    ("losses.TrainsNllOfProbabilities", "reference", "task.losses has -0.17"),
    ("losses.TrainsSoftmaxTwice", "reference", "task.backward returns 1.60316"),
    ("losses.TrainsDividedRows", "reference", "task.losses has 0.027484 for a row"),
    ("losses.TrainsDividedMean", "reference", "divided once more, by 64"),
    ("losses.TrainsOtherGradients", "reference", "leaves other gradients than its own: 0.01563 times"),
    ("losses.TextSummed", "reference", "a sum over 16, not a mean"),
    ("losses.OwnNllOfProbabilities", "reference", "below zero: does it lack a log?"),
    ("losses.OwnSoftmaxTwice", "reference", "does it take softmax of probabilities?"),
    ("losses.OwnDivided", "reference", "divided once more, by 64"),
    ("losses.OwnIgnored", "reference", "a row-by-row reference has"),
    ("planted.AveragesBatches", "batch", "in batches of 7"),
    ("planted.DropsLastBatch", "batch", "passes 28 rows through the model for the 31 of validation"),
    ("planted.FixesSplits", "batch", "it must read self.splits"),
    ("planted.HidesSplits", "batch", "needs `splits`"),
    ("planted.LeavesTrainingMode", "inert", "leaves the model in training mode"),
    ("planted.UpdatesStatistics", "inert", "changes weights or buffers: 1.running_mean"),
    ("planted.CentresRows", "inert", "changes scored rows"),
    ("planted.DrawsNumbers", "inert", "changes numpy's global generator"),
    ("planted.KeepsGraphs", "inert", "torch.no_grad()"),
    ("planted.Wobbles", "inert", "twice gives two answers"),
    ("planted.LeaksValidation", "splits", "10.31% of the 97 rows of validation are in training too"),
    ("planted.TestsOnValidation", "splits", "100.00% of the 97 rows of test are in validation too"),
    ("planted.OverlapsText", "splits", "64-token pieces of validation are in training too"),
    ("planted.OverlapsWindows", "splits", "8-token pieces of validation are in training too"),
    ("planted.DealsAnew", "repeat", "two builds from one seed differ in the training rows"),
    ("planted.ShufflesWithPython", "repeat", "two builds from one seed differ in the training rows"),
    ("planted.DealsBySeed", "repeat", "another seed gives other training rows"),
    ("planted.SameOrder", "repeat", "another seed gives the same batches"),
    ("planted.SameWeights", "repeat", "another seed gives the same initial weights"),
    ("planted.SetVocabulary", "process", "another process has other training rows"),
    ("planted.KeepsEverything", "reach", "closure[training].x holds rows of a scored split"),
    ("planted.KeepsArrays", "reach", "arrays['everything'] holds rows of a scored split"),
    ("planted.KeepsText", "reach", "tokens holds rows of a scored split"),
    ("planted.KeepsViews", "reach", "task.info.more holds rows of a scored split"),
    ("planted.KeepsEvaluation", "reach", "is the evaluation of the scored splits"),
    ("facts.RotatesRows", "stream", "resemble other rows as much as their own"),
    ("facts.ShakesGlobally", "stream", "draws from torch's global generator"),
    ("facts.ShakesWithMemory", "stream", "next() after load_state_dict differs"),
    ("facts.LeavesRange", "stream", "beyond info.input_range=(0.0, 1.0)"),
    ("facts.Doubles", "stream", "torch.float64 on cpu, wanted shape (12,), torch.float32"),
    ("facts.LosesRows", "stream", "no permutation of its 203 rows: 4 of them are missing"),
    ("facts.Unshuffled", "stream", "rows in the same order"),
    ("facts.Mislabels", "stream", "next() has targets that are not those of batch.index"),
    ("facts.TakesOthers", "stream", "take(index) answers other rows"),
    ("facts.IgnoresOptions", "options", "label_noise=0.2 changes 0.0% of the training labels"),
    ("facts.IgnoresAux", "options", "task.aux['clean'] has no rows"),
    ("facts.NoisyEverywhere", "options", "changes validation: scored rows are never touched"),
    ("facts.NoisyBySeed", "options", "gives other labels with another seed"),
    ("facts.KeepsRowsSetAside", "options", "no partition of the training split (40 rows too many"),
    ("facts.NoisyClean", "options", "100.0% of the clean rows have other labels"),
    ("facts.HalfPrecision", "options", "with precision=bf16 the first loss is not finite"),
    ("facts.TokensInRange", "info", "tokens have none, so None"),
    ("facts.MissingInputs", "info", "inputs are not all finite"),
    ("facts.DividedTwice", "info", "are they divided twice?"),
    ("facts.FloatTargets", "info", "targets of training are torch.float32"),
    ("regression.FarOff", "init", "that of guessing zero"),
    ("regression.TwoColumns", "reference", "outputs are of shape (64, 1); those of a regression task"),
    ("regression.OwnLoss", "reference", "a loss of its own, of logits and class ids"),
    ("regression.EvaluatesHalf", "reference", ": half the squared error"),
    ("regression.EvaluatesAbsolute", "reference", "the absolute error, not its square"),
    ("regression.EvaluatesRoot", "reference", "a row-by-row reference has"),
    ("regression.TrainsHalf", "reference", "half the squared error"),
    ("regression.TrainsSum", "reference", "a sum over 64, not a mean"),
    ("regression.AveragesBatches", "batch", "in batches of 7"),
    ("regression.HasClasses", "info", "info.num_classes is 5, and a regression task has 0"),
    ("regression.WholeTargets", "info", "are torch.int64 of shape (203,), wanted one float a row"),
    ("regression.MissingTargets", "info", "targets of training are not all finite"),
    ("facts.LossAlone", "info", "metric is accuracy, but the evaluation of validation reports loss"),
]  # fmt: skip

# what the config says and what the check answers
STATED = [
    ({"says": {"info": {"num_train": 200}}}, "info.num_train is 200, but it is 203"),
    ({"says": {"info": {"num_classes": 6}}}, "no training row is of class 5"),
    ({"says": {"info": {"num_classes": 4}}}, "wanted class ids from 0 to num_classes − 1 = 3"),
    ({"says": {"info": {"input_shape": [3, 4]}}}, "info.input_shape is (3, 4), but it is (12,)"),
    ({"says": {"info": {"input_range": [0.2, 0.8]}}}, "training inputs go from 0 to 1"),
    ({"says": {"info": {"input_range": [0, 255]}}}, "training inputs only go from 0 to 1"),
    ({"says": {"info": {"has_batchnorm": True}}}, "info.has_batchnorm is True, but it is False"),
    ({"says": {"info": {"batch_size": 16}}}, "info.batch_size is 16, but it is 8"),
    ({"says": {"info": {"budget_samples": 9}}}, "info.budget_samples is 9, but it is 8000"),
    ({"says": {"info": {"target": 0.9}}}, "info.target is 0.9, but it is None"),
    ({"says": {"roles": ["2.bias"]}}, "info.param_kind lacks 2.bias"),
    ({"says": {}, "batch_size": 204, "eval_every": 204}, "info.batch_size is 204, with 203 training rows"),
    ({"says": {}, "eval_every": 161}, "eval_every=161 is no multiple of batch_size=8"),
    ({"says": {}, "eval_every": 4000}, "2 evaluations; wanted 5 to 1000"),
    ({"says": {}, "target": 1.5}, "target=1.5 cannot be reached"),
    ({"says": {}, "target": 0.02}, "target=0.02 is met before training"),
    ({"says": {}, "minimize": True}, "the wrong way round"),
]


def subject(name: str, **changes: Any) -> WorkloadSubject:
    """The double of that name: of ``workloads.py``, or of ``workloads_<module>.py`` for ``module.Name``."""
    return WorkloadSubject(config(f"workloads_{name}" if "." in name else name, **changes))


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_workload_passes_everything(name: str) -> None:
    names = [check for check in WORKLOAD_CHECKS if check != "process"]
    answers = dict(run_workload_checks(subject(name), names))
    assert list(answers) == names
    assert {check: r.message for check, r in answers.items() if r.status != "ok"} == {}


@pytest.mark.parametrize(("bug", "check", "says"), PLANTED, ids=[f"{row[0]}-{row[1]}" for row in PLANTED])
def test_a_planted_bug_is_caught_by_its_check(bug: str, check: str, says: str) -> None:
    result = run_workload_check(check, subject(bug))
    assert result.status == "failed"
    assert says in result.message


@pytest.mark.parametrize(("stated", "says"), STATED, ids=[row[1] for row in STATED])
def test_a_fact_that_is_not_so_is_named(stated: dict[str, Any], says: str) -> None:
    result = run_workload_check("info", subject(INFO, **stated))
    assert result.status == "failed"
    assert says in result.message


def test_every_check_has_a_planted_bug() -> None:
    assert {check for _, check, _ in PLANTED} == set(WORKLOAD_CHECKS)


def test_a_reason_for_the_first_loss_is_shown() -> None:
    result = run_workload_check("init", subject("Loud"))
    assert (result.status, result.message.rpartition(": ")[2]) == ("ok", "weights as in a paper")


def test_a_yaml_without_a_summary_is_told() -> None:
    bare = WorkloadSubject(config("Blobs"), summary="")
    assert "must be a comment" in run_workload_check("info", bare).message


def test_options_that_a_config_lacks_do_not_apply() -> None:
    bare = {
        key: value for key, value in config("Blobs").items() if key not in ("precision", "label_noise", "aux")
    }
    assert run_workload_check("options", WorkloadSubject(bare)).status == "skipped"


def test_duplicates_that_training_has_too_are_a_remark() -> None:
    result = run_workload_check("splits", subject("facts.Repeats"))
    assert result.status == "ok"
    assert "rows of validation are in training too" in result.message


def test_a_metric_of_its_own_has_no_reference() -> None:
    result = run_workload_check("reference", subject("facts.MoreMetrics"))
    assert (result.status, result.message) == ("ok", "no reference for confidence")


def test_a_crash_fails_the_check_and_names_its_place() -> None:
    result = run_workload_check("stream", subject("facts.Crashes"))
    assert result.status == "failed"
    assert result.message.startswith("ZeroDivisionError: division by zero (workloads_facts.py:")
