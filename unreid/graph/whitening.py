"""Evens out what each camera does to features: its mean and, beyond centring, its covariance.

Directions in which a camera's images vary most (light, background, pose) say little of who is
on them. Each camera's centred features are multiplied by a power of its own covariance, shrunk
towards that of all cameras: with power 1/2 this is whitening, with 0 centring alone. Aligning
second moments is [0]'s idea, here for every camera towards a flatter spectrum, without labels.
``benchmarks/merging_quality.py`` measures what it gains.

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
    """The mean of each camera, and the matrix that evens its spectrum out.

    S is the covariance of all features around their cameras' means, S_c that of camera c:
    T_c = (1 - floor) S'_c + floor trace(S'_c) / D, S'_c = (n_c S_c + kappa S) / (n_c + kappa)
    with kappa = shrinkage * D, and the matrix is T_c^-power up to scale: symmetric, so a direction
    means the same in every camera. A camera without an image has S.

    Args:
        features: (N, D) float.
        camids: (N,) integer in 0..num_cameras-1; others raise.
        num_cameras: M.
        power: in [0, 1/2]; 0 is centring, 1/2 whitening.
        shrinkage: images per channel whose weight equals the common covariance, >= 0.
        floor: share of the mean eigenvalue that is added to each, in (0, 1].
        mean_shrinkage: of :func:`unreid.graph.centering.camera_means`.

    Returns:
        (M, D) float32 means and (M, D, D) float32 matrices; identities where nothing varies.

    Raises:
        ValueError: a value out of its range, or features that are not finite.
    """
    check_number("power", power, 0, 0.5)
    check_number("shrinkage", shrinkage, 0)
    check_number("floor", floor, 0, 1, open_minimum=True)
    means = camera_means(features, camids, num_cameras, mean_shrinkage)
    channels = features.shape[1]
    sums = np.zeros((num_cameras, channels, channels))
    counts = np.bincount(camids, minlength=num_cameras)
    for camera in range(num_cameras):
        # By camera: a double copy of all features at once may be gigabytes.
        apart = features[camids == camera].astype(np.float64) - means[camera]
        sums[camera] = apart.T @ apart
    common = sums.sum(axis=0) / max(len(features), 1)
    matrices = np.empty((num_cameras, channels, channels), dtype=np.float32)
    for camera in range(num_cameras):
        weight = shrinkage * channels
        total = counts[camera] + weight
        own = (sums[camera] + weight * common) / total if total else common
        matrices[camera] = _power(own, -power, floor)
    return means, matrices


def _power(covariance: np.ndarray, power: float, floor: float) -> np.ndarray:
    """A power of a covariance after its eigenvalues were drawn towards their mean."""
    mean = float(np.trace(covariance)) / len(covariance)
    if mean <= 1e-12 or power == 0:  # all images alike: nothing to even out
        return np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    values = (1 - floor) * np.maximum(values, 0) + floor * mean
    # Relative to the mean: the scale of the features says nothing, and unit rows forget it.
    return (vectors * (values / mean) ** power) @ vectors.T


def apply_transforms(
    features: np.ndarray, camids: np.ndarray, means: np.ndarray, matrices: np.ndarray
) -> np.ndarray:
    """Unit rows of matrices[camera] @ (feature - means[camera]).

    Args:
        features: (N, D) float, unit rows.
        camids: (N,) integer, rows of ``means`` and ``matrices``.
        means: (M, D); matrices: (M, D, D); both of :func:`camera_transforms`.

    Returns:
        (N, D) float32, unit rows; a row that equals its mean stays as it was. The input is not
        changed.
    """
    evened = np.empty(features.shape, dtype=np.float32)
    for camera in np.unique(camids):
        rows = np.flatnonzero(camids == camera)
        apart = (features[rows] - means[camera]).astype(np.float32)
        moved = apart @ matrices[camera]  # symmetric
        lengths = np.linalg.norm(moved, axis=1, keepdims=True)
        known = np.linalg.norm(apart, axis=1, keepdims=True) > 1e-6
        evened[rows] = np.where(known, moved / np.maximum(lengths, 1e-12), features[rows])
    return evened


def whiten_cameras(
    features: np.ndarray,
    camids: np.ndarray,
    *,
    power: float = 0.4,
    shrinkage: float = 4.0,
    floor: float = 0.1,
    mean_shrinkage: float = 16.0,
) -> np.ndarray:
    """:func:`camera_transforms` of these very features, applied; see there."""
    means, matrices = camera_transforms(
        features, camids, int(camids.max()) + 1, power=power, shrinkage=shrinkage, floor=floor,
        mean_shrinkage=mean_shrinkage,
    )  # fmt: skip
    return apply_transforms(features, camids, means, matrices)
