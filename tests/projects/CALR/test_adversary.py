"""Gradient reversal, its schedule, and the camera discriminator."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from calr.adversary import CameraAdversary, dann_factor, reverse_gradient


@pytest.mark.parametrize("factor", [1.0, 0.25, 0.0])
def test_gradient_reversal__keeps_values_and_flips_the_sign(factor: float) -> None:
    plain = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    turned = plain.detach().clone().requires_grad_()
    weights = torch.arange(12.0).view(4, 3)
    (plain * weights).pow(2).sum().backward()
    out = reverse_gradient(turned, factor)
    assert torch.equal(out, turned)
    (out * weights).pow(2).sum().backward()
    assert plain.grad.abs().sum() > 0
    torch.testing.assert_close(turned.grad, -factor * plain.grad)


def test_dann_factor__is_the_formula_and_grows_from_0_towards_1() -> None:
    assert dann_factor(0.0) == 0.0
    values = [dann_factor(p / 10) for p in range(11)]
    assert values == sorted(values)
    assert 0.999 < values[-1] < 1.0
    assert dann_factor(0.3) == pytest.approx(2 / (1 + math.exp(-3.0)) - 1)


def test_discriminator__learns_cameras_while_features_unlearn_them() -> None:
    """The two gradients of one loss point opposite ways: down for one, up for the other."""
    torch.manual_seed(0)
    adversary = CameraAdversary(num_features=6, num_cameras=3, hidden=8).eval()
    features = torch.randn(12, 6, requires_grad=True)
    camids = torch.arange(12) % 3
    loss = adversary(features, camids, factor=1.0)
    loss.backward()
    with torch.no_grad():
        stepped = features - 1e-3 * features.grad
        after = functional.cross_entropy(adversary.discriminator(stepped), camids)
        assert after > loss
        for parameter in adversary.parameters():
            parameter -= 1e-3 * parameter.grad
        assert functional.cross_entropy(adversary.discriminator(features), camids) < loss


def test_discriminator__takes_the_softmax_once() -> None:
    """The released program's second softmax bounds the loss below by log(1 + (M-1)/e) > 0."""
    adversary = CameraAdversary(num_features=3, num_cameras=3, hidden=4).eval()
    last = adversary.discriminator[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
    assert adversary(torch.randn(5, 3), torch.zeros(5, dtype=torch.long)).item() < 1e-6


def test_discriminator__every_parameter_has_a_gradient() -> None:
    adversary = CameraAdversary(num_features=6, num_cameras=3)
    adversary(torch.randn(8, 6), torch.arange(8) % 3).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0
               for n, p in adversary.named_parameters() if not n.endswith("0.bias"))
