"""INPUT.BACKEND tensor: each transform equals fast-reid's; all together have equal mean and std."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.data.transforms import AutoAugment, build_transforms
from PIL import Image

from tests.projects.tiny_run import BASELINE, load_tiny
from unreid import compat
from unreid.data.augment import TestTransform, TrainTransform, resize_image, sample_parameters

OFF = {
    f"INPUT__{name}__ENABLED": False
    for name in ("FLIP", "PADDING", "CJ", "AFFINE", "REA", "AUTOAUG")
}
SIZE = (64, 32)


def config(*on: str, **settings: object) -> Any:
    enabled = {f"INPUT__{name}__ENABLED": True for name in on}
    certain = {f"INPUT__{name}__PROB": 1.0 for name in on if name not in ("PADDING", "AFFINE")}
    return load_tiny(
        BASELINE, **{**OFF, "INPUT__BACKEND": "tensor", **enabled, **certain, **settings}
    )[0]


def applied(cfg: Any, pixels: np.ndarray, num: int = 1, seed: int = 0) -> np.ndarray:
    """Return (num, H, W, 3): the transforms applied to a batch of ``num`` copies of one image."""
    batch = TrainTransform(cfg)([pixels] * num, np.random.default_rng(seed))
    assert batch.dtype == torch.uint8 and batch.shape == (num, 3, *SIZE)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    return batch.permute(0, 2, 3, 1).numpy()


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    small = Image.fromarray(rng.integers(0, 255, (8, 4, 3), dtype=np.uint8))
    return np.asarray(small.resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC))


def test_no_step_enabled__returns_the_image_unchanged(pixels: np.ndarray) -> None:
    before = pixels.copy()
    assert (applied(config(), pixels, 3) == pixels).all()
    assert (pixels == before).all()


@pytest.mark.parametrize("size", [(128, 64), (83, 41), (20, 30)])
def test_resize__equals_pillow_within_two_levels(
    size: tuple[int, int], rng: np.random.Generator
) -> None:
    small = Image.fromarray(rng.integers(0, 255, (8, 4, 3), dtype=np.uint8))
    image = small.resize(size[::-1], Image.Resampling.BICUBIC)
    wanted = np.asarray(image.resize(SIZE[::-1], Image.Resampling.BICUBIC)).astype(int)
    found = resize_image(np.asarray(image), SIZE)
    assert np.abs(found - wanted).max() <= 2 and (found != wanted).mean() < 0.1


def test_images_of_several_sizes__make_one_batch(rng: np.random.Generator) -> None:
    sizes = ((9, 7), (64, 32), (90, 50))
    several = [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]
    batch = TestTransform(config())(several)
    assert batch.shape == (3, 3, *SIZE)
    assert (batch[1].permute(1, 2, 0).numpy() == several[1]).all()


def test_flip__mirrors_left_and_right(pixels: np.ndarray) -> None:
    assert (applied(config("FLIP"), pixels, 2) == pixels[:, ::-1]).all()
    some = applied(config("FLIP", INPUT__FLIP__PROB=0.5), pixels, 40)
    flipped = (some == pixels[:, ::-1]).all(axis=(1, 2, 3))
    assert 8 < flipped.sum() < 32 and (some[~flipped] == pixels).all()


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize("flip", [False, True])
def test_padding__crops_the_padded_image(mode: str, flip: bool, pixels: np.ndarray) -> None:
    cfg = config("PADDING", *["FLIP"] * flip, INPUT__PADDING__SIZE=5, INPUT__PADDING__MODE=mode)
    padded = np.pad(pixels, ((5, 5), (5, 5), (0, 0)), mode=mode)
    windows = {
        padded[y : y + SIZE[0], x : x + SIZE[1]][:, :: -1 if flip else 1].tobytes(): (y, x)
        for y in range(11)
        for x in range(11)
    }
    places = {windows[image.tobytes()] for image in applied(cfg, pixels, 200)}
    assert len(places) > 80 and {y for y, _ in places} == {x for _, x in places} == set(range(11))


def test_erasing__fills_one_box_with_the_value(pixels: np.ndarray) -> None:
    for image in applied(config("REA", INPUT__REA__VALUE=[10.4, 20.6, 300.0]), pixels, 20):
        changed = (image == [10, 21, 255]).all(axis=2)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0.01 < changed.mean() < 0.36
        assert (image[~changed] == pixels[~changed]).all()


def test_auto_augment__is_a_policy_of_fast_reid(pixels: np.ndarray) -> None:
    """Every output is one of fast-reid's AutoAugment; the global generator is restored."""
    state = random.getstate()
    found = applied(config("AUTOAUG"), pixels, 12)
    assert random.getstate() == state
    assert len({image.tobytes() for image in found}) > 6
    policy = AutoAugment()
    seeds = sample_parameters(config("AUTOAUG").INPUT, 12, np.random.default_rng(0)).policy
    for image, seed in zip(found, seeds):
        random.seed(int(seed))
        assert (np.asarray(policy(Image.fromarray(pixels))) == image).all()
    random.setstate(state)


