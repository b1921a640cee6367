"""Selection of the best round: silhouette and stability on constructed clusters."""

from __future__ import annotations

import numpy as np
import pytest

from spherecluster.labeler import SphereClusterLabeler
from spherecluster.selection import stability
from tests.projects.SphereCluster.settings import bank, config, people
from unreid.structures import PseudoLabels

TWO_PASSES = {"MERGE_RATE": 0.2, "PASSES": 4}


def test_none__selects_no_model() -> None:
    assert not SphereClusterLabeler(config(CHOICE="none")).selects_model
    assert SphereClusterLabeler(config(CHOICE="silhouette")).selects_model


@pytest.mark.parametrize("choice", ["silhouette", "stability"])
def test_selection_score__prefers_features_that_went_the_way_of_the_labels(choice: str) -> None:
    labeler = SphereClusterLabeler(config(CHOICE=choice, **TWO_PASSES))
    pseudo = labeler(bank(people(5, 5, spread=0.4)), 0)
    tighter = labeler.selection_score(bank(people(5, 5, spread=0.1)), pseudo)
    unrelated = labeler.selection_score(bank(people(25, 1, seed=5)), pseudo)
    assert tighter > unrelated


def test_stability__is_one_where_the_same_features_come_again() -> None:
    labeler = SphereClusterLabeler(config(CHOICE="stability", **TWO_PASSES))
    features = people(5, 5)
    assert labeler.selection_score(bank(features), labeler(bank(features), 0)) == 1.0


def test_stability__of_single_images_is_the_worst_there_is() -> None:
    def never(features: np.ndarray, num_merges: int) -> np.ndarray:
        raise AssertionError("nothing to merge")

    assert stability(people(3, 2), np.arange(6), never) == -1.0


def test_stability__counts_small_clusters_and_looks_at_no_published_label() -> None:
    labeler = SphereClusterLabeler(config(CHOICE="stability", MIN_CLUSTER_SIZE=5, **TWO_PASSES))
    features = people(5, 5)
    labeler(bank(features), 0)
    nothing = PseudoLabels(np.full(25, -1))
    assert labeler.selection_score(bank(features), nothing) == 1.0


def test_silhouette__of_single_images_is_zero() -> None:
    labeler = SphereClusterLabeler(config(SCHEDULE="progressive"))
    pseudo = labeler(bank(people(4, 2)), 0)
    assert labeler.selection_score(bank(people(4, 2)), pseudo) == 0.0
