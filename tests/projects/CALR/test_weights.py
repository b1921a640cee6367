"""Entropy weights of clusters against a slow loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calr.weights import camera_entropy, cluster_weights
from unreid.clustering.partition import compact
from unreid.losses.cluster_nce import cluster_nce


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 5), st.integers(1, 5))
def test_weights__equal_a_loop(seed: int, num: int, clusters: int, cameras: int) -> None:
    rng = np.random.default_rng(seed)
    labels = compact(np.append(rng.integers(-1, clusters, num), 0))
    camids = rng.integers(0, cameras, num + 1)
    expected = []
    for k in range(labels.max() + 1):
        members = [camids[i] for i in range(len(labels)) if labels[i] == k]
        entropy = 0.0
        for camera in set(members):
            share = members.count(camera) / len(members)
            entropy -= share * math.log(share)
        expected.append(math.log(1 + entropy))
    weights = cluster_weights(labels, camids)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-7)


def test_weights__a_cluster_of_one_camera_weighs_exactly_nothing() -> None:
    labels, camids = np.array([0, 0, 0, 1, 1, -1]), np.array([2, 2, 2, 0, 1, 0])
    weights = cluster_weights(labels, camids)
    assert weights[0] == 0.0
    assert weights[1] == pytest.approx(math.log(1 + math.log(2)))
    assert camera_entropy(labels, camids)[1] == pytest.approx(math.log(2))


def test_batch_of_weight_zero__costs_zero_on_the_graph() -> None:
    weights = torch.from_numpy(cluster_weights(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])))
    logits = torch.randn(3, 2, requires_grad=True)
    loss = cluster_nce(logits, torch.zeros(3, dtype=torch.long), weights)
    assert loss.item() == 0.0 and loss.requires_grad
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))
