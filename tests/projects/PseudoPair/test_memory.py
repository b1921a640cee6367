"""The memory with one row per image: initialisation, sampling, updates and loading."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pseudopair.memory import RowMemory


def memory(num_images: int = 6, groups: int = 2, width: int = 3, **keywords: object) -> RowMemory:
    made = RowMemory(groups, width, **{"momentum": 0.25, "saved": True, **keywords})
    generator = torch.Generator().manual_seed(0)
    made.reset(torch.randn(groups, num_images, width, generator=generator))
    return made


def test_reset__makes_unit_rows_and_copies() -> None:
    given = torch.randn(2, 4, 3)
    made = RowMemory(2, 3, momentum=0.5, saved=True)
    made.reset(given)
    torch.testing.assert_close(made.rows.norm(dim=2), torch.ones(2, 4))
    before = made.rows.clone()
    given.zero_()
    assert torch.equal(made.rows, before)


@pytest.mark.parametrize("shape", [(1, 4, 3), (2, 4, 5), (2, 0, 3), (4, 3)])
def test_reset__refuses_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"rows must have shape \(2, N, 3\)"):
        RowMemory(2, 3, momentum=0.5, saved=True).reset(torch.ones(shape))


def test_reset__refuses_nan() -> None:
    with pytest.raises(ValueError, match="finite"):
        RowMemory(1, 2, momentum=0.5, saved=True).reset(torch.full((1, 2, 2), torch.nan))


def test_update__is_the_momentum_rule_one_image_at_a_time() -> None:
    made = memory()
    rows = made.rows.clone()
    features = F.normalize(torch.randn(3, 2, 3), dim=2)
    made.update(torch.tensor([4, 0, 2]), features)
    for place, image in enumerate((4, 0, 2)):
        for group in range(2):
            mixed = 0.25 * rows[group, image] + 0.75 * features[place, group]
            torch.testing.assert_close(made.rows[group, image], mixed / mixed.norm())
    for image in (1, 3, 5):
        assert torch.equal(made.rows[:, image], rows[:, image])


def test_update__of_an_image_that_comes_twice_takes_the_first() -> None:
    one, other = memory(), memory()
    features = F.normalize(torch.randn(3, 2, 3), dim=2)
    one.update(torch.tensor([1, 1, 0]), features)
    other.update(torch.tensor([1, 0]), features[[0, 2]])
    assert torch.equal(one.rows, other.rows)


def test_update__fills_an_empty_row_whole_and_keeps_one_that_cancels() -> None:
    made = RowMemory(1, 2, momentum=0.5, saved=True)
    made.reset(torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]))
    made.update(torch.tensor([0, 1]), torch.tensor([[[0.6, 0.8]], [[-1.0, 0.0]]]))
    torch.testing.assert_close(made.rows[0], torch.tensor([[0.6, 0.8], [1.0, 0.0]]))


@pytest.mark.parametrize("wanted", [0, 6, 7])
def test_sample__of_all_images_is_complete_and_needs_no_correction(wanted: int) -> None:
    sample = memory().sample(wanted)
    assert sample.indices.tolist() == list(range(6)) and not sample.is_random
    kept = torch.ones(2, 6, dtype=torch.bool)
    assert torch.equal(sample.correction(kept, 1), torch.zeros(2, 1))


def test_sample__is_reproducible_by_the_generator() -> None:
    made = memory(50)
    drawn = [made.sample(20, torch.Generator().manual_seed(s)).indices for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert all(len(d) == 20 and d.min() >= 0 and d.max() < 50 for d in drawn)


def test_correction__makes_the_sum_over_negatives_right_on_average() -> None:
    made = memory(40)
    values = torch.linspace(0.5, 2.0, 40, dtype=torch.float64)
    anchor, generator = 7, torch.Generator().manual_seed(3)
    sums = []
    for _ in range(4000):
        sample = made.sample(10, generator)
        negatives = (sample.indices != anchor)[None]
        scale = sample.correction(negatives, 1).exp()[0, 0]
        sums.append(float((values[sample.indices] * negatives[0]).sum() * scale))
    exact = float(values.sum() - values[anchor])
    # The tolerance is four standard errors of the mean of 4000 estimates.
    error = torch.tensor(sums).std() / 4000**0.5
    assert abs(sum(sums) / len(sums) - exact) < 4 * error


def test_state__of_any_number_of_images_loads() -> None:
    saved = memory(9).state_dict()
    fresh = RowMemory(2, 3, momentum=0.25, saved=True)
    fresh.load_state_dict(saved)
    assert torch.equal(fresh.rows, saved["rows"])


def test_state__of_another_width_is_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        RowMemory(2, 4, momentum=0.25, saved=True).load_state_dict(memory().state_dict())


def test_state__is_empty_where_rows_are_made_anew_every_epoch() -> None:
    assert memory(saved=False).state_dict() == {}


def test_memory__refuses_a_momentum_beyond_one() -> None:
    with pytest.raises(ValueError, match=r"momentum must be a number >= 0 and <= 1, got 1\.5"):
        RowMemory(1, 2, momentum=1.5, saved=True)
