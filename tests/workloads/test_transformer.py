"""The transformer against a literal reference, and what a language model must never do."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from runner.contract.precision import specialise
from runner.contract.stream import Stream
from runner.contract.task import Task
from tests.tasks import make_info
from workloads.transformer import Transformer

Vector = list[float]
VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS = 7, 6, 12, 2, 3


def small(dtype: torch.dtype = torch.float64, seed: int = 0, scale: float = 10.0) -> Transformer:
    """A small model whose weights are large enough that every part of it matters."""
    torch.manual_seed(seed)
    model = Transformer(VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(scale)
            else:  # biases and gains, off their initial values too
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def rows(n: int, tokens: int = CONTEXT, seed: int = 0, vocabulary: int = VOCABULARY) -> Tensor:
    return torch.randint(vocabulary, (n, tokens), generator=torch.Generator().manual_seed(seed))


def task_on(model: nn.Module, n: int = 8) -> Task:
    x = rows(n + 1).flatten()
    x, y = x[: n * CONTEXT].view(n, CONTEXT), x[1 : n * CONTEXT + 1].view(n, CONTEXT)
    info = make_info("lm", num_train=n, input_shape=(CONTEXT,), num_classes=VOCABULARY, batch_size=n)
    return Task(lambda: copy.deepcopy(model), Stream(x, y, n, 0), info, seed=0, model=model)


# -- the forward pass --------------------------------------------------------------------------------


def layer_norm(h: Vector, norm: nn.LayerNorm) -> Vector:
    mean = sum(h) / len(h)
    variance = sum((v - mean) ** 2 for v in h) / len(h)
    gain, shift = norm.weight.tolist(), norm.bias.tolist()
    scale = math.sqrt(variance + norm.eps)
    return [(v - mean) / scale * g + s for v, g, s in zip(h, gain, shift, strict=True)]


def linear(h: Vector, layer: nn.Linear) -> Vector:
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [sum(w * v for w, v in zip(row, h, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def attend(queries: list[Vector], keys: list[Vector], values: list[Vector]) -> list[Vector]:
    """One head: position t reads from the positions up to t."""
    out = []
    for t, query in enumerate(queries):
        scores = [sum(a * b for a, b in zip(query, keys[s], strict=True)) for s in range(t + 1)]
        weights = [math.exp(score / math.sqrt(len(query))) for score in scores]
        read = [sum(w * values[s][i] for s, w in enumerate(weights)) for i in range(len(query))]
        out.append([r / sum(weights) for r in read])
    return out


def literal_attention(block: nn.Module, stream: list[Vector]) -> list[Vector]:
    size = WIDTH // HEADS
    projected = [linear(layer_norm(h, block.norm1), block.attention.qkv) for h in stream]
    read: list[Vector] = [[] for _ in stream]
    for head in range(HEADS):
        q, k, v = (
            [p[part * WIDTH + head * size : part * WIDTH + (head + 1) * size] for p in projected]
            for part in range(3)
        )
        for t, values in enumerate(attend(q, k, v)):
            read[t] += values
    return [linear(r, block.attention.out) for r in read]


def gelu(v: float) -> float:
    return v / 2 * (1 + math.erf(v / math.sqrt(2)))


def literal(model: Transformer, row: list[int]) -> list[Vector]:
    """Logits of one row, number by number."""
    tokens, positions = model.tokens.weight.tolist(), model.positions.weight.tolist()
    stream = [[a + b for a, b in zip(tokens[i], positions[t], strict=True)] for t, i in enumerate(row)]
    for block in model.blocks:
        stream = [add(h, a) for h, a in zip(stream, literal_attention(block, stream), strict=True)]
        inner = [[gelu(v) for v in linear(layer_norm(h, block.norm2), block.mlp.hidden)] for h in stream]
        stream = [add(h, linear(i, block.mlp.out)) for h, i in zip(stream, inner, strict=True)]
    final = [layer_norm(h, model.norm) for h in stream]
    return [[sum(e * v for e, v in zip(token, h, strict=True)) for token in tokens] for h in final]


def add(a: Vector, b: Vector) -> Vector:
    return [x + y for x, y in zip(a, b, strict=True)]


def test_logits_are_those_of_a_literal_reference():
    model, x = small(), rows(3)
    with torch.no_grad():
        logits = model(x)
    expected = torch.tensor([literal(model, row) for row in x.tolist()], dtype=torch.float64)
    assert logits.shape == (3, CONTEXT, VOCABULARY)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    assert logits.std() > 0.5


def leaks(model: nn.Module) -> list[tuple[int, int]]:
    """(t, s) where the token at t changes logits at an earlier s; (t, t) where it does not change its own."""
    x, found = rows(1), []
    with torch.no_grad():
        before = model(x)
        for t in range(CONTEXT):
            other = x.clone()
            other[0, t] = (other[0, t] + 1) % VOCABULARY
            changed = (model(other) != before).any(-1)[0].tolist()
            found += [(t, s) for s in range(t) if changed[s]] + [(t, t)] * (not changed[t])
    return found


def test_no_token_is_seen_before_its_turn(monkeypatch: pytest.MonkeyPatch):
    assert leaks(small()) == []
    real = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, is_causal: real(q, k, v))
    assert (5, 0) in leaks(small())  # the check sees a model that looks ahead


def test_a_short_row_reads_as_the_start_of_a_long_one():
    model, x = small(), rows(2)
    torch.testing.assert_close(model(x[:, :4]), model(x)[:, :4], rtol=1e-10, atol=1e-10)


# -- parameters --------------------------------------------------------------------------------------


def test_input_and_output_share_one_matrix():
    model, x = small(), rows(2)
    block = 12 * WIDTH**2 + 13 * WIDTH  # 3 + 1 + 4 + 4 matrices; 3 + 1 + 4 + 1 biases and two norms
    expected = (VOCABULARY + CONTEXT) * WIDTH + LAYERS * block + 2 * WIDTH
    assert sum(p.numel() for p in model.parameters()) == expected
    assert sum(v.numel() for v in model.state_dict().values()) == expected
    x[x == 3] = 4  # token 3 comes in nowhere, and yet its embedding is moved by the output layer
    F.cross_entropy(model(x).flatten(0, 1), rows(2, seed=1).flatten()).backward()
    assert model.tokens.weight.grad is not None and bool(model.tokens.weight.grad[3].any())
    with torch.no_grad():
        logits = model(x)
        model.tokens.weight[3] += 1.0
        assert torch.equal(model(x)[..., :3], logits[..., :3]) and not torch.equal(
            model(x)[..., 3], logits[..., 3]
        )


def test_weights_start_as_in_gpt2():
    torch.manual_seed(0)
    model = Transformer(vocabulary=60, context=64, width=96, layers=4, heads=4)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            expected = 0.02 / math.sqrt(8) if name.endswith("out.weight") else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
            assert abs(parameter.mean().item()) < 0.1 * expected, name
        else:
            assert bool((parameter == (0.0 if name.endswith("bias") else 1.0)).all()), name


@pytest.mark.parametrize("vocabulary", [66, 256])
def test_the_first_loss_is_that_of_a_uniform_guess(vocabulary: int):
    torch.manual_seed(0)
    model = Transformer(vocabulary, context=128, width=128, layers=3, heads=4)
    x = rows(8, 128, vocabulary=vocabulary)
    with torch.no_grad():
        loss = F.cross_entropy(model(x).flatten(0, 1), rows(8, 128, 1, vocabulary).flatten())
    assert loss.item() == pytest.approx(math.log(vocabulary), abs=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "heads must divide width=12, got 5"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"context": -1}, "context must be at least 1, got -1"),
        ({"vocabulary": 0}, "vocabulary must be at least 1, got 0"),
    ],
)
def test_a_bad_size_is_named(change: dict[str, int], message: str):
    sizes = {"vocabulary": 7, "context": 6, "width": 12, "layers": 2, "heads": 3}
    with pytest.raises(ValueError, match=message):
        Transformer(**(sizes | change))


# -- gradients ---------------------------------------------------------------------------------------


def test_per_row_gradients_are_those_of_each_row_alone():
    model = small()
    task = task_on(model, 5)
    batch = task.data.next()
    grads = task.per_sample_grads(batch)
    assert set(grads) == {name for name, _ in model.named_parameters()}
    for i in range(5):
        loss = F.cross_entropy(model(batch.x[i : i + 1])[0], batch.y[i])
        alone = torch.autograd.grad(loss, list(model.parameters()))
        for (name, _), expected in zip(model.named_parameters(), alone, strict=True):
            torch.testing.assert_close(grads[name][i], expected, rtol=1e-9, atol=1e-12)


def test_hessian_vector_products_are_differences_of_gradients():
    model = small()
    task = task_on(model)
    batch, params = task.data.next(), [p.detach() for p in model.parameters()]
    v = [
        torch.randn(p.shape, generator=torch.Generator().manual_seed(i)).double()
        for i, p in enumerate(params)
    ]
    names = [name for name, _ in model.named_parameters()]

    def gradient(step: float) -> list[Tensor]:
        at = {n: (p + step * d).requires_grad_() for n, p, d in zip(names, params, v, strict=True)}
        loss = F.cross_entropy(functional_call(model, at, (batch.x,)).flatten(0, 1), batch.y.flatten())
        return list(torch.autograd.grad(loss, list(at.values())))

    ahead, behind = gradient(1e-6), gradient(-1e-6)
    for product, a, b in zip(task.hvp(batch, v), ahead, behind, strict=True):
        torch.testing.assert_close(product, (a - b) / 2e-6, rtol=1e-4, atol=1e-6)


def test_bf16_stays_close_and_finite():
    x = rows(4)
    exact, rounded = small(torch.float32, scale=3.0), specialise(small(torch.float32, scale=3.0), "bf16")
    logits = rounded(x)
    assert logits.dtype == torch.float32
    assert (logits - exact(x)).abs().max() < 0.05 * exact(x).abs().max()
    F.cross_entropy(logits.flatten(0, 1), rows(4, seed=1).flatten()).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in rounded.parameters())
