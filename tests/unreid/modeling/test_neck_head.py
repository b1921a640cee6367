"""The head without a classifier."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from unreid.modeling.neck_head import NeckHead


def head(**changes: object) -> NeckHead:
    given = {
        "feat_dim": 6,
        "embedding_dim": 0,
        "pool_type": "GlobalAvgPool",
        "with_bnneck": True,
        "norm_type": "BN",
    }
    return NeckHead(**{**given, **changes})


def test_head__pools_applies_batch_norm_and_normalises() -> None:
    maps = torch.randn(5, 6, 4, 2)
    pooled = maps.mean(dim=(2, 3))
    normed = (pooled - pooled.mean(0)) / (pooled.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(head().train()(maps), F.normalize(normed))


def test_head__has_no_classifier_and_a_frozen_bias() -> None:
    trained = [n for n, p in head().named_parameters() if p.requires_grad]
    assert trained == ["bottleneck.0.weight"]


def test_head__embeds_into_another_width() -> None:
    embedding = head(embedding_dim=3)
    assert embedding.num_features == 3
    assert embedding(torch.randn(4, 6, 2, 2)).shape == (4, 3)
    assert head().num_features == 6


def test_head__without_neck_normalises_the_pooled_features() -> None:
    maps = torch.randn(5, 6, 4, 2)
    torch.testing.assert_close(head(with_bnneck=False)(maps), F.normalize(maps.mean(dim=(2, 3))))


def test_gem_pooling__has_a_trainable_power() -> None:
    gem = head(pool_type="GeneralizedMeanPoolingP")
    gem.train()(torch.rand(4, 6, 2, 2) + 0.1)[:, 0].sum().backward()
    assert gem.pool_layer.p.grad.abs() > 0


def test_unknown_pooling__lists_what_exists_and_suggests_the_nearest() -> None:
    with pytest.raises(KeyError) as error:
        head(pool_type="GlobalAveragePool")
    message = error.value.args[0]
    assert message.startswith("MODEL.HEADS.POOL_LAYER must be one of ")
    assert "got 'GlobalAveragePool'; did you mean 'GlobalAvgPool'?" in message


def test_features__are_float32_under_autocast() -> None:
    embedding = head(embedding_dim=3).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert embedding(torch.randn(4, 6, 2, 2)).dtype == torch.float32
