"""Residual networks: the paper's numbers, and what algorithms may do with them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from workloads.models import Normalise
from workloads.resnet import MODELS, PadShortcut, ResNet

MEAN, STD = torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26])


def network(name: str = "resnet20", seed: int = 0) -> ResNet:
    torch.manual_seed(seed)
    return MODELS[name](Normalise(MEAN.view(3, 1, 1), STD.view(3, 1, 1)), 3, 10)


def pixels(rows: int, side: int = 32) -> Tensor:
    return torch.rand(rows, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "parameters", "millions", "layers"), [
    ("resnet20", 269_722, "0.27", 20),
    ("resnet18", 11_173_962, "11.17", 18),
    ("resnet8_tiny", 19_218, "0.02", 8),
])  # fmt: skip
def test_parameters_and_layers_are_those_of_the_paper(
    name: str, parameters: int, millions: str, layers: int
) -> None:
    model = network(name)
    count = sum(p.numel() for p in model.parameters())
    assert count == parameters and f"{count / 1e6:.2f}" == millions
    weighted = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len([m for m in weighted if isinstance(m, nn.Linear) or m.kernel_size == (3, 3)]) == layers


def reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """ResNet-20 with option A, layer after layer, by batch statistics."""

    def conv_norm(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=1)
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        scale, shift = (state[f"{norm}.{key}"].view(1, -1, 1, 1) for key in ("weight", "bias"))
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    x = (x - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    x = conv_norm(x, "conv", "bn").clamp(min=0)
    for stage in range(3):
        for block in range(3):
            at, shrinks = f"stages.{stage}.{block}", stage > 0 and block == 0
            out = conv_norm(x, f"{at}.conv1", f"{at}.bn1", 2 if shrinks else 1).clamp(min=0)
            out = conv_norm(out, f"{at}.conv2", f"{at}.bn2")
            if shrinks:
                x = torch.cat((x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])), 1)
            x = (out + x).clamp(min=0)
    return x.mean((2, 3)) @ state["head.weight"].T + state["head.bias"]


def test_outputs_are_those_of_a_literal_reference() -> None:
    model, x = network().double().train(), pixels(6).double()
    assert torch.allclose(model(x), reference(model.state_dict(), x), rtol=1e-9, atol=1e-10)


def test_the_shortcut_takes_every_other_pixel_and_pads_with_zero_channels() -> None:
    x = torch.arange(2 * 3 * 5 * 5.0).view(2, 3, 5, 5)
    out = PadShortcut(3, 8, 2)(x)
    assert out.shape == (2, 8, 3, 3) and torch.equal(out[:, :3], x[:, :, ::2, ::2])
    assert not out[:, 3:].any() and not list(PadShortcut(3, 8, 2).parameters())


def test_weights_start_as_in_he_2015() -> None:
    state = network("resnet18").state_dict()
    for name in ("conv.weight", "stages.1.0.conv1.weight", "stages.3.1.conv2.weight", "head.weight"):
        weight = state[name]
        fan_in = weight[0].numel()
        assert weight.std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05) and abs(weight.mean()) < 0.02
    assert not state["head.bias"].any()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_activations_are_channels_last_and_parameters_are_not(name: str) -> None:
    model, seen = network(name), []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _args, out: seen.append(out))
    F.cross_entropy(model(pixels(2)), torch.tensor([1, 2])).backward()
    assert len(seen) > 6 and all(out.is_contiguous(memory_format=torch.channels_last) for out in seen)
    for p in model.parameters():
        assert p.grad is not None
        assert p.view(-1).shape == p.grad.view(-1).shape  # as optimizers do that flatten


def test_gradients_of_single_rows_by_vmap_are_those_of_a_loop() -> None:
    model, x, y = network("resnet8_tiny").eval(), pixels(3), torch.tensor([1, 5, 9])
    params = {name: p.detach() for name, p in model.named_parameters()}

    def loss(params: dict[str, Tensor], row: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, params, (row[None],)), label[None])

    by_row = vmap(grad(loss), in_dims=(None, 0, 0))(params, x, y)
    for i in range(3):
        model.zero_grad()
        F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None
            assert torch.allclose(by_row[name][i], p.grad, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_smallest_images_still_train(name: str) -> None:
    model = MODELS[name](Normalise(torch.zeros(1, 1, 1), torch.ones(1, 1, 1)), 1, 4).train()
    out = model(pixels(4, side=8)[:, :1])
    out.square().sum().backward()
    assert out.shape == (4, 4)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
