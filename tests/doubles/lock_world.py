"""A pretended cluster: agents on several hosts that train one cell, of whom one acts at a time.

The code under test is the real one, on a real folder. Every call that it makes of the operating system is a
point where its agent may be paused (a process that was stopped, a machine that swaps), killed, or overtaken;
the clock of the file system is a number, and every host has its own idea of it.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.base import files
from runner.cells import lock
from runner.cells.lock import Lock, LostLock
from runner.contract.records import FINISHED, CellFolder

ROWS = 3  # evaluations of a cell
GATED = (
    "open",
    "link",
    "unlink",
    "rename",
    "replace",
    "rmdir",
    "mkdir",
    "listdir",
    "stat",
    "fstat",
    "pwrite",
    "fsync",
)
MOVES = ("replace", "rename")
PAUSES = (20.0, 60.0, 100.0, 1000.0)  # seconds; a lock is dead after 90
TRAINING = (1.0, 15.0)  # seconds between two evaluations


class Killed(BaseException):
    """The agent's process is gone."""


class Agent:
    """One process that wants to train the cell."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.host = world.random.randrange(2)
        self.turn = threading.Semaphore(0)
        self.wakes = 0.0
        self.dead = self.ended = False
        self.lock: Lock | None = None
        self.beat = 0.0
        self.thread = threading.Thread(target=self._live, daemon=True)

    def _live(self) -> None:
        self.turn.acquire()
        try:
            self._work()
        except Killed:
            pass
        except BaseException as error:
            self.world.faults.append(f"agent {self.number}: {type(error).__name__}: {error}")
        finally:
            self.ended = True
            self.world.control.release()

    def _work(self) -> None:
        for _ in range(4):
            held = Lock.acquire(self.world.cell)
            if held is None:
                self.world.pause(self.world.random.uniform(5, 60))
                continue
            self.lock, self.beat = held, self.world.now
            # Unless it was paused and taken over on the way out: whoever does that removes its file first. A
            # higher number alone may be that of one who finds us alive, and gives up.
            if held.path.exists() and held.path.stat().st_ino == held._inode:
                self.world.holder = self.number
            with held:
                folder = CellFolder(self.world.cell, held)
                try:
                    if folder.status()["status"] in FINISHED:
                        return
                    self._train(folder)
                    return
                except OSError:  # a write that was fenced: a cell fails, and then learns why
                    with contextlib.suppress(LostLock):
                        folder.guard()
                        raise
                except LostLock:
                    pass
                finally:
                    self.lock = None
                    folder.close()

    def _train(self, folder: CellFolder) -> None:
        folder.set_status("running", by=self.number)
        saved = files.read_json(folder.checkpoint_file) or {"rows": 0}
        folder.keep_evals(saved["rows"])
        for row in range(saved["rows"], ROWS):
            self.world.pause(self.world.random.uniform(*TRAINING))
            folder.append_eval({"eval_index": row, "by": self.number})
            if self.world.random.random() < 0.5:
                files.write_json(folder.checkpoint_file, {"rows": row + 1}, folder.stage)
        folder.set_status("done", by=self.number)
        self.world.note_done()


class World:
    """One schedule: a seed says who acts when, who pauses, who dies, and whose clock is off.

    Attributes:
        faults: what happened that must not.
        now: the file system's time, in seconds.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.cell = folder
        self.now = 1e9
        self.control = threading.Semaphore(0)
        self.agents = [Agent(self, number) for number in range(self.random.choice([2, 3, 4]))]
        self.skew = [self.random.choice([0.0, 0.0, -3600.0, 3600.0]) for _ in range(2)]
        self.danger = self.random.choice([0.01, 0.05, 0.15])
        self.faults: list[str] = []
        self.holder: int | None = None
        self.final: dict[str, bytes] | None = None
        self.current: Agent | None = None
        self._of_thread: dict[int, Agent] = {}

    # -- the schedule ------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Let all act to their end, then one more that finds what they left; returns the faults."""
        for agent in self.agents:
            agent.thread.start()
            self._of_thread[agent.thread.ident or 0] = agent
        while waiting := [agent for agent in self.agents if not agent.ended]:
            ready = [agent for agent in waiting if agent.wakes <= self.now]
            if not ready:
                self.now = min(agent.wakes for agent in waiting)
                continue
            self._let(self.random.choice(ready))
        self.now += 10_000
        last = Agent(self, len(self.agents))
        self.danger = 0.0
        self.agents.append(last)
        last.thread.start()
        self._of_thread[last.thread.ident or 0] = last
        while not last.ended:
            self.now = max(self.now, last.wakes)
            self._let(last)
        self._judge()
        return self.faults

    def _let(self, agent: Agent) -> None:
        self.current = agent
        agent.turn.release()
        self.control.acquire()
        self.current = None

    def step(self) -> None:
        """A point where the acting agent may lose its turn, its time or its life."""
        agent = self._me()
        if agent is None:
            return
        if agent.dead:
            raise Killed
        self.now += 0.01
        draw = self.random.random()
        if draw < self.danger:
            agent.wakes = self.now + self.random.choice(PAUSES)
        elif draw < 1.3 * self.danger:
            agent.dead = True
            raise Killed
        if draw < self.danger or self.random.random() < 0.3:
            self._give_up_the_turn(agent)
        self._beat(agent)

    def pause(self, seconds: float) -> None:
        """The acting agent computes, or waits; its lock goes on beating."""
        agent = self._me()
        assert agent is not None
        end = self.now + seconds
        while self.now < end:
            agent.wakes = min(end, self.now + 5)
            self._give_up_the_turn(agent)
            self._beat(agent)

    def _give_up_the_turn(self, agent: Agent) -> None:
        self.control.release()
        agent.turn.acquire()
        if agent.dead:
            raise Killed

    def _beat(self, agent: Agent) -> None:
        if agent.lock is not None and self.now - agent.beat >= 10:
            held, agent.lock = agent.lock, None  # a beat is no point to be interrupted at
            held._beat()
            agent.lock, agent.beat = held, self.now

    def _me(self) -> Agent | None:
        return self._of_thread.get(threading.get_ident())

    # -- what is true ------------------------------------------------------------------------------

    def moved(self, to: Path) -> None:
        """A file has got its final name: by whoever holds the cell, or somebody has lost and still writes.

        A row that is appended late may still go to the file that counts, until the new holder replaces that:
        its rows are judged in the end.
        """
        agent = self._me()
        if agent is None or to.parent != self.cell or to.name.startswith((".", "lock.")):
            return
        if agent.number != self.holder:
            self.faults.append(f"agent {agent.number} wrote {to.name} while {self.holder} held the cell")

    def note_done(self) -> None:
        """Remember what the cell looked like when it was done."""
        if self.final is not None:
            self.faults.append("done twice")
        self.final = {name: (self.cell / name).read_bytes() for name in ("status.json", "evals.jsonl")}

    def _judge(self) -> None:
        folder = CellFolder(self.cell)
        if folder.status()["status"] != "done":
            self.faults.append(f"ended as {folder.status()}")
        found = [row["eval_index"] for row in folder.evals()]
        if found != list(range(ROWS)):
            self.faults.append(f"evaluations {found}")
        if self.final is not None:
            changed = [name for name, text in self.final.items() if (self.cell / name).read_bytes() != text]
            self.faults += [f"{name} changed after done" for name in changed]
        # A stage may be left by who was killed behind its lock's removal: nobody can write by way of it.
        left = [p.name for p in self.cell.iterdir() if p.name.startswith("lock.") or p.suffix == ".tmp"]
        self.faults += [f"{name} was left" for name in left]

    # -- what the code under test sees ---------------------------------------------------------------

    def time(self) -> float:
        """The acting host's clock."""
        agent = self._me()
        return self.now + (0.0 if agent is None else self.skew[agent.host])

    def this_process(self) -> dict[str, Any]:
        """The acting agent's."""
        agent = self._me()
        assert agent is not None
        return {"host": agent.host, "pid": agent.number}

    def runs_here(self, record: dict[str, Any]) -> bool | None:
        """Whether the agent of a record lives; None from another host."""
        agent = self._me()
        if agent is None or record.get("host") != agent.host:
            return None
        return not (self.agents[record["pid"]].dead or self.agents[record["pid"]].ended)

    def mkstemp(self, **where: Any) -> tuple[int, str]:
        """A temporary file, by the pretended clock."""
        self.step()
        handle, name = tempfile.mkstemp(**where)
        os.utime(handle, (self.now, self.now))
        return handle, name


