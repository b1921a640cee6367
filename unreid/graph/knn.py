"""The k most similar images of each image: exact in blocks, or approximate through faiss.

[0] Johnson et al., Billion-scale similarity search with GPUs, 2017, arXiv:1702.08734 (faiss).
[1] Malkov & Yashunin, Hierarchical navigable small world graphs, 2016, arXiv:1603.09320.

Notation: N images, D channels, K neighbours, B rows of a block, M candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from unreid.checks import check_choice, check_features, check_integer
from unreid.graph import triangle
from unreid.graph.approximate import approximate
from unreid.kernels import kernel, knn_reference, num_threads, zero_copy

METHODS = ("exact", "ivf", "hnsw")
#: Default number of rows in a block of the product.
BLOCK_SIZE = 1024
#: Largest number of float32 products in one block of :func:`search`, on a CPU and on a GPU.
MAX_ENTRIES = (2**24, 2**30)
#: Extra candidates of a block, before the error bound is checked.
SPARE = 16
#: Added to an image's own score, so that it stays first among its exact duplicates.
SELF = 4.0


def _products(features: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return similarities (R, M) float32 of rows (R,) and columns (R, M), summed in float64."""
    if features.device.type == "cpu":
        pair_products = (kernel("knn") or knn_reference).pair_products
        array = features.numpy()
        lefts = rows.repeat_interleave(columns.shape[1]).numpy()
        flat = pair_products(array, array, lefts, columns.reshape(-1).numpy(), num_threads())
        return torch.from_numpy(flat).view(columns.shape)
    at_once = max(1, 2**24 // (columns.shape[1] * features.shape[1]))
    parts = [
        (features[c].double() @ features[r].double().unsqueeze(2)).squeeze(2).float()
        for r, c in zip(rows.split(at_once), columns.split(at_once))
    ]
    return torch.cat(parts)


def _best(
    features: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k best (R, k) of the candidates (R, M): self, then similarity, then index."""
    columns = columns.sort(dim=1).values
    scores = _products(features, rows, columns)
    scores = torch.where(columns == rows[:, None], scores + SELF, scores)
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return columns.gather(1, order), scores.gather(1, order)


def search(
    features: torch.Tensor, rows: torch.Tensor, k: int, block_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Search neighbours on any device: float32 products first, then exact rescoring.

    Args:
        features: (N, D) float32, unit rows.
        rows: (R,) int64, the images to search neighbours for.
        k: Neighbours, the image itself included, <= N.
        block_size: Rows in a block.

    Returns:
        indices (R, k) int64 and similarities (R, k) float32, self first.
    """
    num, channels = features.shape
    # Error bound of a float32 sum of D products, in any order; doubled for a split sum.
    bound = 4.0 * channels * 2.0**-24 + 1e-6
    if features.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
        bound += 2.0**-9
    width = min(num, k + SPARE)
    block_size = max(1, min(block_size, MAX_ENTRIES[features.device.type == "cuda"] // num))
    found = torch.empty((len(rows), k), dtype=torch.int64, device=features.device)
    values = torch.empty((len(rows), k), dtype=torch.float32, device=features.device)
    for start in range(0, len(rows), block_size):
        part = rows[start : start + block_size]
        product = features[part] @ features.T
        product.scatter_(1, part[:, None], SELF)
        top, candidates = product.topk(width, dim=1)
        indices, scores = _best(features, part, candidates, k)
        if width < num:
            # The other images score below the last candidate; check that none can be among the k.
            unsure = (top[:, -1] + 2 * bound >= scores[:, -1]).nonzero()[:, 0]
            for row in unsure:
                wide = (product[row] >= scores[row, -1] - 2 * bound).nonzero()[:, 0]
                one = part[row][None]
                indices[row], scores[row] = (x[0] for x in _best(features, one, wide[None], k))
        found[start : start + block_size] = indices
        values[start : start + block_size] = scores
    values[:, 0] = features[rows].double().square().sum(1).float()
    return found, values


def pair_similarities(features: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the inner products (P,) float32 of rows and columns (P,), summed in float64."""
    pair_products = (kernel("knn") or knn_reference).pair_products
    return pair_products(features, features, rows, columns, num_threads())


def exact(features: np.ndarray, k: int, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return exact neighbours (N, k) on the CPU, by the kernel or by :func:`search`."""
    return _exact(features, k, block_size, False)[:2]


def exact_and_farthest(
    features: np.ndarray, k: int, block_size: int = BLOCK_SIZE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the result of ``exact`` and the smallest similarity (N,) of each row in one pass."""
    indices, similarities, farthest = _exact(features, k, block_size, True)
    return indices, similarities, pair_similarities(features, indices[:, 0], farthest)


def _exact(
    features: np.ndarray, k: int, block_size: int, far: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return neighbours (N, k) and, with ``far``, the smallest similarity (N,), else empty."""
    tensor, every = zero_copy(features), np.arange(len(features), dtype=np.int32)
    kernels = kernel("knn")
    if kernels is None:
        found, values = search(tensor, torch.from_numpy(every).long(), k, block_size)
        indices, similarities = found.numpy().astype(np.int32), values.numpy()
        similarities[:, 0] = pair_similarities(features, every, every)
        least = [(t @ tensor.T).argmin(1).numpy() for t in tensor.split(block_size) if far]
        return indices, similarities, np.concatenate(least) if far else every[:0]
    quantized = triangle.quantize(features)
    near = triangle.CandidateLists(kernels, quantized, k - 1)
    wide = triangle.CandidateLists(kernels, quantized, int(far and len(features) > 1), -1.0)
    triangle.scan(quantized, block_size, [near, wide] if far else [near])
    others, scores, again = near.finish(features)
    indices = np.concatenate([every[:, None], others], axis=1)
    own = pair_similarities(features, every, every)[:, None]
    similarities = np.concatenate([own, scores], axis=1)
    if again.size:
        found, values = search(tensor, torch.from_numpy(again), k, block_size)
        indices[again, 1:], similarities[again, 1:] = found[:, 1:], values[:, 1:]
    if not (far and len(features) > 1):
        return indices, similarities, every if far else every[:0]
    farthest, _, again = wide.finish(features)
    for part in np.split(again, range(block_size, len(again), block_size)) if again.size else ():
        farthest[part, 0] = (tensor[part] @ tensor.T).argmin(1).numpy()
    return indices, similarities, farthest[:, 0]


def knn(
    features: Any,
    k: int,
    *,
    method: str = "exact",
    block_size: int | None = None,
    num_probes: int = 64,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Return the k nearest images of each image, itself first.

    Args:
        features: (N, D) float, unit rows; numpy array or tensor on any device.
        k: Neighbours including the image itself, >= 1; clipped to N.
        method: "exact", or "ivf" / "hnsw" (approximate, by faiss on the CPU) for large N. On a
            processor with fast int8 products, "exact" was faster than "ivf" (recall 96 %) for
            N = 40,000 and D = 256.
        block_size: Rows in a block of the product, >= 1; it does not change the result.
        num_probes: Lists visited by "ivf", or efSearch of "hnsw", >= 1; more gives higher recall.
        seed: Seed of the k-means of "ivf".

    Returns:
        Indices (N, min(k, N)) int32 and similarities float32, of the type of ``features``:
        self first (even among exact duplicates), then descending similarity, ties by index. A
        similarity is the inner product summed in float64 and rounded to float32. The exact
        result is the same for any block size and number of threads. The approximate
        results are reproducible on one machine.
    """
    check_features("features", features)
    k = min(check_integer("k", k, 1), features.shape[0])
    check_choice("method", method, METHODS)
    block_size = BLOCK_SIZE if block_size is None else check_integer("block_size", block_size, 1)
    num_probes = check_integer("num_probes", num_probes, 1)
    is_tensor = isinstance(features, torch.Tensor)
    if is_tensor and method == "exact" and features.device.type != "cpu":
        tensor = features.detach().float()
        rows = torch.arange(len(tensor), device=tensor.device)
        found, values = search(tensor, rows, k, block_size)
        return found.int(), values
    array = features.detach().float().cpu().numpy() if is_tensor else features
    array = np.ascontiguousarray(array, dtype=np.float32)
    if method == "exact":
        indices, similarities = exact(array, k, block_size)
    else:
        indices, similarities = approximate(array, k, method, num_probes, seed)
    if is_tensor:
        device = features.device
        return torch.from_numpy(indices).to(device), torch.from_numpy(similarities).to(device)
    return indices, similarities
