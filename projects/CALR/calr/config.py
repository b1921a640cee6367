"""Config keys of CALR, with the symbols of the paper.

[0] Camera-aware Label Refinement for Unsupervised Person Re-identification, 2024,
    https://arxiv.org/abs/2403.16450
"""

from __future__ import annotations

import os
from typing import Any

from fastreid.config import CfgNode

from unreid.checks import check_choice, check_integer, check_number
from unreid.config import check_batch, check_parts

#: Backbones whose every depth can have IBN layers.
IBN_BACKBONES = ("build_resnet_backbone", "build_resnext_backbone")
#: Old keys of CALR -> keys of all methods; the next version removes the old ones.
RENAMED = {
    "CALR.CLUSTER": "UNSUP.CLUSTER.NAME",
    "CALR.MIN_CLUSTER_SIZE": "UNSUP.CLUSTER.MIN_SIZE",
    "CALR.KNN.K": "UNSUP.KNN.K",
    "CALR.KNN.MIN_SIMILARITY": "UNSUP.KNN.MIN_SIMILARITY",
    "CALR.DBSCAN.EPS": "UNSUP.CLUSTER.DBSCAN.EPS",
    "CALR.DBSCAN.MIN_SAMPLES": "UNSUP.CLUSTER.DBSCAN.MIN_SAMPLES",
    "CALR.AGGLOMERATIVE.NUM_CLUSTERS": "UNSUP.CLUSTER.BOTTOM_UP.NUM_CLUSTERS",
    "CALR.AGGLOMERATIVE.IMAGES_PER_CLUSTER": "UNSUP.CLUSTER.BOTTOM_UP.IMAGES_PER_CLUSTER",
    "CALR.AGGLOMERATIVE.WEIGHT": "UNSUP.CLUSTER.BOTTOM_UP.WEIGHT",
}


def rename_key(key: str, value: Any) -> tuple[str, Any]:
    """Return the current name of a key; the clusterer agglomerative is now bottom_up."""
    if key == "CALR.CLUSTER" and value == "agglomerative":
        value = "bottom_up"
    return RENAMED.get(key, key), value


def add_config(cfg: CfgNode) -> None:
    """Declare ``cfg.CALR``."""
    cfg.CALR = CfgNode()
    # File of local labels of an earlier run; "" runs stage 1.
    cfg.CALR.LOCAL_LABELS = ""

    # Stage 1, intra-camera: a network per camera [0, Sec. III-B].
    cfg.CALR.INTRA = CfgNode()
    cfg.CALR.INTRA.EPOCHS = 20
    cfg.CALR.INTRA.ITERS_PER_EPOCH = 100
    cfg.CALR.INTRA.IMS_PER_BATCH = 64
    cfg.CALR.INTRA.NUM_INSTANCE = 4
    cfg.CALR.INTRA.STEPS = [20]
    # m of stage 1's cluster memory; -1 means UNSUP.MEMORY.MOMENTUM; the released code uses 0.2.
    cfg.CALR.INTRA.MOMENTUM = -1.0
    # IBN layers in stage 1's backbone, as in the released code, even if MODEL.BACKBONE.WITH_IBN is
    # False.
    cfg.CALR.INTRA.WITH_IBN = False
    # Initial weights of stage 1's backbone if MODEL.BACKBONE.PRETRAIN is True. "" means
    # MODEL.BACKBONE.PRETRAIN_PATH, or the weights that fast-reid downloads if only stage 1 has IBN.
    cfg.CALR.INTRA.PRETRAIN_PATH = ""
    # "jaccard": average linkage on the Jaccard distance (released code); "sse": exact average
    # linkage on features with the SSE regulariser (no N_c x N_c matrix).
    cfg.CALR.INTRA.CLUSTER = "jaccard"
    # K_c, at most N_c // 3; 0 means N_c // IMAGES_PER_CLUSTER.
    cfg.CALR.INTRA.NUM_CLUSTERS = 0
    cfg.CALR.INTRA.IMAGES_PER_CLUSTER = 5

    # Refinement of the global labels by the local ones [0, Sec. III-C].
    cfg.CALR.REFINE = CfgNode()
    cfg.CALR.REFINE.ENABLED = True
    # "max": the image with the highest node score; "last": the last image with a score above the
    # mean (released code).
    cfg.CALR.REFINE.PIVOT = "max"
    # One pivot per camera in each cluster, so that images of every camera can be removed.
    cfg.CALR.REFINE.PIVOTS_PER_CAMERA = False
    # Include the distance 0 of an image to itself in the mean distance (released code).
    cfg.CALR.REFINE.SELF_IN_MEAN = False
    # Make only the share 0.5 (1 + cos(pi e / (3 E))) of the removals in epoch e of E.
    cfg.CALR.REFINE.DECAY = False

    # Cluster weights w_k = log(1 + H_k), H_k the entropy of its cameras, from START_EPOCH on.
    cfg.CALR.WEIGHTS = CfgNode()
    cfg.CALR.WEIGHTS.ENABLED = True
    cfg.CALR.WEIGHTS.START_EPOCH = 0

    # Camera alignment by gradient reversal [0, Sec. III-D], in epochs START <= e < END.
    cfg.CALR.ADVERSARY = CfgNode()
    cfg.CALR.ADVERSARY.ENABLED = True
    cfg.CALR.ADVERSARY.START_EPOCH = 0
    # -1 means the end of training.
    cfg.CALR.ADVERSARY.END_EPOCH = -1
    # Factor lambda of the reversed gradient. SCHEDULE "constant": FACTOR in every epoch. "dann":
    # FACTOR (2 / (1 + exp(-10 p)) - 1), p from 0 in START_EPOCH to 1 at END_EPOCH.
    cfg.CALR.ADVERSARY.FACTOR = 1.0
    cfg.CALR.ADVERSARY.SCHEDULE = "constant"
    # Apply a softmax before the cross entropy, which has its own, as in the released code. It
    # divides the gradient at the features by about the number of cameras (undecided discriminator).
    cfg.CALR.ADVERSARY.SOFTMAX_TWICE = False
    cfg.CALR.ADVERSARY.HIDDEN = 100

    # Camera-aware proxies (CAP, https://arxiv.org/abs/2012.10674), which [0] does not use: a
    # centroid per cluster and camera, contrasted within the camera and across cameras.
    cfg.CALR.PROXIES = CfgNode()
    cfg.CALR.PROXIES.ENABLED = False
    cfg.CALR.PROXIES.START_EPOCH = 0
    cfg.CALR.PROXIES.INTRA_WEIGHT = 0.5
    cfg.CALR.PROXIES.INTER_WEIGHT = 0.5
    # tau; weight of the old proxy in an update; number of most similar proxies used as negatives.
    cfg.CALR.PROXIES.TEMPERATURE = 0.07
    cfg.CALR.PROXIES.MOMENTUM = 0.2
    cfg.CALR.PROXIES.NUM_NEGATIVES = 50


