"""Select a clusterer and its setting without ground truth: try a few on the same features.

The selected labels are those that agree most with all others: the medoid of the partitions by the
adjusted Rand index [0]. A setting that leaves most images unassigned or merges most of them agrees
with no other.

[0] Hubert, Arabie: Comparing partitions, 1985, https://doi.org/10.1007/BF01908075

Notation: N images, T trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from unreid.clustering.partition import compact
from unreid.labels.clusterers import build_clusterer
from unreid.labels.neighbours import Neighbours

#: Clusterer and parameters of each trial; other parameters have their defaults.
CANDIDATES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    *(("dbscan", {"eps": eps}) for eps in (0.4, 0.5, 0.6, 0.7)),
    *(("map_equation", {"min_similarity": least}) for least in (0.4, 0.5, 0.6, 0.7)),
    *(("bottom_up", {"images_per_cluster": size}) for size in (6, 12, 24)),
)


@dataclass(frozen=True)
class Trial:
    """One clusterer with one setting, and its labels.

    Attributes:
        method: Name of the clusterer.
        settings: Its parameters that differ from the defaults.
        labels: (N,) int64, -1 for noise, else 0..C-1.
        score: Mean adjusted Rand index with the labels of the other trials.
    """

    method: str
    settings: Mapping[str, Any]
    labels: np.ndarray
    score: float


def agreement(partitions: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean adjusted Rand index of each partition with the others.

    Args:
        partitions: T >= 1 arrays of (N,) int64 labels; each noise image (-1) counts as a cluster of
            its own.

    Returns:
        (T,) float64; 0 for a single partition.
    """
    whole = [_noise_as_clusters(labels) for labels in partitions]
    num = len(whole)
    similarity = np.zeros((num, num))
    for i in range(num):
        for j in range(i):
            similarity[i, j] = similarity[j, i] = adjusted_rand_score(whole[i], whole[j])
    return similarity.sum(axis=1) / max(num - 1, 1)


def try_settings(
    neighbours: Neighbours,
    *,
    min_size: int = 2,
    candidates: Sequence[tuple[str, Mapping[str, Any]]] = CANDIDATES,
) -> list[Trial]:
    """Return one trial for each candidate; all share one search of neighbours.

    Args:
        neighbours: Of (N, D) features, N >= 1.
        min_size: Smaller clusters become noise, >= 1.
        candidates: Clusterers and parameters.
    """
    labels = [
        compact(build_clusterer(method, **settings)(neighbours), min_size)
        for method, settings in candidates
    ]
    scores = agreement(labels)
    return [
        Trial(method, settings, own, float(score))
        for (method, settings), own, score in zip(candidates, labels, scores)
    ]


def select(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the highest score, the first of equals."""
    return max(trials, key=lambda trial: trial.score)


def _noise_as_clusters(labels: np.ndarray) -> np.ndarray:
    noise = labels < 0
    whole = labels.copy()
    whole[noise] = labels.max(initial=-1) + 1 + np.arange(int(noise.sum()))
    return whole
