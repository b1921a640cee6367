"""Neighbours and distances of a set of features: searched once, by one policy.

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
    """How neighbours are found.

    Attributes:
        method: ``"exact"``, or ``"ivf"`` / ``"hnsw"`` (approximate, faiss, on the CPU).
        device: Where an exact search computes.
        num_probes: Lists or beam of an approximate search, >= 1: recall against time.
        seed: Of the k-means of ``"ivf"``.
    """

    method: str = "exact"
    device: str = "cpu"
    num_probes: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)

    @classmethod
    def from_config(cls, cfg: Any) -> Search:
        """Read ``UNSUP.KNN``, ``UNSUP.SEED`` and ``MODEL.DEVICE``."""
        graph = cfg.UNSUP.KNN
        return cls(graph.METHOD, cfg.MODEL.DEVICE, graph.NUM_PROBES, cfg.UNSUP.SEED)

    def __call__(self, features: np.ndarray) -> Neighbours:
        """Return the neighbours of (N, D) float32 unit rows; nothing is computed yet."""
        return Neighbours(features, self)


class Neighbours:
    """Neighbours of a set of features; the widest search so far serves every narrower one.

    Args:
        features: (N, D) float32, unit rows.
        search: The policy.

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
        """Return the k nearest images of each, itself first: see :func:`unreid.graph.knn.knn`.

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
        """Return the sparse k-reciprocal Jaccard distance (N, N); an absent entry is 1 or above
        ``max_distance``: see :func:`unreid.graph.jaccard.jaccard_distance`."""
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
