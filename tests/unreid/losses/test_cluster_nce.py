"""The cluster InfoNCE loss against its formula, sample by sample."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unreid.losses import cluster_nce


def slow(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> float:
    """Return sum w_y l / sum w_y with l = -log(exp(z_y) / sum_k exp(z_k)) in double."""
    above = below = 0.0
    for row, y in zip(logits.double().tolist(), targets.tolist()):
        largest = max(row)
        log_sum = largest + math.log(sum(math.exp(z - largest) for z in row))
        weight = 1.0 if weights is None else float(weights[y])
        above += weight * (log_sum - row[y])
        below += weight
    return above / below if below else 0.0


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 20),
    clusters=st.integers(1, 15),
    weighted=st.sampled_from([None, "all", "some zero"]),
)
def test_loss__equals_the_formula(
    seed: int, batch: int, clusters: int, weighted: str | None
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 20 * torch.randn(batch, clusters, generator=generator)
    targets = torch.randint(0, clusters, (batch,), generator=generator)
    weights = None
    if weighted:
        weights = torch.rand(clusters, generator=generator)
        if weighted == "some zero":
            weights[::2] = 0
    loss = cluster_nce(logits, targets, weights)
    assert float(loss) == pytest.approx(slow(logits, targets, weights), rel=1e-4, abs=1e-5)


def test_loss__with_equal_weights_is_the_plain_mean() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, 3, 3, 3])
    torch.testing.assert_close(
        cluster_nce(logits, targets, torch.full((4,), 0.3)), cluster_nce(logits, targets)
    )


def test_gradient__is_softmax_minus_one_hot_by_weight() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    targets, weights = torch.tensor([0, 2, 2]), torch.tensor([2.0, 5.0, 1.0, 7.0])
    cluster_nce(logits, targets, weights).backward()
    share = weights[targets] / weights[targets].sum()
    one_hot = torch.nn.functional.one_hot(targets, 4)
    expected = share[:, None] * (torch.softmax(logits.detach(), 1) - one_hot)
    torch.testing.assert_close(logits.grad, expected)


def test_zero_weight_batch__is_a_zero_on_the_graph() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    weights = torch.tensor([0.0, 1.0, 0.0, 1.0])
    loss = cluster_nce(logits, torch.tensor([0, 2, 0]), weights)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros(3, 4))


@pytest.mark.parametrize("weights", [None, torch.ones(4)])
def test_empty_batch__is_a_zero_on_the_graph(weights: torch.Tensor | None) -> None:
    logits = torch.zeros(0, 4, requires_grad=True)
    loss = cluster_nce(logits, torch.zeros(0, dtype=torch.long), weights)
    loss.backward()
    assert loss.item() == 0.0 and logits.grad.shape == (0, 4)


def test_one_cluster__costs_nothing() -> None:
    assert cluster_nce(torch.tensor([[17.0], [-3.0]]), torch.tensor([0, 0])).item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits__are_reduced_in_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = (20 * torch.randn(8, 500, generator=generator)).to(dtype)
    targets = torch.arange(8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cluster_nce(logits, targets, torch.ones(500, dtype=dtype))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(slow(logits, targets, None), rel=1e-5)


def test_large_logits__do_not_overflow() -> None:
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = cluster_nce(logits, torch.tensor([1]))
    loss.backward()
    assert loss.item() == 2e4 and torch.isfinite(logits.grad).all()


def test_arguments__are_not_modified() -> None:
    logits, targets, weights = torch.randn(2, 3), torch.tensor([0, 1]), torch.rand(3)
    copies = [t.clone() for t in (logits, targets, weights)]
    cluster_nce(logits, targets, weights)
    assert all(torch.equal(a, b) for a, b in zip((logits, targets, weights), copies))


@pytest.mark.parametrize(
    ("logits", "targets", "weights", "words"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.long), None, r"shape \(B, C\)"),
        (torch.zeros(2, 3), torch.tensor([0]), None, r"shape \(2,\)"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), None, r"0\.\.2, got 3"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), None, "got -1"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), torch.ones(2), r"weights must have shape \(3,\)"),
        (torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1.0, -1.0]), "finite and >= 0"),
        (torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1.0, float("nan")]), "finite"),
    ],
)
def test_arguments__that_do_not_belong_together_are_refused(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        cluster_nce(logits, targets, weights)


def test_targets__of_a_floating_type_are_refused() -> None:
    with pytest.raises(TypeError, match="targets must be integers"):
        cluster_nce(torch.zeros(1, 2), torch.zeros(1))
