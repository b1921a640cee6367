"""Partitions as arrays of labels: renumbering them, and the centroid of each cluster.

Notation: N images, D channels, C clusters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from unreid.checks import check_features, check_integer
from unreid.structures import NOISE


def check_labels(name: str, labels: ArrayLike, num_images: int | None = None) -> np.ndarray:
    """Return ``labels`` as an integer array (N,).

    Raises:
        TypeError: The labels are not integers.
        ValueError: The shape is not (N,), or not (``num_images``,).
    """
    array = np.asarray(labels)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    if array.ndim != 1 or (num_images is not None and len(array) != num_images):
        wanted = "N" if num_images is None else num_images
        raise ValueError(f"{name} must have shape ({wanted},), got {array.shape}")
    return array.astype(np.int64)


def compact(labels: ArrayLike, min_size: int = 1) -> np.ndarray:
    """Renumber clusters 0..C-1 in order of first appearance; small ones become noise.

    Args:
        labels: (N,) integers; all negative labels are noise.
        min_size: Clusters with fewer images become noise (-1).

    Returns:
        (N,) int64, a new array: -1 for noise, else 0..C-1 with no id unused.
    """
    array = check_labels("labels", labels)
    min_size = check_integer("min_size", min_size, 1)
    ids, first, inverse, counts = np.unique(
        array, return_index=True, return_inverse=True, return_counts=True
    )
    kept = (ids >= 0) & (counts >= min_size)
    new_ids = np.full(len(ids), NOISE, dtype=np.int64)
    order = np.flatnonzero(kept)[np.argsort(first[kept])]
    new_ids[order] = np.arange(len(order))
    return new_ids[inverse.reshape(-1)]


def centroids(features: np.ndarray, labels: ArrayLike) -> np.ndarray:
    """Return the mean direction of each cluster.

    Args:
        features: (N, D) float, unit rows.
        labels: (N,) integers; negative labels are noise and ignored; else 0..C-1, each id used.

    Returns:
        (C, D) float32, unit rows; (0, D) if all images are noise. Sums are computed in float64,
        in the order of the images. If the norm of a mean is below 1e-6 (no
        direction), the centroid is the first image of the cluster.
    """
    check_features("features", features)
    features = np.asarray(features)
    array = check_labels("labels", labels, len(features))
    clustered = np.flatnonzero(array >= 0)
    if not clustered.size:
        return np.zeros((0, features.shape[1]), dtype=np.float32)
    order = clustered[np.argsort(array[clustered], kind="stable")]
    ids, starts = np.unique(array[order], return_index=True)
    if ids[-1] != len(ids) - 1:
        raise ValueError(
            f"labels must use every id of 0..{ids[-1]}, but {len(ids)} are used; see"
            " unreid.clustering.partition.compact"
        )
    ends = np.append(starts[1:], len(order))
    means = np.empty((len(ids), features.shape[1]), dtype=np.float32)
    for c, (start, end) in enumerate(zip(starts, ends)):
        mean = features[order[start:end]].mean(axis=0, dtype=np.float64)
        length = np.linalg.norm(mean)
        if length < 1e-6:
            mean = features[order[start]].astype(np.float64)
            length = np.linalg.norm(mean)
        means[c] = mean / length
    return means
