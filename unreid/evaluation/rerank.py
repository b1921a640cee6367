"""k-reciprocal re-ranking from sparse encodings, without a (Q + G) x (Q + G) matrix.

[0] Zhong et al., Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017,
    arXiv:1701.08398.

Notation: Q queries, G gallery images, N = Q + G, D channels, E entries.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from unreid.checks import check_choice, check_features, check_integer, check_number
from unreid.graph.euclidean import centred, euclidean_knn
from unreid.graph.jaccard import Csr, distances, encode
from unreid.graph.knn import exact_and_farthest, knn
from unreid.kernels import zero_copy

#: Distances between features that ``TEST.METRIC`` can name.
METRICS = ("cosine", "euclidean")


def _stacked(
    query_features: Any, gallery_features: Any, *, unit: bool = True
) -> tuple[np.ndarray, int]:
    """Return query and gallery features stacked, (N, D) float32, and Q."""
    parts = []
    for name, values in (
        ("query_features", query_features),
        ("gallery_features", gallery_features),
    ):
        check_features(name, values, unit=unit)
        on_cpu = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
        parts.append(np.asarray(on_cpu, dtype=np.float32))
    if parts[0].shape[1] != parts[1].shape[1]:
        raise ValueError(
            f"gallery_features must have {parts[0].shape[1]} channels like query_features, got"
            f" {parts[1].shape[1]}"
        )
    return np.concatenate(parts), len(parts[0])


def _blend(final: np.ndarray, jaccard: Csr, first_column: int, share: float) -> None:
    """Add ``share`` times the Jaccard distance to (Q, G) ``final``; an absent entry is 1."""
    indptr, columns, values = jaccard
    final += np.float32(share)
    for i, (start, stop) in enumerate(pairwise(indptr)):
        final[i, columns[start:stop] - first_column] += share * (values[start:stop] - 1.0)


def k_reciprocal_rerank(
    query_features: Any,
    gallery_features: Any,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> np.ndarray:
    """Return re-ranked distances as ``fastreid.evaluation.rerank.re_ranking`` on cosine distances.

    fast-reid squares the distance d = 1 - cos and divides the squares of each image by their
    maximum. It encodes sets of k1 + 1 neighbours with weights exp(-d^2 / max d^2), and mixes the
    Jaccard distance with the scaled squares (eq. 12 of [0]). Squared Euclidean distances of unit
    rows are 2 - 2 cos, so they give the same result.

    Args:
        query_features: (Q, D) float, unit rows.
        gallery_features: (G, D) float, unit rows.
        k1: Neighbours of the k-reciprocal sets, >= 1, clipped to N.
        k2: Neighbours of the query expansion, >= 1, clipped to N.
        lambda_value: Weight of the original distance, 0..1.

    Returns:
        (Q, G) float32. Memory: the result, N k1 neighbours, and the sparse encodings.
    """
    features, num_queries = _stacked(query_features, gallery_features)
    k1, k2 = check_integer("k1", k1, 1), check_integer("k2", k2, 1)
    share = check_number("lambda_value", lambda_value, 0.0, 1.0)
    indices, _, least = exact_and_farthest(features, min(k1 + 1, len(features)))
    # Identical images: avoid a division by zero; every distance is zero.
    largest = np.maximum((1.0 - least.astype(np.float64)) ** 2, np.finfo(np.float32).tiny)

    def weights(rows: np.ndarray, columns: np.ndarray, products: np.ndarray) -> np.ndarray:
        return np.exp(-((1.0 - products.astype(np.float64)) ** 2) / largest[rows])

    encoded = encode(features, indices, k1, k2, weights)
    jaccard = distances(encoded, num_queries, num_queries, 1.0)
    tensor = zero_copy(features)
    final = (tensor[:num_queries] @ tensor[num_queries:].T).numpy()
    np.subtract(1.0, final, out=final)
    np.square(final, out=final)
    final *= (share / largest[:num_queries, None]).astype(np.float32)
    _blend(final, jaccard, num_queries, 1.0 - share)
    return final


def jaccard_query_gallery(
    query_features: Any,
    gallery_features: Any,
    k1: int = 20,
    k2: int = 6,
    metric: str = "cosine",
) -> np.ndarray:
    """Return the Jaccard distance that fast-reid's evaluator mixes in for ``TEST.RERANK``.

    Unlike ``k_reciprocal_rerank``, it uses k1 neighbours including the image itself, and weights
    exp(-||x - y||^2), as the distance in training, for queries and gallery together.
    fast-reid then ranks by ``jaccard * (1 - LAMBDA) + distmat * LAMBDA``.

    Args:
        query_features: (Q, D) float.
        gallery_features: (G, D) float.
        k1: See ``TEST.RERANK.K1``, >= 1, clipped to N.
        k2: See ``TEST.RERANK.K2``, >= 1, clipped to N.
        metric: "cosine" takes unit rows (fast-reid normalises the features before this when
            ``TEST.METRIC`` is "cosine"), "euclidean" rows of any length (fast-reid does not
            normalise them).

    Returns:
        (Q, G) float32, 0..1.
    """
    check_choice("metric", metric, METRICS)
    euclidean = metric == "euclidean"
    features, num_queries = _stacked(query_features, gallery_features, unit=not euclidean)
    k1, k2 = check_integer("k1", k1, 1), check_integer("k2", k2, 1)
    if euclidean:
        features = centred(features)
        encoded = encode(features, euclidean_knn(features, k1), k1, k2, _squared_weights(features))
    else:
        encoded = encode(features, knn(features, k1)[0], k1, k2)
    jaccard = distances(encoded, num_queries, num_queries, 1.0)
    final = np.zeros((num_queries, len(features) - num_queries), dtype=np.float32)
    _blend(final, jaccard, num_queries, 1.0)
    return final


def _squared_weights(
    features: np.ndarray,
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Return the weights exp(-||x - y||^2) of pairs of these features, for :func:`encode`."""
    squares = np.einsum("ij,ij->i", features, features, dtype=np.float64)

    def weights(rows: np.ndarray, columns: np.ndarray, products: np.ndarray) -> np.ndarray:
        squared = squares[rows] + squares[columns] - 2.0 * products.astype(np.float64)
        # The distance of an image to itself is 0, so a row sums to at least 1.
        return np.exp(-np.where(rows == columns, 0.0, np.maximum(squared, 0.0)))

    return weights
