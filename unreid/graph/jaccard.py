"""The k-reciprocal Jaccard distance as a sparse matrix, without a dense N x N matrix.

[0] Zhong et al., Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017,
    arXiv:1701.08398.
[1] Ge et al., Self-paced contrastive learning (SpCL), NeurIPS 2020, arXiv:2006.02713. The result
    equals its dense matrix, which Cluster Contrast (arXiv:2103.11568) also uses.

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
    """Return a tensor or array as a numpy array."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values


def half_width(k1: int) -> int:
    """Return the size of the half set of [0], itself included: round-half-even(k1 / 2) + 1."""
    return int(np.around(k1 / 2)) + 1


def normalise_rows(indptr: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weights (E,) float32 divided by the sum of their row; no row may be empty."""
    sums = np.add.reduceat(weights, indptr[:-1], dtype=np.float64)
    return (weights / np.repeat(sums, np.diff(indptr))).astype(np.float32)


def cosine_weights(rows: np.ndarray, columns: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Return exp(-(2 - 2 cos)); the constant factor cancels when rows are normalised."""
    return np.exp(2.0 * products - 2.0)


def encode(
    features: np.ndarray,
    indices: np.ndarray,
    k1: int,
    k2: int,
    weights: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] = cosine_weights,
) -> Csr:
    """Encode each image as a distribution over its k-reciprocal neighbours (eq. 5-7 of [0]).

    Args:
        features: (N, D) float32, unit rows for the default ``weights``.
        indices: (N, K) int32 neighbours, self first; all K form the k-reciprocal set.
        k1: Size of the k-reciprocal sets; determines the size of the half sets.
        k2: Neighbours averaged by the query expansion, clipped to K; 1 turns it off.
        weights: Function of the rows (E,), columns (E,) and inner products (E,) of pairs.

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
    """Return the Jaccard distances below 1 as indptr, columns, values (eq. 10 of [0]).

    Args:
        encoded: CSR (N, N) of :func:`encode`.
        num_rows: Rows to compute, from 0.
        first_column: First column to return.
        max_distance: Largest distance to return.
    """
    rows = (kernel("jaccard") or jaccard_reference).jaccard_rows
    return rows(*encoded, num_rows, first_column, max_distance, num_threads())


def check_neighbours(neighbours: tuple[Any, Any], num: int, k: int) -> np.ndarray:
    """Return the indices (N, K >= k) int32 of ``neighbours`` after validation."""
    indices = np.ascontiguousarray(_array(neighbours[0]), dtype=np.int32)
    if indices.ndim != 2 or len(indices) != num or indices.shape[1] < k:
        raise ValueError(
            f"neighbours must be the result of knn(features, k >= {k}) with {num} rows, got"
            f" indices of shape {indices.shape}"
        )
    if indices.min() < 0 or indices.max() >= num or (indices[:, 0] != np.arange(num)).any():
        raise ValueError(
            f"neighbours must be indices in 0..{num - 1}, the image itself first in each row"
        )
    return indices


def jaccard_distance(
    features: Any,
    k1: int = 30,
    k2: int = 6,
    *,
    neighbours: tuple[Any, Any] | None = None,
    max_distance: float | None = None,
) -> sparse.csr_array:
    """Return the Jaccard distance of k-reciprocal encodings as a sparse matrix of entries below 1.

    Args:
        features: (N, D) float, unit rows; numpy array or tensor.
        k1: Neighbours in a k-reciprocal set, the image itself included, >= 1; clipped to N.
        k2: Neighbours averaged by the query expansion, >= 1 (1: off); clipped to min(k1, N).
        neighbours: Result of ``knn(features, k >= k1)``; computed when None.
        max_distance: Keep only entries <= this value, such as the eps of DBSCAN.

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
    # scipy uses one index type: int64 pointers would double the memory of the columns.
    if len(columns) <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    return sparse.csr_array((values, columns, indptr), shape=(num, num))
