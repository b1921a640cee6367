"""Ghost batch norm compared with plain batch norm of each group."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from unreid.modeling.ghost_norm import GhostBatchNorm2d, use_ghost_norm


def plain(channels: int = 3) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(channels) + 0.5)
        norm.bias.copy_(torch.randn(channels))
    return norm


def images(batch: int, channels: int = 3, size: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return 2 * torch.randn(batch, channels, size, size, generator=generator) + 1


@pytest.mark.parametrize(
    ("batch", "group", "sizes"),
    [(8, 4, [4, 4]), (8, 3, [3, 3, 2]), (9, 4, [3, 3, 3]), (7, 2, [3, 2, 2]), (6, 5, [3, 3])],
)
def test_ghost_norm__equals_batch_norm_on_each_group(
    batch: int, group: int, sizes: list[int]
) -> None:
    norm, x = plain(), images(batch)
    ghost = GhostBatchNorm2d(copy.deepcopy(norm), group).train()
    parts, means, variances = [], [], []
    for chunk in x.split(sizes):
        own = copy.deepcopy(norm).train()
        own.momentum = 1.0
        parts.append(own(chunk))
        means.append(own.running_mean)
        variances.append(own.running_var)
    torch.testing.assert_close(ghost(x), torch.cat(parts))
    # One step of the momentum towards the mean of the groups' statistics.
    torch.testing.assert_close(ghost.running_mean, 0.1 * torch.stack(means).mean(0))
    torch.testing.assert_close(ghost.running_var, 0.9 + 0.1 * torch.stack(variances).mean(0))
    assert ghost.num_batches_tracked == 1


@pytest.mark.parametrize(("batch", "group"), [(8, 4), (16, 2), (9, 4)])
def test_compiled_form__equals_the_loop_in_values_gradients_and_statistics(
    batch: int, group: int
) -> None:
    loop = GhostBatchNorm2d(plain(), group).train()
    once = copy.deepcopy(loop)
    x, y = (images(batch).requires_grad_() for _ in range(2))
    weights = torch.randn(batch, 3, 4, 4)
    first, second = loop(x), once._at_once(y, min(-(-batch // group), batch // 2))
    (first * weights).sum().backward()
    (second * weights).sum().backward()
    torch.testing.assert_close(second, first)
    torch.testing.assert_close(y.grad, x.grad, rtol=1e-4, atol=1e-5)
    for name, value in loop.state_dict().items():
        torch.testing.assert_close(once.state_dict()[name], value)
    for one, other in zip(loop.parameters(), once.parameters()):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("group", [8, 9, 100])
def test_ghost_norm__with_one_group_equals_batch_norm(group: int) -> None:
    norm, x = plain(), images(8)
    ghost = GhostBatchNorm2d(copy.deepcopy(norm), group).train()
    torch.testing.assert_close(ghost(x), norm.train()(x), rtol=0, atol=0)
    torch.testing.assert_close(ghost.running_var, norm.running_var, rtol=0, atol=0)


def test_ghost_norm__in_evaluation_uses_the_running_statistics() -> None:
    norm, x = plain(), images(8)
    ghost = GhostBatchNorm2d(copy.deepcopy(norm), 2).train()
    ghost(x)
    ghost.eval()
    mean = ghost.running_mean.clone()
    expected = nn.functional.batch_norm(
        x, ghost.running_mean, ghost.running_var, norm.weight, norm.bias
    )
    torch.testing.assert_close(ghost(x), expected)
    assert torch.equal(ghost.running_mean, mean)


def test_ghost_norm__gradients_equal_those_of_the_groups() -> None:
    norm, x = plain(), images(6)
    ghost = GhostBatchNorm2d(copy.deepcopy(norm), 3).train()
    ghost(x).square().sum().backward()
    norm.train()
    sum(norm(chunk).square().sum() for chunk in x.split(3)).backward()
    torch.testing.assert_close(ghost.weight.grad, norm.weight.grad)
    torch.testing.assert_close(ghost.bias.grad, norm.bias.grad)


def test_use_ghost_norm__keeps_parameters_and_state_dict_keys() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()),
        nn.InstanceNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.SyncBatchNorm(4),
    )
    parameters = {n: id(p) for n, p in model.named_parameters()}
    buffers = {n: id(b) for n, b in model.named_buffers()}
    keys = list(model.state_dict())
    assert use_ghost_norm(model, 2) == 2
    assert {n: id(p) for n, p in model.named_parameters()} == parameters
    assert {n: id(b) for n, b in model.named_buffers()} == buffers
    assert list(model.state_dict()) == keys
    kinds = [type(m).__name__ for m in model]
    assert kinds[1] == "GhostBatchNorm2d"
    assert kinds[3:] == ["InstanceNorm2d", "GroupNorm", "BatchNorm2d", "SyncBatchNorm"]
    assert use_ghost_norm(model, 2) == 0, "a second call finds nothing left to do"


def test_use_ghost_norm__keeps_a_frozen_bias_frozen() -> None:
    norm = nn.BatchNorm2d(4)
    norm.bias.requires_grad_(False)
    model = nn.Sequential(norm)
    use_ghost_norm(model, 2)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["0.weight"]


def test_ghost_norm__never_has_a_group_of_one_image() -> None:
    """After global pooling a group of one image has no variance, and torch raises an error."""
    ghost = GhostBatchNorm2d(nn.BatchNorm2d(3), 2).train()
    assert ghost(images(5, size=1)).shape == (5, 3, 1, 1)
