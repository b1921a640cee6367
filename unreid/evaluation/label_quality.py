"""Clustering metrics of pseudo labels against ground truth.

During training only this module uses the ground truth.

[0] Hubert, Arabie: Comparing partitions, 1985, https://doi.org/10.1007/BF01908075
[1] Vinh et al.: Information theoretic measures for clusterings comparison, 2010,
    https://jmlr.org/papers/v11/vinh10a.html

Notation: N images; n_ij images of cluster i and person j, the only counts that are kept, so that
memory is O(N); a_i images of cluster i; b_j images of person j.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from unreid.structures import NOISE


@dataclass(frozen=True)
class LabelQuality:
    """Scores of a labelling, each in [0, 1] except ``ari`` in [-0.5, 1].

    A noise image counts as its own cluster in pair and information scores: it lowers recall, not
    precision.

    Attributes:
        precision: share of the pairs with equal labels that show the same person; 0 without pairs.
        recall: share of the pairs of the same person that have equal labels; 0 without pairs.
        f_score: harmonic mean of both; 0 if both are 0.
        ari: adjusted Rand index [0].
        nmi: normalised mutual information, by the arithmetic mean of the entropies [1].
        purity: share of the clustered images that show the most frequent person of their
            cluster; noise is ignored; 0 without clusters.
        num_clusters: number of clusters, without noise.
        num_noise: images labelled -1.
        cameras_per_cluster: mean number of cameras of a cluster; 0 without clusters, None
            without camera ids.
    """

    precision: float
    recall: float
    f_score: float
    ari: float
    nmi: float
    purity: float
    num_clusters: int
    num_noise: int
    cameras_per_cluster: float | None = None

    def as_dict(self) -> dict[str, float]:
        """Return the scores by name; ``cameras_per_cluster`` is left out if None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def label_quality(
    labels: np.ndarray, pids: np.ndarray, camids: np.ndarray | None = None
) -> LabelQuality:
    """Compare labels with the ground truth.

    As in scikit-learn, ``ari`` and ``nmi`` are 1 for identical partitions, even without images.

    Args:
        labels: (N,) integer, -1 is noise, else >= 0; ids may have gaps. N may be 0.
        pids: (N,) integer, any values: the truth.
        camids: (N,) integer, any values, or None.

    Returns:
        The scores; never NaN.

    Raises:
        TypeError: An argument is not of an integer type.
        ValueError: The arguments have different lengths, or a label is below -1.
    """
    labels = _vector("labels", labels)
    pids = _vector("pids", pids, len(labels))
    clustered = labels != NOISE
    if len(labels) and labels.min() < NOISE:
        raise ValueError(f"labels must be >= -1, got {labels.min()}")
    _, clusters = np.unique(labels[clustered], return_inverse=True)
    num_clusters = int(clusters.max()) + 1 if len(clusters) else 0
    num_noise = len(labels) - len(clusters)

    cluster_ids = np.empty(len(labels), dtype=np.int64)
    cluster_ids[clustered] = clusters
    cluster_ids[~clustered] = num_clusters + np.arange(num_noise)
    _, persons = np.unique(pids, return_inverse=True)
    rows, _, joint = _counts(cluster_ids, persons)
    of_cluster, of_person = np.bincount(cluster_ids), np.bincount(persons)

    both, labelled, true = _pairs(joint), _pairs(of_cluster), _pairs(of_person)
    cameras = None
    if camids is not None:
        seen, _, _ = _counts(clusters, _vector("camids", camids, len(labels))[clustered])
        cameras = len(seen) / num_clusters if num_clusters else 0.0
    # Counts are sorted by cluster, with noise images at the end.
    largest = np.zeros(num_clusters, dtype=np.int64)
    proper = rows < num_clusters
    np.maximum.at(largest, rows[proper], joint[proper])
    return LabelQuality(
        precision=both / labelled if labelled else 0.0,
        recall=both / true if true else 0.0,
        f_score=2 * both / (labelled + true) if labelled + true else 0.0,
        ari=_adjusted_rand(both, labelled, true, len(labels)),
        nmi=_mutual_information(joint, of_cluster, of_person),
        purity=int(largest.sum()) / len(clusters) if len(clusters) else 0.0,
        num_clusters=num_clusters,
        num_noise=num_noise,
        cameras_per_cluster=cameras,
    )


