"""Images of attention heads and alignments: the value of each pixel."""

from __future__ import annotations

import numpy as np
import pytest

from pseudopair.drawing import (
    aligned_positions,
    alignment_image,
    attention_grid,
    colours,
    overlay,
    scale_to_unit,
    stack_vertically,
)


def test_colours__go_from_blue_to_red_and_clip() -> None:
    found = colours(np.array([0.0, 1.0, -3.0, 7.0]))
    assert found.dtype == np.uint8
    assert found[0, 2] > found[0, 0] and found[1, 0] > found[1, 2]
    assert (found[2] == found[0]).all() and (found[3] == found[1]).all()


def test_stretched__of_a_flat_map_is_zero() -> None:
    assert (scale_to_unit(np.full((3, 2), 7.0)) == 0).all()
    assert scale_to_unit(np.array([[2.0, 4.0]])).tolist() == [[0, 1]]


def test_overlay__is_red_where_the_heat_is(rng: np.random.Generator) -> None:
    image = np.full((64, 32, 3), 128, dtype=np.uint8)
    heat = np.zeros((8, 4))
    heat[1, 2] = 5
    found = overlay(image, heat).astype(int)
    assert found.shape == image.shape
    redness = found[..., 0] - found[..., 2]
    y, x = np.unravel_index(redness.argmax(), redness.shape)
    assert (y // 8, x // 8) == (1, 2)
    assert (overlay(image, heat, strength=0.0) == 128).all()


def test_attention_sheet__has_a_row_per_image_and_a_column_per_head(
    rng: np.random.Generator,
) -> None:
    images = rng.integers(0, 256, (3, 32, 16, 3), dtype=np.uint8)
    found = np.asarray(attention_grid(images, rng.random((3, 2, 4, 2))))
    assert found.shape == (3 * 32 + 2 * 4, 3 * 16 + 2 * 4, 3)
    assert (found[:32, :16] == images[0]).all() and (found[72:, :16] == images[2]).all()


def slow_landings(attention: np.ndarray, offsets: np.ndarray, expected: bool) -> np.ndarray:
    """Return where each position lands, by loops over positions and attention weights."""
    _, height, width = offsets.shape
    found = np.zeros((height, width, 2))
    for p in range(height * width):
        best = int(attention[p].argmax())
        for q in range(height * width):
            y, x = divmod(q, width)
            weight = attention[p, q] if expected else float(q == best)
            down = np.mean([offsets[2 * t, y, x] for t in range(len(offsets) // 2)])
            across = np.mean([offsets[2 * t + 1, y, x] for t in range(len(offsets) // 2)])
            place = ((y + 0.5 + down) / height, (x + 0.5 + across) / width)
            found[p // width, p % width] += weight * np.array(place)
    return found.clip(0, 1)


@pytest.mark.parametrize("expected", [False, True])
def test_landings__equal_the_loop_over_positions_and_taps(
    rng: np.random.Generator, expected: bool
) -> None:
    attention = rng.random((15, 15))
    attention /= attention.sum(1, keepdims=True)
    offsets = rng.normal(size=(2 * 9, 5, 3))
    found = aligned_positions(attention, offsets, expected)
    np.testing.assert_allclose(found, slow_landings(attention, offsets, expected), atol=1e-12)


def test_landings__without_offsets_of_the_identity_are_the_same_places() -> None:
    found = aligned_positions(np.eye(8), np.zeros((18, 4, 2)))
    assert found[0, 0].tolist() == [0.125, 0.25] and found[3, 1].tolist() == [0.875, 0.75]


def test_alignment_picture__draws_an_arrow_from_i_to_j() -> None:
    black = np.zeros((64, 32, 3), dtype=np.uint8)
    similarities = np.full((4, 2), -1.0)
    similarities[3, 0] = 1.0
    landed = np.zeros((4, 2, 2))
    landed[3, 0] = (0.25, 0.5)
    found = np.asarray(
        alignment_image(black, black, landed, similarities, scale=2, max_arrows=1)
    ).astype(int)
    assert found.shape == (128, 64 + 32 + 64, 3)
    drawn = (found[:, :64].max(axis=2) > 60, found[:, 96:].max(axis=2) > 60)
    assert drawn[0][112, 16] and drawn[1][32, 64 // 2 - 1]
    # No arrow starts elsewhere: the upper half of i stays black.
    assert not drawn[0][:64].any()


def test_alignment_picture__of_a_position_that_lands_on_itself_draws_without_a_direction() -> None:
    black = np.zeros((8, 4, 3), dtype=np.uint8)
    found = alignment_image(black, black, np.full((1, 1, 2), 0.5), np.ones((1, 1)))
    assert np.asarray(found).max() > 60


def test_column__stacks_pictures_of_any_width(rng: np.random.Generator) -> None:
    one = attention_grid(np.zeros((1, 8, 4, 3), np.uint8), rng.random((1, 1, 2, 2)))
    two = attention_grid(np.zeros((1, 8, 4, 3), np.uint8), rng.random((1, 3, 2, 2)))
    assert stack_vertically([one, two]).size == (two.width, 8 + 4 + 8)
