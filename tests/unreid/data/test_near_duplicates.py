"""Looks: what stays alike and what does not, and groups against a slow comparison of all pairs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unreid.data.near_duplicates import BITS, group_looks, look


def picture(rng: np.random.Generator) -> Image.Image:
    coarse = rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((64, 128), Image.Resampling.BICUBIC)


def bits(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.unpackbits(a ^ b).sum())


def test_saved_again_or_resized__is_alike_and_another_picture_is_not(
    rng: np.random.Generator,
) -> None:
    one, other = picture(rng), picture(rng)
    stream = io.BytesIO()
    one.save(stream, "JPEG", quality=60)
    saved = Image.open(stream)
    assert look(one).shape == (16,) and look(one).size * 8 == BITS
    assert bits(look(one), look(saved)) <= 3
    assert bits(look(one), look(one.resize((96, 192)))) <= 3
    assert bits(look(one), look(other)) > 20


def slow_groups(looks: np.ndarray, max_bits: int) -> list[set[int]]:
    """Merge any two groups with a near pair, until none is left."""
    groups = [{i} for i in range(len(looks))]
    merged = True
    while merged:
        merged = False
        for a in range(len(groups)):
            for b in range(a + 1, len(groups)):
                if any(bits(looks[i], looks[j]) <= max_bits for i in groups[a] for j in groups[b]):
                    groups[a] |= groups.pop(b)
                    merged = True
                    break
            if merged:
                break
    return sorted(groups, key=min)


@given(st.integers(0, 25), st.integers(0, 3), st.integers(0, 1000))
def test_groups__are_those_of_all_pairs(number: int, max_bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (4, 16), dtype=np.uint8)
    looks = base[rng.integers(0, 4, number)].copy() if number else base[:0]
    for row in looks:
        for position in rng.integers(0, BITS, rng.integers(0, 7)):
            row[position // 8] ^= 1 << (position % 8)
    before = looks.copy()
    groups = group_looks(looks, max_bits)
    np.testing.assert_array_equal(looks, before)
    found = [set(np.flatnonzero(groups == g).tolist()) for g in np.unique(groups)]
    assert sorted(found, key=min) == slow_groups(looks, max_bits)


def test_identical_looks__are_one_group_however_many() -> None:
    assert group_looks(np.zeros((5000, 16), np.uint8)).tolist() == [0] * 5000
    assert group_looks(np.zeros((1, 16), np.uint8)).tolist() == [0]


@pytest.mark.parametrize("wrong", [-1, 4, 1.0])
def test_more_bits_than_parts__are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"max_bits must be an integer >= 0 and <= 3"):
        group_looks(np.zeros((2, 16), np.uint8), wrong)  # type: ignore[arg-type]
