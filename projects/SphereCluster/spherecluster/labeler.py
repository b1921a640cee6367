"""Labels by merging on the sphere: from single images each round, or on from the round before.

[0] Clustering Matters: Sphere Feature for Fully Unsupervised Person Re-identification,
    ACM TOMM 2022, https://doi.org/10.1145/3501404

Notation: N images, D channels, C clusters, m merges per pass.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from spherecluster.choice import stability
from spherecluster.schedule import Schedule, merges_per_pass, possible_merges
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

    The partition is kept (and saved with every checkpoint): a progressive run merges on from it,
    and the stability of a round is that of it.

    Args:
        cfg: ``SPHERECLUSTER.*`` is read.

    Attributes:
        partition: (N,) int64 clusters of the latest round, small ones included; None before it.
        passes: Passes that lie behind it.
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
        """Refuse a training set that cannot hold two clusters.

        Raises:
            ValueError: fewer images than two clusters of ``MIN_CLUSTER_SIZE`` need.
        """
        least = 2 * cfg.SPHERECLUSTER.MIN_CLUSTER_SIZE
        if len(images) < least:
            raise ValueError(
                f"SphereCluster needs {least} images or more for two clusters"
                f" (SPHERECLUSTER.MIN_CLUSTER_SIZE {cfg.SPHERECLUSTER.MIN_CLUSTER_SIZE}),"
                f" got {len(images)}"
            )

    def describe(self) -> str:
        """The settings that decide how many clusters there are, for an error."""
        s = self.settings
        return (
            f"SPHERECLUSTER.SCHEDULE {s.SCHEDULE} (MERGE_RATE {s.MERGE_RATE}, PASSES"
            f" {s.PASSES}), LINKAGE {s.LINKAGE}, REGULARIZER {s.REGULARIZER} times LAMBDA"
            f" {s.LAMBDA}, MIN_CLUSTER_SIZE {s.MIN_CLUSTER_SIZE}"
        )

    def renews(self, epoch: int) -> bool:
        """Whether a round begins with ``epoch``."""
        return self.schedule.renews(epoch)

    def __call__(self, bank: FeatureBank, epoch: int) -> PseudoLabels:
        """Merge as far as the round of ``epoch`` asks [0]."""
        started = time.perf_counter()
        number = self.schedule.round_of(epoch)
        per_pass = merges_per_pass(self.settings.MERGE_RATE, len(bank))
        passes = self.schedule.passes_behind(number)
        start = np.arange(len(bank))
        wanted = per_pass * passes
        if self.settings.SCHEDULE == "progressive" and self.partition is not None:
            start = self.partition
            wanted = per_pass * (passes - self.passes)
        num_merges = possible_merges(wanted, int(start.max()) + 1)
        self.partition = self._merge(self.features_of(bank), num_merges, start)
        self.passes = passes
        merges = str(num_merges)
        if num_merges < wanted:
            merges += f" of {wanted} (two clusters must stay)"
        return PseudoLabels(
            compact(self.partition, self.settings.MIN_CLUSTER_SIZE),
            seconds={"merge": time.perf_counter() - started},
            remarks={"round": str(number), "merges": merges},
        )

    def features_of(self, bank: FeatureBank) -> np.ndarray:
        """(N, D): unit rows, or with ``SPHERE False`` rows of the length that they had.

        Raises:
            RuntimeError: lengths are wanted, and the bank has none.
        """
        if self.settings.SPHERE:
            return bank.features
        lengths = bank.lengths
        if lengths is None:
            raise RuntimeError(
                "SPHERECLUSTER.SPHERE False needs the lengths of the features, and"
                " the feature bank holds directions only"
            )
        return bank.features * lengths[:, None]

    def _merge(
        self, features: np.ndarray, num_merges: int, start: np.ndarray | None = None
    ) -> np.ndarray:
        """(N,) labels after so many merges; a last pass may be shorter than the others."""
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
        """Return how compact the clusters are on the sphere, or how stable the partition is."""
        if self.settings.CHOICE == "silhouette":
            return sphere_silhouette(bank.features, pseudo.labels)
        assert self.partition is not None
        return stability(self.features_of(bank), self.partition, self._merge)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        partition = np.zeros(0, np.int64) if self.partition is None else self.partition
        return {"partition": torch.from_numpy(partition.copy()), "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of a checkpoint."""
        partition = state["partition"].numpy().astype(np.int64)
        self.partition = partition if len(partition) else None
        self.passes = int(state["passes"])
