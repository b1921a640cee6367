"""Camera-mean subtraction (camera centring), which reduces the domain gap between cameras.

Only camera ids are needed. projects/CALR/README.md reports the measured gain.

Notation: N images, D channels, M cameras.
"""

from __future__ import annotations

import numpy as np

from unreid.checks import check_features, check_number


def camera_means(
    features: np.ndarray, camids: np.ndarray, num_cameras: int, shrinkage: float = 16.0
) -> np.ndarray:
    """Return the mean feature of each camera, shrunk towards the global mean.

    mu_c = (sum of c's features + shrinkage * mu) / (n_c + shrinkage); a camera without
    images gets the global mean mu.

    Args:
        features: (N, D) float.
        camids: (N,) integer in 0..num_cameras-1; other values raise.
        num_cameras: M.
        shrinkage: Weight of the global mean in images, >= 0.

    Returns:
        (M, D) float32.

    Raises:
        ValueError: A camera outside 0..M-1, or features that are not finite.
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
    """Return features - means[camera] as unit rows; a row equal to its mean is not changed.

    Args:
        features: (N, D) float, unit rows.
        camids: (N,) integer, rows of ``means``.
        means: (M, D) of :func:`camera_means`.

    Returns:
        (N, D) float32, unit rows; the input is not changed.
    """
    centred = features - means[camids]
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    # The difference of a row equal to its camera's mean has no direction, so the row is kept.
    return np.where(lengths > 1e-6, centred / np.maximum(lengths, 1e-6), features).astype(
        np.float32
    )


def center_cameras(features: np.ndarray, camids: np.ndarray, shrinkage: float = 16.0) -> np.ndarray:
    """Subtract the :func:`camera_means` of the same features; see there for the arguments."""
    means = camera_means(features, camids, int(camids.max()) + 1, shrinkage)
    return subtract_means(features, camids, means)
