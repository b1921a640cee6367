"""Patch surrogate classes: patches, the loss against its formula, and the memory."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pseudopair.memory import RowSample
from pseudopair.surrogate import SurrogateClasses, crop_boxes


def classes(num_images: int = 7, **keywords: object) -> SurrogateClasses:
    torch.manual_seed(0)
    made = SurrogateClasses(
        8,
        **{"num_patches": 3, "num_features": 4, "temperature": 0.2, "num_negatives": 0, **keywords},
    )
    if num_images:
        made.memory.reset(torch.randn(made.num_patches, num_images, 4))
    return made


def patches_of(made: SurrogateClasses, num: int) -> torch.Tensor:
    return F.normalize(torch.randn(num, made.num_patches, 4), dim=2)


def test_loss__is_the_formula_when_nothing_is_sampled() -> None:
    made = classes()
    indices, patches = torch.tensor([4, 0, 6]), patches_of(made, 3)
    expected = 0.0
    for b, image in enumerate(indices.tolist()):
        for k in range(3):
            logits = [float(patches[b, k] @ made.memory.rows[k, j]) / 0.2 for j in range(7)]
            share = math.exp(logits[image]) / sum(math.exp(x) for x in logits)
            expected -= math.log(share) / 3 / 3
    assert float(made.loss(patches, indices)) == pytest.approx(expected, rel=1e-5)


def test_loss__of_sampled_rows_is_that_of_all_when_all_are_drawn_once() -> None:
    made = classes()
    indices, patches = torch.tensor([4, 0, 6]), patches_of(made, 3)
    drawn = RowSample(torch.randperm(7), True, 7)
    torch.testing.assert_close(
        made.loss(patches, indices, sample=drawn), made.loss(patches, indices)
    )


def test_loss__of_sampled_rows_is_near_that_of_all() -> None:
    made = classes(2000, num_negatives=400)
    indices, patches = torch.arange(16), patches_of(made, 16)
    exact = float(made.loss(patches, indices, sample=made.memory.sample(0)))
    sampled = [
        float(
            made.loss(
                patches,
                indices,
                sample=made.memory.sample(400, torch.Generator().manual_seed(seed)),
            )
        )
        for seed in range(10)
    ]
    assert sum(sampled) / 10 == pytest.approx(exact, rel=0.02)


def test_loss__keeps_the_own_row_though_it_was_not_drawn() -> None:
    made = classes()
    indices, patches = torch.tensor([2]), patches_of(made, 1).requires_grad_()
    loss = made.loss(patches, indices, sample=RowSample(torch.tensor([0, 1, 5]), True, 7))
    loss.backward()
    towards = -(patches.grad[0] * made.memory.rows[:, 2]).sum(1)
    assert (towards > 0).all()


def test_loss__leaves_partners_out_of_the_negatives() -> None:
    made = classes(3)
    indices, patches = torch.tensor([0]), patches_of(made, 1)
    both = made.loss(patches, indices, torch.tensor([[1, 2]]))
    assert float(both) == 0.0
    one = float(made.loss(patches, indices, torch.tensor([[1, -1]])))
    expected = sum(
        -math.log(math.exp(p) / (math.exp(p) + math.exp(n))) / 3
        for k in range(3)
        for p, n in [
            (
                (patches[0, k] @ made.memory.rows[k, 0]).item() / 0.2,
                (patches[0, k] @ made.memory.rows[k, 2]).item() / 0.2,
            )
        ]
    )
    assert one == pytest.approx(expected, rel=1e-5)


def test_loss__of_images_without_rows_is_zero_on_the_graph() -> None:
    made = classes(0)
    patches = patches_of(made, 2).requires_grad_()
    assert float(made.loss(patches, torch.tensor([0, 1])).detach()) == 0.0
    made.fill(3, [])
    loss = made.loss(patches, torch.tensor([0, 1]))
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert torch.equal(patches.grad, torch.zeros_like(patches))


def test_loss__of_identical_images_stays_finite() -> None:
    made = classes()
    made.memory.reset(torch.ones(3, 7, 4))
    patches = F.normalize(torch.ones(2, 3, 4), dim=2)
    assert float(made.loss(patches, torch.tensor([1, 1]))) == pytest.approx(math.log(7), rel=1e-5)


def test_stripes__are_means_of_rows_of_the_map() -> None:
    made = classes(kind="stripes").eval()
    maps = torch.randn(2, 8, 6, 3)
    found = made(maps, torch.tensor([0, 1]))
    weight = made.embed.weight[..., 0].view(3, 4, 8)
    for k in range(3):
        pooled = maps[:, :, 2 * k : 2 * k + 2].mean(dim=(2, 3))
        torch.testing.assert_close(found[:, k], F.normalize(pooled @ weight[k].T, dim=1))


def test_stripes__of_a_map_with_fewer_rows_overlap() -> None:
    assert classes(num_patches=6)(torch.randn(3, 8, 4, 2), torch.arange(3)).shape == (3, 6, 4)


def test_crops__are_the_same_in_every_call_and_another_for_every_image_and_patch() -> None:
    boxes = crop_boxes(torch.tensor([5, 9, 5]), 4, 16, 8)
    assert torch.equal(boxes[:4, 1:], boxes[8:, 1:])
    assert len({tuple(b) for b in boxes[:8, 1:].tolist()}) == 8
    assert boxes[:, 0].tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 4


def test_crops__lie_in_the_map_and_are_spread_over_it() -> None:
    boxes = crop_boxes(torch.arange(500), 6, 16, 8)
    x1, y1, x2, y2 = boxes[:, 1:].unbind(1)
    assert min(x1.min(), y1.min()) >= 0 and x2.max() <= 8 + 1e-5 and y2.max() <= 16 + 1e-5
    height, width = (y2 - y1) / 16, (x2 - x1) / 8
    assert 0.25 <= height.min() < 0.27 and 0.48 < height.max() <= 0.5 + 1e-6
    assert 0.6 - 1e-6 <= width.min() < 0.62 and 0.98 < width.max() <= 1 + 1e-6
    centres = (y1 + y2) / 32
    assert 0.48 < centres.mean() < 0.52 and centres.std() > 0.15


def test_crops__give_patches() -> None:
    made = classes(kind="crops")
    found = made(torch.randn(3, 8, 6, 3), torch.tensor([0, 5, 2]))
    torch.testing.assert_close(found.norm(dim=2), torch.ones(3, 3))


def test_fill__starts_from_what_was_seen_standardised_over_the_images() -> None:
    made = classes(0)
    seen = F.normalize(torch.randn(5, 3, 4) + 3, dim=2)
    parts = [torch.tensor([3, 1]), torch.tensor([0, 2, 4])]
    made.fill(5, [(part, seen[part]) for part in parts])
    expected = F.normalize((seen - seen.mean(0)) / seen.std(0), dim=2)
    torch.testing.assert_close(made.memory.rows, expected.transpose(0, 1))


def test_fill__happens_once() -> None:
    made = classes(4)
    before = made.memory.rows.clone()
    made.fill(4, [(torch.tensor([0]), patches_of(made, 1))])
    assert torch.equal(made.memory.rows, before)


def test_fill__leaves_rows_of_images_that_were_not_seen_empty() -> None:
    made = classes(0)
    made.fill(4, [(torch.tensor([0, 2]), patches_of(made, 2))])
    empty = made.memory.rows.abs().sum(dim=(0, 2)) == 0
    assert empty.tolist() == [False, True, False, True]


def test_classes__refuse_another_kind_of_patch() -> None:
    with pytest.raises(ValueError, match="kind must be one of 'stripes', 'crops', got 'stripe'"):
        classes(kind="stripe")
