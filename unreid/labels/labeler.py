"""The labeler of methods with clusters: it clusters all images by ``UNSUP.CLUSTER``."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from unreid.clustering.partition import compact
from unreid.contracts import Labeler
from unreid.labels.clusterers import clusterer_from_config, describe_clusterer
from unreid.labels.neighbours import Neighbours, Search
from unreid.registry import LABELER_REGISTRY
from unreid.structures import FeatureBank, PseudoLabels


@LABELER_REGISTRY.register()
class ClusterLabeler(Labeler):
    """Search neighbours, cluster, then call :meth:`refine`, which a method may override.

    Args:
        cfg: Config; uses ``UNSUP.CLUSTER``, ``UNSUP.KNN`` and ``UNSUP.JACCARD``.
    """

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.search = Search.from_config(cfg)
        self.clusterer = clusterer_from_config(cfg)

    def __call__(self, bank: FeatureBank, epoch: int) -> PseudoLabels:
        """Cluster the images; clusters below ``UNSUP.CLUSTER.MIN_SIZE`` become noise."""
        start = time.perf_counter()
        neighbours = self.search(bank.features)
        labels = compact(self.clusterer(neighbours), self.cfg.UNSUP.CLUSTER.MIN_SIZE)
        cluster = time.perf_counter() - start - neighbours.seconds
        seconds = {"knn": neighbours.seconds, "cluster": cluster}
        return self.refine(labels, bank, neighbours, epoch, seconds)

    def refine(
        self,
        labels: np.ndarray,
        bank: FeatureBank,
        neighbours: Neighbours,
        epoch: int,
        seconds: dict[str, float],
    ) -> PseudoLabels:
        """Return the labels for training; by default those of the clusterer.

        Args:
            labels: (N,) int64, -1 for noise, else 0..C-1.
            bank: The features that were clustered.
            neighbours: Neighbours of these features; earlier searches are cached.
            epoch: The epoch that begins.
            seconds: Wall seconds by phase so far.
        """
        return PseudoLabels(labels, seconds=seconds)

    def describe(self) -> str:
        """Return the settings of the clusterer."""
        return describe_clusterer(self.cfg)
