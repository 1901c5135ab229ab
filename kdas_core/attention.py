"""The attention of KDAS as plain functions (chapter 4).

A logit map P of H rows and W columns is read as a sentence: each row is a token, its W logits are
the token's features. Scaled dot-product attention of the map with itself mixes each row with those
that have a large inner product with it,

    A(P) = softmax(P Pᵀ / √W) P.

Source: Trinh et al., KDAS, ICME 2024 (framework figure); Vaswani et al., arXiv 1706.03762, eq. 1.
"""

import math

import torch
from torch import Tensor


def rows_as_tokens(logits: Tensor) -> Tensor:
    """(B, 1, H, W) -> (B, H, W) in float32: one token per row; a ValueError for other shapes."""
    if logits.dim() != 4 or logits.shape[1] != 1:
        raise ValueError(f"A logit map has shape (B, 1, H, W), this one has {tuple(logits.shape)}.")
    return logits.squeeze(1).float()


def attention_weights(logits: Tensor) -> Tensor:
    """``softmax(P Pᵀ / √W)``, shape (B, H, H): how much each row of a map (B, 1, H, W) looks at
    every row, non-negative and summing to 1.

    >>> w = attention_weights(torch.randn(1, 1, 6, 6))
    >>> bool(torch.allclose(w.sum(-1), torch.ones(1, 6)))
    True
    """
    rows = rows_as_tokens(logits)
    return torch.softmax(rows @ rows.transpose(1, 2) / math.sqrt(rows.shape[-1]), dim=-1)


def self_attention(logits: Tensor) -> Tensor:
    """``A(P) = softmax(P Pᵀ / √W) P``: (B, 1, H, W) -> (B, H, W), in logits.

    Each row becomes a weighted mean of all rows, and so leaves neither the largest nor the smallest
    logit of a column: A(P) is bounded by P.
    """
    return attention_weights(logits) @ rows_as_tokens(logits)


def attention_log_distribution(logits: Tensor, temperature: float) -> Tensor:
    """Logarithm of `attention_distribution`, flat: shape (B, H·W)."""
    return torch.log_softmax(self_attention(logits).flatten(1) / temperature, dim=1)


def attention_distribution(logits: Tensor, temperature: float) -> Tensor:
    """``softmax over all pixels of A(P)/τ``, (B, H, W): where the polyp is; ≥ 0, each sums to 1."""
    return attention_log_distribution(logits, temperature).exp().unflatten(1, logits.shape[-2:])
