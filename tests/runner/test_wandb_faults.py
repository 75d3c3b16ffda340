"""Whatever W&B does, the cell goes on and says so once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner import UserError
from runner.cells.cell import Cell
from runner.compose.config import compose
from runner.logs import open_logger, reach
from runner.train.session import run_cell
from tests.doubles import wandb_world

SMALL = ("workload.batch_size=64", "workload.budget_samples=1920", "stop_at_target=false")


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    wandb_world.enter(monkeypatch, tmp_path / "home")
    yield
    wandb_world.leave()


class Settings(SimpleNamespace):
    model_fields = ("console", "quiet")

    def __init__(self, **options: Any) -> None:
        super().__init__(mode="online", base_url="http://127.0.0.1:9", api_key=None, **options)


class Broken:
    """A wandb that goes wrong in one place.

    Attributes:
        called: what was called, in order.
    """

    offline, starting_step = True, 0
    Settings = Settings

    def __init__(self, place: str, fault: Any) -> None:
        self._place, self._fault = place, fault
        self.called: list[str] = []
        self.summary: dict[str, Any] = {}
        for name in ("init", "define_metric", "log", "finish", "teardown"):
            setattr(self, name, self._function(name))

    def _function(self, name: str) -> Any:
        def function(*_: Any, **__: Any) -> Broken:
            self.called.append(name)
            if name == self._place:
                self._fault()
            return self

        return function

    def setup(self, settings: Settings) -> SimpleNamespace:
        return SimpleNamespace(settings=settings)


def raising(error: BaseException) -> Any:
    def fault() -> None:
        raise error

    return fault


def run(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    c = Cell.from_overrides([f"results_dir={tmp_path}", "log=wandb", *SMALL, *overrides])
    c.submit()
    return run_cell(c.folder.path)


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize("error", [FULL, SystemExit(1)], ids=["disk full", "exits"])
@pytest.mark.parametrize(
    ("place", "method"), [("init", "start"), ("define_metric", "start"), ("log", "row"), ("finish", "finish")]
)
def test_a_fault_is_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    place: str,
    method: str,
    error: BaseException,
) -> None:
    wandb = Broken(place, raising(error))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    assert run(tmp_path)["status"] == "done"
    said = capfd.readouterr().err
    assert said.startswith(f"warning: log: WandbLogger failed at {method} ({type(error).__name__}: ")
    assert said.count("\n") == 1
    # Nothing after the fault, but for an end of wandb's service: the next cell gets a fresh one.
    assert wandb.called[wandb.called.index(place) + 1 :] == ["teardown"]


@pytest.mark.parametrize("place", ["init", "log", "finish"])
def test_what_never_comes_back_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    released = threading.Event()
    monkeypatch.setitem(sys.modules, "wandb", Broken(place, released.wait))
    monkeypatch.setattr("runner.logs.wandb_log.GRACE", 0.01)
    try:
        assert run(tmp_path, "log.timeout=0.2")["status"] == "done"
    finally:
        released.set()
    said = capfd.readouterr().err
    assert "TimeoutError: no answer within 0.2" in said and said.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "wandb").write_text("in the way")
    assert run(tmp_path)["status"] == "done"
    said = capfd.readouterr().err
    assert "WandbLogger failed at start (FileExistsError" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("log.mode=sometimes", "mode must be one of auto, online, offline, got 'sometimes'"),
        ("log.timeout=0", "timeout must be above 0, got 0"),
        ("log.timeout=soon", "timeout must be above 0, got 'soon'"),
        ("log.timeout=inf", "timeout must be above 0, got inf"),
        ("log.project=a/b", "project must have 1 to 128 characters and none of # % / : ? \\, got 'a/b'"),
        ("log.group=3", "group must be text, got 3"),
        ("log.system_metrics=maybe", "system_metrics must be true or false, got 'maybe'"),
        ("log._target_=my_loggers.Missing", "my_loggers"),
    ],
)
def test_an_option_that_is_refused_is_said_before_anything_is_queued(option: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        compose(["log=wandb", option])
    assert said in str(error.value) and str(error.value).startswith("log ")


def test_any_logger_is_kept_out_of_the_way(capfd: pytest.CaptureFixture[str]) -> None:
    logger = open_logger({"_target_": "tests.doubles.faults.HalfALogger"})
    for i in range(3):
        logger.row({"eval_index": i})
    logger.finish({"status": "done"})
    assert capfd.readouterr().err == (
        "warning: log: HalfALogger failed at row (KeyError: 'loss'); the cell continues without it\n"
    )


# -- logged in, and is there a network ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("machine api.wandb.ai login user password secret", True),
        ("machine example.org login user password secret", False),
        ("machine api.wandb.ai login", False),
        (None, False),
    ],
)
def test_a_netrc_entry_for_the_host_is_a_login(tmp_path: Path, text: str | None, found: bool) -> None:
    if text is not None:
        (tmp_path / "home" / "netrc").write_text(text)
    assert reach.logged_in(SimpleNamespace(base_url="https://api.wandb.ai")) is found


def test_keys_in_the_environment_and_in_settings_are_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not reach.logged_in(SimpleNamespace(base_url="https://api.wandb.ai", api_key=None))
    assert reach.logged_in(SimpleNamespace(base_url="https://api.wandb.ai", api_key="key"))
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert reach.logged_in(SimpleNamespace(base_url="https://api.wandb.ai"))


def test_a_proxy_is_what_has_to_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def connect(address: tuple[str, int], timeout: float) -> SimpleNamespace:
        asked.append(address)
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr("socket.create_connection", connect)
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert reach.reachable("https://wandb.example")
    reach.reachable.cache_clear()
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    assert reach.reachable("https://wandb.example")
    assert asked == [("wandb.example", 443), ("proxy.example", 3128)]


def test_log_null_logs_nowhere() -> None:
    assert compose(["log=null"]).get("log") is None is compose(["~log"]).get("log")
