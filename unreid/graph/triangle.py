"""Exact nearest neighbours from quantized products of the upper triangle.

The matrix of similarities is symmetric, so only blocks on and above the diagonal are computed, in
the fastest number format with a sufficient error bound. With x = x' + d (x' the stored row) the
error of a product is |<x, y> - <x', y'>| <= |d_x| |y| + |x'| |d_y|, and |d| is measured.
Every image within twice the bound of the k-th best is scored again in float64. If a value exceeds
its bound, the row is searched again without quantization, so the result is always exact.

Notation: N images, D channels, K neighbours, B rows of a block, M candidates of a list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch

from unreid.kernels import num_threads, zero_copy

#: Largest error bound of a similarity for which int8 is used.
INT8_BOUND = 0.04
#: Rows converted at a time.
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class QuantizedFeatures:
    """Quantized features with a measured error bound.

    Attributes:
        rows: (N, D) int8, bfloat16 or float32.
        scales: (N,) float32; row i stands for ``scales[i] * rows[i]``.
        slack: (N,) float32: twice the bound of the error of any product of row i.
        precision: Bits to which a stored product is rounded, 0 for no rounding.
        product: Function that multiplies two blocks, ``product(a, b.T, out=...)``.
    """

    rows: torch.Tensor
    scales: np.ndarray
    slack: np.ndarray
    precision: int
    product: Callable[..., torch.Tensor]


def _has(name: str) -> bool:
    """Return whether torch reports this processor feature."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get(name, False))


def formats() -> list[str]:
    """Return the number formats with a fast product on this processor, fastest first."""
    found = ["float32"]
    if _has("avx512_bf16") or _has("amx_bf16"):
        found.insert(0, "bfloat16")
    if hasattr(torch, "_int_mm") and (_has("avx512_vnni") or _has("amx_int8")):
        found.insert(0, "int8")
    return found


def _convert(features: np.ndarray, name: str) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Return the converted rows, their scales (N,), and the norms of the errors (N,)."""
    num = len(features)
    scales, lost = np.ones(num, dtype=np.float32), np.zeros(num)
    if name == "float32":
        return zero_copy(features), scales, lost
    rows = torch.empty(features.shape, dtype=getattr(torch, name))
    for start in range(0, num, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        block = zero_copy(features[part])
        if name == "int8":
            scale = block.abs().amax(1, keepdim=True) / 127.0
            scales[part] = scale[:, 0].numpy()
            block_rows = (block / scale).round_()
            rows[part] = block_rows.to(torch.int8)
            lost[part] = (block - block_rows * scale).norm(dim=1).numpy()
        else:
            rows[part] = block.to(rows.dtype)
            lost[part] = (block - rows[part].float()).norm(dim=1).numpy()
    return rows, scales, lost


def quantize(features: np.ndarray, name: str | None = None) -> QuantizedFeatures:
    """Quantize features to ``name``, or to the fastest format with a sufficient error bound.

    Args:
        features: (N, D) float32, rows of length 1 (to a thousandth).
        name: "int8", "bfloat16" or "float32"; None selects by processor and error bound.
    """
    names = [name] if name else formats()
    for candidate in names:
        rows, scales, lost = _convert(features, candidate)
        longest = 1.01 + lost.max()
        # Error bound of a float32 sum of D products, in any order; doubled for a split sum.
        summing = 4.0 * features.shape[1] * 2.0**-24 * longest**2
        bound = longest * (lost + lost.max()) * 1.001 + summing + 1e-6
        if candidate != "int8" or name or bound.max() <= INT8_BOUND:
            break
    slack = (2.0 * bound).astype(np.float32)
    product = torch._int_mm if candidate == "int8" else torch.mm
    return QuantizedFeatures(rows, scales, slack, 8 if candidate == "bfloat16" else 0, product)


class CandidateLists:
    """Candidates of each image for its nearest (sign 1) or farthest (sign -1) images."""

    def __init__(
        self,
        kernels: ModuleType,
        quantized: QuantizedFeatures,
        wanted: int,
        sign: float = 1.0,
    ) -> None:
        num = len(quantized.rows)
        capacity = max(1, min(num, max(256, 6 * wanted)))
        self.kernels, self.quantized, self.wanted, self.sign = kernels, quantized, wanted, sign
        self.lists = (
            np.empty((num, capacity), dtype=np.int32),
            np.empty((num, capacity), dtype=np.float32),
            np.zeros(num, dtype=np.int32),
            np.full(num, min(capacity, wanted + 32), dtype=np.int32),
            np.full(num, -np.inf, dtype=np.float32),
            quantized.slack,
        )

    def offer(self, block: np.ndarray, row: int, column: int) -> None:
        """Offer a block of quantized products that begins at (row, column)."""
        self.kernels.offer(
            block,
            row,
            column,
            self.quantized.scales,
            self.sign,
            *self.lists,
            self.wanted,
            self.quantized.precision,
            num_threads(),
        )

    def finish(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the indices and similarities (N, wanted), and the rows (F,) to search again."""
        indices, scores, trusted = self.kernels.finish(
            features, self.sign, *self.lists, self.wanted, self.quantized.precision, num_threads()
        )
        return indices, self.sign * scores, np.flatnonzero(trusted == 0)


def scan(quantized: QuantizedFeatures, block_size: int, lists: list[CandidateLists]) -> None:
    """Compute the blocks of the upper triangle once and offer each to all lists."""
    num, dtype = len(quantized.rows), quantized.rows.dtype
    kind = torch.int32 if dtype == torch.int8 else dtype
    whole = torch.empty((min(block_size, num), min(block_size, num)), dtype=kind)
    starts = range(0, num, block_size)
    for row, column in ((r, c) for r in starts for c in range(r, num, block_size)):
        left = quantized.rows[row : row + block_size]
        right = quantized.rows[column : column + block_size]
        fits = (len(left), len(right)) == whole.shape
        block = whole if fits else torch.empty((len(left), len(right)), dtype=kind)
        quantized.product(left, right.T, out=block)
        if block.dtype == torch.bfloat16:
            values = block.view(torch.int16).numpy().view(np.uint16)
        else:
            values = block.numpy()
        for each in lists:
            each.offer(values, row, column)
