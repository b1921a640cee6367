"""The k-reciprocal Jaccard distance as a sparse matrix, never N x N.

[0] Zhong et al., Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017,
    arXiv:1701.08398.
[1] Ge et al., Self-paced contrastive learning (SpCL), NeurIPS 2020, arXiv:2006.02713, whose
    dense matrix this equals (Cluster Contrast, arXiv:2103.11568, uses the same).

Notation: N images, D channels, K neighbours, E entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import sparse

from unreid.checks import check_features, check_integer, check_number
from unreid.graph.knn import knn, pair_similarities
from unreid.kernels import jaccard_reference, kernel, num_threads

Csr = tuple[np.ndarray, np.ndarray, np.ndarray]


def _array(values: Any) -> np.ndarray:
    """A numpy array of a tensor's or array's values."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values


def half_width(k1: int) -> int:
    """Neighbours, itself included, in the half set of [0]: round(k1 / 2) + 1, even halves down."""
    return int(np.around(k1 / 2)) + 1


def normalise_rows(indptr: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights (E,) divided by the sum of their row, float32; no row may be empty."""
    sums = np.add.reduceat(weights, indptr[:-1], dtype=np.float64)
    return (weights / np.repeat(sums, np.diff(indptr))).astype(np.float32)


def cosine_weights(rows: np.ndarray, columns: np.ndarray, products: np.ndarray) -> np.ndarray:
    """exp(-(2 - 2 cos)): the constant cancels when a row is normalised, but keeps exp small."""
    return np.exp(2.0 * products - 2.0)


def encode(
    features: np.ndarray,
    indices: np.ndarray,
    k1: int,
    k2: int,
    weights: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] = cosine_weights,
) -> Csr:
    """Each image as a sparse distribution over its k-reciprocal neighbours (eq. 5-7 of [0]).

    Args:
        features: (N, D) float32, unit rows for the default ``weights``.
        indices: (N, K) int32 neighbours, self first; all K make a k-reciprocal set.
        k1: what the half set is half of; k2: columns averaged by the query expansion (1: none;
            clipped to K).
        weights: of pairs, from their rows (E,), columns (E,) and inner products (E,).

    Returns:
        CSR (N, N) with sorted columns, rows that sum to 1.
    """
    threads = num_threads()
    sets = kernel("jaccard") or jaccard_reference
    indptr, columns = sets.expand(indices, indices.shape[1], half_width(k1), threads)
    rows = np.repeat(np.arange(len(indices)), np.diff(indptr))
    products = pair_similarities(features, rows, columns)
    values = normalise_rows(indptr, weights(rows, columns, products))
    k2 = min(k2, indices.shape[1])
    if k2 == 1:
        return indptr, columns, values
    return sets.mean_rows(indptr, columns, values, np.ascontiguousarray(indices[:, :k2]), threads)


def distances(encoded: Csr, num_rows: int, first_column: int, max_distance: float) -> Csr:
    """Jaccard distances below 1 (and <= ``max_distance``) of the first rows with the columns
    from ``first_column`` on, as indptr, columns, values (eq. 10 of [0])."""
    rows = (kernel("jaccard") or jaccard_reference).jaccard_rows
    return rows(*encoded, num_rows, first_column, max_distance, num_threads())


def check_neighbours(neighbours: tuple[Any, Any], num: int, k: int) -> np.ndarray:
    """The indices (N, K >= k) int32 of ``neighbours``, or an error that says what is wrong."""
    indices = np.ascontiguousarray(_array(neighbours[0]), dtype=np.int32)
    if indices.ndim != 2 or len(indices) != num or indices.shape[1] < k:
        raise ValueError(
            f"neighbours must be what knn(features, k >= {k}) returns, with {num} rows, got"
            f" indices of shape {indices.shape}"
        )
    if indices.min() < 0 or indices.max() >= num or (indices[:, 0] != np.arange(num)).any():
        raise ValueError(f"neighbours must be indices of 0..{num - 1} with each row's own first")
    return indices


def jaccard_distance(
    features: Any,
    k1: int = 30,
    k2: int = 6,
    *,
    neighbours: tuple[Any, Any] | None = None,
    max_distance: float | None = None,
) -> sparse.csr_array:
    """Jaccard distance of k-reciprocal encodings, the entries below 1 only.

    Args:
        features: (N, D) float, unit rows; numpy array or tensor.
        k1: neighbours in a k-reciprocal set, itself included, >= 1; clipped to N.
        k2: neighbours averaged by the query expansion, >= 1 (1: none); clipped to min(k1, N).
        neighbours: what ``knn(features, k >= k1)`` returned, where it is at hand already.
        max_distance: keep only entries <= this (all that DBSCAN with eps <= this needs).

    Returns:
        (N, N) symmetric float32 ``csr_array`` with sorted columns and explicit zeros on the
        diagonal. An absent entry is 1 (or above ``max_distance``).
    """
    check_features("features", features)
    num = features.shape[0]
    k1, k2 = check_integer("k1", k1, 1), check_integer("k2", k2, 1)
    limit = 1.0 if max_distance is None else check_number("max_distance", max_distance, 0.0)
    width = min(k1, num)
    if neighbours is None:
        neighbours = knn(features, width)
    indices = check_neighbours(neighbours, num, width)[:, :width]
    array = np.ascontiguousarray(_array(features), dtype=np.float32)
    encoded = encode(array, np.ascontiguousarray(indices), k1, k2)
    indptr, columns, values = distances(encoded, num, 0, limit)
    # Pointers as wide as the columns: else scipy widens every column, at twice their memory.
    if len(columns) <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    return sparse.csr_array((values, columns, indptr), shape=(num, num))
