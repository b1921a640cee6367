"""Config keys of SphereCluster and its predecessors, with the symbols of the papers.

[0] Clustering Matters: Sphere Feature for Fully Unsupervised Person Re-identification,
    ACM TOMM 2022, https://doi.org/10.1145/3501404
[1] Lin et al., A bottom-up clustering approach to unsupervised person re-identification (BUC),
    AAAI 2019, https://doi.org/10.1609/aaai.v33i01.33018738
[2] Zeng et al., Hierarchical clustering with hard-batch triplet loss (HCT), CVPR 2020,
    https://arxiv.org/abs/1910.12278
[3] Ding et al., Towards better validity: dispersion based clustering for unsupervised person
    re-identification (DBC), 2019, https://arxiv.org/abs/1906.01308
"""

from __future__ import annotations

from fastreid.config import CfgNode

from spherecluster.schedule import SCHEDULES
from spherecluster.selection import CRITERIA
from unreid.checks import check_choice, check_integer, check_number
from unreid.clustering.bottom_up import UPDATES
from unreid.clustering.linkage import LINKAGES, REGULARIZERS
from unreid.clustering.passes import PASS_RULES


def add_config(cfg: CfgNode) -> None:
    """Declare ``cfg.SPHERECLUSTER``."""
    cfg.SPHERECLUSTER = CfgNode()
    # v = f / ||f|| for clustering, training and retrieval [0]; False keeps the norms (ablation).
    cfg.SPHERECLUSTER.SPHERE = True

    # D(A, B) = D_link(A, B) + lambda (g(A) + g(B)): unreid/clustering/linkage.py defines them.
    cfg.SPHERECLUSTER.LINKAGE = "average"
    cfg.SPHERECLUSTER.REGULARIZER = "sse"
    cfg.SPHERECLUSTER.LAMBDA = 0.02
    # "exact" updates distances after every merge; "pass" sorts all of them once per pass [1, 2].
    cfg.SPHERECLUSTER.UPDATE = "exact"
    # Pairs that a pass merges. "union": all pairs of different clusters, so that chains form
    # [1, 2]. "skip": only pairs of clusters that were not absorbed earlier in this pass [3].
    cfg.SPHERECLUSTER.PASS_RULE = "union"

    # "restart": every round starts from single images [2]; "progressive": clusters only grow [1].
    cfg.SPHERECLUSTER.SCHEDULE = "restart"
    # mp: a pass makes floor(mp N) merges, N the training images.
    cfg.SPHERECLUSTER.MERGE_RATE = 0.07
    # S: passes of a round (restart), or of the whole run at most (progressive, one a round).
    cfg.SPHERECLUSTER.PASSES = 13
    # Number of epochs of the first round, and of each later round.
    cfg.SPHERECLUSTER.FIRST_EPOCHS = 20
    cfg.SPHERECLUSTER.EPOCHS = 20
    # Images of smaller clusters are not used in training until the next round.
    cfg.SPHERECLUSTER.MIN_CLUSTER_SIZE = 1

    # Score that selects the model of one round, reported in addition to the last model:
    # "silhouette", "stability" of the partition, or "none". Test accuracy is not used.
    cfg.SPHERECLUSTER.CHOICE = "silhouette"

    # Dropout after the L2 normalisation, in training only [1].
    cfg.SPHERECLUSTER.DROPOUT = 0.0

    # Hard-batch triplet loss [2].
    cfg.SPHERECLUSTER.TRIPLET = CfgNode()
    cfg.SPHERECLUSTER.TRIPLET.ENABLED = True
    cfg.SPHERECLUSTER.TRIPLET.MARGIN = 0.5
    # Softmax over trained class weights; SCALE is s.
    cfg.SPHERECLUSTER.SOFTMAX = CfgNode()
    cfg.SPHERECLUSTER.SOFTMAX.ENABLED = False
    cfg.SPHERECLUSTER.SOFTMAX.SCALE = 14.0
    # Softmax over a lookup table V, updated with the features: tau, and weight of the old row.
    cfg.SPHERECLUSTER.REPELLED = CfgNode()
    cfg.SPHERECLUSTER.REPELLED.ENABLED = False
    cfg.SPHERECLUSTER.REPELLED.TEMPERATURE = 0.1
    cfg.SPHERECLUSTER.REPELLED.MOMENTUM = 0.5
    # V after new labels: "zero" [1], or "centroids" of the new features (a cluster memory).
    cfg.SPHERECLUSTER.REPELLED.START = "zero"
    # InfoNCE against a cluster memory (UNSUP.MEMORY), one centroid per cluster.
    cfg.SPHERECLUSTER.MEMORY = CfgNode()
    cfg.SPHERECLUSTER.MEMORY.ENABLED = False


