"""The triplet loss against its formula, anchor by anchor."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unreid.losses import hard_triplet


def slow(features: torch.Tensor, targets: torch.Tensor, margin: float) -> float:
    """Return the mean over anchors of [margin + max d(a, p) - min d(a, n)]_+ in double."""
    rows, labels = features.double().tolist(), targets.tolist()
    costs = []
    for a, label in enumerate(labels):
        positives = [
            math.dist(rows[a], rows[i]) for i, y in enumerate(labels) if y == label and i != a
        ]
        negatives = [math.dist(rows[a], rows[i]) for i, y in enumerate(labels) if y != label]
        if positives and negatives:
            costs.append(max(0.0, margin + max(positives) - min(negatives)))
    return sum(costs) / len(costs) if costs else 0.0


@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 16),
    labels=st.integers(1, 6),
    margin=st.sampled_from([0.0, 0.3, 0.5, 2.0]),
    sphere=st.booleans(),
)
def test_loss__equals_the_formula(
    seed: int, batch: int, labels: int, margin: float, sphere: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, 5, generator=generator)
    if sphere:
        features = torch.nn.functional.normalize(features)
    targets = torch.randint(0, labels, (batch,), generator=generator)
    assert hard_triplet(features, targets, margin).item() == pytest.approx(
        slow(features, targets, margin), abs=2e-5
    )


def test_gradient__is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(6, 4, generator=generator).requires_grad_()
    targets = torch.tensor([0, 0, 1, 1, 2, 2])
    hard_triplet(features, targets, 2.0).backward()
    step = 1e-5
    with torch.no_grad():
        for row, column in ((0, 0), (2, 3), (5, 1)):
            moved = features.double().clone()
            moved[row, column] += step
            up = slow(moved, targets, 2.0)
            moved[row, column] -= 2 * step
            down = slow(moved, targets, 2.0)
            expected = (up - down) / (2 * step)
            assert features.grad[row, column].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "targets",
    [[0, 0, 0, 0], [0, 1, 2, 3], [], [0]],
    ids=["one cluster", "single images", "no sample", "one sample"],
)
def test_batch_without_triplets__costs_zero_on_the_graph(targets: list[int]) -> None:
    features = torch.randn(len(targets), 3).requires_grad_()
    loss = hard_triplet(features, torch.tensor(targets, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0
    assert features.grad is not None and not features.grad.any()


def test_identical_images__cost_the_margin_and_have_finite_gradients() -> None:
    features = torch.ones(6, 4).requires_grad_()
    loss = hard_triplet(features, torch.tensor([0, 0, 0, 1, 1, 1]), 0.5)
    loss.backward()
    assert loss.item() == 0.5
    assert torch.isfinite(features.grad).all()


def test_anchor_without_a_positive__takes_no_part_but_is_a_negative() -> None:
    features = torch.tensor([[0.0], [1.0], [1.5]])
    # Anchors 0 and 1: positives at 1, negatives at 1.5 and 0.5. Anchor 2 has no positive.
    loss = hard_triplet(features, torch.tensor([0, 0, 1]), 0.5)
    assert loss.item() == pytest.approx((0.0 + 1.0) / 2)


def test_input__is_not_changed_and_half_precision_is_scored_in_single() -> None:
    features = torch.randn(8, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    before = features.clone()
    targets = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    with torch.autocast("cpu", torch.bfloat16):
        loss = hard_triplet(features, targets)
    assert torch.equal(features, before)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow(features, targets, 0.5), abs=1e-5)


def test_wrong_arguments__are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"targets must have shape \(2,\)"):
        hard_triplet(torch.zeros(2, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"features must have shape \(B, D\)"):
        hard_triplet(torch.zeros(2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="margin must be a number >= 0"):
        hard_triplet(torch.zeros(2, 3), torch.tensor([0, 1]), -0.1)
