"""Shared data types: features with cameras, pseudo labels, and pseudo pairs.

Notation: N images, D channels, C clusters, M pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from unreid.checks import check_features

#: The label of an image that belongs to no cluster.
NOISE = -1


def _frozen(array: np.ndarray) -> np.ndarray:
    """Return a read-only view, so that shared arrays cannot be changed."""
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class FeatureBank:
    """Input of a labeler: one unit feature and one camera per training image.

    Row i is image i of the sorted training list; the order is the same in the whole run.

    Attributes:
        features: (N, D) float32, unit rows.
        camids: (N,) int64, cameras from 0.
        lengths: (N,) float32 >= 0, norms of the features before normalisation; None if undefined
            (a mean of several features, a centred feature).

    Raises:
        TypeError, ValueError: An array has another dtype, shape or range.
    """

    features: np.ndarray
    camids: np.ndarray
    lengths: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.features, np.ndarray):
            found = type(self.features).__name__
            raise TypeError(f"FeatureBank.features must be a numpy array, got {found}")
        check_features("FeatureBank.features", self.features)
        if self.features.dtype != np.float32:
            raise TypeError(f"FeatureBank.features must be float32, got {self.features.dtype}")
        camids = np.asarray(self.camids)
        if camids.shape != (len(self.features),):
            raise ValueError(
                f"FeatureBank.camids must have shape ({len(self.features)},), got {camids.shape}"
            )
        if camids.dtype != np.int64:
            raise TypeError(f"FeatureBank.camids must be int64, got {camids.dtype}")
        if camids.min() < 0:
            raise ValueError(f"FeatureBank.camids must be >= 0, got {camids.min()}")
        if self.lengths is not None:
            lengths = np.asarray(self.lengths)
            if lengths.shape != camids.shape:
                raise ValueError(
                    f"FeatureBank.lengths must have shape {camids.shape}, got {lengths.shape}"
                )
            if lengths.dtype != np.float32:
                raise TypeError(f"FeatureBank.lengths must be float32, got {lengths.dtype}")
            if not (np.isfinite(lengths).all() and lengths.min() >= 0):
                raise ValueError("FeatureBank.lengths must be finite and >= 0")
            object.__setattr__(self, "lengths", _frozen(lengths))
        object.__setattr__(self, "features", _frozen(self.features))
        object.__setattr__(self, "camids", _frozen(camids))

    def __len__(self) -> int:
        return len(self.features)

    @property
    def num_cameras(self) -> int:
        """Number of cameras with at least one image."""
        return len(np.unique(self.camids))


@dataclass(frozen=True)
class PseudoPairs:
    """Pairs of images that are assumed to show one person; pairs need not be transitive.

    Attributes:
        indices: (M, 2) int64, rows i < j, no row twice; M may be 0.
        confidence: (M,) float32 in 0..1.

    Raises:
        TypeError, ValueError: An array has another dtype, shape or range.
    """

    indices: np.ndarray
    confidence: np.ndarray

    def __post_init__(self) -> None:
        indices, confidence = np.asarray(self.indices), np.asarray(self.confidence)
        if indices.ndim != 2 or indices.shape[1] != 2:
            raise ValueError(f"PseudoPairs.indices must have shape (M, 2), got {indices.shape}")
        if indices.dtype != np.int64:
            raise TypeError(f"PseudoPairs.indices must be int64, got {indices.dtype}")
        if confidence.shape != (len(indices),):
            raise ValueError(
                f"PseudoPairs.confidence must have shape ({len(indices)},), got {confidence.shape}"
            )
        if confidence.dtype != np.float32:
            raise TypeError(f"PseudoPairs.confidence must be float32, got {confidence.dtype}")
        if len(indices):
            if indices.min() < 0:
                raise ValueError(f"PseudoPairs.indices must be >= 0, got {indices.min()}")
            if (indices[:, 0] >= indices[:, 1]).any():
                raise ValueError("PseudoPairs.indices must have rows i < j")
            if len(np.unique(indices, axis=0)) != len(indices):
                raise ValueError("PseudoPairs.indices must not name a pair twice")
            if not (confidence.min() >= 0 and confidence.max() <= 1):
                raise ValueError(
                    "PseudoPairs.confidence must be in 0..1, got"
                    f" {confidence.min()} to {confidence.max()}"
                )
        object.__setattr__(self, "indices", _frozen(indices))
        object.__setattr__(self, "confidence", _frozen(confidence))

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo labels of an epoch: ``NOISE`` (-1) or 0..C-1; each of the C labels occurs.

    Attributes:
        labels: (N,) int64.
        intermediate: (N,) int64 labels of earlier steps by name (for example
            ``before_refinement``); logged and scored, never trained on.
        seconds: Phase of the label step -> wall seconds.
        remarks: Name -> text for the log line (for example ``{"pivots": "512"}``).
        pairs: Training pairs of a pair-based method, or None.

    Raises:
        TypeError, ValueError: An array has another dtype or shape, a label of 0..C-1 does not
            occur, or a pair has an image index >= N.
    """

    labels: np.ndarray
    intermediate: Mapping[str, np.ndarray] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)
    pairs: PseudoPairs | None = None

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or labels.size == 0:
            raise ValueError(f"PseudoLabels.labels must have shape (N,), got {labels.shape}")
        if labels.dtype != np.int64:
            raise TypeError(f"PseudoLabels.labels must be int64, got {labels.dtype}")
        if labels.min() < NOISE:
            raise ValueError(f"PseudoLabels.labels must be >= -1, got {labels.min()}")
        # An invalid label may be very large, so np.bincount could exhaust the memory.
        used, counts = np.unique(labels[labels >= 0], return_counts=True)
        gaps = np.flatnonzero(used != np.arange(len(used)))
        if gaps.size:
            raise ValueError(
                f"PseudoLabels.labels must use every id of 0..{used[-1]}, but {gaps[0]} is"
                " unused; see unreid.clustering.partition.compact"
            )
        for name, other in self.intermediate.items():
            if np.shape(other) != labels.shape:
                raise ValueError(
                    f"PseudoLabels.intermediate[{name!r}] must have shape {labels.shape},"
                    f" got {np.shape(other)}"
                )
        if self.pairs is not None and len(self.pairs) and self.pairs.indices.max() >= len(labels):
            raise ValueError(
                f"PseudoLabels.pairs must be of {len(labels)} images, got"
                f" {self.pairs.indices.max()}"
            )
        object.__setattr__(self, "labels", _frozen(labels))
        object.__setattr__(self, "_sizes", _frozen(counts))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_clusters(self) -> int:
        """Number of clusters C."""
        return len(self.sizes)

    @property
    def num_noise(self) -> int:
        """Number of images labelled -1."""
        return int((self.labels == NOISE).sum())

    @property
    def sizes(self) -> np.ndarray:
        """Number of images of each cluster, (C,)."""
        return self._sizes  # type: ignore[attr-defined]
