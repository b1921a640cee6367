"""Tests of advice on degenerate labels."""

from __future__ import annotations

import numpy as np
import pytest

from unreid.inference.advice import advice
from unreid.labels.clusterers import CLUSTERER_REGISTRY, parameters


def labels(*sizes: int, noise: int = 0) -> np.ndarray:
    return np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.full(noise, -1)])


def test_unassigned_images__are_reported_with_the_setting_and_a_value() -> None:
    (found,) = advice(labels(20, 20, noise=130), "dbscan", parameters("dbscan"))
    assert found == (
        "76 % of the images are unassigned: raise --eps (0.6 now), for example --eps 0.7"
    )


def test_one_identity_of_most_images__is_reported() -> None:
    (found,) = advice(labels(8920, *[12] * 400), "dbscan", parameters("dbscan"))
    assert found.startswith("one identity has 8920 of the 13720 images: lower --eps (0.6 now)")
    (found,) = advice(labels(50), "map_equation", parameters("map_equation"))
    assert found == (
        "all 50 images have one identity: raise --min-similarity (0.5 now), for example"
        " --min-similarity 0.6"
    )


@pytest.mark.parametrize("method", list(CLUSTERER_REGISTRY))
def test_every_clusterer__has_a_setting_for_both_directions(method: str) -> None:
    settings = parameters(method)
    for degenerate in (labels(2, 2, noise=40), labels(500, *[3] * 40)):
        (found,) = advice(degenerate, method, settings)
        option = found.partition(" --")[2].split()[0].replace("-", "_")
        assert option in settings and "for example" in found


def test_setting_at_its_limit__is_said() -> None:
    settings = {**parameters("dbscan"), "eps": 0.9}
    (found,) = advice(labels(2, noise=40), "dbscan", settings)
    assert "--eps is 0.9 already: the features may not separate these images" in found


def test_given_number_of_clusters__is_what_is_changed() -> None:
    settings = {**parameters("bottom_up"), "num_clusters": 30}
    (found,) = advice(labels(500, *[3] * 29), "bottom_up", settings)
    assert found.endswith("raise --num-clusters (30 now), for example --num-clusters 60")


@pytest.mark.parametrize("usual", [labels(30, 20, 10, noise=5), labels(5), labels(12, 12)])
def test_usual_labels__get_none(usual: np.ndarray) -> None:
    assert advice(usual, "dbscan", parameters("dbscan")) == []
