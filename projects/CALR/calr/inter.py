"""Stage 2's labels: cluster across cameras, then refine by the local labels.

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
from unreid.clustering.bottom_up import bottom_up, merge_tree
from unreid.clustering.cut import cut_by_silhouette
from unreid.clustering.dbscan import dbscan
from unreid.clustering.infomap import infomap
from unreid.clustering.map_equation import map_equation
from unreid.clustering.partition import compact
from unreid.contracts import Labeler
from unreid.data.unlabelled import UnlabelledImages
from unreid.engine.agreement import check_share
from unreid.engine.neighbours import find_jaccard, find_neighbours
from unreid.registry import LABELER_REGISTRY
from unreid.structures import FeatureBank, PseudoLabels


@LABELER_REGISTRY.register()
class CALRLabeler(Labeler):
    """Global clusters of all images, without what local clusters speak against.

    Args:
        cfg: ``CALR.*``, ``UNSUP.JACCARD`` and ``UNSUP.SEED`` are read.
        local_labels: (N,) int64 of stage 1, or None to leave the clusters as they are.
    """

    def __init__(self, cfg: Any, local_labels: np.ndarray | None) -> None:
        self.calr = cfg.CALR
        self.jaccard = cfg.UNSUP.JACCARD
        self.seed = cfg.UNSUP.SEED
        self.device = cfg.MODEL.DEVICE
        self.num_epochs = cfg.SOLVER.MAX_EPOCH
        self.local_labels = local_labels

    @classmethod
    def from_config(cls, cfg: Any, images: UnlabelledImages) -> CALRLabeler:
        """Read the local labels that stage 1 (or ``CALR.LOCAL_LABELS``) left."""
        if not cfg.CALR.REFINE.ENABLED:
            return cls(cfg, None)
        local_labels = read_local_labels(local_labels_path(cfg), images)
        return cls(cfg, local_labels[images.unit_indices])

    @classmethod
    def check_images(cls, cfg: Any, images: UnlabelledImages) -> None:
        """Refuse a training set that CALR cannot use, before any training.

        Raises:
            ValueError: one camera only, local labels of other images, or a batch of stage 1 that
                several processes cannot share.
        """
        calr = cfg.CALR
        switches = {"CALR.REFINE.ENABLED": calr.REFINE.ENABLED,
                    "CALR.WEIGHTS.ENABLED": calr.WEIGHTS.ENABLED,
                    "CALR.ADVERSARY.ENABLED": calr.ADVERSARY.ENABLED}
        on = [key for key, value in switches.items() if value]
        if on and len(images.cameras) < 2:
            raise ValueError(
                f"CALR needs images of two cameras or more, got {len(images.cameras)}"
                f" ({', '.join(images.cameras)}); with one camera set {' False '.join(on)} False"
                " (projects/CALR/configs/baseline.yml has them off)"
            )
        if not calr.REFINE.ENABLED:
            return
        if calr.LOCAL_LABELS:
            read_local_labels(calr.LOCAL_LABELS, images)
        else:
            check_share(cfg, calr.INTRA.IMS_PER_BATCH, calr.INTRA.NUM_INSTANCE,
                        "CALR.INTRA.IMS_PER_BATCH", "CALR.INTRA.NUM_INSTANCE")

    def describe(self) -> str:
        """The settings that decide how many clusters there are, for an error."""
        calr = self.calr
        words = {
            "dbscan": f"eps {calr.DBSCAN.EPS}, min_samples {calr.DBSCAN.MIN_SAMPLES}",
            "agglomerative": f"NUM_CLUSTERS {calr.AGGLOMERATIVE.NUM_CLUSTERS}",
        }
        graph = f"k {calr.KNN.K}, min similarity {calr.KNN.MIN_SIMILARITY}"
        return (f"CALR.CLUSTER {calr.CLUSTER} ({words.get(calr.CLUSTER, graph)}),"
                f" CALR.MIN_CLUSTER_SIZE {calr.MIN_CLUSTER_SIZE}")

    def __call__(self, bank: FeatureBank, epoch: int) -> PseudoLabels:
        """kNN -> global clusters -> refinement [0, Sec. III-B, III-C]."""
        clock = _Clock()
        width = max(self.calr.KNN.K, self.jaccard.K1)
        indices, similarities = find_neighbours(bank, width, self.device)
        clock.lap("knn")
        graph = indices[:, : self.calr.KNN.K], similarities[:, : self.calr.KNN.K]
        raw = self._global_labels(bank, (indices, similarities), graph)
        labels = compact(raw, self.calr.MIN_CLUSTER_SIZE)
        clock.lap("cluster")
        if self.local_labels is None:
            return PseudoLabels(labels, seconds=clock.laps)
        refine_cfg = self.calr.REFINE
        scores = node_scores(*graph, self.calr.KNN.MIN_SIMILARITY,
                             self_in_mean=refine_cfg.SELF_IN_MEAN)
        refined = refine(
            labels, self.local_labels, bank.camids, scores,
            pivot=refine_cfg.PIVOT, per_camera=refine_cfg.PIVOTS_PER_CAMERA,
            share=removal_share(epoch, self.num_epochs) if refine_cfg.DECAY else 1.0,
        )
        removed = int((refined != labels).sum())
        clock.lap("refine")
        return PseudoLabels(compact(refined), intermediate={"before_refinement": labels},
                            seconds=clock.laps, remarks={"refinement removed": str(removed)})

    def _global_labels(self, bank: FeatureBank, neighbours: Any, graph: Any) -> np.ndarray:
        calr, features = self.calr, bank.features
        if calr.CLUSTER == "dbscan":
            distance = find_jaccard(bank, self.jaccard.K1, self.jaccard.K2,
                                    neighbours=neighbours, max_distance=calr.DBSCAN.EPS)
            return dbscan(distance, calr.DBSCAN.EPS, calr.DBSCAN.MIN_SAMPLES)
        if calr.CLUSTER == "agglomerative":
            tree = calr.AGGLOMERATIVE
            if tree.NUM_CLUSTERS < 0:
                return cut_by_silhouette(features, merge_tree(features, weight=tree.WEIGHT)[0])[0]
            wanted = tree.NUM_CLUSTERS or max(len(features) // tree.IMAGES_PER_CLUSTER, 2)
            return bottom_up(features, num_merges=max(len(features) - wanted, 0),
                             weight=tree.WEIGHT)
        communities = infomap if calr.CLUSTER == "infomap" else map_equation
        return communities(*graph, min_similarity=calr.KNN.MIN_SIMILARITY, seed=self.seed)


class _Clock:
    """Wall seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
