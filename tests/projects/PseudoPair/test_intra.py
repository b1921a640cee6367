"""Attention heads: what they weigh, and that they are made to differ."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pseudopair.intra import ChannelAttention, diversity_loss, local_features, mean_head_cosine


def heads(num: int = 3, out: int | None = None) -> ChannelAttention:
    torch.manual_seed(0)
    return ChannelAttention(32, num, out, reduction=4)


def test_attention__is_squeeze_and_excite_of_each_head_apart() -> None:
    module, maps = heads(), torch.randn(2, 32, 4, 3)
    found = module(maps)
    pooled, width = maps.mean(dim=(2, 3)), 8
    for k in range(3):
        w1 = module.squeeze.weight[k * width : (k + 1) * width, :, 0]
        b1 = module.squeeze.bias[k * width : (k + 1) * width]
        w2 = module.excite.weight[k * 32 : (k + 1) * 32, :, 0]
        b2 = module.excite.bias[k * 32 : (k + 1) * 32]
        expected = torch.sigmoid(F.relu(pooled @ w1.T + b1) @ w2.T + b2)
        torch.testing.assert_close(found[:, k], expected)
    assert found.min() > 0 and found.max() < 1


def test_attention__may_weigh_another_number_of_channels() -> None:
    assert heads(2, 20)(torch.randn(5, 32, 2, 2)).shape == (5, 2, 20)


def test_weighing_channels_and_pooling_commute() -> None:
    attention, maps = torch.rand(2, 6), torch.rand(2, 6, 4, 3)
    before = (attention[:, :, None, None] * maps).mean(dim=(2, 3))
    torch.testing.assert_close(before, attention * maps.mean(dim=(2, 3)))


def test_local_features__are_unit_rows_of_the_weighted_descriptor() -> None:
    attention, descriptor = torch.rand(2, 3, 5), torch.randn(2, 5)
    found = local_features(attention, descriptor)
    for b in range(2):
        for k in range(3):
            row = attention[b, k] * descriptor[b]
            torch.testing.assert_close(found[b, k], row / row.norm())


def test_diversity__is_the_squared_distance_of_the_gram_matrix_from_one() -> None:
    attention = torch.rand(3, 4, 6)
    expected = 0.0
    for a in attention:
        unit = torch.stack([row / row.norm() for row in a])
        expected += float(((unit @ unit.T - torch.eye(4)) ** 2).sum()) / 3
    assert float(diversity_loss(attention)) == pytest.approx(expected, rel=1e-5)


def test_diversity__is_zero_for_heads_apart_and_largest_for_heads_alike() -> None:
    apart = torch.eye(4)[None]
    alike = torch.ones(1, 4, 4)
    assert float(diversity_loss(apart)) == 0.0
    assert float(diversity_loss(alike)) == pytest.approx(12.0)
    assert float(diversity_loss(torch.rand(2, 1, 4))) == pytest.approx(0.0, abs=1e-12)


def test_diversity__training_on_it_makes_heads_differ() -> None:
    module, maps = heads(), torch.rand(8, 32, 2, 2)
    before = float(mean_head_cosine(module(maps).detach()))
    optimizer = torch.optim.Adam(module.parameters(), 0.05)
    for _ in range(40):
        optimizer.zero_grad()
        diversity_loss(module(maps)).backward()
        optimizer.step()
    after = float(mean_head_cosine(module(maps).detach()))
    assert before > 0.9 and after < 0.5


def test_mean_head_cosine__is_the_mean_over_pairs_of_heads() -> None:
    attention = torch.rand(2, 3, 5)
    cosines = [float(F.cosine_similarity(a[i], a[j], dim=0))
               for a in attention for i in range(3) for j in range(3) if i != j]
    assert float(mean_head_cosine(attention)) == pytest.approx(sum(cosines) / len(cosines))
    assert float(mean_head_cosine(attention[:, :1])) == pytest.approx(0.0, abs=1e-6)