def check_config(cfg: CfgNode) -> None:
    """Check that values are in range and consistent.

    Raises:
        ValueError: A value is invalid; names the key, the value and the range.
    """
    sphere = cfg.SPHERECLUSTER
    check_choice("SPHERECLUSTER.LINKAGE", sphere.LINKAGE, LINKAGES)
    check_choice("SPHERECLUSTER.REGULARIZER", sphere.REGULARIZER, REGULARIZERS)
    check_number("SPHERECLUSTER.LAMBDA", sphere.LAMBDA, 0)
    check_choice("SPHERECLUSTER.UPDATE", sphere.UPDATE, UPDATES)
    check_choice("SPHERECLUSTER.PASS_RULE", sphere.PASS_RULE, PASS_RULES)
    check_choice("SPHERECLUSTER.SCHEDULE", sphere.SCHEDULE, SCHEDULES)
    check_number("SPHERECLUSTER.MERGE_RATE", sphere.MERGE_RATE, 0, 1, open_minimum=True)
    check_choice("SPHERECLUSTER.CHOICE", sphere.CHOICE, CRITERIA)
    check_choice("SPHERECLUSTER.REPELLED.START", sphere.REPELLED.START, ("zero", "centroids"))
    for key in ("PASSES", "FIRST_EPOCHS", "EPOCHS", "MIN_CLUSTER_SIZE"):
        check_integer(f"SPHERECLUSTER.{key}", sphere[key], 1)
    check_number("SPHERECLUSTER.TRIPLET.MARGIN", sphere.TRIPLET.MARGIN, 0)
    check_number("SPHERECLUSTER.SOFTMAX.SCALE", sphere.SOFTMAX.SCALE, 0, open_minimum=True)
    check_number(
        "SPHERECLUSTER.REPELLED.TEMPERATURE", sphere.REPELLED.TEMPERATURE, 0, open_minimum=True
    )
    check_number("SPHERECLUSTER.REPELLED.MOMENTUM", sphere.REPELLED.MOMENTUM, 0, 1)
    check_number("SPHERECLUSTER.DROPOUT", sphere.DROPOUT, 0, 1)
    if sphere.DROPOUT == 1:
        raise ValueError("SPHERECLUSTER.DROPOUT must be < 1: at 1 all features are zero")
    check_choice("MODEL.HEADS.NECK_FEAT", cfg.MODEL.HEADS.NECK_FEAT, ("before", "after"))
    _check_combinations(cfg)


def _check_combinations(cfg: CfgNode) -> None:
    sphere = cfg.SPHERECLUSTER
    if not any(sphere[loss].ENABLED for loss in ("TRIPLET", "SOFTMAX", "REPELLED", "MEMORY")):
        raise ValueError(
            "SPHERECLUSTER.{TRIPLET,SOFTMAX,REPELLED,MEMORY}.ENABLED are all False:"
            " at least one loss must be enabled"
        )
    if cfg.MODEL.META_ARCHITECTURE == "SphereCluster" and cfg.MODEL.HEADS.NAME != "SphereHead":
        raise ValueError(
            "MODEL.HEADS.NAME must be 'SphereHead' with MODEL.META_ARCHITECTURE SphereCluster,"
            f" got {cfg.MODEL.HEADS.NAME!r}"
        )
    if sphere.SCHEDULE == "progressive" and sphere.MIN_CLUSTER_SIZE > 1:
        raise ValueError(
            "SPHERECLUSTER.MIN_CLUSTER_SIZE must be 1 with SPHERECLUSTER.SCHEDULE progressive"
            f" (its first round trains on single images), got {sphere.MIN_CLUSTER_SIZE}"
        )
    from_bank = (
        sphere.SOFTMAX.ENABLED
        or sphere.MEMORY.ENABLED
        or (sphere.REPELLED.ENABLED and sphere.REPELLED.START == "centroids")
    )
    if from_bank and cfg.MODEL.HEADS.NECK_FEAT == "before":
        raise ValueError(
            "MODEL.HEADS.NECK_FEAT must be 'after' if class weights start from the centroids of the"
            " extracted features (SPHERECLUSTER.SOFTMAX, SPHERECLUSTER.MEMORY,"
            " SPHERECLUSTER.REPELLED.START centroids); features before the neck are not comparable"
            " with the class weights"
        )
    if not sphere.SPHERE:
        _check_unnormalized(cfg)


def _check_unnormalized(cfg: CfgNode) -> None:
    """Check that no setting requires unit rows with ``SPHERE False``."""
    if cfg.SPHERECLUSTER.MEMORY.ENABLED:
        raise ValueError(
            "SPHERECLUSTER.MEMORY.ENABLED must be False with SPHERECLUSTER.SPHERE"
            " False: its logits are cosines"
        )
    if cfg.TEST.METRIC != "euclidean":
        raise ValueError(
            "TEST.METRIC must be 'euclidean' with SPHERECLUSTER.SPHERE False: the"
            " cosine ignores the norms of features"
        )
    for key, value in (
        ("UNSUP.CENTER_CAMERAS", cfg.UNSUP.CENTER_CAMERAS),
        ("TEST.CENTER_CAMERAS", cfg.TEST.CENTER_CAMERAS),
    ):
        if value:
            raise ValueError(
                f"{key} must be False with SPHERECLUSTER.SPHERE False: camera"
                " centring needs normalised features"
            )
