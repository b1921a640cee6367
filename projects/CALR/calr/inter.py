"""Labeler of stage 2: cluster all images, then refine the clusters with the local labels.

[0] Camera-aware Label Refinement for Unsupervised Person Re-identification, 2024,
    https://arxiv.org/abs/2403.16450

Notation: N images, k neighbours.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from calr.intra import local_labels_path, read_local_labels
from calr.refine import node_scores, refine, removal_share
from unreid.clustering.partition import compact
from unreid.data.unlabelled import UnlabelledImages
from unreid.engine.replicas import check_global_batch
from unreid.labels.labeler import ClusterLabeler
from unreid.labels.neighbours import Neighbours
from unreid.registry import LABELER_REGISTRY
from unreid.structures import FeatureBank, PseudoLabels


@LABELER_REGISTRY.register()
class CALRLabeler(ClusterLabeler):
    """Global clusters by ``UNSUP.CLUSTER``, refined by the local clusters of each camera.

    Args:
        cfg: Config; uses ``CALR.REFINE`` and the keys of :class:`ClusterLabeler`.
        local_labels: (N,) int64 labels of stage 1, or None for no refinement.
    """

    def __init__(self, cfg: Any, local_labels: np.ndarray | None) -> None:
        super().__init__(cfg)
        self.local_labels = local_labels

    @classmethod
    def from_config(cls, cfg: Any, images: UnlabelledImages) -> CALRLabeler:
        """Build the labeler with the local labels of stage 1 or ``CALR.LOCAL_LABELS``."""
        if not cfg.CALR.REFINE.ENABLED:
            return cls(cfg, None)
        local_labels = read_local_labels(local_labels_path(cfg), images)
        return cls(cfg, local_labels[images.unit_indices])

    @classmethod
    def check_images(cls, cfg: Any, images: UnlabelledImages) -> None:
        """Check the training set before any training.

        Raises:
            ValueError: There is only one camera, the local labels belong to other images, or
                the batch size of stage 1 is not divisible among the processes.
        """
        calr = cfg.CALR
        switches = {
            "CALR.REFINE.ENABLED": calr.REFINE.ENABLED,
            "CALR.WEIGHTS.ENABLED": calr.WEIGHTS.ENABLED,
            "CALR.ADVERSARY.ENABLED": calr.ADVERSARY.ENABLED,
        }
        enabled = [key for key, value in switches.items() if value]
        if enabled and len(images.cameras) < 2:
            raise ValueError(
                f"CALR needs images of at least two cameras, got {len(images.cameras)}"
                f" ({', '.join(images.cameras)}); with one camera set"
                f" {' False '.join(enabled)} False"
                " (as in projects/CALR/configs/baseline.yml)"
            )
        if not calr.REFINE.ENABLED:
            return
        if calr.LOCAL_LABELS:
            read_local_labels(calr.LOCAL_LABELS, images)
        else:
            check_global_batch(
                cfg,
                calr.INTRA.IMS_PER_BATCH,
                calr.INTRA.NUM_INSTANCE,
                "CALR.INTRA.IMS_PER_BATCH",
                "CALR.INTRA.NUM_INSTANCE",
            )

    def refine(
        self,
        labels: np.ndarray,
        bank: FeatureBank,
        neighbours: Neighbours,
        epoch: int,
        seconds: dict[str, float],
    ) -> PseudoLabels:
        """Remove images from global clusters that local clusters contradict [0, Sec. III-C]."""
        if self.local_labels is None:
            return PseudoLabels(labels, seconds=seconds)
        key, graph = self.cfg.CALR.REFINE, self.cfg.UNSUP.KNN
        found = neighbours.knn(graph.K)
        start = time.perf_counter()
        scores = node_scores(*found, graph.MIN_SIMILARITY, self_in_mean=key.SELF_IN_MEAN)
        refined = refine(
            labels,
            self.local_labels,
            bank.camids,
            scores,
            pivot=key.PIVOT,
            per_camera=key.PIVOTS_PER_CAMERA,
            share=removal_share(epoch, self.cfg.SOLVER.MAX_EPOCH) if key.DECAY else 1.0,
        )
        removed = int((refined != labels).sum())
        seconds = {**seconds, "knn": neighbours.seconds, "refine": time.perf_counter() - start}
        return PseudoLabels(
            compact(refined),
            intermediate={"before_refinement": labels},
            seconds=seconds,
            remarks={"refinement removed": str(removed)},
        )
