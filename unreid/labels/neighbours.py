"""Neighbours and Jaccard distances of a set of features, with cached searches.

Notation: N images, D channels, k neighbours.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from unreid.checks import check_choice, check_features, check_integer
from unreid.graph.jaccard import jaccard_distance
from unreid.graph.knn import METHODS, knn


@dataclass(frozen=True)
class Search:
    """Settings of the neighbour search.

    Attributes:
        method: ``"exact"``, or ``"ivf"`` / ``"hnsw"`` (approximate search by faiss on the CPU).
        device: Device of an exact search.
        num_probes: Number of lists (ivf) or beam width (hnsw) of an approximate search, >= 1;
            larger values give a higher recall and take longer.
        seed: Seed of the k-means of ``"ivf"``.
    """

    method: str = "exact"
    device: str = "cpu"
    num_probes: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)

    @classmethod
    def from_config(cls, cfg: Any) -> Search:
        """Return the settings of ``UNSUP.KNN``, ``UNSUP.SEED`` and ``MODEL.DEVICE``."""
        graph = cfg.UNSUP.KNN
        return cls(graph.METHOD, cfg.MODEL.DEVICE, graph.NUM_PROBES, cfg.UNSUP.SEED)

    def __call__(self, features: np.ndarray) -> Neighbours:
        """Return the neighbours of (N, D) float32 unit rows; the search runs on first use."""
        return Neighbours(features, self)


class Neighbours:
    """Neighbours of a set of features; the search with the largest k so far is cached.

    Args:
        features: (N, D) float32, unit rows.
        search: Settings of the search.

    Attributes:
        seconds: Wall seconds spent in searches.
    """

    def __init__(self, features: np.ndarray, search: Search) -> None:
        check_features("features", features)
        self.features = features
        self.search = search
        self.seconds = 0.0
        self._found: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def knn(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the k nearest images of each image, itself first.

        See :func:`unreid.graph.knn.knn`.

        Returns:
            (N, min(k, N)) int32 indices and float32 cosines.
        """
        width = min(check_integer("k", k, 1), len(self))
        if self._found is None or self._found[0].shape[1] < width:
            started = time.perf_counter()
            self._found = _knn(self.features, width, self.search)
            self.seconds += time.perf_counter() - started
        indices, similarities = self._found
        return indices[:, :width], similarities[:, :width]

    def jaccard(self, k1: int, k2: int, max_distance: float | None = None) -> sparse.csr_array:
        """Return the sparse k-reciprocal Jaccard distance (N, N).

        Absent entries are 1, or above ``max_distance``. See
        :func:`unreid.graph.jaccard.jaccard_distance`.
        """
        return jaccard_distance(
            self.features, k1, k2, neighbours=self.knn(k1), max_distance=max_distance
        )


def _knn(features: np.ndarray, k: int, search: Search) -> tuple[np.ndarray, np.ndarray]:
    if search.method != "exact":
        return knn(
            features, k, method=search.method, num_probes=search.num_probes, seed=search.seed
        )
    if not search.device.startswith("cuda"):
        return knn(features, k)
    indices, similarities = knn(torch.tensor(features, device=search.device), k)
    return indices.cpu().numpy(), similarities.cpu().numpy()
