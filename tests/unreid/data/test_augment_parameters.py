"""Sampled augmentation parameters have the distributions of fast-reid's own transforms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from PIL import Image
from scipy.stats import ks_2samp, kstest

from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.data.augment import AugmentParameters, affine_matrices, apply_affine, sample_parameters

NUM = 4000
SIZE = (64, 32)
ON: dict[str, object] = {
    "INPUT__SIZE_TRAIN": list(SIZE),
    "INPUT__FLIP__ENABLED": True,
    "INPUT__FLIP__PROB": 0.3,
    "INPUT__PADDING__ENABLED": True,
    "INPUT__PADDING__SIZE": 5,
    "INPUT__CJ__ENABLED": True,
    "INPUT__CJ__PROB": 0.8,
    "INPUT__CJ__BRIGHTNESS": 0.2,
    "INPUT__CJ__CONTRAST": 0.3,
    "INPUT__CJ__SATURATION": 1.5,
    "INPUT__CJ__HUE": 0.1,
    "INPUT__AFFINE__ENABLED": True,
    "INPUT__REA__ENABLED": True,
    "INPUT__REA__PROB": 0.6,
    "INPUT__AUTOAUG__ENABLED": True,
    "INPUT__AUTOAUG__PROB": 0.4,
}


def settings(**changed: object) -> Any:
    return load_tiny(BASELINE, **{**ON, **changed})[0].INPUT


@pytest.fixture(scope="module")
def sampled() -> AugmentParameters:
    return sample_parameters(settings(), NUM, np.random.default_rng(3))


def same_distribution(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Return whether a Kolmogorov-Smirnov test finds no significant difference."""
    return ks_2samp(ours, theirs).pvalue > 0.001  # low: the file has about 30 tests


def test_erasing__has_the_boxes_of_torchvision(sampled: AugmentParameters) -> None:
    torch.manual_seed(0)
    image = torch.zeros(3, *SIZE)
    theirs = np.array(
        [T.RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(NUM)]
    )
    ours = sampled.boxes[sampled.boxes[:, 2] > 0]
    assert abs(len(ours) / NUM - 0.6) < 0.02
    for column in range(4):
        assert same_distribution(ours[:, column], theirs[:, column])
    assert same_distribution(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])
    assert same_distribution(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3])
    assert (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= SIZE).all()


def test_jitter__has_the_factors_orders_and_share_of_torchvision(
    sampled: AugmentParameters,
) -> None:
    torch.manual_seed(0)
    jitter = T.ColorJitter(0.2, 0.3, 1.5, 0.1)
    theirs = [
        T.ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        for _ in range(NUM)
    ]
    for step in range(4):
        assert same_distribution(sampled.factors[:, step], np.array([t[1 + step] for t in theirs]))
    chosen = sampled.orders[(sampled.orders >= 0).all(axis=1)]
    assert (sampled.orders[(sampled.orders < 0).any(axis=1)] == -1).all()
    assert abs(len(chosen) / NUM - 0.8) < 0.02
    counts = np.unique(chosen, axis=0, return_counts=True)[1]
    assert len(counts) == math.factorial(4) and counts.min() > 0.7 * len(chosen) / 24


def test_affine__has_the_angles_and_scales_of_torchvision(sampled: AugmentParameters) -> None:
    torch.manual_seed(0)
    theirs = [
        T.RandomAffine.get_params([-10, 10], None, [0.9, 1.1], [-0.1, 0.1], [32, 64])
        for _ in range(NUM)
    ]
    a, b, _, d, e, _ = sampled.affine.T
    assert same_distribution(np.rad2deg(np.arctan2(-d, e)), np.array([t[0] for t in theirs]))
    assert same_distribution(1 / np.hypot(d, e), np.array([t[2] for t in theirs]))
    # The shear of an affine transform is the angle between its axes.
    shear = np.rad2deg(np.arctan2(a * d + b * e, a * e - b * d))
    assert same_distribution(shear, np.array([t[3][0] for t in theirs]))


def test_crop_and_flip__are_uniform(sampled: AugmentParameters) -> None:
    for offsets in (sampled.top, sampled.left):
        counts = np.bincount(offsets, minlength=11)
        assert len(counts) == 11 and counts.min() > 0.8 * NUM / 11
    assert abs(sampled.flip.mean() - 0.3) < 0.02
    assert abs((sampled.policy >= 0).mean() - 0.4) < 0.02
    assert abs(np.corrcoef(sampled.top, sampled.left)[0, 1]) < 0.05
    seeds = sampled.policy[sampled.policy >= 0] / 2**53
    assert kstest(seeds, "uniform").pvalue > 0.01 and len(np.unique(seeds)) == len(seeds)


@pytest.mark.parametrize("off", ["FLIP", "PADDING", "CJ", "AFFINE", "REA", "AUTOAUG"])
def test_disabled_step__does_not_change_the_others(off: str, sampled: AugmentParameters) -> None:
    cfg = settings(**{f"INPUT__{off}__ENABLED": False})
    without = sample_parameters(cfg, NUM, np.random.default_rng(3))
    of_step = {
        "FLIP": ["flip"],
        "PADDING": ["top", "left"],
        "CJ": ["orders"],
        "AFFINE": ["affine"],
        "REA": ["boxes"],
        "AUTOAUG": ["policy"],
    }[off]
    for name in vars(sampled):
        same = np.array_equal(getattr(sampled, name), getattr(without, name))
        assert same == (name not in of_step), name
    nothing = {"flip": 0, "top": 0, "left": 0, "orders": -1, "boxes": 0, "policy": -1}
    assert all((getattr(without, n) == nothing[n]).all() for n in of_step if n != "affine")


def test_parameters__of_an_image_do_not_depend_on_the_batch_size() -> None:
    few, many = (sample_parameters(settings(), n, np.random.default_rng(5)) for n in (3, 9))
    for name in vars(few):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[:3])


@pytest.mark.parametrize("size", [(64, 32), (33, 17)])
def test_affine_map__equals_that_of_torchvision(
    size: tuple[int, int], rng: np.random.Generator
) -> None:
    pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    for degrees, scale, shear in ((0, 1, 0), (10, 0.9, 0.1), (-7.3, 1.1, -0.1), (3, 1.03, 5.0)):
        theirs = T.functional.affine(Image.fromarray(pixels), degrees, [0, 0], scale, [shear, 0.0])
        matrix = affine_matrices(size, *(np.array([v]) for v in (degrees, scale, shear)))[0]
        np.testing.assert_array_equal(apply_affine(pixels, matrix), np.asarray(theirs))


def test_box_that_never_fits__erases_nothing() -> None:
    tiny = sample_parameters(settings(INPUT__SIZE_TRAIN=[1, 1]), 50, np.random.default_rng(0))
    assert (tiny.boxes[:, 2] * tiny.boxes[:, 3] == 0).all()
