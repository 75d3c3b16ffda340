"""Residual networks for small images. Inputs lie in [0, 1]; the first module normalises."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from workloads.models import Normalise

SMALLEST = 8  # pixels of a side: resnet18 shrinks images by 8
Shortcut = Callable[[int, int, int], nn.Module]  # channels in, channels out, stride


class PadShortcut(nn.Module):
    """Option A of He et al.: every ``stride``-th pixel, and zero channels behind; no parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C + extra, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class Projection(nn.Sequential):
    """Option B of He et al.: a 1×1 convolution and batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch norm, and a shortcut: the identity where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ⌈H/stride⌉, ⌈W/stride⌉)."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A 3×3 convolution, stages of basic blocks, global average pooling, a linear layer; (B, K) logits.

    Stages after the first start with stride 2. Convolutions have no bias. All weights are drawn as in
    He et al. 2015 (arXiv 1502.01852): N(0, 2 / fan_in); the head's bias is zero.

    Activations are kept channels-last, which oneDNN and tensor cores prefer. Parameters are not, so that
    optimizers may flatten them with ``view``.

    Args:
        normalise: the first module.
        channels: of the input images.
        num_classes: outputs.
        widths: channels of each stage; the first convolution has as many as the first stage.
        blocks: basic blocks of each stage.
        shortcut: what stands where a block changes the shape.
        stem_stride: stride of the first convolution.
    """

    def __init__(
        self,
        normalise: Normalise,
        channels: int,
        num_classes: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        shortcut: Shortcut,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.conv = nn.Conv2d(channels, widths[0], 3, stem_stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.stages = nn.Sequential()
        inputs = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            strides = [1 if stage == 0 else 2] + [1] * (count - 1)
            layers = []
            for stride in strides:
                layers.append(BasicBlock(inputs, width, stride, shortcut))
                inputs = width
            self.stages.append(nn.Sequential(*layers))
        self.head = nn.Linear(inputs, num_classes)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, K), of images (B, C, H, W) in [0, 1]."""
        # Channels-last by permuting: vmap has no contiguous(memory_format=channels_last).
        x = self.normalise(x).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        x = self.stages(F.relu(self.bn(self.conv(x))))
        return self.head(x.mean((2, 3)))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(self.head.bias)


def resnet20(normalise: Normalise, channels: int, num_classes: int) -> ResNet:
    """ResNet-20 for CIFAR: widths 16, 32, 64, three blocks each, option A; 0.27M parameters.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv 1512.03385, section 4.2
    and table 6. Option A is what the paper uses on CIFAR-10.
    """
    return ResNet(normalise, channels, num_classes, (16, 32, 64), (3, 3, 3), PadShortcut)


def resnet18(normalise: Normalise, channels: int, num_classes: int) -> ResNet:
    """ImageNet's ResNet-18 for small images: 3×3 stem of stride 1 and no max-pool; 11.17M parameters.

    Widths 64, 128, 256, 512, two blocks each, projections (option B) where the shape changes.
    Source: He et al. 2016, arXiv 1512.03385, table 1, but for the stem.
    """
    return ResNet(normalise, channels, num_classes, (64, 128, 256, 512), (2, 2, 2, 2), Projection)


def resnet8_tiny(normalise: Normalise, channels: int, num_classes: int) -> ResNet:
    """A ResNet-8 for seconds on one core: widths 8, 16, 32, one block each, stem of stride 2.

    19,218 parameters for colour images in ten classes.
    """
    return ResNet(normalise, channels, num_classes, (8, 16, 32), (1, 1, 1), PadShortcut, stem_stride=2)


MODELS: dict[str, Callable[[Normalise, int, int], ResNet]] = {
    "resnet20": resnet20,
    "resnet18": resnet18,
    "resnet8_tiny": resnet8_tiny,
}
