"""Takes each camera's mean feature out: the cheapest gain against the camera gap.

It needs camera ids and nothing else; projects/CALR/README.md has what it gains on real images.

Notation: N images, D channels, M cameras.
"""

from __future__ import annotations

import numpy as np

from unreid.checks import check_features, check_number


def camera_means(
    features: np.ndarray, camids: np.ndarray, num_cameras: int, shrinkage: float = 16.0
) -> np.ndarray:
    """Mean feature of each camera, shrunk towards the mean of all when it has few images.

    mu_c = (sum of c's features + shrinkage * mu) / (n_c + shrinkage); a camera without an image
    (and shrinkage > 0) has mu, the mean of all.

    Args:
        features: (N, D) float.
        camids: (N,) integer in 0..num_cameras-1; others raise.
        num_cameras: M.
        shrinkage: Images whose weight equals one global mean, >= 0.

    Returns:
        (M, D) float32.

    Raises:
        ValueError: a camera outside 0..M-1, or features that are not finite.
    """
    check_features("features", features, unit=False)
    check_number("shrinkage", shrinkage, 0)
    if camids.min() < 0 or camids.max() >= num_cameras:
        raise ValueError(
            f"camids must be in 0..{num_cameras - 1}, got {camids.min()}..{camids.max()}"
        )
    overall = features.mean(axis=0, dtype=np.float64)
    means = np.empty((num_cameras, features.shape[1]), dtype=np.float32)
    for camera in range(num_cameras):
        own = features[camids == camera]
        total = own.sum(axis=0, dtype=np.float64) + shrinkage * overall
        weight = len(own) + shrinkage
        means[camera] = total / weight if weight else overall
    return means


def subtract_means(features: np.ndarray, camids: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Unit rows of features - means[camera]; a row that equals its mean stays as it was.

    Args:
        features: (N, D) float, unit rows.
        camids: (N,) integer, rows of ``means``.
        means: (M, D) of :func:`camera_means`.

    Returns:
        (N, D) float32, unit rows; the input is not changed.
    """
    centred = features - means[camids]
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    # All images of a camera alike: no direction is left, so the feature itself has to do.
    return np.where(lengths > 1e-6, centred / np.maximum(lengths, 1e-6), features).astype(
        np.float32
    )


def center_cameras(
    features: np.ndarray, camids: np.ndarray, shrinkage: float = 16.0
) -> np.ndarray:
    """:func:`camera_means` of these very features, subtracted; see there."""
    means = camera_means(features, camids, int(camids.max()) + 1, shrinkage)
    return subtract_means(features, camids, means)
