"""The aligned comparison of two images: deformable convolution, attention, loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

from pseudopair.inter import InterSimilarity, choose_pairs


def module(**keywords: int) -> InterSimilarity:
    torch.manual_seed(0)
    return InterSimilarity(**{"in_channels": 12, "width": 6, **keywords})


def test_deformable_convolution__with_zero_offsets_is_a_plain_one() -> None:
    part = module()
    maps = torch.randn(2, 6, 4, 3)
    with torch.no_grad():
        part.deform.weight.normal_()
    offsets = part.offsets(torch.cat([maps, maps.flip(0)], dim=1))
    assert torch.equal(offsets, torch.zeros(2, 18, 4, 3))
    torch.testing.assert_close(
        part.deform(maps, offsets), F.conv2d(maps, part.deform.weight, padding=1, groups=6)
    )


def test_deformable_convolution__of_a_shift_by_a_cell_is_the_shifted_map() -> None:
    maps = torch.randn(1, 2, 4, 5)
    weight = torch.eye(2)[:, :, None, None]
    offsets = torch.zeros(1, 2, 4, 5)
    offsets[:, 1] = 1.0  # (y, x): an offset of one cell to the right
    found = deform_conv2d(maps, offsets, weight)
    torch.testing.assert_close(found[..., :-1], maps[..., 1:])


def test_deformable_convolution__gradients_reach_offsets_and_weights() -> None:
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 2, 3, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    # Non-integer offsets: bilinear sampling has no derivative at integer ones.
    offsets = 0.3 + 0.2 * torch.rand(1, 18, 3, 3, generator=draw, dtype=torch.float64)
    offsets.requires_grad_()
    weight = torch.randn(2, 2, 3, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda m, o, w: deform_conv2d(m, o, w, padding=1), (maps, offsets, weight)
    )


def test_similarity__gradcheck_through_alignment_in_double() -> None:
    part = module(width=4).double()
    with torch.no_grad():
        part.offsets.bias.fill_(3.0)
    left, right = (
        torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    assert torch.autograd.gradcheck(lambda a, b: part(a, b), (left, right))
    part(left, right).sum().backward()
    for name in ("offsets.weight", "deform.weight", "theta.weight", "phi.weight", "value.weight"):
        assert part.get_parameter(name).grad.abs().sum() > 0, name


def test_similarity__is_the_loop_over_places() -> None:
    part = module()
    with torch.no_grad():
        part.offsets.bias.uniform_(-10, 10)
        part.deform.weight.normal_()
    left, right = torch.randn(2, 6, 3, 2), torch.randn(2, 6, 3, 2)
    found = part(left, right)
    warped = part.deform(right, 0.1 * part.offsets(torch.cat([left, right], dim=1)))
    query, key, value = part.theta(left), part.phi(warped), part.value(warped)
    places = [(y, x) for y in range(3) for x in range(2)]
    for b in range(2):
        product, energy = torch.zeros(()), torch.zeros(())
        for y, x in places:
            logits = torch.stack(
                [F.cosine_similarity(query[b, :, y, x], key[b, :, v, u], dim=0) for v, u in places]
            )
            share = torch.softmax(part.sharpness * logits, dim=0)
            aligned = warped[b, :, y, x] + sum(
                s * value[b, :, v, u] for s, (v, u) in zip(share, places)
            )
            product = product + left[b, :, y, x] @ aligned
            energy = energy + aligned.square().sum()
        expected = product / (energy.sqrt() * left[b].norm())
        torch.testing.assert_close(found[b], expected)


def test_similarity__an_idle_place_does_not_outvote_an_active_one() -> None:
    """Noise at low-norm positions reduces the mean cosine over positions, not the similarity."""
    part = module(width=12).eval()
    left = torch.randn(1, 12, 4, 2)
    right = left.clone()
    left[:, :, 2:], right[:, :, 2:] = 0.01 * torch.randn(2, 1, 12, 2, 2)
    with torch.no_grad():
        aligned, _, _ = part.align(left, right)
        of_places = F.cosine_similarity(left, aligned, dim=1).mean()
        assert float(part(left, right)) > float(of_places) + 0.1


def test_similarity__of_an_image_with_itself_beats_another_from_the_start() -> None:
    part = module(width=12).eval()
    maps = part.maps(torch.randn(8, 12, 4, 2))
    own, other = part(maps, maps), part(maps, maps.roll(1, 0))
    assert (own > other).all()
    assert own.max() <= 1 + 1e-5 and other.min() >= -1 - 1e-5


def test_alignment__finds_what_moved_down_a_row() -> None:
    """Positions of i attend to the same content in j, where j is i shifted down by one row."""
    part = module(width=12).eval()
    left = 4 * torch.randn(1, 12, 4, 2)
    right = left.roll(1, 2)
    _, _, attention = part.align(left, right)
    looked_at = attention[0].argmax(dim=1)
    rows, columns = looked_at // 2, looked_at % 2
    assert rows.tolist() == [1, 1, 2, 2, 3, 3, 0, 0] and columns.tolist() == [0, 1] * 4
    torch.testing.assert_close(attention.sum(2), torch.ones(1, 8))


def test_loss__weighs_positives_and_negatives_half_each() -> None:
    part, maps = module(), torch.randn(5, 6, 3, 2)
    pairs = torch.tensor([[0, 1], [2, 3], [2, 4], [0, 4]])
    targets = torch.tensor([1.0, 0.0, 0.0, 0.0])
    logits = part.scale * part(maps[pairs[:, 0]], maps[pairs[:, 1]]) + part.shift
    negative = -F.logsigmoid(-logits[1:]).mean()
    expected = (-F.logsigmoid(logits[0]) + negative) / 2
    torch.testing.assert_close(part.loss(maps, pairs, targets), expected)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_loss__of_a_batch_of_one_kind_is_finite_and_on_the_graph(target: float) -> None:
    part, maps = module(), torch.randn(3, 6, 3, 2, requires_grad=True)
    part.loss(maps, torch.tensor([[0, 1], [1, 2]]), torch.full((2,), target)).backward()
    assert torch.isfinite(maps.grad).all() and maps.grad.abs().sum() > 0


def test_loss__without_pairs_is_zero_on_the_graph() -> None:
    part, maps = module(), torch.randn(3, 6, 3, 2, requires_grad=True)
    loss = part.loss(maps, torch.zeros(0, 2, dtype=torch.long), torch.zeros(0))
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert torch.equal(maps.grad, torch.zeros_like(maps))


def test_choose_pairs__takes_each_pair_once_and_its_hardest_negatives() -> None:
    similarity = torch.tensor(
        [
            [1.0, 0.2, 0.9, 0.8, 0.1],
            [0.2, 1.0, 0.3, 0.4, 0.5],
            [0.9, 0.3, 1.0, 0.7, 0.6],
            [0.8, 0.4, 0.7, 1.0, 0.0],
            [0.1, 0.5, 0.6, 0.0, 1.0],
        ]
    )
    positive = torch.eye(5, dtype=torch.bool)
    positive[0, 1] = positive[1, 0] = True
    ignored = torch.zeros(5, 5, dtype=torch.bool)
    ignored[0, 2] = ignored[2, 0] = True
    pairs, targets = choose_pairs(similarity, positive, ignored, 2)
    assert pairs.tolist() == [[0, 1], [0, 3], [0, 4]] and targets.tolist() == [1.0, 0.0, 0.0]


def test_choose_pairs__of_one_person_has_no_negatives_and_of_strangers_nothing() -> None:
    similarity, every = torch.rand(4, 4), torch.ones(4, 4, dtype=torch.bool)
    pairs, targets = choose_pairs(similarity, every, ~every, 3)
    assert len(pairs) == 6 and targets.tolist() == [1.0] * 6
    pairs, targets = choose_pairs(similarity, torch.eye(4, dtype=torch.bool), ~every, 3)
    assert pairs.shape == (0, 2) and targets.shape == (0,)


def test_module__refuses_an_even_kernel() -> None:
    with pytest.raises(ValueError, match="kernel must be odd, got 2"):
        module(kernel=2)
