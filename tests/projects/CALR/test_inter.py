"""The labeler of stage 2: every clusterer, optional refinement, and the description in the log."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from calr.inter import CALRLabeler
from calr.refine import node_scores, refine
from tests.projects.tiny_run import MARKET, load_tiny
from unreid.clustering.partition import compact
from unreid.data.unlabelled import UnlabelledImages
from unreid.graph.knn import knn
from unreid.structures import FeatureBank

PEOPLE, CAMERAS, SHOTS = 5, 3, 4
#: For 60 images, the clusterers with a fixed number of clusters find five.
NUMBER = {"UNSUP__CLUSTER__AGGLOMERATIVE__NUM_CLUSTERS": PEOPLE}


def config(**settings: object) -> Any:
    few = {"UNSUP__KNN__K": 8, "UNSUP__JACCARD__K1": 8, "UNSUP__CLUSTER__MIN_SIZE": 3, **settings}
    return load_tiny(MARKET, **few)[0]


def crowd(spread: float = 0.08) -> tuple[FeatureBank, np.ndarray, np.ndarray]:
    """Return compact clusters of people in three cameras, the people, and local labels."""
    rng = np.random.default_rng(1)
    person, camera, _ = (a.ravel() for a in np.indices((PEOPLE, CAMERAS, SHOTS)))
    features = np.eye(16)[person] + spread * rng.normal(size=(len(person), 16))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    bank = FeatureBank(features.astype(np.float32), camera.astype(np.int64))
    return bank, person, camera * PEOPLE + person


@pytest.mark.parametrize(
    "cluster", ["map_equation", "infomap", "dbscan", "bottom_up", "agglomerative"]
)
def test_clusterers__find_people_that_are_far_apart(cluster: str) -> None:
    if cluster == "infomap" and importlib.util.find_spec("infomap") is None:
        pytest.skip("infomap is not installed")
    bank, person, local = crowd()
    pseudo = CALRLabeler(config(**NUMBER, UNSUP__CLUSTER__NAME=cluster), local)(bank, 0)
    kept = pseudo.labels >= 0
    assert pseudo.num_clusters == PEOPLE
    assert len(set(zip(pseudo.labels[kept].tolist(), person[kept].tolist()))) == PEOPLE


def test_merging__keeps_to_a_given_number_of_clusters() -> None:
    bank, _, _ = crowd()
    for cluster in ("agglomerative", "bottom_up"):
        cfg = config(
            UNSUP__CLUSTER__NAME=cluster, **{f"UNSUP__CLUSTER__{cluster.upper()}__NUM_CLUSTERS": 3}
        )
        assert CALRLabeler(cfg, None)(bank, 0).num_clusters == 3


def test_labels__are_the_refinement_of_what_they_were_before_it() -> None:
    bank, _, _ = crowd()
    rng = np.random.default_rng(0)
    wrong = bank.camids * 10 + rng.integers(0, 2, len(bank))  # splits people into two clusters
    cfg = config()
    pseudo = CALRLabeler(cfg, wrong)(bank, 0)
    before = pseudo.intermediate["before_refinement"]
    graph = knn(bank.features, 8)
    scores = node_scores(*graph, cfg.UNSUP.KNN.MIN_SIMILARITY)
    expected = compact(refine(before, wrong, bank.camids, scores))
    np.testing.assert_array_equal(pseudo.labels, expected)
    removed = int(pseudo.remarks["refinement removed"])
    assert removed == pseudo.num_noise - (before < 0).sum() > 0


def test_labels__without_local_labels_are_left_as_clustered() -> None:
    bank, _, local = crowd()
    plain, refined = (CALRLabeler(config(), labels)(bank, 0) for labels in (None, local))
    assert not plain.intermediate
    np.testing.assert_array_equal(plain.labels, refined.intermediate["before_refinement"])


def test_decay__removes_fewer_images_later() -> None:
    bank, _, _ = crowd()
    wrong = bank.camids * 10 + np.arange(len(bank)) % 2
    labeler = CALRLabeler(config(CALR__REFINE__DECAY=True, SOLVER__MAX_EPOCH=3), wrong)
    early, late = (int(labeler(bank, e).remarks["refinement removed"]) for e in (0, 3))
    assert 0 < late < early


def test_same_features__same_labels() -> None:
    bank, _, local = crowd(spread=0.4)
    one, two = (CALRLabeler(config(), local)(bank, 0).labels for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_small_clusters_become_noise() -> None:
    bank, _, local = crowd()
    labels = CALRLabeler(config(UNSUP__CLUSTER__MIN_SIZE=SHOTS * CAMERAS + 1), local)(bank, 0)
    assert labels.num_clusters == 0 and labels.num_noise == len(bank)


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        (
            "dbscan",
            "UNSUP.CLUSTER.NAME dbscan (UNSUP.CLUSTER.DBSCAN.EPS 0.6,"
            " UNSUP.CLUSTER.DBSCAN.MIN_SAMPLES 4, UNSUP.JACCARD.K1 8, UNSUP.JACCARD.K2 6),"
            " UNSUP.CLUSTER.MIN_SIZE 3",
        ),
        (
            "map_equation",
            "UNSUP.CLUSTER.NAME map_equation (UNSUP.KNN.K 8,"
            " UNSUP.KNN.MIN_SIMILARITY 0.5), UNSUP.CLUSTER.MIN_SIZE 3",
        ),
        (
            "agglomerative",
            "UNSUP.CLUSTER.NAME agglomerative ("
            "UNSUP.CLUSTER.AGGLOMERATIVE.NUM_CLUSTERS 0,"
            " UNSUP.CLUSTER.AGGLOMERATIVE.IMAGES_PER_CLUSTER 12,"
            " UNSUP.CLUSTER.AGGLOMERATIVE.LINKAGE average, UNSUP.JACCARD.K1 8,"
            " UNSUP.JACCARD.K2 6), UNSUP.CLUSTER.MIN_SIZE 3",
        ),
    ],
)
def test_description__names_the_settings_that_decide(cluster: str, words: str) -> None:
    assert CALRLabeler(config(UNSUP__CLUSTER__NAME=cluster), None).describe() == words


def test_one_camera__is_refused_with_what_to_switch_off() -> None:
    images = UnlabelledImages(("a", "b"), np.zeros(2, dtype=np.int64), ("market1501_0",), ".")
    with pytest.raises(ValueError) as error:
        CALRLabeler.check_images(config(), images)
    message = str(error.value)
    assert "at least two cameras, got 1 (market1501_0)" in message
    for key in (
        "CALR.REFINE.ENABLED False",
        "CALR.WEIGHTS.ENABLED False",
        "CALR.ADVERSARY.ENABLED False",
    ):
        assert key in message
    off = {f"CALR__{k}__ENABLED": False for k in ("REFINE", "WEIGHTS", "ADVERSARY")}
    CALRLabeler.check_images(config(**off), images)
