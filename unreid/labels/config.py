"""Config keys of the label step: ``UNSUP.KNN``, ``UNSUP.JACCARD`` and ``UNSUP.CLUSTER``.

``UNSUP.CLUSTER`` has one node per clusterer, with its name in upper case. The node has the
parameters of its dataclass (:mod:`unreid.labels.clusterers`) that are no shared keys.
"""

from __future__ import annotations

import importlib.util

from fastreid.config import CfgNode

from unreid.checks import check_choice, check_integer, check_number
from unreid.clustering.agglomerative import LINKAGES as DENSE_LINKAGES
from unreid.clustering.bottom_up import UPDATES
from unreid.clustering.linkage import LINKAGES, REGULARIZERS
from unreid.clustering.passes import PASS_RULES
from unreid.graph.knn import METHODS
from unreid.labels.clusterers import CLUSTERER_REGISTRY, SHARED_KEYS, parameters


def add_label_config(cfg: CfgNode) -> None:
    """Declare the keys."""
    # k-reciprocal Jaccard distance: neighbours, and neighbours of the query expansion.
    cfg.UNSUP.JACCARD = CfgNode()
    cfg.UNSUP.JACCARD.K1 = 30
    cfg.UNSUP.JACCARD.K2 = 6
    # The kNN graph: k with the image itself included, and the least cosine of an edge.
    cfg.UNSUP.KNN = CfgNode()
    cfg.UNSUP.KNN.K = 15
    cfg.UNSUP.KNN.MIN_SIMILARITY = 0.5
    # How neighbours are searched: "exact", or "ivf" / "hnsw" (faiss) with lists or beam PROBES.
    cfg.UNSUP.KNN.METHOD = "exact"
    cfg.UNSUP.KNN.NUM_PROBES = 64
    # The clusterer of ClusterLabeler and of the labelers derived from it, by its name.
    cfg.UNSUP.CLUSTER = CfgNode()
    cfg.UNSUP.CLUSTER.NAME = "map_equation"
    # Smaller clusters become noise.
    cfg.UNSUP.CLUSTER.MIN_SIZE = 5
    for name in CLUSTERER_REGISTRY:
        own = {
            key.upper(): default
            for key, default in parameters(name).items()
            if key not in SHARED_KEYS
        }
        if own:
            cfg.UNSUP.CLUSTER[name.upper()] = CfgNode(own)


def check_label_config(cfg: CfgNode) -> None:
    """Check the values of the keys.

    Raises:
        KeyError: The clusterer does not exist.
        ValueError: A value is out of range; names the key, the value and the range.
        ImportError: The package of the clusterer infomap is not installed; names the extra.
    """
    unsup = cfg.UNSUP
    cluster = unsup.CLUSTER
    CLUSTERER_REGISTRY.get(cluster.NAME)
    if cluster.NAME == "infomap" and importlib.util.find_spec("infomap") is None:
        raise ImportError(
            "UNSUP.CLUSTER.NAME infomap needs the GPL package infomap, which is not installed:"
            ' pip install "unreid[infomap]", or use UNSUP.CLUSTER.NAME map_equation'
        )
    check_choice("UNSUP.KNN.METHOD", unsup.KNN.METHOD, METHODS)
    check_number("UNSUP.KNN.MIN_SIMILARITY", unsup.KNN.MIN_SIMILARITY, 0, 1)
    check_number("UNSUP.CLUSTER.DBSCAN.EPS", cluster.DBSCAN.EPS, 0, 1, open_minimum=True)
    tree, dense = cluster.BOTTOM_UP, cluster.AGGLOMERATIVE
    for key, value, low in (
        ("UNSUP.JACCARD.K1", unsup.JACCARD.K1, 2),
        ("UNSUP.JACCARD.K2", unsup.JACCARD.K2, 1),
        ("UNSUP.KNN.K", unsup.KNN.K, 2),
        ("UNSUP.KNN.NUM_PROBES", unsup.KNN.NUM_PROBES, 1),
        ("UNSUP.CLUSTER.MIN_SIZE", cluster.MIN_SIZE, 1),
        ("UNSUP.CLUSTER.DBSCAN.MIN_SAMPLES", cluster.DBSCAN.MIN_SAMPLES, 1),
        ("UNSUP.CLUSTER.BOTTOM_UP.NUM_CLUSTERS", tree.NUM_CLUSTERS, -1),
        ("UNSUP.CLUSTER.BOTTOM_UP.IMAGES_PER_CLUSTER", tree.IMAGES_PER_CLUSTER, 1),
        ("UNSUP.CLUSTER.AGGLOMERATIVE.NUM_CLUSTERS", dense.NUM_CLUSTERS, 0),
        ("UNSUP.CLUSTER.AGGLOMERATIVE.IMAGES_PER_CLUSTER", dense.IMAGES_PER_CLUSTER, 1),
    ):
        check_integer(key, value, low)
    check_number("UNSUP.CLUSTER.BOTTOM_UP.WEIGHT", tree.WEIGHT, 0)
    check_choice("UNSUP.CLUSTER.BOTTOM_UP.LINKAGE", tree.LINKAGE, LINKAGES)
    check_choice("UNSUP.CLUSTER.BOTTOM_UP.REGULARIZER", tree.REGULARIZER, REGULARIZERS)
    check_choice("UNSUP.CLUSTER.BOTTOM_UP.UPDATE", tree.UPDATE, UPDATES)
    check_choice("UNSUP.CLUSTER.BOTTOM_UP.PASS_RULE", tree.PASS_RULE, PASS_RULES)
    check_choice("UNSUP.CLUSTER.AGGLOMERATIVE.LINKAGE", dense.LINKAGE, DENSE_LINKAGES)
