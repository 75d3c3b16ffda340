from __future__ import annotations

import time

import pytest

from runner.train.clock import CHARGED, FREE, Clock


class FakeTime:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_every_second_is_on_exactly_one_account() -> None:
    fake = FakeTime()
    clock = Clock(now=fake)
    for seconds, account in (
        (1, "setup"),
        (2, "train"),
        (4, "eval"),
        (8, "swap"),
        (16, "train"),
        (32, "log"),
    ):
        fake.now += seconds
        clock.switch(account)
    assert clock.accounts == {
        "warmup": 1, "setup": 2, "train": 4 + 32, "eval": 8, "swap": 16, "log": 0, "checkpoint": 0,
    }  # fmt: skip
    assert clock.charged == 2 + 36 + 16
    assert clock.wall == 63


def test_accounts_are_charged_or_free_and_add_up_to_the_wall_time() -> None:
    started = time.perf_counter()
    clock = Clock()
    for account in (*CHARGED, *FREE):
        with clock.on(account):
            time.sleep(0.01)
    clock.switch("log")
    wall = time.perf_counter() - started
    assert set(clock.accounts) == {*CHARGED, *FREE}
    assert abs(clock.wall - wall) < 0.005
    assert clock.charged == pytest.approx(sum(clock.accounts[a] for a in ("setup", "train", "swap")))


def test_the_device_is_waited_for_at_the_edges_of_a_segment_only() -> None:
    waits: list[int] = []
    clock = Clock(synchronize=lambda: waits.append(1))
    clock.switch("train")
    assert clock.charged >= 0 and clock.wall >= 0
    assert len(waits) == 1
    with clock.on("eval"):
        assert len(waits) == 2
    assert len(waits) == 3


def test_an_exception_inside_an_account_still_closes_it() -> None:
    fake = FakeTime()
    clock = Clock(now=fake)
    clock.switch("train")
    with pytest.raises(ZeroDivisionError), clock.on("eval"):
        fake.now += 5
        raise ZeroDivisionError
    assert clock.account == "train" and clock.accounts["eval"] == 5


def test_goes_on_from_a_checkpoint_and_drops_what_passed_since_it_was_made() -> None:
    fake = FakeTime()
    first = Clock(now=fake)
    first.switch("train")
    fake.now += 3
    first.switch("checkpoint")
    fake2 = FakeTime()
    second = Clock(now=fake2)
    fake2.now += 50  # imports, loading data, setting up again
    second.switch("log")
    fake2.now += 7  # the checkpoint is read
    second.load_state_dict(first.state_dict())
    second.switch("train")
    fake2.now += 2
    second.switch("log")
    assert second.accounts["train"] == 5 and second.wall == 5


def test_charged_until_says_when_a_limit_is_reached() -> None:
    fake = FakeTime()
    clock = Clock(now=fake)
    clock.switch("train")
    fake.now += 4
    clock.switch("eval")
    fake.now += 100
    clock.switch("train")
    assert clock.charged_until(10) == fake.now + 6


def test_an_unknown_account_is_refused() -> None:
    with pytest.raises(KeyError, match="coffee"):
        Clock().switch("coffee")
