"""The registry of clusterers: results, parameters, and their names in config and options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.clustering import agglomerative, bottom_up, dbscan, map_equation
from unreid.graph import jaccard_distance, knn
from unreid.labels.clusterers import (
    CLUSTERER_REGISTRY,
    SHARED_KEYS,
    Clusterer,
    build_clusterer,
    clusterer_from_config,
    parameters,
)
from unreid.labels.labeler import ClusterLabeler
from unreid.labels.neighbours import Search
from unreid.registry import LABELER_REGISTRY
from unreid.structures import FeatureBank


def features_of(rng: np.random.Generator) -> np.ndarray:
    rows = np.repeat(rng.normal(size=(6, 8)), 8, axis=0) + 0.6 * rng.normal(size=(48, 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "settings", "by_hand"),
    [
        (
            "dbscan",
            {"eps": 0.55, "min_samples": 3, "k1": 9, "k2": 3},
            lambda x: dbscan(jaccard_distance(x, 9, 3, max_distance=0.55), 0.55, 3),
        ),
        (
            "map_equation",
            {"k": 6, "min_similarity": 0.3, "seed": 2},
            lambda x: map_equation(*knn(x, 6), min_similarity=0.3, seed=2),
        ),
        (
            "bottom_up",
            {
                "num_clusters": 7,
                "linkage": "minimum",
                "regularizer": "size",
                "weight": 0.1,
                "update": "pass",
            },
            lambda x: bottom_up(
                x, num_merges=41, linkage="minimum", regularizer="size", weight=0.1, update="pass"
            ),
        ),
        ("bottom_up", {"images_per_cluster": 6}, lambda x: bottom_up(x, num_merges=40)),
        (
            "agglomerative",
            {"num_clusters": 5, "linkage": "complete", "k1": 9, "k2": 3},
            lambda x: agglomerative(jaccard_distance(x, 9, 3), 5, "complete"),
        ),
    ],
)
def test_clusterer__equals_its_function(
    name: str, settings: dict[str, Any], by_hand: Any, rng: np.random.Generator
) -> None:
    features = features_of(rng)
    labels = build_clusterer(name, **settings)(Search()(features))
    np.testing.assert_array_equal(labels, by_hand(features))
    assert labels.max() >= 1


@pytest.mark.parametrize("name", list(CLUSTERER_REGISTRY))
def test_config__has_all_parameters_under_their_names(name: str) -> None:
    if name == "infomap":
        pytest.importorskip("infomap")
    cfg, _ = load_tiny(BASELINE, UNSUP__SEED=4, UNSUP__JACCARD__K1=11)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.UNSUP.CLUSTER.NAME = name  # infomap, too, where its package is not installed
    chosen = clusterer_from_config(cfg)
    assert type(chosen) is CLUSTERER_REGISTRY.get(name)
    for key in parameters(name):
        node: Any = cfg
        for part in SHARED_KEYS.get(key, f"UNSUP.CLUSTER.{name.upper()}.{key.upper()}").split("."):
            node = node[part]
        assert vars(chosen)[key] == node


def test_clusterers__have_a_summary_and_consistent_parameter_names() -> None:
    kinds: dict[str, type] = {}
    for name in CLUSTERER_REGISTRY:
        assert issubclass(CLUSTERER_REGISTRY.get(name), Clusterer)
        assert CLUSTERER_REGISTRY.get(name).summary
        for key, default in parameters(name).items():
            assert kinds.setdefault(key, type(default)) is type(default)


def test_unknown_parameter__is_an_error_that_lists_the_parameters() -> None:
    with pytest.raises(
        ValueError,
        match=r"dbscan has no setting 'epss'; did you mean 'eps'"
        r".*it has eps, min_samples, k1, k2",
    ):
        build_clusterer("dbscan", epss=1)


def test_labeler__turns_small_clusters_into_noise(rng: np.random.Generator) -> None:
    features = features_of(rng)
    cfg, _ = load_tiny(
        BASELINE,
        UNSUP__CLUSTER__NAME="bottom_up",
        UNSUP__CLUSTER__MIN_SIZE=9,
        UNSUP__CLUSTER__BOTTOM_UP__NUM_CLUSTERS=6,
    )
    labeler = LABELER_REGISTRY.get("ClusterLabeler").from_config(cfg, None)
    assert type(labeler) is ClusterLabeler
    pseudo = labeler(FeatureBank(features, np.zeros(48, np.int64)), 0)
    plain = bottom_up(features, num_merges=42)
    sizes = np.bincount(plain)
    np.testing.assert_array_equal(pseudo.labels >= 0, sizes[plain] >= 9)
    assert set(pseudo.seconds) == {"knn", "cluster"}