class Gate:
    """Stands in for a module: its functions are points where an agent may be interrupted."""

    def __init__(self, world: World, module: Any, gated: tuple[str, ...], **instead: Any) -> None:
        self._world, self._module, self._gated, self._instead = world, module, gated, instead

    def __getattr__(self, name: str) -> Any:
        if name in self._instead:
            return self._instead[name]
        real = getattr(self._module, name)
        return self._guarded(name, real) if name in self._gated else real

    def _guarded(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._world.step()
            value = real(*args, **kwargs)
            if name == "pwrite":
                os.utime(args[0], (self._world.now, self._world.now))
            elif name in MOVES:
                self._world.moved(Path(args[1]))
            return value

        return call


class NoThread:
    """The heartbeat is the world's business."""

    def __init__(self, **_: Any) -> None: ...

    def start(self) -> None: ...

    def join(self) -> None: ...


@contextlib.contextmanager
def pretended(world: World) -> Iterator[None]:
    """Inside, locks, files and records act in ``world``."""
    with pytest.MonkeyPatch.context() as patch:
        gate = Gate(world, os, GATED)
        temporary = Gate(world, tempfile, (), mkstemp=world.mkstemp)
        for module in (lock, files):
            patch.setattr(module, "os", gate)
        for module in (lock, files):
            patch.setattr(module, "tempfile", temporary)
        patch.setattr(lock, "time", Gate(world, time, (), time=world.time))
        patch.setattr(lock, "threading", Gate(world, threading, (), Thread=NoThread))
        patch.setattr(lock, "this_process", world.this_process)
        patch.setattr(lock, "runs_here", world.runs_here)
        lock._offsets.clear()
        yield
    lock._offsets.clear()
