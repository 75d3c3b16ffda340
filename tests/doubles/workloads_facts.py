"""Workloads with a bug each in streams, options or facts, for the check that is to catch it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from runner.contract.stream import Stream
from tests.doubles.workloads import SIZES, Blobs, Moving, Text, generator
from tests.doubles.workloads_losses import Scored, Scores
from workloads.base import Data, Split
from workloads.evaluation import Evaluation

# -- stream ------------------------------------------------------------------------------------------


class RotatesRows(Moving):
    """Moves the rows of a batch to one another's labels."""

    def augment(self) -> Any:
        return lambda x, _g: x.roll(1, 0)


class ShakesGlobally(Moving):
    def augment(self) -> Any:
        return lambda x, _g: (x + 0.01 * torch.randn_like(x)).clamp(0, 1)


class ShakesWithMemory(Moving):
    def augment(self) -> Any:
        own = generator()
        return lambda x, _g: (x + 0.01 * torch.randn(x.shape, generator=own)).clamp(0, 1)


class LeavesRange(Moving):
    def augment(self) -> Any:
        return lambda x, _g: x - 0.4


class Doubles(Moving):
    def augment(self) -> Any:
        return lambda x, _g: x.double()


class Streamed(Blobs):
    """Ships a stream of its own, a right one."""

    streams: ClassVar[type[Stream]] = Stream

    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        task.data.__class__ = self.streams
        return task, evaluate


class _Lossy(Stream):
    """Some rows never come up."""

    def clone(self, name: str) -> Stream:
        other = super().clone(name)
        other.__class__ = type(self)
        return other

    def _epoch_order(self, epoch: int) -> Tensor:
        return super()._epoch_order(epoch).clamp(max=self.n - 5)


class _Sorted(_Lossy):
    def _epoch_order(self, epoch: int) -> Tensor:
        return torch.arange(self.n)


class _Lagging(Stream):
    def _rows(self, position: int, size: int) -> Any:
        x, y, index = super()._rows(position, size)
        return x, y.roll(1), index


class _Elsewhere(Stream):
    def take(self, index: Tensor, augment: bool = False) -> Any:
        return super().take((index + 1) % self.n, augment)


class LosesRows(Streamed):
    streams: ClassVar[type[Stream]] = _Lossy


class Unshuffled(Streamed):
    streams: ClassVar[type[Stream]] = _Sorted


class Mislabels(Streamed):
    streams: ClassVar[type[Stream]] = _Lagging


class TakesOthers(Streamed):
    streams: ClassVar[type[Stream]] = _Elsewhere


# -- options -----------------------------------------------------------------------------------------


class IgnoresOptions(Blobs):
    """Takes label_noise and aux, and does nothing about them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label_noise, self.aux = 0.0, {}


class IgnoresAux(IgnoresOptions):
    def __init__(self, *args: Any, label_noise: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label_noise = label_noise


class NoisyEverywhere(Blobs):
    def _put(self, device: torch.device) -> Any:
        loaded = super()._put(device)
        if self.label_noise:
            loaded.scored["validation"].y[:9] = (loaded.scored["validation"].y[:9] + 1) % 5
        return loaded


class NoisyBySeed(Blobs):
    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        if self.label_noise:
            y = self._loaded().train.y.clone()
            wrong = torch.randperm(len(y), generator=generator(seed))[:40]
            y[wrong] = (y[wrong] + 1) % 5
            task.data.y = y
        return task, evaluate


class KeepsRowsSetAside(Blobs):
    """Rows of the auxiliary streams stay in the training split."""

    def _put(self, device: torch.device) -> Any:
        loaded = super()._put(device)
        return replace(loaded, train=Split(self._loaded().train.x, super()._put(device).train.y))


class NoisyClean(Blobs):
    """The rows called clean have noisy labels."""

    def _put(self, device: torch.device) -> Any:
        loaded = super()._put(device)
        if self.label_noise and "clean" in loaded.aux:
            loaded.aux["clean"].y.add_(1).remainder_(5)
        return loaded


class HalfPrecision(Blobs):
    """Overflows as soon as it is not computed in float32."""

    def model(self) -> nn.Module:
        model = super().model()
        model.register_forward_hook(self._overflow)
        return model

    def _overflow(self, _model: nn.Module, _inputs: Any, outputs: Tensor) -> Tensor:
        return outputs if self.precision == "fp32" else (outputs * 1e39).float()


# -- info --------------------------------------------------------------------------------------------


class Says(Blobs):
    """States other facts than there are: those of ``says`` in its config."""

    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        roles = {
            name: kind for name, kind in task.info.param_kind.items() if name not in self.says("roles", ())
        }
        facts = {key: tuple(v) if isinstance(v, list) else v for key, v in self.says("info", {}).items()}
        task.info = replace(task.info, param_kind=roles, **facts)
        return task, evaluate

    def says(self, key: str, default: Any) -> Any:
        return self.facts["says"].get(key, default)


class DividedTwice(Blobs):
    """Inputs are divided by their range once more."""

    def load(self, root: Path) -> Data:
        data = super().load(root)
        return Data(*(Split(s.x / 255, s.y) for s in (data.train, data.validation, data.test)))


class FloatTargets(Blobs):
    def load(self, root: Path) -> Data:
        data = super().load(root)
        return Data(*(Split(s.x, s.y.float()) for s in (data.train, data.validation, data.test)))


class TokensInRange(Text):
    input_range = (0.0, 1.0)


class MissingInputs(Blobs):
    """A value that is missing in a scored row, where no range is stated."""

    input_range = None

    def load(self, root: Path) -> Data:
        data = super().load(root)
        data.test.x[3, 4] = torch.nan
        return data


class LossAlone(Scored):
    """Scores accuracy, and does not report it."""

    scores: ClassVar[type[Evaluation]] = type(
        "Losses", (Scores,), {"__call__": lambda self, *a: {"loss": Scores.__call__(self, *a)["loss"]}}
    )


# -- nothing wrong, or all ---------------------------------------------------------------------------


class Repeats(Blobs):
    """Rows that the data itself has many times, in every split."""

    def load(self, root: Path) -> Data:
        data = super().load(root)
        some = torch.arange(SIZES[0]) % 40
        return Data(
            *(Split(data.train.x[some[: len(s)]], data.train.y[some[: len(s)]])
              for s in (data.train, data.validation, data.test))
        )  # fmt: skip


class _Confidence(Scores):
    def __call__(self, model: nn.Module, split: str, predict: Any = None) -> dict[str, float]:
        return super().__call__(model, split) | {"confidence": 0.5}


class MoreMetrics(Scored):
    scores: ClassVar[type[Evaluation]] = _Confidence


class Crashes(Moving):
    def augment(self) -> Any:
        return lambda x, _g: x * (1 / 0)
