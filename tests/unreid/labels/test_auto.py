"""Tests of the label-free selection: the score, what is tried, what is selected."""

from __future__ import annotations

import numpy as np
import pytest

from unreid.clustering.partition import compact
from unreid.evaluation.label_quality import label_quality
from unreid.labels.auto import CANDIDATES, agreement, select, try_settings
from unreid.labels.clusterers import build_clusterer
from unreid.labels.neighbours import Search


def people(rng: np.random.Generator, num: int, size: int, noise: float) -> np.ndarray:
    """Return unit rows of ``num`` persons with ``size`` images each."""
    rows = np.repeat(rng.normal(size=(num, 32)), size, axis=0)
    rows += noise * rng.normal(size=rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_agreement__is_the_mean_adjusted_rand_index_with_noise_as_clusters() -> None:
    partitions = [
        np.array([0, 0, 1, 1, -1, -1]),
        np.array([0, 0, 1, 1, 2, 3]),
        np.array([0, 0, 0, 0, 0, 0]),
    ]
    found = agreement(partitions)

    def ari(a: int, b: int) -> float:
        return label_quality(partitions[a], np.array([0, 0, 1, 1, 2, 3]) if b == 1 else
                             partitions[b]).ari  # fmt: skip

    assert ari(0, 1) == 1.0, "the noise images are clusters of one"
    np.testing.assert_allclose(found[0], (1.0 + ari(0, 2)) / 2)
    np.testing.assert_allclose(found[2], ari(0, 2), atol=1e-12)
    assert agreement(partitions[:1]).tolist() == [0.0]


def test_trials__are_the_labels_of_each_clusterer_alone(rng: np.random.Generator) -> None:
    features = people(rng, 20, 9, 0.6)
    trials = try_settings(Search()(features), min_size=3)
    assert [(t.method, t.settings) for t in trials] == list(CANDIDATES)
    for trial in trials:
        alone = build_clusterer(trial.method, **trial.settings)(Search()(features))
        np.testing.assert_array_equal(trial.labels, compact(alone, 3))
    assert select(trials).score == max(t.score for t in trials)


@pytest.mark.parametrize("noise", [0.3, 0.6, 0.9])
def test_selected__is_near_the_best_of_what_was_tried(
    noise: float, rng: np.random.Generator
) -> None:
    features, pids = people(rng, 40, 10, noise), np.repeat(np.arange(40), 10)
    trials = try_settings(Search()(features))
    found = [label_quality(t.labels, pids).ari for t in trials]
    chosen = label_quality(select(trials).labels, pids).ari
    assert chosen > max(found) - 0.1 and chosen > np.mean(found)


@pytest.mark.parametrize("num", [1, 2, 3])
def test_few_images__are_no_error(num: int, rng: np.random.Generator) -> None:
    assert len(select(try_settings(Search()(people(rng, num, 1, 0.1)))).labels) == num
