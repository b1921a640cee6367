"""Pseudo pairs from neighbours: mutual top-k above a threshold, and the threshold itself.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification,
    IEEE TIP 31 (2022) 4803-4816, arXiv:2207.13035.
[1] Liu et al., Guided Similarity Separation for Image Retrieval, NeurIPS 2019: the gradient
    alpha (s - beta) whose sign separates pairs and whose size is their confidence.

Unlike [0] and [1], a pair must also be mutual: each image is among the k nearest of the other.
For the same number of pairs, this gives a higher precision than a threshold alone.

Notation: N images, D channels, K neighbours, M pairs, S saturated rows (see below), R sampled
rows; s a similarity clipped to 0..1, beta the threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from unreid.checks import check_features, check_integer, check_number
from unreid.graph.jaccard import check_neighbours
from unreid.kernels import zero_copy

#: Rows in a block of similarities.
BLOCK_SIZE = 1024
#: Saturated rows are completed exactly up to this number or half of all rows.
COMPLETED_ROWS = 4096
#: Number of rows of the estimate.
SAMPLED_ROWS = 512
#: Margin below the threshold of the lists, for rounding errors of another order of summation.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Threshold:
    """Result of ``expected_threshold``.

    Attributes:
        beta: 0..1.
        exact: False if estimated from ``SAMPLED_ROWS`` rows.
        saturated: S, the number of images whose last listed neighbour is above beta.
    """

    beta: float
    exact: bool
    saturated: int


def _neighbours(neighbours: tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the other images (N, K - 1) int64 of each list and similarities, clipped to 0..1."""
    similarities = np.asarray(neighbours[1])
    indices = check_neighbours(neighbours, len(similarities), 1)
    if similarities.shape != indices.shape:
        raise ValueError(
            f"neighbours must be indices and similarities of equal shape, got {indices.shape} and"
            f" {similarities.shape}"
        )
    return indices[:, 1:].astype(np.int64), np.clip(similarities[:, 1:], 0.0, 1.0)


def _cameras(camids: Any, num: int) -> np.ndarray:
    """Return camids (N,), or raise ValueError for another shape."""
    camids = np.asarray(camids)
    if camids.shape != (num,):
        raise ValueError(f"camids must have shape ({num},), got {camids.shape}")
    return camids


