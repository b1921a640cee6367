"""Attention heads: their channel weights, and the loss that makes heads differ."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pseudopair.intra import (
    ChannelAttention,
    IntraSimilarity,
    diversity_loss,
    mean_head_cosine,
)

POOL = torch.nn.AdaptiveAvgPool2d(1)


def heads(num: int = 3, out: int | None = None) -> ChannelAttention:
    torch.manual_seed(0)
    return ChannelAttention(32, num, out, reduction=4)


def intra(kind: str, num: int = 3, out: int | None = None) -> IntraSimilarity:
    torch.manual_seed(0)
    return IntraSimilarity(12, num, out, reduction=4, kind=kind)


def test_attention__is_squeeze_and_excite_of_each_head_apart() -> None:
    module, pooled = heads(), torch.randn(2, 3, 32)
    found, width = module(pooled), 8
    for k in range(3):
        w1 = module.squeeze.weight[k * width : (k + 1) * width, :, 0]
        b1 = module.squeeze.bias[k * width : (k + 1) * width]
        w2 = module.excite.weight[k * 32 : (k + 1) * 32, :, 0]
        b2 = module.excite.bias[k * 32 : (k + 1) * 32]
        expected = torch.sigmoid(F.relu(pooled[:, k] @ w1.T + b1) @ w2.T + b2)
        torch.testing.assert_close(found[:, k], expected)
    assert found.min() > 0 and found.max() < 1


def test_attention__may_weigh_another_number_of_channels() -> None:
    assert heads(2, 20)(torch.randn(5, 2, 32)).shape == (5, 2, 20)


def test_weighing_channels_and_pooling_commute() -> None:
    attention, maps = torch.rand(2, 6), torch.rand(2, 6, 4, 3)
    before = (attention[:, :, None, None] * maps).mean(dim=(2, 3))
    torch.testing.assert_close(before, attention * maps.mean(dim=(2, 3)))


def test_local_features__of_the_body_are_unit_rows_of_its_weighted_descriptor() -> None:
    part, maps, body = intra("body"), torch.rand(2, 12, 5, 3), F.normalize(torch.randn(2, 12))
    found, weights = part(maps, body, POOL)
    torch.testing.assert_close(weights, part.attention(maps.mean((2, 3))[:, None].expand(2, 3, 12)))
    for b in range(2):
        for k in range(3):
            row = weights[b, k] * body[b]
            torch.testing.assert_close(found[b, k], row / row.norm())


def test_local_features__of_patches_are_those_of_the_rows_that_a_head_sees() -> None:
    part, maps, body = intra("patches"), torch.rand(6, 12, 8, 3), torch.randn(6, 12)
    found, weights = part(maps, body, POOL)
    for k, (top, end) in enumerate([(0, 4), (2, 6), (4, 8)]):
        pooled = maps[:, :, top:end].mean((2, 3))
        described = (pooled - pooled.mean(0)) / (pooled.var(0, unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(
            found[:, k], F.normalize(weights[:, k] * described), rtol=1e-3, atol=1e-4
        )


def test_local_features__of_patches_do_not_know_the_rest_of_the_image() -> None:
    part, maps = intra("patches").eval(), torch.rand(2, 12, 8, 3)
    changed = maps.clone()
    changed[:, :, 4:] = torch.rand(2, 12, 4, 3)
    body = torch.randn(2, 12)
    (first, _), (second, _) = part(maps, body, POOL), part(changed, body, POOL)
    torch.testing.assert_close(first[:, 0], second[:, 0])
    assert (first[:, 2] - second[:, 2]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "num", "height", "expected"),
    [
        ("patches", 4, 8, [(0, 3), (2, 5), (3, 6), (5, 8)]),
        ("patches", 6, 16, [(0, 4), (2, 6), (5, 9), (7, 11), (10, 14), (12, 16)]),
        ("patches", 2, 5, [(0, 4), (1, 5)]),
        ("patches", 3, 1, [(0, 1)] * 3),
        ("patches", 1, 7, [(0, 7)]),
        ("body", 2, 7, [(0, 7), (0, 7)]),
    ],
)
def test_rows__cover_the_map(kind: str, num: int, height: int, expected: list) -> None:
    assert intra(kind, num).rows(height) == expected


@pytest.mark.parametrize("kind", ["patches", "body"])
def test_local_features__may_have_another_number_of_channels(kind: str) -> None:
    part = intra(kind, 2, 20)
    found, weights = part(torch.rand(3, 12, 4, 2), torch.randn(3, 20), POOL)
    assert found.shape == weights.shape == (3, 2, 20)
    torch.testing.assert_close(found.norm(dim=2), torch.ones(3, 2))


def test_intra__refuses_another_kind() -> None:
    with pytest.raises(ValueError, match="kind must be one of 'patches', 'body', got 'heads'"):
        intra("heads")


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
    module, maps = heads(), torch.rand(8, 1, 32).expand(8, 3, 32)
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
    cosines = [
        float(F.cosine_similarity(a[i], a[j], dim=0))
        for a in attention
        for i in range(3)
        for j in range(3)
        if i != j
    ]
    assert float(mean_head_cosine(attention)) == pytest.approx(sum(cosines) / len(cosines))
    assert float(mean_head_cosine(attention[:, :1])) == pytest.approx(0.0, abs=1e-6)
