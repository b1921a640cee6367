"""Difference hashes: invariance, and groups compared with those of a slow search of all pairs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unreid.data.near_duplicates import BITS, difference_hash, group_hashes


def random_image(rng: np.random.Generator) -> Image.Image:
    coarse = rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((64, 128), Image.Resampling.BICUBIC)


def bits(a: np.ndarray, b: np.ndarray) -> int:
    """Return the Hamming distance of two hashes."""
    return int(np.unpackbits(a ^ b).sum())


def test_compressed_or_resized_image__has_a_similar_hash_and_another_image_has_not(
    rng: np.random.Generator,
) -> None:
    one, other = random_image(rng), random_image(rng)
    stream = io.BytesIO()
    one.save(stream, "JPEG", quality=60)
    saved = Image.open(stream)
    assert difference_hash(one).shape == (16,) and difference_hash(one).size * 8 == BITS
    assert bits(difference_hash(one), difference_hash(saved)) <= 3
    assert bits(difference_hash(one), difference_hash(one.resize((96, 192)))) <= 3
    assert bits(difference_hash(one), difference_hash(other)) > 20


def slow_groups(hashes: np.ndarray, max_bits: int) -> list[set[int]]:
    """Merge groups that contain a near pair, until there is no such pair."""
    groups = [{i} for i in range(len(hashes))]
    merged = True
    while merged:
        merged = False
        for a in range(len(groups)):
            for b in range(a + 1, len(groups)):
                if any(
                    bits(hashes[i], hashes[j]) <= max_bits for i in groups[a] for j in groups[b]
                ):
                    groups[a] |= groups.pop(b)
                    merged = True
                    break
            if merged:
                break
    return sorted(groups, key=min)


@given(st.integers(0, 25), st.integers(0, 3), st.integers(0, 1000))
def test_groups__equal_those_of_all_pairs(number: int, max_bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (4, 16), dtype=np.uint8)
    hashes = base[rng.integers(0, 4, number)].copy() if number else base[:0]
    for row in hashes:
        for position in rng.integers(0, BITS, rng.integers(0, 7)):
            row[position // 8] ^= 1 << (position % 8)
    before = hashes.copy()
    groups = group_hashes(hashes, max_bits)
    np.testing.assert_array_equal(hashes, before)
    found = [set(np.flatnonzero(groups == g).tolist()) for g in np.unique(groups)]
    assert sorted(found, key=min) == slow_groups(hashes, max_bits)


def test_identical_hashes__are_one_group() -> None:
    assert group_hashes(np.zeros((5000, 16), np.uint8)).tolist() == [0] * 5000
    assert group_hashes(np.zeros((1, 16), np.uint8)).tolist() == [0]


@pytest.mark.parametrize("wrong", [-1, 4, 1.0])
def test_max_bits_out_of_range__is_an_error(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"max_bits must be an integer >= 0 and <= 3"):
        group_hashes(np.zeros((2, 16), np.uint8), wrong)  # type: ignore[arg-type]
