"""The loop on a model of one number, where every step can be followed by hand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runner.base.errors import Diverged
from runner.contract.algorithm import Algorithm
from runner.contract.batch import Info
from runner.contract.cost import Cost
from runner.contract.stream import Stream
from runner.contract.task import Task
from runner.train import loop as module
from runner.train.clock import Clock
from runner.train.loop import Guard, Loop, Plan, Unsound, hits
from runner.train.session import summarise


class OneNumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.register_buffer("seen", torch.zeros(1))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        return self.dropout(x).sum(1) * self.w


class Counting(Algorithm):
    """Adds 1 to the weight at every step."""

    def __init__(self, size: int = 4) -> None:
        self.size, self.observed, self.calls = size, [], []  # type: ignore[var-annotated]

    def step(self, task: Task) -> Tensor:
        batch = task.data.next(self.size)
        with torch.no_grad():
            task.model(batch.x)
            task.params[0].add_(1)
        return task.params[0].detach().sum().clone()

    def observe(self, metrics: Any) -> None:
        self.observed.append(dict(metrics))


class Log:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.saves = self.beats = 0

    def row(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def heartbeat(self, steps: int, drawn: int) -> None:
        self.beats += 1

    def checkpoint(self) -> None:
        self.saves += 1


def make(
    algorithm: Algorithm,
    budget: int = 40,
    target: float | None = 1e9,
    minimize: bool = False,
    evaluate: Callable[..., dict[str, float]] | None = None,
    **plan: Any,
) -> tuple[Loop, Log]:
    info = Info("binary", "linear", "score", target, minimize, 16, 2, (3,), (0.0, 1.0), 4, budget)
    stream = Stream(torch.rand(16, 3), torch.zeros(16), 4, seed=1, cost=Cost())
    task = Task(OneNumber, stream, info, seed=1)
    task.model.train()
    log = Log()

    def by_weight(model: nn.Module, split: str, predict: object) -> dict[str, float]:
        assert not model.training
        return {"score": model.w.item()}  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]

    settings: dict[str, Any] = {"eval_every": 10, **plan}
    return Loop(task, algorithm, evaluate or by_weight, Plan(**settings), Clock(), log), log


def test_evaluations_lie_on_the_grid_of_trained_samples() -> None:
    loop, log = make(Counting())
    assert loop.run() == "budget"
    assert [row["drawn"] for row in log.rows] == [0, 12, 20, 32, 40]
    assert [row["validation/score"] for row in log.rows] == [0, 3, 5, 8, 10]
    assert [row["train/loss"] for row in log.rows[1:]] == [2, 4.5, 7, 9.5]  # means over each segment


@pytest.mark.parametrize(
    ("size", "drawn", "hit"), [(4, 40, True), (14, 42, True), (22, 44, False), (300, 300, False)]
)
def test_a_hit_a_batch_or_more_past_the_budget_does_not_count(size: int, drawn: int, hit: bool) -> None:
    loop, log = make(
        Counting(size=size), target=math.ceil(40 / size), stop_at_target=False
    )  # by the last step
    loop.run()
    assert log.rows[-1]["drawn"] == drawn
    assert (loop.progress.hit is log.rows[-1]) == hit
    assert loop.past_budget != hit
    assert summarise(loop, "budget", 0.0).get("rows_past_budget") == (None if hit else drawn - 40)


def test_a_hit_within_the_budget_counts_whatever_comes_behind() -> None:
    loop, log = make(Counting(size=15), budget=50, target=1, stop_at_target=False)
    loop.run()
    assert loop.past_budget and loop.progress.hit is log.rows[1]


def test_a_batch_size_that_jumps_over_grid_points_skips_them() -> None:
    loop, log = make(Counting(size=15), budget=60)
    loop.run()
    assert [row["drawn"] for row in log.rows] == [0, 15, 30, 45, 60]


def test_the_test_split_is_measured_at_the_hit_and_at_the_end_alone() -> None:
    loop, log = make(Counting(), target=5, stop_at_target=False)
    loop.run()
    assert ["test/score" in row for row in log.rows] == [False, False, True, False, True]
    assert loop.progress.hit is log.rows[2]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_no_number_ends_the_run_without_a_hit(value: float) -> None:
    def evaluate(model: nn.Module, *_: object) -> dict[str, float]:
        return {"score": value if model.w > 0 else 0.0}  # pyright: ignore[reportOperatorIssue]

    loop, log = make(Counting(), target=5, evaluate=evaluate)
    assert loop.run() == "diverged"
    assert loop.progress.hit is None and len(log.rows) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number_before_any_training_is_nobodys_divergence(value: float) -> None:
    loop, log = make(Counting(), target=5, evaluate=lambda *_: {"score": value})
    with pytest.raises(Unsound, match=f"validation/score is {value}"):
        loop.run()
    assert loop.progress.hit is None and len(log.rows) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_test_split_decides_nothing(value: float) -> None:
    def evaluate(model: nn.Module, split: str, _predict: object) -> dict[str, float]:
        return {"score": value if split == "test" else model.w.item()}  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]

    loop, log = make(Counting(), target=5, evaluate=evaluate)
    assert loop.run() == "target" and loop.progress.hit is log.rows[-1]


def test_a_nan_training_loss_is_diverged_and_never_hits() -> None:
    class Nan(Counting):
        def step(self, task: Task) -> Tensor:
            return super().step(task) * float("nan")

    loop, _ = make(Nan(), target=1)
    assert loop.run() == "diverged"
    assert loop.progress.hit is None


def test_a_part_may_say_itself_that_it_has_diverged() -> None:
    class Gives(Counting):
        def step(self, task: Task) -> Tensor:
            super().step(task)
            raise Diverged("step size is zero")

    loop, log = make(Gives())
    assert loop.run() == "diverged" and len(log.rows) == 2


@pytest.mark.parametrize(
    ("value", "target", "minimize", "hit"),
    [(1.0, 1.0, False, True), (1.0, 1.0, True, True), (0.9, 1.0, False, False), (1.1, 1.0, True, False),
     (math.inf, 1.0, False, False), (-math.inf, 1.0, True, False),
     (math.nan, 1.0, True, False), (math.nan, 1.0, False, False), (5.0, None, False, False)],
)  # fmt: skip
def test_a_hit_is_at_least_as_good_as_the_target(
    value: float, target: float | None, minimize: bool, hit: bool
) -> None:
    assert hits(value, target, minimize) is hit


def test_evaluating_changes_nothing_whatever_the_algorithm_does_in_it() -> None:
    class Vandal(Counting):
        def enter_eval(self, task: Task) -> None:
            task.params[0].data.fill_(1000.0)
            task.model.seen.fill_(1000.0)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
            task.model.train()
            torch.rand(7)

    def run(**plan: Any) -> tuple[float, float, Tensor]:
        torch.manual_seed(0)
        loop, _ = make(Vandal(), **plan)
        loop.run()
        return loop.task.params[0].item(), loop.task.model.seen.item(), torch.rand(3)  # type: ignore[union-attr]

    often, seldom = run(eval_every=4), run(eval_every=40)
    assert often[:2] == seldom[:2] == (10, 10)
    assert torch.equal(often[2], seldom[2])


def test_evaluation_forward_passes_are_not_counted() -> None:
    loop, log = make(Counting(), evaluate=lambda model, *_: {"score": model(torch.rand(100, 3)).sum().item()})
    loop.run()
    assert log.rows[-1]["cost/forward"] == 40


def test_metrics_reach_only_those_who_declare_it_and_only_validation() -> None:
    deaf, hearing = Counting(), Counting()
    hearing.uses_metrics = True
    for algorithm in (deaf, hearing):
        make(algorithm, stop_at_target=False, target=5)[0].run()
    assert deaf.observed == []
    assert [m["validation/score"] for m in hearing.observed] == [0, 3, 5, 8]
    assert all(set(m) == {"validation/score"} for m in hearing.observed)


def test_the_limit_in_charged_seconds_ends_a_run_inside_a_segment() -> None:
    class Slow(Counting):
        def step(self, task: Task) -> Tensor:
            time.sleep(0.01)
            return super().step(task)

    loop, log = make(Slow(), budget=10**6, eval_every=10**6, max_seconds=0.1)
    assert loop.run() == "max_seconds"
    assert 0.1 <= loop.clock.charged < 1 and len(log.rows) == 2


def test_time_in_evaluation_is_not_charged() -> None:
    def slow(*_: object) -> dict[str, float]:
        time.sleep(0.05)
        return {"score": 0.0}

    loop, _ = make(Counting(), evaluate=slow, max_seconds=0.1)
    assert loop.run() == "budget"
    assert loop.clock.accounts["eval"] > 0.25 and loop.clock.charged < 0.1


def test_checkpoints_come_at_their_interval_and_on_request() -> None:
    loop, log = make(Counting(), budget=4000, eval_every=4000, checkpoint_every=1e-9)
    loop.run()
    assert log.saves >= 990
    loop, log = make(Counting())
    loop.alarm.ring()
    assert loop.run() == "preempted" and log.saves == 1
    assert loop.task.cost.steps <= 1


# -- what is charged, by a clock that moves when something is done -------------------------------------


class Pretended:
    """A clock on which everything takes as long as it says."""

    def __init__(self) -> None:
        self.time = 1e6

    def now(self) -> float:
        return self.time

    def takes(self, seconds: float) -> None:
        self.time += seconds


class Timed(Counting):
    """Steps of 1 second, swaps of 10 and 20, and 300 to take in the metrics."""

    uses_metrics = True

    def __init__(self, clock: Pretended) -> None:
        super().__init__()
        self.clock = clock

    def step(self, task: Task) -> Tensor:
        self.clock.takes(1)
        return super().step(task)

    def enter_eval(self, task: Task) -> None:
        self.clock.takes(10)

    def exit_eval(self, task: Task) -> None:
        self.clock.takes(20)

    def observe(self, metrics: Any) -> None:
        self.clock.takes(300)

    def report(self) -> dict[str, float]:
        self.clock.takes(5000)
        return {}


class TimedLog(Log):
    """60,000 seconds to write an evaluation, 700,000 to write a checkpoint."""

    def __init__(self, clock: Pretended) -> None:
        super().__init__()
        self.clock = clock

    def row(self, row: dict[str, Any]) -> None:
        super().row(row)
        self.clock.takes(60_000)

    def checkpoint(self) -> None:
        super().checkpoint()
        self.clock.takes(700_000)


def timed(monkeypatch: pytest.MonkeyPatch, **plan: Any) -> tuple[Loop, Pretended]:
    """Twelve steps, evaluated before, between and behind; an evaluation takes 0.5 seconds a split."""
    clock = Pretended()

    def evaluate(*_: object) -> dict[str, float]:
        clock.takes(0.5)
        return {"score": 0.0}

    def mean_loss(losses: list[Tensor]) -> float:
        clock.takes(4000)  # a device that is waited for
        return 0.0

    loop, _ = make(Timed(clock), budget=48, evaluate=evaluate, **{"eval_every": 24, **plan})

    class TimedGuard(Guard):
        def __init__(self, *args: Any) -> None:
            clock.takes(0.125)
            super().__init__(*args)

        def restore(self) -> None:
            clock.takes(0.0625)
            super().restore()

    monkeypatch.setattr(module, "mean_loss", mean_loss)
    monkeypatch.setattr(module, "Guard", TimedGuard)
    monkeypatch.setattr(time, "perf_counter", clock.now)
    loop.clock, loop.observer = Clock(now=clock.now), TimedLog(clock)
    return loop, clock


def test_every_second_goes_to_whoever_has_spent_it(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, _ = timed(monkeypatch, checkpoint_every=1e9)
    assert loop.run() == "budget"
    loop.clock.switch("log")
    assert loop.clock.accounts == {
        "setup": 0, "warmup": 0, "checkpoint": 0,
        "train": 12 + 2 * 300,  # the last metrics are of no use to anybody
        "swap": 3 * 30,
        "eval": 3 * 0.6875 + 0.5,  # with what guards the weights; the test split in the end
        "log": 3 * 69_000,
    }  # fmt: skip
    assert loop.clock.charged == 12 + 600 + 90


@pytest.mark.parametrize("limit", [None, 1e9])
def test_a_checkpoint_and_diagnostics_are_not_charged(
    monkeypatch: pytest.MonkeyPatch, limit: float | None
) -> None:
    loop, clock = timed(monkeypatch, checkpoint_every=3.0, max_seconds=limit)

    def measure(task: Task, restore: object) -> dict[str, float]:
        clock.takes(4000)
        return {}

    saved_at: list[int] = []

    def checkpoint() -> None:
        saved_at.append(loop.task.cost.steps)
        clock.takes(700_000)

    loop.diagnostics.parts, loop.diagnostics.measure = {"norms": object()}, measure  # type: ignore
    loop.observer.checkpoint = checkpoint  # type: ignore[method-assign]
    loop.run()
    loop.clock.switch("log")
    assert loop.clock.accounts["train"] == 12 + 600 and loop.clock.accounts["swap"] == 90
    assert loop.clock.accounts["eval"] == 3 * (0.75 + 4000) + 0.5  # put back before and behind them
    assert saved_at == [1, 4, 7, 10]  # every three seconds of training, evaluations count as well
    assert loop.clock.accounts["checkpoint"] == 4 * 700_000


@pytest.mark.parametrize(("limit", "steps"), [(334.0, 4), (431.0, 7)])
def test_the_limit_is_one_of_charged_seconds_and_to_the_step(
    monkeypatch: pytest.MonkeyPatch, limit: float, steps: int
) -> None:
    """An evaluation charges 330; checkpoints in between charge nothing."""
    loop, _ = timed(monkeypatch, max_seconds=limit, checkpoint_every=2.0)
    assert loop.run() == "max_seconds" and loop.task.cost.steps == steps


def test_training_is_looked_up_from_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, clock = timed(monkeypatch, checkpoint_every=5e5)
    monkeypatch.setattr(Timed, "step", lambda self, task: (clock.takes(0.25), Counting.step(self, task))[1])
    loop.run()
    assert loop.observer.beats == 2  # pyright: ignore[reportAttributeAccessIssue]  of 1.5 seconds each


def test_a_signal_stops_training_behind_the_step_that_it_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, _ = timed(monkeypatch)

    def step(self: Timed, task: Task) -> Tensor:
        if task.cost.steps == 2:
            loop.alarm.ring()
        return Counting.step(self, task)

    monkeypatch.setattr(Timed, "step", step)
    assert loop.run() == "preempted" and loop.task.cost.steps == 3


def test_what_a_caller_keeps_of_a_loss_holds_no_graph_and_a_step_without_rows_is_an_error() -> None:
    class Attached(Counting):
        def step(self, task: Task) -> Tensor:
            return super().step(task) + 0 * task.params[0].sum()

    class Idle(Counting):
        def step(self, task: Task) -> Tensor:
            return torch.zeros(())

    kept: list[Tensor] = []
    loop, log = make(Attached(), budget=12, eval_every=12)
    log.heartbeat = lambda *_: kept.extend(loop.progress.losses)  # type: ignore[method-assign]
    loop.alarm.at, loop.plan = 0.0, Plan(eval_every=12)
    loop._set_alarm = lambda: None  # type: ignore[method-assign]  at every step
    loop.run()
    assert kept and not any(loss.requires_grad for loss in kept)
    with pytest.raises(RuntimeError, match="drew no rows"):
        make(Idle())[0].run()