def _edges(others: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted keys min * N + max of the chosen pairs, and their flat positions."""
    num = len(others)
    places = np.flatnonzero(chosen)
    rows, columns = places // others.shape[1], others.reshape(-1)[places]
    keys = np.minimum(rows, columns) * num + np.maximum(rows, columns)
    order = np.argsort(keys, kind="stable")
    return keys[order], places[order]


def mutual_pairs(
    neighbours: tuple[Any, Any],
    k: int,
    beta: float,
    *,
    camids: np.ndarray | None = None,
    beta_cross: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs that are among the k nearest of each other and more similar than beta.

    Args:
        neighbours: Arrays of ``knn(features, K >= k + 1)``, each image itself first.
        k: Number of nearest other images that can form a pair, >= 1; clipped to N - 1.
        beta: Threshold in 0..1; a pair needs s > beta.
        camids: (N,) cameras; required with ``beta_cross``.
        beta_cross: Threshold in 0..1 for pairs across cameras; None uses ``beta`` for all pairs.

    Returns:
        Indices (M, 2) int64, i < j, unique, ascending; and the confidence (M,) float32 in 0..1,
        the absolute gradient |s - beta| of [1]. M may be 0.

    Raises:
        ValueError: Lists shorter than k + 1, a threshold outside 0..1, or no camids.
    """
    k, beta = check_integer("k", k, 1), check_number("beta", beta, 0.0, 1.0)
    others, similarities = _neighbours(neighbours)
    num = len(others)
    if others.shape[1] < min(k, num - 1):
        raise ValueError(f"neighbours must list {k} other images per image, got {others.shape[1]}")
    others, similarities = np.ascontiguousarray(others[:, :k]), similarities[:, :k]
    limit: Any = np.float32(beta)
    if beta_cross is not None:
        if camids is None:
            raise ValueError("beta_cross requires camids, got None")
        cameras = _cameras(camids, num)
        cross = np.float32(check_number("beta_cross", beta_cross, 0.0, 1.0))
        limit = np.where(cameras[:, None] != cameras[others], cross, limit)
    strength = np.abs(similarities - limit).reshape(-1)
    keys, places = _edges(others, similarities > limit)
    # A mutual pair occurs twice, in adjacent positions.
    mutual = np.flatnonzero(keys[1:] == keys[:-1])
    pairs = np.stack(np.divmod(keys[mutual], num), axis=1)
    return pairs.reshape(-1, 2), strength[places[mutual]].astype(np.float32)


def expected_threshold(
    features: np.ndarray,
    neighbours: tuple[Any, Any],
    expected: float,
    *,
    camids: np.ndarray | None = None,
    cross: bool = False,
) -> Threshold:
    """Return the beta above which an image has ``expected`` other images on average.

    It is the quantile 1 - expected / (N - 1) of the N (N - 1) / 2 similarities, the (m + 1)-th
    largest for m = expected N / 2, without computing all of them. The similarity of an
    unlisted pair is at most the last entry of both lists. Therefore only images whose lists end
    above the threshold of the listed pairs (S saturated images) can have unlisted pairs above it.
    The S x S similarities among them are computed. With more than ``COMPLETED_ROWS`` and N / 2
    saturated images, the quantile is estimated from ``SAMPLED_ROWS`` evenly spaced rows and
    ``exact`` is False.

    Args:
        features: (N, D) float32 unit rows.
        neighbours: Arrays of ``knn(features, K)``; with K = 2 ``expected`` few rows
            are saturated.
        expected: Number of other images per image above beta, > 0. beta is 0 if there are fewer.
        camids: (N,) cameras, to count pairs within a camera only; None counts all pairs.
        cross: With ``camids``, count pairs across cameras only. ``expected`` is then the number of
            such pairs.

    Raises:
        ValueError: A value out of range, or fewer than two images.
    """
    check_features("features", features)
    expected = check_number("expected", expected, 0.0, open_minimum=True)
    num = len(features)
    if num < 2:
        raise ValueError(f"features must have at least 2 rows, got {num}")
    others, similarities = _neighbours(neighbours)
    if len(others) != num:
        raise ValueError(f"neighbours must have {num} rows, got {len(others)}")
    cameras = None if camids is None else _cameras(camids, num)
    wanted = max(1, round(expected * num / 2))
    rows, columns, values = _listed(others, similarities)
    if cameras is not None:
        counted = (cameras[rows] != cameras[columns]) == cross
        rows, columns, values = rows[counted], columns[counted], values[counted]
    low = _largest(values, wanted)
    last = similarities[:, -1] if others.shape[1] else np.ones(num)
    hidden = (last > low) & (others.shape[1] < num - 1)
    saturated = int(hidden.sum())
    # A single saturated image has no unlisted pair.
    if saturated <= 1:
        return Threshold(max(0.0, low), True, saturated)
    if saturated > max(COMPLETED_ROWS, num // 2):
        return Threshold(_estimate(features, expected, cameras, cross), False, saturated)
    kept = values[~(hidden[rows] & hidden[columns])]
    for more in _similarities_within(
        features, np.flatnonzero(hidden), low - ROUNDING, cameras, cross
    ):
        kept = np.concatenate([kept, more])
        if len(kept) > 4 * wanted + BLOCK_SIZE**2:  # identical images: keep only the largest
            kept = np.partition(kept, len(kept) - wanted - 1)[len(kept) - wanted - 1 :]
    return Threshold(max(0.0, _largest(kept, wanted)), True, saturated)


def _listed(
    others: np.ndarray, similarities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both images and the similarity of every listed pair, without duplicates."""
    keys, places = _edges(others, np.ones(others.shape, dtype=bool))
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    rows, columns = np.divmod(keys[first], len(others))
    return rows, columns, similarities.reshape(-1)[places[first]]


def _largest(values: np.ndarray, wanted: int) -> float:
    """Return the (wanted + 1)-th largest value, or -1 if there are fewer."""
    place = len(values) - wanted - 1
    return float(np.partition(values, place)[place]) if place >= 0 else -1.0


def _similarities_within(
    features: np.ndarray, members: np.ndarray, low: float, cameras: np.ndarray | None, cross: bool
) -> Iterator[np.ndarray]:
    """Yield similarities above ``low``, clipped to 0..1, of pairs of ``members`` (S,), by block."""
    tensor = zero_copy(np.ascontiguousarray(features[members], dtype=np.float32))
    for start in range(0, len(members), BLOCK_SIZE):
        left = tensor[start : start + BLOCK_SIZE]
        for other in range(start, len(members), BLOCK_SIZE):
            block = (left @ tensor[other : other + BLOCK_SIZE].T).numpy()
            chosen = block > low
            if other == start:
                chosen &= np.tri(len(chosen), k=-1, dtype=bool).T
            if cameras is not None:
                own = cameras[members[start : start + BLOCK_SIZE], None]
                apart = own != cameras[members[other : other + BLOCK_SIZE]]
                chosen &= apart == cross
            yield np.clip(block[chosen], 0.0, 1.0)


def _estimate(
    features: np.ndarray, expected: float, cameras: np.ndarray | None, cross: bool
) -> float:
    """Return the threshold in 0..1 estimated from R evenly spaced rows."""
    num = len(features)
    rows = np.unique(np.linspace(0, num - 1, min(num, SAMPLED_ROWS)).astype(np.int64))
    tensor = zero_copy(np.ascontiguousarray(features, dtype=np.float32))
    wanted, kept = max(1, round(expected * len(rows))), np.empty(0, dtype=np.float32)
    for part in np.array_split(rows, max(1, len(rows) * num // 2**24)):
        block = (tensor[part] @ tensor.T).numpy()
        chosen = np.ones(block.shape, dtype=bool)
        if cameras is not None:
            chosen = (cameras[part, None] != cameras) == cross
        chosen[np.arange(len(part)), part] = False
        kept = np.concatenate([kept, block[chosen]])
        if len(kept) > wanted:
            kept = np.partition(kept, len(kept) - wanted - 1)[len(kept) - wanted - 1 :]
    return min(1.0, max(0.0, _largest(kept, wanted)))
