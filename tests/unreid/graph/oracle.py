"""Slow, dense definitions written from the formulas, and random inputs for tests of the graph."""

from __future__ import annotations

import numpy as np


def unit(rng: np.random.Generator, num: int, channels: int, copies: int = 0) -> np.ndarray:
    """Return random unit rows around a few centres; the last ``copies`` rows are duplicates."""
    centres = rng.standard_normal((max(1, num // 6), channels))
    rows = centres[rng.integers(0, len(centres), num)] + 0.7 * rng.standard_normal((num, channels))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    features = rows.astype(np.float32)
    if copies:
        features[num - copies :] = features[rng.integers(0, num - copies, copies)]
    return features


def neighbours(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's k neighbours in double precision, sorted: self, similarity, index."""
    wide = features.astype(np.float64)
    product = (wide @ wide.T).astype(np.float32)
    # A matrix product may round equal rows differently, so compute the dot products one at a time.
    for i in range(len(wide)):
        product[i] = [float(np.dot(wide[i], other)) for other in wide]
    indices = []
    for i, row in enumerate(product):
        order = sorted(range(len(row)), key=lambda j: (j != i, -row[j], j))
        indices.append(order[:k])
    found = np.array(indices, dtype=np.int32)
    return found, np.take_along_axis(product, found, 1)


def jaccard(features: np.ndarray, rank: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """Return the dense Jaccard distance of SpCL in double, by loops over sets.

    There are k1 neighbours including self, and round(k1 / 2) + 1 of them in a half set. A half set
    is added if more than two thirds of its reciprocal members are in the k-reciprocal set. Weights
    are softmax(-(2 - 2 cos)), averaged over k2 neighbours.
    """
    num, wide = len(features), features.astype(np.float64)
    first = [[int(j) for j in rank[i, :k1]] for i in range(num)]
    half = [[int(j) for j in rank[i, : int(np.around(k1 / 2)) + 1]] for i in range(num)]
    mutual = [{j for j in first[i] if i in first[j]} for i in range(num)]
    half_mutual = [{j for j in half[i] if i in half[j]} for i in range(num)]
    encoding = np.zeros((num, num))
    for i in range(num):
        members = set(mutual[i])
        for j in mutual[i]:
            if len(half_mutual[j] & mutual[i]) > 2 / 3 * len(half_mutual[j]):
                members |= half_mutual[j]
        listed = sorted(members)
        weights = np.exp(-(2 - 2 * wide[listed] @ wide[i]))
        encoding[i, listed] = weights / weights.sum()
    if k2 > 1:
        encoding = np.stack([encoding[rank[i, :k2]].mean(axis=0) for i in range(num)])
    distance = np.empty((num, num))
    for i in range(num):
        for j in range(num):
            shared = np.minimum(encoding[i], encoding[j]).sum()
            distance[i, j] = 1 - shared / (2 - shared)
    return np.maximum(distance, 0)
