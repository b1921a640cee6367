"""Batches of P clusters times K images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unreid.clustering.partition import compact
from unreid.data.samplers import CameraAwareSampler, ClusterSampler, RankBatches, ShuffleSampler
from unreid.structures import PseudoLabels

SAMPLERS = [ClusterSampler, CameraAwareSampler]
both = pytest.mark.parametrize("kind", SAMPLERS)


def sampler(kind: type, labels: Any, camids: Any = None, **changes: Any) -> Any:
    labels = np.asarray(labels)
    camids = np.zeros(len(labels), dtype=np.int64) if camids is None else np.asarray(camids)
    given = {
        "batch_size": 8,
        "num_instances": 2,
        "num_batches": 5,
        "rng": np.random.default_rng(0),
        **changes,
    }
    return kind(labels, camids, **given)


@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(SAMPLERS),
    num=st.integers(1, 60),
    clusters=st.integers(1, 15),
    cameras=st.integers(1, 4),
    p=st.integers(1, 6),
    k=st.integers(1, 5),
)
def test_batches__are_p_clusters_of_k_images_without_noise(
    seed: int, kind: type, num: int, clusters: int, cameras: int, p: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = compact(np.append(rng.integers(-1, clusters, num), 0))
    camids = rng.integers(0, cameras, num + 1)
    batches = list(sampler(kind, labels, camids, batch_size=p * k, num_instances=k, rng=rng))
    assert len(batches) == 5
    for batch in batches:
        assert len(batch) == p * k and all(type(i) is int for i in batch)
        sampled = labels[batch].reshape(p, k)
        assert sampled.min() >= 0
        assert (sampled == sampled[:, :1]).all()
        assert len(set(sampled[:, 0].tolist())) == min(p, labels.max() + 1)
        for chosen, label in zip(np.reshape(batch, (p, k)), sampled[:, 0]):
            if kind is ClusterSampler and (labels == label).sum() >= k:
                assert len(set(chosen.tolist())) == k, "no image is repeated while there are others"


def test_camera_aware__prefers_images_of_other_cameras() -> None:
    labels = np.zeros(12, dtype=np.int64)
    camids = np.array([0] * 6 + [1] * 3 + [2] * 3)
    for batch in sampler(
        CameraAwareSampler, labels, camids, batch_size=4, num_instances=4, num_batches=50
    ):
        anchor, *others = batch
        assert all(camids[i] != camids[anchor] for i in others)
        assert len(set(others)) == 3, "no image is repeated while there are others"


def test_camera_aware__uses_other_images_in_a_cluster_of_one_camera() -> None:
    labels = np.array([0, 0, 0])
    for batch in sampler(CameraAwareSampler, labels, batch_size=3, num_instances=3, num_batches=30):
        assert sorted(batch) == [0, 1, 2]


@both
def test_cluster_of_one_image__is_repeated(kind: type) -> None:
    for batch in sampler(kind, [0, -1, -1], batch_size=4, num_instances=4):
        assert batch == [0, 0, 0, 0]


@both
def test_fewer_clusters_than_p__fill_the_batch_evenly(kind: type) -> None:
    """With so few clusters, fast-reid's samplers loop forever."""
    for batch in sampler(kind, [0, 0, 1, 1, 2, 2], batch_size=16, num_instances=2):
        counts = np.bincount(np.array([0, 0, 1, 1, 2, 2])[batch][::2], minlength=3)
        assert len(batch) == 16 and counts.min() >= 1


@both
def test_all_clusters__are_sampled_before_any_is_repeated(kind: type) -> None:
    labels = np.repeat(np.arange(12), 2)
    sampled = [labels[b].reshape(4, 2)[:, 0] for b in sampler(kind, labels, num_batches=3)]
    assert sorted(np.concatenate(sampled).tolist()) == list(range(12))


@both
def test_batches__depend_on_the_generator_only(kind: type) -> None:
    labels = np.arange(40) % 10
    one, two, other = (list(sampler(kind, labels, rng=np.random.default_rng(s))) for s in (3, 3, 4))
    assert one == two != other


@both
def test_length__is_the_number_of_batches(kind: type) -> None:
    assert len(sampler(kind, [0, 1])) == 5


@both
def test_all_noise__is_an_error(kind: type) -> None:
    with pytest.raises(RuntimeError, match="no cluster to sample from: all 3 images are noise"):
        sampler(kind, [-1, -1, -1])


def test_shuffled__samples_every_labelled_image_before_any_is_repeated() -> None:
    labels = np.array([0, -1, 1, 1, 2, -1, 3, 3, 3])
    sampled = [
        i for batch in sampler(ShuffleSampler, labels, batch_size=2, num_batches=7) for i in batch
    ]
    kept = {0, 2, 3, 4, 6, 7, 8}
    assert set(sampled[:7]) == set(sampled[7:]) == kept
    assert all(type(i) is int for i in sampled)


def test_shuffled__fills_a_batch_larger_than_the_dataset() -> None:
    batches = list(sampler(ShuffleSampler, [0, 1, -1], batch_size=5, num_batches=2))
    assert [len(b) for b in batches] == [5, 5]
    assert set(batches[0]) == {0, 1}


def test_shuffled__depends_on_the_seed_and_needs_a_labelled_image() -> None:
    one, same, other = (
        list(sampler(ShuffleSampler, np.arange(50), rng=np.random.default_rng(s)))
        for s in (1, 1, 2)
    )
    assert one == same != other
    with pytest.raises(RuntimeError, match="all 3 images are noise"):
        sampler(ShuffleSampler, [-1, -1, -1])


@pytest.mark.parametrize("kind", [*SAMPLERS, ShuffleSampler])
def test_from_labels__equals_the_constructor(kind: Any) -> None:
    labels = np.array([0, 0, 1, 1, 2, -1])
    settings = {"batch_size": 4, "num_instances": 2, "num_batches": 3}
    one = kind.from_labels(
        PseudoLabels(labels), np.zeros(6, int), **settings, rng=np.random.default_rng(0)
    )
    other = kind(labels, np.zeros(6, int), **settings, rng=np.random.default_rng(0))
    assert list(one) == list(other) and len(one) == 3


@pytest.mark.parametrize("kind", [*SAMPLERS, ShuffleSampler])
def test_rank_batches__concatenate_to_the_batch_and_have_whole_clusters(kind: type) -> None:
    labels = np.repeat(np.arange(9), 5)

    def batches() -> Any:
        return sampler(kind, labels, batch_size=12, num_instances=3)

    whole = list(batches())
    shares = [list(RankBatches(batches(), rank, 2)) for rank in range(2)]
    assert len(RankBatches(batches(), 0, 2)) == len(whole) == len(shares[0])
    assert [one + other for one, other in zip(*shares)] == whole
    if kind is not ShuffleSampler:
        for batch in shares[0] + shares[1]:
            assert np.unique(labels[batch], return_counts=True)[1].tolist() == [3, 3]
