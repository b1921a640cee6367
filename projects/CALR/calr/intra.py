"""Stage 1: one network per camera gives local labels for all images.

[0] Camera-aware Label Refinement for Unsupervised Person Re-identification, 2024,
    https://arxiv.org/abs/2403.16450

Notation: N images, N_c images of a camera, K_c local clusters of a camera.
"""

from __future__ import annotations

import glob
import logging
import os
import time
from typing import Any

import numpy as np
from fastreid.utils.env import seed_all_rng

from unreid.clustering.agglomerative import agglomerative
from unreid.clustering.silhouette import silhouette, sphere_silhouette
from unreid.contracts import Labeler
from unreid.data.unlabelled import UnlabelledImages
from unreid.engine.atomic import save_arrays
from unreid.engine.distributed import run_on_rank_0
from unreid.engine.trainer import UnsupervisedTrainer
from unreid.labels.clusterers import BottomUp
from unreid.labels.neighbours import Search
from unreid.reading.arrays import read_labels
from unreid.structures import FeatureBank, PseudoLabels

logger = logging.getLogger("fastreid.unreid.calr")

#: Minimum number of images of a camera.
MIN_IMAGES = 4


class IntraCameraLabeler(Labeler):
    """Labeler with K_c clusters for one camera; it stores the labels with the best silhouette.

    Every image gets a label. ``CALR.INTRA.CLUSTER jaccard``: average linkage on the k-reciprocal
    Jaccard distance, and silhouette on this distance. ``sse``: exact average linkage with SSE on
    the features, and silhouette against centroids.

    Args:
        cfg: Config; uses ``CALR.INTRA`` and ``UNSUP.JACCARD``.
        num_images: N_c.
    """

    def __init__(self, cfg: Any, num_images: int) -> None:
        intra = cfg.CALR.INTRA
        self.cluster = intra.CLUSTER
        self.jaccard = cfg.UNSUP.JACCARD
        self.search = Search.from_config(cfg)
        requested = intra.NUM_CLUSTERS or num_images // intra.IMAGES_PER_CLUSTER
        # Unlike [0], at most a third of the images: with 900 images and 600 clusters nearly all
        # clusters would be single images, which have no effect in the refinement.
        self.num_clusters = max(min(requested, num_images // 3), 2)
        self.best_score = -np.inf
        self.best_labels: np.ndarray | None = None

    def __call__(self, bank: FeatureBank, epoch: int) -> PseudoLabels:
        """Cluster the images, and store the labels if their silhouette is the best so far."""
        start = time.perf_counter()
        neighbours = self.search(bank.features)
        if self.cluster == "sse":
            labels = BottomUp(self.num_clusters)(neighbours)
            score = sphere_silhouette(bank.features, labels)
        else:
            # Average linkage and silhouette use a dense matrix, which fits for one camera.
            distance = neighbours.jaccard(self.jaccard.K1, self.jaccard.K2)
            labels = agglomerative(distance, self.num_clusters, "average")
            score = silhouette(distance, labels)
        if score > self.best_score:
            self.best_score, self.best_labels = score, labels
        return PseudoLabels(
            labels,
            seconds={"cluster": time.perf_counter() - start},
            remarks={"silhouette": f"{score:.4f}"},
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the best labels so far, as plain values."""
        labels = self.best_labels
        return {
            "score": float(self.best_score),
            "labels": None if labels is None else labels.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of :meth:`state_dict`."""
        self.best_score = state["score"]
        labels = state["labels"]
        self.best_labels = None if labels is None else np.array(labels, dtype=np.int64)


def local_labels_path(cfg: Any) -> str:
    """Return ``CALR.LOCAL_LABELS``, or the path of the file that stage 1 of this run writes."""
    return cfg.CALR.LOCAL_LABELS or os.path.join(cfg.OUTPUT_DIR, "local_labels.npz")


def read_local_labels(path: str, images: UnlabelledImages) -> np.ndarray:
    """Return (N,) int64 local labels of these images, in their order.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file does not contain local labels, or contains those of other images.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"CALR.LOCAL_LABELS {path}: no such file")
    try:
        file = read_labels(path)
    except ValueError as error:
        raise ValueError(
            f"CALR.LOCAL_LABELS {path}: not a file of local labels ({error})"
        ) from error
    paths, camids, labels = file.paths, file.camids, file.labels
    expected = images.relative_paths
    if len(paths) != len(expected):
        raise ValueError(
            f"CALR.LOCAL_LABELS {path}: expected labels of the {len(expected)} images of the"
            f" training set, got {len(paths)}"
        )
    for found, path_of_image in zip(paths, expected):
        if found != path_of_image:
            raise ValueError(
                f"CALR.LOCAL_LABELS {path}: the image list differs from the training set:"
                f" expected {path_of_image}, got {found}"
            )
    if not np.array_equal(camids, images.camids):
        raise ValueError(f"CALR.LOCAL_LABELS {path}: camera ids differ from the training set")
    return labels


def stage_config(cfg: Any, folder: str) -> Any:
    """Return the config for the training of one camera."""
    stage, intra = cfg.clone(), cfg.CALR.INTRA
    stage.defrost()
    stage.OUTPUT_DIR = folder
    stage.MODEL.META_ARCHITECTURE = "MemoryReID"
    # A frozen run trains nothing: local labels come from the start weights too.
    stage.SOLVER.MAX_EPOCH = intra.EPOCHS if cfg.SOLVER.MAX_EPOCH else 0
    stage.SOLVER.STEPS = list(intra.STEPS)
    stage.SOLVER.IMS_PER_BATCH = intra.IMS_PER_BATCH
    stage.SOLVER.CHECKPOINT_PERIOD = 1
    stage.DATALOADER.NUM_INSTANCE = intra.NUM_INSTANCE
    stage.DATALOADER.SAMPLER_TRAIN = "ClusterSampler"
    stage.UNSUP.ITERS_PER_EPOCH = intra.ITERS_PER_EPOCH
    if intra.MOMENTUM != -1:
        stage.UNSUP.MEMORY.MOMENTUM = intra.MOMENTUM
    backbone = stage.MODEL.BACKBONE
    if intra.WITH_IBN and not backbone.WITH_IBN:
        backbone.WITH_IBN = True
        backbone.PRETRAIN_PATH = ""  # weights of the network without IBN do not fit
    if intra.PRETRAIN_PATH:
        backbone.PRETRAIN_PATH = intra.PRETRAIN_PATH
    stage.UNSUP.CENTER_CAMERAS = False  # not needed for one camera
    stage.freeze()
    return stage


def label_camera(cfg: Any, images: UnlabelledImages, quality: Any, folder: str) -> np.ndarray:
    """Train the network of one camera and return its best local labels (N_c,).

    Resumes an interrupted training. The checkpoint is deleted after the labels are saved.
    """
    path = os.path.join(folder, "local_labels.npz")
    existing = run_on_rank_0(
        lambda: read_local_labels(path, images) if os.path.isfile(path) else None
    )
    if existing is not None:
        return existing
    # Seed before each camera, so that its labels do not depend on the cameras that this process
    # trained before; a resumed run skips finished cameras.
    seed_all_rng(cfg.UNSUP.SEED)
    stage = stage_config(cfg, folder)
    labeler = IntraCameraLabeler(stage, len(images.unit_indices))
    trainer = UnsupervisedTrainer(stage, images, labeler, quality=quality, evaluate=False)
    trainer.resume_or_load(resume=True)
    trainer.train()
    if stage.SOLVER.MAX_EPOCH:
        trainer.label_hook.compute_labels(stage.SOLVER.MAX_EPOCH)
    assert labeler.best_labels is not None
    labels = images.of_images(labeler.best_labels)
    run_on_rank_0(lambda: _save(path, images, labels))
    return labels


def _save(path: str, images: UnlabelledImages, labels: np.ndarray) -> None:
    """Save the local labels, then delete the checkpoints in the same folder."""
    save_arrays(path, paths=np.array(images.relative_paths), camids=images.camids, labels=labels)
    for checkpoint in glob.glob(os.path.join(glob.escape(os.path.dirname(path)), "*.pth")):
        os.remove(checkpoint)


def before_training(cfg: Any, images: UnlabelledImages, quality: Any) -> None:
    """Run stage 1, which writes one file of local labels for all images [0, Sec. III-B].

    Raises:
        ValueError: A camera has too few images.
    """
    path = local_labels_path(cfg)
    if not cfg.CALR.REFINE.ENABLED or run_on_rank_0(lambda: os.path.isfile(path)):
        return
    sizes = np.bincount(images.camids[images.unit_indices], minlength=len(images.cameras))
    for camera, size in zip(images.cameras, sizes):
        if size < MIN_IMAGES:
            raise ValueError(
                f"stage 1 of CALR needs at least {MIN_IMAGES} images per camera, but camera"
                f" {camera} has {size}; remove this camera, or set CALR.REFINE.ENABLED False"
            )
    labels = np.full(len(images), -1, dtype=np.int64)
    for number, name in enumerate(images.cameras):
        own = np.flatnonzero(images.camids == number)
        logger.info(
            f"Stage 1, camera {number + 1} of {len(images.cameras)}: {name}, {len(own)} images"
        )
        folder = os.path.join(cfg.OUTPUT_DIR, "intra", name)
        scorer = quality.subset(own) if quality is not None else None
        local = label_camera(cfg, images.subset(own), scorer, folder)
        labels[own] = local + (labels.max() + 1)
    run_on_rank_0(
        lambda: save_arrays(
            path, paths=np.array(images.relative_paths), camids=images.camids, labels=labels
        )
    )
    logger.info(f"Stage 1 done: {labels.max() + 1} local clusters in {path}")
