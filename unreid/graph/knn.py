"""The k most similar images of each image: exact in blocks, or approximate through faiss.

[0] Johnson et al., Billion-scale similarity search with GPUs, 2017, arXiv:1702.08734 (faiss).

Letters: N images, D channels, K neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from unreid.checks import check_choice, check_features, check_integer
from unreid.kernels import kernel, knn_twin

METHODS = ("exact", "ivf", "hnsw")
#: Rows of a block of the product when nothing is asked for.
BLOCK_SIZE = 1024
#: Candidates beyond k that a block keeps at first, before the error bound is looked at.
SPARE = 16


def _order(indices: np.ndarray, similarities: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each row: descending similarity, ties by index."""
    order = np.lexsort((indices, -similarities), axis=1)[:, :k]
    return np.take_along_axis(indices, order, 1), np.take_along_axis(similarities, order, 1)


def _rescore(
    features: np.ndarray, start: int, candidates: np.ndarray
) -> np.ndarray:
    """Similarities (B, M) float32 of rows start.. with their candidates; self counts as 2."""
    pair_products = (kernel("knn") or knn_twin).pair_products
    rows = np.repeat(np.arange(start, start + len(candidates)), candidates.shape[1])
    exact = pair_products(features, features, rows, candidates.reshape(-1))
    exact[rows == candidates.reshape(-1)] += 2.0
    return exact.reshape(candidates.shape)


def _exact(features: np.ndarray, k: int, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of rows against all, candidates by the float32 product, rescored in double."""
    num, channels = features.shape
    tensor = torch.from_numpy(features)
    # Of a float32 sum of D products of unit rows, in any order: |error| <= D u / (1 - D u).
    bound = 1.1 * channels * 2.0**-24
    indices = np.empty((num, k), dtype=np.int32)
    similarities = np.empty((num, k), dtype=np.float32)
    for start in range(0, num, block_size):
        product = tensor[start : start + block_size] @ tensor.T
        rows = torch.arange(len(product))
        product[rows, rows + start] = 2.0
        width = min(num, k + SPARE)
        top, candidates = product.topk(width, dim=1)
        ids = candidates.numpy().astype(np.int32)
        exact = _rescore(features, start, ids)
        ids, exact = _order(ids, exact, k)
        # Whoever was left out lies below the last candidate; further, it cannot enter.
        unsure = np.flatnonzero(top[:, -1].numpy() + 2 * bound >= exact[:, -1])
        for row in unsure if width < num else ():
            wide = np.flatnonzero(product[row].numpy() >= exact[row, -1] - 2 * bound)
            wide = wide.astype(np.int32)[None]
            scores = _rescore(features, start + int(row), wide)
            ids[row], exact[row] = (a[0] for a in _order(wide, scores, k))
        exact[:, 0] -= 2.0
        part = slice(start, start + len(ids))
        indices[part], similarities[part] = ids, exact
    return indices, similarities


def knn(
    features: Any, k: int, *, method: str = "exact", block_size: int | None = None
) -> tuple[Any, Any]:
    """The k nearest images of each, itself first.

    Args:
        features: (N, D) float, unit rows; numpy array or tensor on any device.
        k: neighbours including the image itself, >= 1; where N < k, all N are given.
        method: "exact", or "ivf" / "hnsw" (faiss) for large N.
        block_size: rows of the product held at once, >= 1; the result does not depend on it.

    Returns:
        indices (N, min(k, N)) int32 and similarities float32, of the kind of ``features``:
        self first (even among exact duplicates), then descending cosine, ties by index. A
        similarity is the inner product summed in double and rounded to float32.
    """
    check_features("features", features)
    k = min(check_integer("k", k, 1), features.shape[0])
    check_choice("method", method, METHODS)
    block_size = check_integer("block_size", block_size or BLOCK_SIZE, 1)
    is_tensor = isinstance(features, torch.Tensor)
    array = features.detach().float().cpu().numpy() if is_tensor else features
    array = np.ascontiguousarray(array, dtype=np.float32)
    indices, similarities = _exact(array, k, block_size)
    if is_tensor:
        device = features.device
        return torch.from_numpy(indices).to(device), torch.from_numpy(similarities).to(device)
    return indices, similarities
