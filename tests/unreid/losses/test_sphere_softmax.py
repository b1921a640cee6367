"""The sphere softmax against its formula, sample by sample."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unreid.losses import sphere_softmax


def slow(features: torch.Tensor, weights: torch.Tensor, targets: list[int], scale: float) -> float:
    """Return the mean of -log softmax of s v . w / ||w|| in double."""
    total = 0.0
    directions = [[x / math.hypot(*w) for x in w] for w in weights.double().tolist()]
    for v, y in zip(features.double().tolist(), targets):
        logits = [scale * sum(a * b for a, b in zip(v, w)) for w in directions]
        total += math.log(sum(math.exp(z) for z in logits)) - logits[y]
    return total / len(targets)


@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 10),
    classes=st.integers(1, 12),
    scale=st.sampled_from([1.0, 14.0, 30.0]),
)
def test_loss__equals_the_formula(seed: int, batch: int, classes: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.nn.functional.normalize(torch.randn(batch, 6, generator=generator))
    weights = torch.randn(classes, 6, generator=generator)
    targets = torch.randint(0, classes, (batch,), generator=generator)
    assert sphere_softmax(features, weights, targets, scale).item() == pytest.approx(
        slow(features, weights, targets.tolist(), scale), rel=1e-4, abs=1e-5
    )


def test_loss__does_not_see_how_long_a_class_is() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(4, 6, generator=generator))
    weights = torch.randn(5, 6, generator=generator)
    targets = torch.tensor([0, 1, 2, 3])
    stretched = weights * torch.tensor([[0.01], [1.0], [7.0], [100.0], [3.0]])
    torch.testing.assert_close(
        sphere_softmax(features, weights, targets), sphere_softmax(features, stretched, targets)
    )


def test_gradient__reaches_features_and_weights_and_leaves_lengths_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 6, generator=generator).requires_grad_()
    weights = torch.randn(5, 6, generator=generator).requires_grad_()
    sphere_softmax(features, weights, torch.tensor([0, 1, 2, 2])).backward()
    assert features.grad.abs().sum() > 0 and weights.grad.abs().sum() > 0
    along = (weights.grad * weights.detach()).sum(dim=1)
    torch.testing.assert_close(along, torch.zeros(5), atol=1e-5, rtol=0)


def test_class_of_zeros__has_logit_zero_and_finite_gradients() -> None:
    features = torch.eye(2).requires_grad_()
    weights = torch.zeros(2, 2).requires_grad_()
    loss = sphere_softmax(features, weights, torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert torch.isfinite(weights.grad).all() and torch.isfinite(features.grad).all()


def test_wrong_arguments__are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"shapes \(B, D\) and \(C, D\)"):
        sphere_softmax(torch.zeros(2, 3), torch.zeros(2, 4), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"targets must be in 0\.\.1, got 2"):
        sphere_softmax(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="scale must be a number > 0"):
        sphere_softmax(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([0, 1]), 0.0)
