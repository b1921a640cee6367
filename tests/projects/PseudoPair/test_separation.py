"""Guided similarity separation: loss, gradient, threshold, and the check for collapsed features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pseudopair.separation import (
    check_collapse,
    mean_similarity,
    separation_loss,
    similarity_quantile,
)


def unit(num: int, width: int = 6, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(num, width, generator=draw, dtype=torch.float64), dim=1)


def test_separation_loss__is_the_loop_over_ordered_pairs() -> None:
    features, beta, alpha = unit(7), 0.25, 1.7
    terms = [
        (min(max(float(features[i] @ features[j]), 0.0), 1.0) - beta) ** 2
        for i in range(7)
        for j in range(7)
        if i != j
    ]
    expected = -alpha / 2 * sum(terms) / len(terms)
    assert float(separation_loss(features, beta, alpha)) == pytest.approx(expected)


@pytest.mark.parametrize("s", [0.1, 0.3, 0.5, 0.9])
def test_separation_gradient__is_minus_alpha_times_s_minus_beta(s: float) -> None:
    alpha, beta = 2.0, 0.4
    similarity = torch.tensor(s, dtype=torch.float64, requires_grad=True)
    # Two rows with inner product s are the only pair.
    one = torch.tensor([1.0, 0.0], dtype=torch.float64)
    other = torch.stack([similarity, (1 - similarity.detach() ** 2).sqrt()])
    separation_loss(torch.stack([one, other]), beta, alpha).backward()
    assert float(similarity.grad) == pytest.approx(-alpha * (s - beta))


def test_separation_gradient__attracts_above_beta_and_repels_below() -> None:
    rows = torch.tensor([[1.0, 0.1, 0.0], [1.0, -0.1, 0.0], [0.5, 0.0, 1.0]])
    features = F.normalize(rows, dim=1)
    features.requires_grad_()
    before = (features @ features.T).detach()
    separation_loss(features, 0.7, 1.0).backward()
    moved = F.normalize(features - 0.1 * features.grad, dim=1)
    after = (moved @ moved.T).detach()
    assert before[0, 1] > 0.7 > before[0, 2]
    assert after[0, 1] > before[0, 1] and after[0, 2] < before[0, 2]


def test_separation_loss__is_bounded_for_opposite_and_identical_rows() -> None:
    one = unit(1)
    rows = torch.cat([one, -one, one])
    loss = float(separation_loss(rows, 0.3, 1.0))
    assert -0.5 <= loss <= 0.0
    rows.requires_grad_()
    separation_loss(rows, 0.3, 1.0).backward()
    assert torch.isfinite(rows.grad).all()


@pytest.mark.parametrize("num", [0, 1])
def test_separation_loss__of_no_pair_is_zero_on_the_graph(num: int) -> None:
    features = unit(max(num, 1))[:num].requires_grad_()
    loss = separation_loss(features, 0.3, 1.0)
    assert float(loss.detach()) == 0.0
    loss.backward()


def test_mean_similarity__is_the_mean_over_all_other_pairs() -> None:
    features = unit(9).numpy()
    gram = features @ features.T
    expected = (gram.sum() - np.trace(gram)) / (9 * 8)
    assert mean_similarity(features) == pytest.approx(expected)


def test_collapse__of_identical_images_names_mean_limit_and_key() -> None:
    features = np.tile(unit(1).numpy(), (5, 1)).astype(np.float32)
    with pytest.raises(RuntimeError) as caught:
        check_collapse(features, 0.9, 3)
    for word in ("collapsed in epoch 3", "1.0000", "PSEUDOPAIR.SEPARATION.MAX_SIMILARITY 0.9"):
        assert word in str(caught.value)


def test_collapse__is_none_below_the_limit_or_with_a_limit_of_one() -> None:
    assert check_collapse(unit(8).numpy(), 0.9, 0) < 0.9
    same = np.tile(unit(1).numpy(), (5, 1)).astype(np.float32)
    assert check_collapse(same, 1.0, 0) == pytest.approx(1.0)


@pytest.mark.parametrize("expected", [1.0, 2.5, 4.0])
def test_similarity_quantile__leaves_the_expected_number_above(expected: float) -> None:
    features = unit(40).numpy().astype(np.float32)
    beta = similarity_quantile(features, expected)
    gram = features @ features.T
    np.fill_diagonal(gram, -1)
    assert (gram > beta).sum() / 40 == pytest.approx(expected, abs=1 / 40)


def test_similarity_quantile__of_rows_at_equal_distances_is_near_the_exact_one() -> None:
    features = unit(3000, 4).numpy().astype(np.float32)
    exact = similarity_quantile(features, 30.0, num_rows=3000)
    assert similarity_quantile(features, 30.0, num_rows=512) == pytest.approx(exact, abs=0.01)


def test_similarity_quantile__of_more_than_all_is_the_least_and_never_negative() -> None:
    features = unit(4).numpy().astype(np.float32)
    assert 0.0 <= similarity_quantile(features, 50.0) <= 1.0
