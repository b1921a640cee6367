"""Batches with an image and its partner."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudopair.sampler import PairSampler
from unreid.registry import SAMPLER_REGISTRY
from unreid.structures import PseudoLabels, PseudoPairs


def paired(pairs: list[tuple[int, int]], confidence: Any = 0.5) -> PseudoPairs:
    weights = np.broadcast_to(np.float32(confidence), len(pairs)).copy()
    return PseudoPairs(np.array(pairs, dtype=np.int64).reshape(-1, 2), weights)


def sampler(pairs: PseudoPairs | None, num: int, **changes: Any) -> PairSampler:
    pseudo = PseudoLabels(np.arange(num), pairs=pairs)
    given = {
        "batch_size": 8,
        "num_instances": 2,
        "num_batches": 5,
        "rng": np.random.default_rng(0),
        **changes,
    }
    return PairSampler.from_labels(pseudo, np.zeros(num, dtype=np.int64), **given)


def test_name__is_registered() -> None:
    assert SAMPLER_REGISTRY.get("PairSampler") is PairSampler


@given(
    num=st.integers(1, 40),
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    half=st.integers(1, 12),
    seed=st.integers(0, 999),
)
def test_batches__are_images_beside_a_partner_or_themselves(
    num: int, share: float, half: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pairs = [(i, j) for i in range(num) for j in range(i + 1, num) if rng.random() < share]
    partners: dict[int, set[int]] = {i: set() for i in range(num)}
    for i, j in pairs:
        partners[i].add(j)
        partners[j].add(i)
    confidence = rng.random(len(pairs), dtype=np.float32)
    made = sampler(paired(pairs, confidence), num, batch_size=2 * half, rng=rng)
    batches = list(made)
    assert len(batches) == len(made) == 5
    for batch in batches:
        assert len(batch) == 2 * half and all(type(i) is int for i in batch)
        for image, partner in zip(batch[::2], batch[1::2]):
            assert partner in (partners[image] or {image})
        if num >= half:
            assert len(set(batch[::2])) == half


@given(num=st.integers(1, 40), half=st.integers(1, 12), seed=st.integers(0, 99))
def test_every_image__takes_its_turn_before_any_comes_again(num: int, half: int, seed: int) -> None:
    made = sampler(
        paired([]), num, batch_size=2 * half, num_batches=30, rng=np.random.default_rng(seed)
    )
    drawn = [i for batch in made for i in batch[::2]]
    turns = [drawn[k : k + num] for k in range(0, len(drawn) - num + 1, num)]
    assert all(sorted(turn) == list(range(num)) for turn in turns)


def test_noise_images__are_drawn_too() -> None:
    pseudo = PseudoLabels(np.array([-1, 0, -1, 0]), pairs=paired([(1, 3)]))
    made = PairSampler.from_labels(
        pseudo,
        np.zeros(4),
        batch_size=8,
        num_instances=2,
        num_batches=1,
        rng=np.random.default_rng(0),
    )
    assert sorted(next(iter(made))[::2]) == [0, 1, 2, 3]


def test_partner__is_drawn_in_proportion_to_its_confidence() -> None:
    made = sampler(paired([(0, 1), (0, 2), (0, 3)], [0.6, 0.3, 0.1]), 4, num_batches=3000)
    partners = [p for batch in made for i, p in zip(batch[::2], batch[1::2]) if i == 0]
    shares = np.bincount(partners, minlength=4) / len(partners)
    # 3,000 samples: three standard deviations of a proportion are below .027.
    np.testing.assert_allclose(shares, [0, 0.6, 0.3, 0.1], atol=0.03)


def test_pairs_without_any_confidence__are_drawn_alike() -> None:
    made = sampler(paired([(0, 1), (0, 2)], 0.0), 3, num_batches=500)
    partners = [p for batch in made for i, p in zip(batch[::2], batch[1::2]) if i == 0]
    assert np.bincount(partners)[1:].min() > 0.4 * len(partners)


def test_a_pair_of_no_confidence_beside_others__is_not_drawn() -> None:
    made = sampler(paired([(0, 1), (0, 2), (0, 3)], [0.0, 0.7, 0.0]), 4, num_batches=200)
    assert {p for b in made for i, p in zip(b[::2], b[1::2]) if i == 0} == {2}


def test_no_pair__gives_every_image_itself() -> None:
    assert all(b[::2] == b[1::2] for b in sampler(paired([]), 6))


def test_same_rng__same_batches__and_another_rng_others() -> None:
    pairs = paired([(i, j) for i in range(20) for j in range(i + 1, 20)])
    one, two, other = (list(sampler(pairs, 20, rng=np.random.default_rng(s))) for s in (3, 3, 4))
    assert one == two != other


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_instances": 4}, "DATALOADER.NUM_INSTANCE must be 2 with PairSampler.*got 4"),
        ({"batch_size": 7}, "SOLVER.IMS_PER_BATCH must be even for pairs, got 7"),
        ({"batch_size": 0}, "SOLVER.IMS_PER_BATCH must be an integer >= 2, got 0"),
    ],
)
def test_settings_that_make_no_pairs__are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sampler(paired([(0, 1)]), 4, **changes)


def test_labels_without_pairs__are_refused() -> None:
    with pytest.raises(ValueError, match=r"PairSampler needs PseudoLabels\.pairs, got None"):
        sampler(None, 4)


def test_a_pair_of_an_image_that_is_not_there__is_refused() -> None:
    with pytest.raises(ValueError, match=r"pairs must have indices in 0\.\.3, got 4"):
        PairSampler(paired([(0, 4)]), 4, batch_size=2, num_batches=1, rng=np.random.default_rng(0))
