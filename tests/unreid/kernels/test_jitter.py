"""Colour jitter of a batch: the kernel against its reference, the formulas and Pillow."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torchvision.transforms.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unreid.kernels import jitter_reference, kernel

ROUTES = [pytest.param(jitter_reference, id="reference")]
if kernel("jitter") is not None:
    ROUTES.append(pytest.param(kernel("jitter"), id="kernel"))


def alone(step: int, factor: float, num: int) -> tuple[np.ndarray, np.ndarray]:
    orders = np.full((num, 4), -1, dtype=np.int64)
    orders[:, 2] = step
    factors = np.full((num, 4), factor, dtype=np.float32)
    return orders, factors


@settings(max_examples=25)
@given(st.integers(0, 5), st.integers(1, 600), st.integers(0, 2**32 - 1))
def test_kernel__equals_its_reference_up_to_the_last_rounding(
    images: int, pixels: int, seed: int
) -> None:
    compiled = kernel("jitter")
    if compiled is None:
        pytest.skip("no compiled kernel")
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (images, pixels, 3), dtype=np.uint8)
    colours[: images // 2, :, 1] = colours[: images // 2, :, 0]  # pixels with two equal channels
    orders = np.array([rng.permutation(4) for _ in range(images)], np.int64).reshape(-1, 4)
    orders[rng.random(orders.shape) < 0.2] = -1
    factors = np.column_stack([rng.uniform(0, 2.5, (images, 3)), rng.uniform(-0.5, 0.5, images)])
    given_before = colours.copy()
    ours = compiled.color_jitter(colours, orders, factors.astype(np.float32))
    reference = jitter_reference.color_jitter(colours, orders, factors.astype(np.float32))
    assert ours.shape == colours.shape and ours.dtype == np.uint8
    assert (np.abs(ours.astype(int) - reference) <= 1).all()
    assert (ours != reference).sum() <= 0.01 * ours.size + 1
    np.testing.assert_array_equal(colours, given_before)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.07, 0.5])
def test_hue__turns_the_circle_of_colours(route, turns: float, rng: np.random.Generator) -> None:
    colours = rng.integers(0, 256, (1, 60, 3), dtype=np.uint8)
    colours[0, :8] = [
        [0, 0, 0],
        [255, 255, 255],
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [255, 255, 0],
        [9, 9, 9],
        [0, 255, 255],
    ]
    found = route.color_jitter(colours, *alone(3, turns, 1))[0]
    for before, after in zip(colours[0], found):
        h, s, v = colorsys.rgb_to_hsv(*(before / 255))
        wanted = np.array(colorsys.hsv_to_rgb((h + turns) % 1, s, v)) * 255
        assert np.abs(after - wanted).max() <= 0.51


@pytest.mark.parametrize("route", ROUTES)
def test_plain_steps__follow_their_formulas(route, rng: np.random.Generator) -> None:
    colours = rng.integers(0, 256, (2, 50, 3), dtype=np.uint8)
    grey = colours @ np.array([0.299, 0.587, 0.114])
    mean = grey.mean(axis=1)
    others = (0, mean[:, None, None], grey[..., None])
    for step, other in enumerate(others):
        for factor in (0.0, 0.7, 1.0, 1.9):
            found = route.color_jitter(colours, *alone(step, factor, 2))
            wanted = np.clip(colours * factor + (1 - factor) * other, 0, 255)
            assert np.abs(found - wanted).max() <= 0.51


@pytest.mark.parametrize("route", ROUTES)
def test_no_step_and_no_change__give_the_same_bytes(route, rng: np.random.Generator) -> None:
    colours = rng.integers(0, 256, (3, 40, 3), dtype=np.uint8)
    for step, factor in ((-1, 9.0), (0, 1.0), (1, 1.0), (2, 1.0), (3, 0.0)):
        found = route.color_jitter(colours, *alone(step, factor, 3))
        np.testing.assert_array_equal(found, colours)


@pytest.mark.parametrize("route", ROUTES)
def test_order__of_the_steps_is_kept(route) -> None:
    """Contrast uses the mean of the image after the preceding steps."""
    colours = np.array([[[200, 200, 200], [100, 100, 100]]], dtype=np.uint8)
    factors = np.array([[0.5, 0.0, 1.0, 0.0]], dtype=np.float32)
    first = route.color_jitter(colours, np.array([[0, 1, -1, -1]]), factors)
    last = route.color_jitter(colours, np.array([[1, 0, -1, -1]]), factors)
    assert (first == 75).all() and (last == 75).all()
    factors[0, :2] = 2.0, 0.0  # clips 200 to 255 before the mean only if brightness is first
    first = route.color_jitter(colours, np.array([[0, 1, -1, -1]]), factors)
    last = route.color_jitter(colours, np.array([[1, 0, -1, -1]]), factors)
    assert (first == 228).all() and (last == 255).all()


@pytest.mark.parametrize("route", ROUTES)
def test_jitter__is_that_of_pillow_but_for_its_cutting_off(route, rng: np.random.Generator) -> None:
    small = Image.fromarray(rng.integers(0, 255, (6, 4, 3), dtype=np.uint8))
    image = small.resize((32, 64), Image.Resampling.BICUBIC)
    steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    differences = []
    for _ in range(12):
        order = rng.permutation(4)
        factors = np.append(rng.uniform(0.8, 1.2, 3), rng.uniform(-0.1, 0.1))
        theirs = image
        for step in order:
            theirs = steps[step](theirs, float(factors[step]))
        ours = route.color_jitter(
            np.asarray(image).reshape(1, -1, 3),
            order[None].astype(np.int64),
            factors[None].astype(np.float32),
        )
        differences.append(np.abs(ours.reshape(64, 32, 3) - np.asarray(theirs).astype(int)))
    assert np.mean(differences) < 2.5 and np.percentile(differences, 99) <= 8
