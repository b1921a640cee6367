"""Per-camera whitening: removes the mean and reduces the covariance of each camera.

Directions in which the images of a camera vary most (light, background, pose) carry little
identity information. The centred features of each camera are multiplied by C^-power, where C is
the covariance of the camera, shrunk towards that of all cameras. Power 1/2 is whitening, and 0 is
centring only. Unlike [0], which aligns a source to a target domain, every camera is whitened,
without labels. ``benchmarks/merging_quality.py`` measures the gain.

[0] Sun, Feng, Saenko: Return of frustratingly easy domain adaptation (CORAL), 2016,
    https://arxiv.org/abs/1511.05547

Notation: N images, D channels, M cameras.
"""

from __future__ import annotations

import numpy as np

from unreid.checks import check_number
from unreid.graph.centering import camera_means


def camera_transforms(
    features: np.ndarray,
    camids: np.ndarray,
    num_cameras: int,
    *,
    power: float = 0.4,
    shrinkage: float = 4.0,
    floor: float = 0.1,
    mean_shrinkage: float = 16.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the whitening matrix of each camera.

    S is the covariance of all features around their cameras' means, S_c that of camera c:
    T_c = (1 - floor) S'_c + floor trace(S'_c) / D, S'_c = (n_c S_c + kappa S) / (n_c + kappa)
    with kappa = shrinkage * D, and the matrix is T_c^-power up to scale. It is symmetric, so
    the axes remain comparable across cameras. A camera without images uses S.

    Args:
        features: (N, D) float.
        camids: (N,) integer in 0..num_cameras-1; other values raise.
        num_cameras: M.
        power: In [0, 1/2]; 0 is centring only, 1/2 is whitening.
        shrinkage: Weight of the common covariance in images per channel, >= 0.
        floor: Fraction of the mean eigenvalue added to each eigenvalue, in (0, 1].
        mean_shrinkage: See :func:`unreid.graph.centering.camera_means`.

    Returns:
        (M, D) float32 means and (M, D, D) float32 matrices; identity if the covariance is zero.

    Raises:
        ValueError: A value out of its range, or features that are not finite.
    """
    check_number("power", power, 0, 0.5)
    check_number("shrinkage", shrinkage, 0)
    check_number("floor", floor, 0, 1, open_minimum=True)
    means = camera_means(features, camids, num_cameras, mean_shrinkage)
    channels = features.shape[1]
    sums = np.zeros((num_cameras, channels, channels))
    counts = np.bincount(camids, minlength=num_cameras)
    for camera in range(num_cameras):
        # Per camera, because a float64 copy of all features may take gigabytes.
        centred = features[camids == camera].astype(np.float64) - means[camera]
        sums[camera] = centred.T @ centred
    common = sums.sum(axis=0) / max(len(features), 1)
    matrices = np.empty((num_cameras, channels, channels), dtype=np.float32)
    for camera in range(num_cameras):
        weight = shrinkage * channels
        total = counts[camera] + weight
        own = (sums[camera] + weight * common) / total if total else common
        matrices[camera] = _power(own, -power, floor)
    return means, matrices


def _power(covariance: np.ndarray, power: float, floor: float) -> np.ndarray:
    """Return a power of a covariance whose eigenvalues are shrunk towards their mean."""
    mean = float(np.trace(covariance)) / len(covariance)
    if mean <= 1e-12 or power == 0:  # identical images: nothing to whiten
        return np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    values = (1 - floor) * np.maximum(values, 0) + floor * mean
    # Relative to the mean, because the result is normalised to unit rows.
    return (vectors * (values / mean) ** power) @ vectors.T


def apply_transforms(
    features: np.ndarray, camids: np.ndarray, means: np.ndarray, matrices: np.ndarray
) -> np.ndarray:
    """Return unit rows of matrices[camera] @ (feature - means[camera]).

    Args:
        features: (N, D) float, unit rows.
        camids: (N,) integer, rows of ``means`` and ``matrices``.
        means: (M, D) of :func:`camera_transforms`.
        matrices: (M, D, D) of :func:`camera_transforms`.

    Returns:
        (N, D) float32, unit rows; a row equal to its mean is not changed, nor is the input.
    """
    whitened = np.empty(features.shape, dtype=np.float32)
    for camera in np.unique(camids):
        rows = np.flatnonzero(camids == camera)
        centred = (features[rows] - means[camera]).astype(np.float32)
        transformed = centred @ matrices[camera]  # symmetric
        lengths = np.linalg.norm(transformed, axis=1, keepdims=True)
        known = np.linalg.norm(centred, axis=1, keepdims=True) > 1e-6
        whitened[rows] = np.where(known, transformed / np.maximum(lengths, 1e-12), features[rows])
    return whitened


def whiten_cameras(
    features: np.ndarray,
    camids: np.ndarray,
    *,
    power: float = 0.4,
    shrinkage: float = 4.0,
    floor: float = 0.1,
    mean_shrinkage: float = 16.0,
) -> np.ndarray:
    """Apply the :func:`camera_transforms` of the same features; see there for the arguments."""
    means, matrices = camera_transforms(
        features, camids, int(camids.max()) + 1, power=power, shrinkage=shrinkage, floor=floor,
        mean_shrinkage=mean_shrinkage,
    )  # fmt: skip
    return apply_transforms(features, camids, means, matrices)
