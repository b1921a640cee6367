"""The labeler against slow merging, both schedules, and edge cases: few or equal images, noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from spherecluster.labeler import SphereClusterLabeler
from tests.projects.SphereCluster.settings import bank, config, people, unit
from tests.unreid.clustering.merging_oracle import (
    exact_labels,
    pass_labels,
    skip_pass_labels,
)
from unreid.structures import FeatureBank, PseudoLabels


def labeler(**settings: object) -> SphereClusterLabeler:
    return SphereClusterLabeler(config(**settings))


def sizes(pseudo: PseudoLabels) -> list[int]:
    return sorted(pseudo.sizes.tolist())


RULES = [
    ("average", "sse", 0.02),
    ("minimum", "size", 0.003),
    ("average", "dispersion", 0.1),
    ("energy", "none", 0.0),
    ("ward", "none", 0.0),
    ("centroid", "none", 0.0),
]
NAMES = ["sphere", "buc", "dbc", "ecluster", "ward", "centroid"]


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_restart_exact__is_the_tree_of_one_merge_at_a_time(rule: tuple[str, str, float]) -> None:
    features = people(5, 5)
    merging = labeler(
        LINKAGE=rule[0], REGULARIZER=rule[1], LAMBDA=rule[2], MERGE_RATE=0.2, PASSES=3
    )
    slow = exact_labels(features.astype(np.float64), np.arange(25), 15, rule)[-1]
    np.testing.assert_array_equal(merging(bank(features), 0).labels, slow)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_restart_pass__is_all_distances_once_a_pass(rule: tuple[str, str, float]) -> None:
    features = people(5, 5)
    merging = labeler(
        LINKAGE=rule[0],
        REGULARIZER=rule[1],
        LAMBDA=rule[2],
        MERGE_RATE=0.2,
        PASSES=3,
        UPDATE="pass",
    )
    slow = pass_labels(features.astype(np.float64), np.arange(25), 5, 3, rule)
    np.testing.assert_array_equal(merging(bank(features), 0).labels, slow)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_pass_rule_skip__is_that_of_dbc_over_several_passes(rule: tuple[str, str, float]) -> None:
    features = people(5, 5)
    merging = labeler(
        LINKAGE=rule[0],
        REGULARIZER=rule[1],
        LAMBDA=rule[2],
        MERGE_RATE=0.2,
        PASSES=4,
        UPDATE="pass",
        PASS_RULE="skip",
    )
    slow = skip_pass_labels(features.astype(np.float64), np.arange(25), 5, 4, rule)
    np.testing.assert_array_equal(merging(bank(features), 0).labels, slow)


@pytest.mark.parametrize("update", ["exact", "pass"])
def test_progressive__goes_on_from_the_clusters_before_on_other_features(update: str) -> None:
    merging = labeler(
        SCHEDULE="progressive", UPDATE=update, MERGE_RATE=0.2, PASSES=9, FIRST_EPOCHS=1, EPOCHS=1
    )
    expected, rule = np.arange(25), ("average", "sse", 0.02)
    for epoch in range(5):
        features = people(5, 5, seed=epoch)
        pseudo = merging(bank(features), epoch)
        if epoch:
            slow = features.astype(np.float64)
            expected = (
                exact_labels(slow, expected, 5, rule)[-1]
                if update == "exact"
                else pass_labels(slow, expected, 5, 1, rule)
            )
        np.testing.assert_array_equal(pseudo.labels, expected)
        assert pseudo.remarks["round"] == str(epoch)
    assert pseudo.num_clusters == 5


def test_restart__forgets_the_clusters_before() -> None:
    merging = labeler(MERGE_RATE=0.2, PASSES=3, FIRST_EPOCHS=1, EPOCHS=1)
    merging(bank(people(5, 5, seed=1)), 0)
    again = merging(bank(people(5, 5, seed=2)), 1)
    fresh = labeler(MERGE_RATE=0.2, PASSES=3)(bank(people(5, 5, seed=2)), 0)
    np.testing.assert_array_equal(again.labels, fresh.labels)


def test_people__are_found_again() -> None:
    features = people(6, 8, spread=0.15)
    pseudo = labeler(MERGE_RATE=0.125, PASSES=7)(bank(features), 0)
    assert pseudo.num_clusters == 6
    assert adjusted_rand_score(np.repeat(np.arange(6), 8), pseudo.labels) == 1.0


@pytest.mark.parametrize("update", ["exact", "pass"])
@pytest.mark.parametrize("linkage", ["average", "minimum"])
def test_shuffled_files__give_the_same_partition(update: str, linkage: str) -> None:
    features = people(8, 6)
    order = np.random.default_rng(1).permutation(len(features))
    settings = {"UPDATE": update, "LINKAGE": linkage, "MERGE_RATE": 0.2, "PASSES": 3}
    sorted_files = labeler(**settings)(bank(features), 0).labels
    shuffled = labeler(**settings)(bank(features[order]), 0).labels
    assert adjusted_rand_score(sorted_files[order], shuffled) == 1.0


def test_lambda__makes_clusters_more_even() -> None:
    rng = np.random.default_rng(0)
    features = unit(rng.normal(size=(120, 16)) + 0.8)
    free = labeler(REGULARIZER="none", MERGE_RATE=0.1, PASSES=9)(bank(features), 0)
    even = labeler(LAMBDA=0.1, MERGE_RATE=0.1, PASSES=9)(bank(features), 0)
    assert free.num_clusters == even.num_clusters == 12
    assert even.sizes.max() < free.sizes.max()


@pytest.mark.parametrize("update", ["exact", "pass"])
@pytest.mark.parametrize("schedule", ["restart", "progressive"])
def test_more_merges_than_there_are__leave_two_clusters_and_say_so(
    update: str, schedule: str
) -> None:
    merging = labeler(
        SCHEDULE=schedule, UPDATE=update, MERGE_RATE=0.4, PASSES=9, FIRST_EPOCHS=1, EPOCHS=1
    )
    for epoch in range(4):
        pseudo = merging(bank(people(3, 4)), epoch)
    assert pseudo.num_clusters == 2
    wanted = 36 if schedule == "restart" else 4
    made = 10 if schedule == "restart" else 2
    assert pseudo.remarks["merges"] == f"{made} of {wanted} (at least two clusters are kept)"


def test_small_clusters__take_no_part_this_round_but_are_kept() -> None:
    features = np.concatenate([people(2, 5, spread=0.05), people(3, 1, seed=9)])
    merging = labeler(MERGE_RATE=0.1, PASSES=8, MIN_CLUSTER_SIZE=2)
    pseudo = merging(bank(features), 0)
    assert sizes(pseudo) == [5, 5]
    np.testing.assert_array_equal(pseudo.labels[10:], -1)
    assert (merging.partition >= 0).all() and merging.partition.max() == 4


def test_all_noise__is_published_as_such_for_the_shell_to_refuse() -> None:
    pseudo = labeler(MERGE_RATE=0.01, PASSES=1, MIN_CLUSTER_SIZE=4)(bank(people(4, 3)), 0)
    assert pseudo.num_clusters == 0 and pseudo.num_noise == 12


@pytest.mark.parametrize("update", ["exact", "pass"])
def test_identical_images__merge_into_as_many_clusters_as_wanted(update: str) -> None:
    features = np.tile(people(1, 1), (10, 1))
    pseudo = labeler(UPDATE=update, MERGE_RATE=0.3, PASSES=2)(bank(features), 0)
    assert pseudo.num_clusters == 4
    again = labeler(UPDATE=update, MERGE_RATE=0.3, PASSES=2)(bank(features), 0)
    np.testing.assert_array_equal(pseudo.labels, again.labels)


@pytest.mark.parametrize("count", [2, 3])
def test_few_images__stay_two_clusters(count: int) -> None:
    pseudo = labeler()(bank(people(count, 1)), 0)
    assert pseudo.num_clusters == 2


def test_too_few_images__are_refused_before_training() -> None:
    class Images:
        def __len__(self) -> int:
            return 3

    cfg = config(MIN_CLUSTER_SIZE=2)
    with pytest.raises(ValueError, match="needs at least 4 images for two clusters"):
        SphereClusterLabeler.check_images(cfg, Images())
    SphereClusterLabeler.check_images(config(), Images())


def test_input__is_not_changed() -> None:
    features = people(5, 5)
    before = features.copy()
    merging = labeler(SCHEDULE="progressive", FIRST_EPOCHS=1, EPOCHS=1)
    first = merging(bank(features), 0)
    labels = first.labels.copy()
    merging(bank(features), 1)
    np.testing.assert_array_equal(features, before)
    np.testing.assert_array_equal(first.labels, labels)


def test_log__has_round_merges_and_seconds() -> None:
    pseudo = labeler(MERGE_RATE=0.2, PASSES=2)(bank(people(5, 4)), 0)
    assert pseudo.remarks == {"round": "0", "merges": "8"}
    assert set(pseudo.seconds) == {"merge"}


def test_state__through_a_checkpoint_continues_to_the_same_clusters(tmp_path: object) -> None:
    settings = {"SCHEDULE": "progressive", "MERGE_RATE": 0.1, "FIRST_EPOCHS": 1, "EPOCHS": 1}
    whole, resumed = labeler(**settings), labeler(**settings)
    for epoch in range(3):
        whole(bank(people(5, 5, seed=epoch)), epoch)
    path = f"{tmp_path}/state.pth"
    torch.save(whole.state_dict(), path)
    resumed.load_state_dict(torch.load(path, weights_only=True))
    later = people(5, 5, seed=7)
    np.testing.assert_array_equal(whole(bank(later), 3).labels, resumed(bank(later), 3).labels)


def test_state__before_the_first_round_is_empty() -> None:
    fresh = labeler()
    fresh.load_state_dict(labeler().state_dict())
    assert fresh.partition is None and fresh.passes == 0


def test_description__names_what_decides_the_number_of_clusters() -> None:
    assert "MERGE_RATE 0.07, PASSES 13" in labeler().describe()


def test_raw__clusters_by_length_and_direction() -> None:
    directions = np.tile(people(1, 1), (12, 1))
    lengths = np.repeat(np.float32([1.0, 2.0, 3.0]), 4)
    raw = labeler(SPHERE=False, TEST__METRIC="euclidean", MERGE_RATE=0.25, PASSES=3)
    given = FeatureBank(directions, np.zeros(12, np.int64), lengths)
    np.testing.assert_array_equal(raw(given, 0).labels, np.repeat([0, 1, 2], 4))


def test_raw__without_lengths_stops() -> None:
    raw = labeler(SPHERE=False, TEST__METRIC="euclidean")
    with pytest.raises(RuntimeError, match="needs the norms of the features"):
        raw(bank(people(3, 2)), 0)