def test_all_steps__have_the_mean_and_spread_of_fast_reid(pixels: np.ndarray) -> None:
    compat.rebind()
    cfg = config(
        "FLIP",
        "PADDING",
        "CJ",
        "AFFINE",
        "REA",
        INPUT__FLIP__PROB=0.5,
        INPUT__REA__PROB=0.5,
        INPUT__CJ__PROB=0.8,
        INPUT__PADDING__SIZE=4,
    )
    num = 500
    torch.manual_seed(0)
    theirs = build_transforms(cfg, is_train=True)
    wanted = torch.stack([theirs(Image.fromarray(pixels)) for _ in range(num)])
    found = torch.from_numpy(applied(cfg, pixels, num)).permute(0, 3, 1, 2).float()
    spread = wanted.std(dim=0)
    # Limits for 6,144 pixel means: sampling error, and truncation of values in Pillow.
    error = (found.mean(dim=0) - wanted.mean(dim=0)) / (spread * (2 / num) ** 0.5)
    assert float(error.abs().max()) < 5.5 and float(error.pow(2).mean()) < 1.5
    assert abs(float(found.std(dim=0).mean() / spread.mean()) - 1) < 0.05


def global_states() -> tuple[Any, ...]:
    state = np.random.get_state()  # noqa: NPY002
    return random.getstate(), state[1].tolist(), torch.get_rng_state().tolist()  # type: ignore


def test_parameters__come_from_the_generator_alone(pixels: np.ndarray) -> None:
    cfg = config("FLIP", "PADDING", "CJ", "AFFINE", "REA", "AUTOAUG")
    before = global_states()
    first, second = applied(cfg, pixels, 4), applied(cfg, pixels, 4)
    assert (first == second).all() and global_states() == before
    assert not (first == applied(cfg, pixels, 4, seed=1)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"INPUT__BACKEND": "gpu"}, "INPUT.BACKEND must be one of 'pil', 'tensor', got 'gpu'"),
        (
            {"INPUT__CROP__ENABLED": True},
            "INPUT.CROP.ENABLED must be False with INPUT.BACKEND tensor",
        ),
        ({"INPUT__RPT__ENABLED": True}, "INPUT.RPT.ENABLED must be False"),
        ({"INPUT__AUGMIX__ENABLED": True}, "INPUT.AUGMIX.ENABLED must be False"),
        ({"INPUT__SIZE_TRAIN": [64]}, "INPUT.SIZE_TRAIN must be a height and a width"),
        ({"INPUT__SIZE_TEST": [0, 5]}, "INPUT.SIZE_TEST must be a height and a width"),
        ({"INPUT__REA__PROB": 1.5}, "INPUT.REA.PROB must be a number >= 0 and <= 1, got 1.5"),
        ({"INPUT__PADDING__ENABLED": True, "INPUT__PADDING__MODE": "wrap"}, "INPUT.PADDING.MODE"),
        ({"UNSUP__CACHE_IMAGES": -1}, "UNSUP.CACHE_IMAGES must be an integer >= 0, got -1"),
    ],
)
def test_invalid_setting__is_an_error_that_names_the_key(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        config(**settings)


def test_pil__supports_what_tensor_does_not() -> None:
    config(INPUT__BACKEND="pil", INPUT__RPT__ENABLED=True, INPUT__SIZE_TRAIN=[64])
