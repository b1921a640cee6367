"""Gradient reversal, its schedule, and the camera discriminator."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from calr.adversary import CameraAdversary, dann_factor, reversal_factor, reverse_gradient

CAMERAS = 6  # number of identities in Market-1501


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
    """The same loss is reduced by the discriminator's gradient and increased by the features'."""
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


@pytest.mark.parametrize("twice", [False, True])
def test_discriminator__takes_the_softmax_once_or_twice(twice: bool) -> None:
    """A confident, correct prediction has loss 0 with one softmax, log(1 + (M-1)/e) with two."""
    adversary = CameraAdversary(num_features=3, num_cameras=3, hidden=4, softmax_twice=twice).eval()
    last = adversary.discriminator[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
    loss = adversary(torch.randn(5, 3), torch.zeros(5, dtype=torch.long)).item()
    assert loss == pytest.approx(math.log(1 + 2 / math.e) if twice else 0.0, abs=1e-6)


def slow_camera_loss(logits: list[list[float]], camids: list[int], twice: bool) -> float:
    """Return the mean of -log p_c; p is the softmax of the logits, taken once or twice."""
    total = 0.0
    for row, camera in zip(logits, camids):
        for _ in range(twice):
            row = [math.exp(z) / sum(math.exp(other) for other in row) for z in row]
        total += math.log(sum(math.exp(z) for z in row)) - row[camera]
    return total / len(camids)


def fresh_batch(twice: bool, width: int, seed: int) -> tuple[CameraAdversary, Any, torch.Tensor]:
    """Return a new discriminator in training mode, and a batch of unit features (float64)."""
    torch.manual_seed(seed)
    adversary = CameraAdversary(width, CAMERAS, softmax_twice=twice).double().train()
    features = functional.normalize(torch.randn(64, width, dtype=torch.float64))
    return adversary, features.requires_grad_(), torch.arange(64) % CAMERAS


def gradient_at_features(twice: bool, width: int, seed: int, factor: float = 1.0) -> torch.Tensor:
    adversary, features, camids = fresh_batch(twice, width, seed)
    torch.manual_seed(seed)  # the same dropout mask for both settings
    adversary(features, camids, factor).backward()
    return features.grad


@pytest.mark.parametrize("factor", [1.0, 0.2])
@pytest.mark.parametrize("twice", [False, True])
def test_softmax_twice__gradient_at_the_features_is_that_of_the_slow_loss(
    twice: bool, factor: float
) -> None:
    """Compare with central differences of the slow loss, reversed and multiplied by the factor."""
    gradient = gradient_at_features(twice, 8, 3, factor)
    adversary, features, camids = fresh_batch(twice, 8, 3)

    def slow(values: torch.Tensor) -> float:
        torch.manual_seed(3)
        return slow_camera_loss(adversary.discriminator(values).tolist(), camids.tolist(), twice)

    with torch.no_grad():
        for row, column in ((0, 0), (0, 5), (7, 3), (40, 1), (63, 7)):
            step = torch.zeros_like(features)
            step[row, column] = 1e-5
            slope = (slow(features + step) - slow(features - step)) / 2e-5
            assert gradient[row, column].item() == pytest.approx(-factor * slope, rel=1e-4)
            assert abs(slope) > 1e-6


def test_softmax_twice__weakens_the_gradient_of_a_fresh_discriminator_about_sixfold() -> None:
    """With six cameras at initialisation, the ratio is 5.2 to 6.7 over 30 seeds, 5.9 on average."""
    ratios = []
    for seed in range(8):
        once, twice = (gradient_at_features(twice, 1280, seed).norm() for twice in (False, True))
        ratios.append((once / twice).item())
    assert all(4.8 < ratio < 7.2 for ratio in ratios), ratios
    assert sum(ratios) / len(ratios) == pytest.approx(6.0, abs=0.4)


@pytest.mark.parametrize("cameras", [2, 6, 15])
def test_softmax_twice__divides_by_the_number_of_cameras_where_undecided(cameras: int) -> None:
    gradients = []
    for twice in (False, True):
        torch.manual_seed(0)
        adversary = CameraAdversary(16, cameras, softmax_twice=twice).double().eval()
        features = torch.randn(30, 16, dtype=torch.float64, requires_grad=True)
        with torch.no_grad():
            adversary.discriminator[-1].weight.mul_(1e-6)
            adversary.discriminator[-1].bias.zero_()
        adversary(features, torch.arange(30) % cameras).backward()
        gradients.append(features.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], cameras * gradients[1], rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("schedule", "epochs", "factors"),
    [
        ("constant", (0, -1), [0.5] * 6),
        ("dann", (0, -1), [0.5 * dann_factor(p / 6) for p in range(6)]),
        ("dann", (2, 5), [0.5 * dann_factor(p / 3) for p in (0, 0, 0, 1, 2, 3)]),
        ("dann", (4, -1), [0.5 * dann_factor(p / 2) for p in (0, 0, 0, 0, 0, 1)]),
        ("dann", (2, 2), [0, 0, 0] + 3 * [0.5 * dann_factor(1.0)]),
    ],
)
def test_reversal_factor__dann_grows_over_the_epochs_with_alignment(
    schedule: str, epochs: tuple[int, int], factors: list[float]
) -> None:
    found = [reversal_factor(epoch, 6, epochs, 0.5, schedule) for epoch in range(6)]
    assert found == pytest.approx(factors)


def test_discriminator__every_parameter_has_a_gradient() -> None:
    adversary = CameraAdversary(num_features=6, num_cameras=3)
    adversary(torch.randn(8, 6), torch.arange(8) % 3).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0
        for n, p in adversary.named_parameters()
        if not n.endswith("0.bias")
    )
