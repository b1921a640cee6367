"""InfoNCE with several positives, and the pair losses based on it, against slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pseudopair.losses import pair_nce
from pseudopair.memory import RowMemory
from pseudopair.pair_loss import batch_pair_loss, memory_pair_loss, partner_table, relations
from unreid.structures import PseudoPairs


def slow_nce(positives: list[float], weights: list[float], negatives: list[float]) -> float | None:
    """Return -(1 / sum w) sum_p w_p log(e^p / (e^p + sum_j e^j)); None without positives."""
    total = sum(weights)
    if total == 0:
        return None
    bottom = sum(math.exp(n) for n in negatives)
    each = [-math.log(math.exp(p) / (math.exp(p) + bottom)) for p in positives]
    return sum(w * e for w, e in zip(weights, each)) / total


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 5), st.integers(0, 10**6))
def test_pair_nce__is_the_loop_over_anchors(b: int, r: int, m: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    positives = 3 * torch.randn(b, r, generator=draw, dtype=torch.float64)
    negatives = 3 * torch.randn(b, m, generator=draw, dtype=torch.float64)
    weights = torch.rand(b, r, generator=draw, dtype=torch.float64)
    weights[torch.rand(b, r, generator=draw) < 0.4] = 0
    keep = torch.rand(b, m, generator=draw) < 0.6
    found = [
        slow_nce(p.tolist(), w.tolist(), n[k].tolist())
        for p, w, n, k in zip(positives, weights, negatives, keep)
    ]
    found = [f for f in found if f is not None]
    expected = sum(found) / len(found) if found else 0.0
    got = pair_nce(positives, weights, negatives, keep)
    torch.testing.assert_close(float(got), expected, rtol=1e-9, atol=1e-9)


def test_pair_nce__of_groups_is_the_mean_of_theirs() -> None:
    positives, negatives = torch.randn(3, 4, 2), torch.randn(3, 4, 5)
    weights, keep = torch.rand(4, 2), torch.ones(4, 5, dtype=torch.bool)
    apart = [pair_nce(p, weights, n, keep) for p, n in zip(positives, negatives)]
    torch.testing.assert_close(
        pair_nce(positives, weights, negatives, keep), torch.stack(apart).mean()
    )


@pytest.mark.parametrize(("weight", "keep"), [(0.0, True), (1.0, False), (0.0, False)])
def test_pair_nce__without_positives_or_negatives_is_zero_on_the_graph(
    weight: float, keep: bool
) -> None:
    positives = torch.randn(4, 2, requires_grad=True)
    negatives = torch.randn(4, 3, requires_grad=True)
    loss = pair_nce(positives, torch.full((4, 2), weight), negatives, torch.full((4, 3), keep))
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert torch.equal(positives.grad, torch.zeros(4, 2))
    assert torch.equal(negatives.grad, torch.zeros(4, 3))


def test_pair_nce__positives_do_not_push_one_another_away() -> None:
    positives = torch.zeros(1, 2, requires_grad=True)
    pair_nce(
        positives, torch.ones(1, 2), torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool)
    ).backward()
    assert (positives.grad < 0).all()


PAIRS = PseudoPairs(np.array([[0, 1], [0, 3], [1, 3]]), np.array([0.1, 0.3, 0.2], np.float32))


def test_partner_table__holds_both_directions() -> None:
    table = partner_table(PAIRS, 5, by_confidence=False)
    found = [sorted(row[row >= 0].tolist()) for row in table.indices]
    assert found == [[1, 3], [0, 3], [], [0, 1], []]
    assert torch.equal(table.weights > 0, table.indices >= 0)


def test_partner_table__weighs_by_confidence_over_its_mean() -> None:
    table = partner_table(PAIRS, 5, by_confidence=True)
    weight = {
        (i, int(j)): float(w)
        for i in range(5)
        for j, w in zip(table.indices[i], table.weights[i])
        if j >= 0
    }
    assert weight == pytest.approx(
        {(0, 1): 0.5, (1, 0): 0.5, (0, 3): 1.5, (3, 0): 1.5, (1, 3): 1.0, (3, 1): 1.0}
    )


def test_partner_table__without_pairs_has_no_column() -> None:
    none = PseudoPairs(np.zeros((0, 2), np.int64), np.zeros(0, np.float32))
    table = partner_table(none, 4, by_confidence=True)
    assert table.indices.shape == table.weights.shape == (4, 0)


def test_partner_table__of_pairs_without_confidence_weighs_all_alike() -> None:
    pairs = PseudoPairs(np.array([[0, 1]]), np.zeros(1, np.float32))
    assert partner_table(pairs, 2, by_confidence=True).weights.tolist() == [[1.0], [1.0]]


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(5)), dim=-1)


@pytest.mark.parametrize("beta", [None, 0.3])
def test_memory_pair_loss__is_the_loop_over_all_images(beta: float | None) -> None:
    groups, num, width, tau = 2, 7, 4, 0.5
    memory = RowMemory(groups, width, momentum=0.5, saved=False)
    memory.reset(unit(groups, num, width))
    table = partner_table(PAIRS, num, by_confidence=True)
    indices = torch.tensor([0, 3, 2, 6])
    features = unit(4, groups, width)
    got = memory_pair_loss(
        features, indices, *table.of(indices), memory, memory.sample(0), temperature=tau, beta=beta
    )
    pairs = {(a, b) for a, b in PAIRS.indices.tolist()}
    for group in range(groups):
        each = []
        for place, image in enumerate(indices.tolist()):

            def s(j: int, of: int, place: int = place) -> float:
                return float(features[place, of] @ memory.rows[of, j])

            partners = [j for j in range(num) if (image, j) in pairs or (j, image) in pairs]
            weight = dict(zip(table.indices[image].tolist(), table.weights[image].tolist()))
            negatives = [
                j
                for j in range(num)
                if j != image and j not in partners and (beta is None or s(j, 0) <= beta)
            ]
            each.append(
                slow_nce(
                    [s(j, group) / tau for j in [image, *partners]],
                    [1.0, *(weight[j] for j in partners)],
                    [s(j, group) / tau for j in negatives],
                )
            )
        torch.testing.assert_close(float(got[group]), sum(each) / len(each), rtol=1e-5, atol=1e-6)


def test_memory_pair_loss__without_any_pair_tells_images_apart() -> None:
    none = PseudoPairs(np.zeros((0, 2), np.int64), np.zeros(0, np.float32))
    memory = RowMemory(1, 4, momentum=0.5, saved=False)
    memory.reset(unit(1, 5, 4))
    indices = torch.tensor([1, 4])
    features = unit(2, 1, 4)
    got = memory_pair_loss(
        features,
        indices,
        *partner_table(none, 5, by_confidence=True).of(indices),
        memory,
        memory.sample(0),
        temperature=0.2,
        beta=None,
    )
    expected = F.cross_entropy(features[:, 0] @ memory.rows[0].T / 0.2, indices)
    torch.testing.assert_close(got[0], expected)


def test_memory_pair_loss__of_images_all_paired_repels_nobody() -> None:
    every = np.array([[0, 1], [0, 2], [1, 2]])
    table = partner_table(PseudoPairs(every, np.ones(3, np.float32)), 3, by_confidence=True)
    memory = RowMemory(1, 4, momentum=0.5, saved=False)
    memory.reset(unit(1, 3, 4))
    indices = torch.arange(3)
    features = unit(3, 1, 4).requires_grad_()
    loss = memory_pair_loss(
        features, indices, *table.of(indices), memory, memory.sample(0), temperature=0.2, beta=None
    ).sum()
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert torch.isfinite(features.grad).all()


def test_batch_pair_loss__is_the_loop_over_the_batch() -> None:
    tau, features = 0.4, unit(5, 2, 3)
    indices = torch.tensor([0, 1, 2, 2, 3])
    positive, weights = relations(indices, *partner_table(PAIRS, 5, by_confidence=True).of(indices))
    got = batch_pair_loss(features, positive, weights, temperature=tau, beta=None)
    for group in range(2):
        each = []
        for i in range(5):
            s = (features[i, group] @ features[:, group].T / tau).tolist()
            positives = [j for j in range(5) if positive[i, j] and j != i]
            negatives = [j for j in range(5) if not positive[i, j]]
            each.append(
                slow_nce(
                    [s[j] for j in positives],
                    [float(weights[i, j]) for j in positives],
                    [s[j] for j in negatives],
                )
            )
        each = [e for e in each if e is not None]
        torch.testing.assert_close(float(got[group]), sum(each) / len(each), rtol=1e-5, atol=1e-6)


def test_batch_pair_loss__of_a_batch_without_pairs_is_zero_on_the_graph() -> None:
    features = unit(4, 1, 3).requires_grad_()
    loss = batch_pair_loss(
        features, torch.eye(4, dtype=torch.bool), torch.eye(4), temperature=0.1, beta=None
    ).sum()
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_relations__are_pairs_and_the_same_image() -> None:
    indices = torch.tensor([0, 1, 4, 4])
    positive, weights = relations(indices, *partner_table(PAIRS, 5, by_confidence=True).of(indices))
    assert positive.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert float(weights[0, 1]) == pytest.approx(0.5) and float(weights[2, 3]) == 1.0