def check_config(cfg: CfgNode) -> None:
    """Check that all values are in range.

    Raises:
        ValueError: A value is out of range; names the key, the value and the range.
        FileNotFoundError: ``CALR.INTRA.PRETRAIN_PATH`` does not exist.
    """
    calr = cfg.CALR
    check_choice("CALR.INTRA.CLUSTER", calr.INTRA.CLUSTER, ("jaccard", "sse"))
    check_choice("CALR.REFINE.PIVOT", calr.REFINE.PIVOT, ("max", "last"))
    check_choice("CALR.ADVERSARY.SCHEDULE", calr.ADVERSARY.SCHEDULE, ("constant", "dann"))
    for key, value, low in (
        ("CALR.INTRA.EPOCHS", calr.INTRA.EPOCHS, 1),
        ("CALR.INTRA.ITERS_PER_EPOCH", calr.INTRA.ITERS_PER_EPOCH, 1),
        ("CALR.INTRA.IMS_PER_BATCH", calr.INTRA.IMS_PER_BATCH, 2),
        ("CALR.INTRA.NUM_INSTANCE", calr.INTRA.NUM_INSTANCE, 1),
        ("CALR.INTRA.NUM_CLUSTERS", calr.INTRA.NUM_CLUSTERS, 0),
        ("CALR.INTRA.IMAGES_PER_CLUSTER", calr.INTRA.IMAGES_PER_CLUSTER, 1),
        ("CALR.WEIGHTS.START_EPOCH", calr.WEIGHTS.START_EPOCH, 0),
        ("CALR.ADVERSARY.START_EPOCH", calr.ADVERSARY.START_EPOCH, 0),
        ("CALR.ADVERSARY.END_EPOCH", calr.ADVERSARY.END_EPOCH, -1),
        ("CALR.ADVERSARY.HIDDEN", calr.ADVERSARY.HIDDEN, 1),
        ("CALR.PROXIES.START_EPOCH", calr.PROXIES.START_EPOCH, 0),
        ("CALR.PROXIES.NUM_NEGATIVES", calr.PROXIES.NUM_NEGATIVES, 1),
    ):
        check_integer(key, value, low)
    if calr.INTRA.MOMENTUM != -1:
        check_number("CALR.INTRA.MOMENTUM (-1: UNSUP.MEMORY.MOMENTUM)", calr.INTRA.MOMENTUM, 0, 1)
    _check_intra_backbone(cfg)
    check_number("CALR.ADVERSARY.FACTOR", calr.ADVERSARY.FACTOR, 0)
    for key in ("INTRA_WEIGHT", "INTER_WEIGHT"):
        check_number(f"CALR.PROXIES.{key}", calr.PROXIES[key], 0)
    check_number("CALR.PROXIES.MOMENTUM", calr.PROXIES.MOMENTUM, 0, 1)
    check_number("CALR.PROXIES.TEMPERATURE", calr.PROXIES.TEMPERATURE, 0, open_minimum=True)
    check_batch(
        calr.INTRA.IMS_PER_BATCH,
        calr.INTRA.NUM_INSTANCE,
        "CALR.INTRA.IMS_PER_BATCH",
        "CALR.INTRA.NUM_INSTANCE",
    )
    if calr.REFINE.ENABLED:
        check_parts(
            cfg.SOLVER.ACCUMULATE,
            calr.INTRA.NUM_INSTANCE,
            calr.INTRA.IMS_PER_BATCH,
            "CALR.INTRA.IMS_PER_BATCH",
        )


def _check_intra_backbone(cfg: CfgNode) -> None:
    """Check that the backbone supports IBN layers and that the file of weights exists."""
    intra, backbone = cfg.CALR.INTRA, cfg.MODEL.BACKBONE
    if intra.WITH_IBN and backbone.NAME not in IBN_BACKBONES:
        raise ValueError(
            f"CALR.INTRA.WITH_IBN must be False for MODEL.BACKBONE.NAME"
            f" {backbone.NAME}; only {' and '.join(IBN_BACKBONES)} have IBN layers"
        )
    if backbone.PRETRAIN and intra.PRETRAIN_PATH and not os.path.isfile(intra.PRETRAIN_PATH):
        raise FileNotFoundError(
            f"CALR.INTRA.PRETRAIN_PATH {intra.PRETRAIN_PATH}: no such file; expected a"
            f' weight file for {backbone.NAME} {backbone.DEPTH}, or ""'
        )
