"""What the harness costs a step: against loops by hand, eager, compiled and as a CUDA graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from runner.contract.stream import decode
from runner.logs import Logger
from runner.machine import machine
from scripts.bench_loop import LOSSES, Job, Observer, Train, adamw, bare_copy, by_hand, harness
from scripts.gpu_checks.unit import Facts, Place, Unit

FAMILIES = {"linear": "breast_cancer", "cnn": "digits", "resnet": "cifar10_synthetic", "lm": "tiny_lm_pydocs"}
ROUNDS = 5  # interleaved
STEPS = 100  # of a segment
LAZY = 11  # steps before a graph is captured, as torch's documentation has it


def units() -> Mapping[str, Unit]:
    """For each family of models."""
    kinds: dict[str, Callable[[str, Place], Facts]] = {
        "eager": eager, "compiled": compiled, "graphs": graphs, "kernels": kernels,
    }  # fmt: skip
    return {
        f"{family}-{kind}": partial(measure, workload)
        for family, workload in FAMILIES.items()
        for kind, measure in kinds.items()
    }


def eager(workload: str, place: Place) -> Facts:
    """Against the loop by hand with every trick."""
    job = _job(workload, place)
    task = job.task(0)
    return against(job, by_hand(job, task, bare_copy(task.model)))


def compiled(workload: str, place: Place) -> Facts:
    """Against the same loop over a compiled model."""
    job = _job(workload, place)
    task = job.task(0)
    model = bare_copy(task.model)
    model.forward = torch.compile(model.forward)
    return against(job, by_hand(job, task, model))


def graphs(workload: str, place: Place) -> Facts:
    """Against a step that is captured once as a CUDA graph, on a batch that stays where it is."""
    place.needs_gpu("graphs are CUDA's")
    job = _job(workload, place)
    return against(job, captured(job))


def kernels(workload: str, place: Place) -> Facts:
    """Launches a step, share of the time in which the device computes, and peak memory."""
    place.needs_gpu("launches and peak memory are counted on a GPU")
    from torch.profiler import ProfilerActivity, profile

    job = _job(workload, place)
    train = harness(job, job.task(0), Observer(Logger()))
    train(STEPS)
    torch.cuda.reset_peak_memory_stats()
    seconds = train(STEPS)
    peak = torch.cuda.max_memory_allocated() / 2**30
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        train(STEPS)
    events = [e for e in found.events() or () if e.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.device_time_total for event in events) / 1e6
    return {"launches_a_step": len(events) / STEPS, "busy_share": busy / seconds, "peak_gpu_memory_gb": peak}


def against(job: Job, hand: Train) -> Facts:
    """Medians of µs a step, in turns."""
    sides = {"hand": hand, "harness": harness(job, job.task(0), Observer(Logger()))}
    for train in sides.values():
        train(STEPS)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(ROUNDS):
        for name in sorted(sides, reverse=turn % 2 == 1):
            times[name].append(1e6 * sides[name](STEPS) / STEPS)
    found = {f"{name}_us": statistics.median(each) for name, each in times.items()}
    return {**found, "relative": found["harness_us"] / found["hand_us"] - 1}


def captured(job: Job) -> Train:
    """A loop that replays one step: new rows are copied in, nothing else is launched from Python."""
    task = job.task(0)
    model, augment, loss_of = bare_copy(task.model), task.data.augment, LOSSES[task.info.task]
    settings = {**job.config["algorithm"]["optimizer"], "capturable": True}
    optimizer, size = adamw(model, settings), task.info.batch_size
    rows = torch.arange(size, device=job.device)
    graph, generator = torch.cuda.CUDAGraph(), torch.Generator(job.device).manual_seed(0)
    graph.register_generator_state(generator)  # or each replay would draw the same

    def ready(x: Tensor) -> Tensor:
        return decode(x if augment is None else augment(x, generator))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(model(ready(task.data.x[rows])), task.data.y[rows]).backward()
        optimizer.step()

    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(LAZY):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    with torch.cuda.graph(graph):
        step()

    def train(steps: int) -> float:
        order = torch.randint(task.data.n, (steps, size), device=job.device)
        torch.cuda.synchronize()
        started = time.perf_counter()
        for batch in order:
            rows.copy_(batch)
            graph.replay()
        torch.cuda.synchronize()
        return time.perf_counter() - started

    return train


def _job(workload: str, place: Place) -> Job:
    machine.configure(1, deterministic=False)
    return Job.of([f"workload={workload}", "algorithm=adamw", f"device={place.device}"], STEPS)
