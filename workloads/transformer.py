"""A small decoder-only transformer."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

STD = 0.02  # of the normal that all weights are drawn from


class Transformer(nn.Module):
    """Pre-norm causal transformer over token ids (B, T); logits (B, T, V).

    Learned positions, LayerNorm before each half of a block and once at the end, a GELU network four times
    as wide, and one matrix for the tokens' embeddings and the output layer. No dropout. Weights come from
    N(0, 0.02²), biases are zero, and what is added to the residual stream starts smaller by
    √(2 · layers), so its variance does not grow with depth.

    Args:
        vocabulary: number of tokens, V.
        context: tokens that a row may have at most.
        width: size of the residual stream.
        layers: number of blocks.
        heads: attention heads; a divisor of ``width``.

    Raises:
        ValueError: for a size below one, or when ``heads`` does not divide ``width``.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2), §2.3; tied
    embeddings from Press & Wolf 2017, arXiv 1608.05859.
    """

    def __init__(self, vocabulary: int, context: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        sizes = {
            "vocabulary": vocabulary,
            "context": context,
            "width": width,
            "layers": layers,
            "heads": heads,
        }
        for key, value in sizes.items():
            if value < 1:
                raise ValueError(f"{key} must be at least 1, got {value}")
        if width % heads:
            raise ValueError(f"heads must divide width={width}, got {heads}")
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self._initialise(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, T, V): those at t see the tokens up to and with t alone.

        Args:
            x: token ids, (B, T) int64, T at most the context.
        """
        h = self.tokens(x) + self.positions.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return F.linear(self.norm(h), self.tokens.weight)

    def _initialise(self, layers: int) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith("out.weight")
                nn.init.normal_(parameter, std=STD / math.sqrt(2 * layers) if residual else STD)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)


def check_sizes(width: int, heads: int, **others: int) -> None:
    """Raise ValueError for a size below one, or when ``heads`` does not divide ``width``."""
    for key, value in {"width": width, "heads": heads, **others}.items():
        if value < 1:
            raise ValueError(f"{key} must be at least 1, got {value}")
    if width % heads:
        raise ValueError(f"heads must divide width={width}, got {heads}")


class Block(nn.Module):
    """h + attention(norm(h)), then h + network(norm(h)); (B, T, width) to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, h: Tensor) -> Tensor:
        """The residual stream one block on."""
        h = h + self.attention(self.norm1(h))
        return h + self.mlp(self.norm2(h))


class Attention(nn.Module):
    """Multi-head causal self-attention; queries, keys and values come from one matrix (3 · width, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """What position t reads from the positions up to and with t."""
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        read = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(read.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers around a GELU, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        """A function of each position alone."""
        return self.out(F.gelu(self.hidden(h)))
