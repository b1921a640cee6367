"""Labels by bottom-up merging, from single images or from the clusters of the previous round.

[0] Clustering Matters: Sphere Feature for Fully Unsupervised Person Re-identification,
    ACM TOMM 2022, https://doi.org/10.1145/3501404

Notation: N images, D channels, C clusters, m merges per pass.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from spherecluster.schedule import Schedule, limit_merges, merges_per_pass
from spherecluster.selection import stability
from unreid.clustering.partition import compact
from unreid.clustering.silhouette import sphere_silhouette
from unreid.contracts import Labeler
from unreid.data.unlabelled import UnlabelledImages
from unreid.labels.clusterers import BottomUp
from unreid.registry import LABELER_REGISTRY
from unreid.structures import FeatureBank, PseudoLabels


@LABELER_REGISTRY.register()
class SphereClusterLabeler(Labeler):
    """Bottom-up clusters of all images.

    The partition is stored, also in checkpoints: a progressive run continues to merge it, and the
    stability score compares with it.

    Args:
        cfg: Config; uses ``SPHERECLUSTER.*``.

    Attributes:
        partition: (N,) int64 clusters of the latest round, including small ones; None before the
            first round.
        passes: Number of passes that led to ``partition``.
    """

    def __init__(self, cfg: Any) -> None:
        self.settings = cfg.SPHERECLUSTER
        self.schedule = Schedule.from_config(cfg)
        self.partition: np.ndarray | None = None
        self.passes = 0
        s = self.settings
        self.clusterer = BottomUp(
            linkage=s.LINKAGE,
            regularizer=s.REGULARIZER,
            weight=s.LAMBDA,
            update=s.UPDATE,
            pass_rule=s.PASS_RULE,
        )
        self.selects_model = self.settings.CHOICE != "none"

    @classmethod
    def check_images(cls, cfg: Any, images: UnlabelledImages) -> None:
        """Check that there are enough images for two clusters.

        Raises:
            ValueError: There are fewer images than two clusters of ``MIN_CLUSTER_SIZE``.
        """
        minimum = 2 * cfg.SPHERECLUSTER.MIN_CLUSTER_SIZE
        if len(images) < minimum:
            raise ValueError(
                f"SphereCluster needs at least {minimum} images for two clusters"
                f" (SPHERECLUSTER.MIN_CLUSTER_SIZE {cfg.SPHERECLUSTER.MIN_CLUSTER_SIZE}),"
                f" got {len(images)}"
            )

    def describe(self) -> str:
        """Return the settings that determine the number of clusters, for error messages."""
        s = self.settings
        return (
            f"SPHERECLUSTER.SCHEDULE {s.SCHEDULE} (MERGE_RATE {s.MERGE_RATE}, PASSES"
            f" {s.PASSES}), LINKAGE {s.LINKAGE}, REGULARIZER {s.REGULARIZER} with LAMBDA"
            f" {s.LAMBDA}, MIN_CLUSTER_SIZE {s.MIN_CLUSTER_SIZE}"
        )

    def renews(self, epoch: int) -> bool:
        """Return whether a round begins with ``epoch``."""
        return self.schedule.renews(epoch)

    def __call__(self, bank: FeatureBank, epoch: int) -> PseudoLabels:
        """Return the clusters for the round of ``epoch`` [0]."""
        started = time.perf_counter()
        number = self.schedule.round_of(epoch)
        per_pass = merges_per_pass(self.settings.MERGE_RATE, len(bank))
        passes = self.schedule.total_passes(number)
        start = np.arange(len(bank))
        requested = per_pass * passes
        if self.settings.SCHEDULE == "progressive" and self.partition is not None:
            start = self.partition
            requested = per_pass * (passes - self.passes)
        num_merges = limit_merges(requested, int(start.max()) + 1)
        self.partition = self._merge(self.features_of(bank), num_merges, start)
        self.passes = passes
        merges = str(num_merges)
        if num_merges < requested:
            merges += f" of {requested} (at least two clusters are kept)"
        return PseudoLabels(
            compact(self.partition, self.settings.MIN_CLUSTER_SIZE),
            seconds={"merge": time.perf_counter() - started},
            remarks={"round": str(number), "merges": merges},
        )

    def features_of(self, bank: FeatureBank) -> np.ndarray:
        """Return (N, D) unit rows, or with ``SPHERE False`` the features before normalisation.

        Raises:
            RuntimeError: The norms are required, but the bank does not have them.
        """
        if self.settings.SPHERE:
            return bank.features
        lengths = bank.lengths
        if lengths is None:
            raise RuntimeError(
                "SPHERECLUSTER.SPHERE False needs the norms of the features, but"
                " FeatureBank.lengths is None"
            )
        return bank.features * lengths[:, None]

    def _merge(
        self, features: np.ndarray, num_merges: int, start: np.ndarray | None = None
    ) -> np.ndarray:
        """Return (N,) labels after ``num_merges`` merges; the last pass may have fewer of them."""
        s = self.settings
        merge = self.clusterer.merge
        if s.UPDATE == "exact":
            return merge(features, num_merges, labels=start, sphere=s.SPHERE)
        per_pass = merges_per_pass(s.MERGE_RATE, len(features))
        passes, rest = divmod(num_merges, per_pass)
        labels = start
        if passes:
            labels = merge(features, per_pass, passes=passes, labels=labels, sphere=s.SPHERE)
        return merge(features, rest, labels=labels, sphere=s.SPHERE)

    def selection_score(self, bank: FeatureBank, pseudo: PseudoLabels) -> float:
        """Return the silhouette of the clusters, or the stability of the partition."""
        if self.settings.CHOICE == "silhouette":
            return sphere_silhouette(bank.features, pseudo.labels)
        assert self.partition is not None
        return stability(self.features_of(bank), self.partition, self._merge)

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save in a checkpoint."""
        partition = np.zeros(0, np.int64) if self.partition is None else self.partition
        return {"partition": torch.from_numpy(partition.copy()), "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        partition = state["partition"].numpy().astype(np.int64)
        self.partition = partition if len(partition) else None
        self.passes = int(state["passes"])
