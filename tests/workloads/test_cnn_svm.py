"""The network of the CNN-SVM paper, against what the paper's code says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from workloads.cnn_svm import CnnSvm


@pytest.fixture(scope="module")
def net() -> CnnSvm:
    torch.manual_seed(0)
    return CnnSvm()


def test_parameter_count(net: CnnSvm):
    convolutions = (5 * 5 * 1 * 32 + 32) + (5 * 5 * 32 * 64 + 64)
    linear = (7 * 7 * 64 * 1024 + 1024) + (1024 * 10 + 10)
    assert sum(p.numel() for p in net.parameters()) == convolutions + linear == 3_274_634


def test_weights_are_a_normal_cut_at_two_standard_deviations(net: CnnSvm):
    for name, weight in net.named_parameters():
        if name.endswith("bias"):
            assert torch.all(weight == 0.1)
        else:
            assert weight.abs().max() <= 0.2
            # N(0, 0.1²) cut at ±2σ has a standard deviation of 0.1 · 0.87963.
            assert float(weight.detach().std()) == pytest.approx(0.0879626, abs=0.3 / weight.numel() ** 0.5)


def same_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """5×5 convolution with zero padding of one image (C, H, W): a sum over its 25 shifts."""
    _, height, width = x.shape
    padded = torch.zeros(x.shape[0], height + 4, width + 4, dtype=x.dtype)
    padded[:, 2:-2, 2:-2] = x
    out = bias[:, None, None].expand(-1, height, width).clone()
    for dy in range(5):
        for dx in range(5):
            shifted = padded[:, dy : dy + height, dx : dx + width]
            out += torch.einsum("oc,chw->ohw", weight[:, :, dy, dx], shifted)
    return out


def pool(x: Tensor) -> Tensor:
    return torch.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)


def test_outputs_are_those_of_the_layers_written_out(net: CnnSvm):
    double = CnnSvm().double()
    double.load_state_dict(net.state_dict())
    double.eval()
    weights = {name: p.detach() for name, p in double.named_parameters()}
    image = torch.rand(1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = image
    for layer in ("conv1", "conv2"):
        x = pool(same_convolution(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"]).clamp(min=0))
    x = (weights["hidden.weight"] @ x.flatten() + weights["hidden.bias"]).clamp(min=0)
    expected = weights["head.weight"] @ x + weights["head.bias"]
    assert torch.allclose(double(image.unsqueeze(0))[0], expected, rtol=1e-9, atol=1e-9)


def test_half_of_the_hidden_units_are_dropped_in_training_alone(net: CnnSvm):
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    kept: list[Tensor] = []
    hook = net.head.register_forward_pre_hook(lambda _m, args: kept.append(args[0].detach()))
    torch.manual_seed(0)
    for mode in (False, False, True):
        net.train(mode)(x)
    hook.remove()
    whole, again, dropped = kept
    assert torch.equal(whole, again)
    alive = whole > 0
    assert float((dropped[alive] > 0).double().mean()) == pytest.approx(0.5, abs=0.05)
    passed = dropped > 0
    assert torch.allclose(dropped[passed], 2 * whole[passed])