def pair_quality(indices: np.ndarray, pids: np.ndarray, camids: np.ndarray) -> dict[str, float]:
    """Compare pairs of images with the ground truth.

    Args:
        indices: (M, 2) integer, two different images in 0..N-1; no duplicate pairs. M may be 0.
        pids: (N,) integer, any values: the truth.
        camids: (N,) integer, any values.

    Returns:
        ``pair_precision``: share of the pairs that show the same person; ``pair_recall``: share of
        all pairs of the same person that are in ``indices``; ``pair_precision_cross``: precision
        of the pairs across cameras; ``pairs_per_image``: mean number of partners of an image,
        2 M / N. A share of zero pairs is 0.

    Raises:
        TypeError: An argument is not of an integer type.
        ValueError: A wrong shape, an image outside 0..N-1, or a pair of one image.
    """
    pids = _vector("pids", pids)
    camids = _vector("camids", camids, len(pids))
    indices = np.asarray(indices)
    if indices.ndim != 2 or indices.shape[1] != 2:
        raise ValueError(f"indices must have shape (M, 2), got {indices.shape}")
    left, right = _vector("indices", indices[:, 0]), _vector("indices", indices[:, 1])
    if indices.size and (indices.min() < 0 or indices.max() >= len(pids)):
        raise ValueError(
            f"indices must be in 0..{len(pids) - 1}, got {indices.min()}..{indices.max()}"
        )
    if (left == right).any():
        raise ValueError(f"indices must pair two images, got {left[left == right][0]} twice")
    correct, cross = pids[left] == pids[right], camids[left] != camids[right]
    true = _pairs(np.unique(pids, return_counts=True)[1])
    return {
        "pair_precision": _share(correct.sum(), len(left)),
        "pair_recall": _share(correct.sum(), true),
        "pair_precision_cross": _share(correct[cross].sum(), cross.sum()),
        "pairs_per_image": _share(2 * len(left), len(pids)),
    }


def _share(part: int, whole: int) -> float:
    return float(part) / float(whole) if whole else 0.0


def _vector(name: str, values: np.ndarray, length: int | None = None) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or (length is not None and len(values) != length):
        wanted = "N" if length is None else length
        raise ValueError(f"{name} must have shape ({wanted},), got {values.shape}")
    if values.size and not np.issubdtype(values.dtype, np.integer):
        raise TypeError(f"{name} must be integers, got {values.dtype}")
    return values.astype(np.int64)


def _counts(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sparse contingency table: sorted pairs (left, right) and their counts."""
    pairs = np.stack([left, right])
    found, counts = np.unique(pairs, axis=1, return_counts=True)
    return found[0], found[1], counts


def _pairs(counts: np.ndarray) -> int:
    """Return the number of pairs within groups as a Python int, since products exceed 64 bits."""
    counts = counts.astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def _adjusted_rand(both: int, labelled: int, true: int, num_images: int) -> float:
    """Return the adjusted Rand index [0, eq. 5]; 1 for full agreement."""
    if labelled == both == true:
        return 1.0
    every = num_images * (num_images - 1) // 2
    chance = labelled * true
    return (every * both - chance) / (every * (labelled + true) / 2 - chance)


def _mutual_information(joint: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    """Return 2 I / (H_left + H_right) [1]; 1 if both have one group at most, 0 if only one has."""
    if len(left) == len(right) and len(left) <= 1:
        return 1.0
    h_left, h_right, h_joint = _entropy(left), _entropy(right), _entropy(joint)
    information = h_left + h_right - h_joint
    # Independent labellings give a rounding error of either sign.
    if information <= 1e-12 * h_joint:
        return 0.0
    return min(1.0, 2 * information / (h_left + h_right))


def _entropy(counts: np.ndarray) -> float:
    """Return -sum p log p in nats."""
    shares = counts / counts.sum()
    return -math.fsum(shares * np.log(shares))
