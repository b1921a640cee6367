"""Two configs with the same seed that differ only in losses have bit-identical batches.

Otherwise a difference between two configs may be due to different random numbers.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.projects.overrides import FOR_ONE_STEP
from tests.projects.tiny_run import BASELINE, load_tiny, train_tiny
from unreid.data.loader import SwappableLoader, build_train_loader, close_loaders
from unreid.data.unlabelled import UnlabelledImages, load_training_images

INTRA = Path("projects/PseudoPair/configs/small/intra.yml")
SPHERE = Path("projects/SphereCluster/configs/small/spherecluster.yml")
AUGMENTED = {"INPUT__CJ__ENABLED": True, "INPUT__AFFINE__ENABLED": True}

Batch = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Record the images and indices of every training batch."""
    found: list[Batch] = []
    following = SwappableLoader.__next__

    def kept(self: SwappableLoader) -> Any:
        batch = following(self)
        found.append((batch["images"].clone(), torch.as_tensor(batch["indices"]).clone()))
        return batch

    monkeypatch.setattr(SwappableLoader, "__next__", kept)
    return found


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert one and len(one) == len(other)
    for (images, indices), (other_images, other_indices) in zip(one, other):
        assert torch.equal(indices, other_indices)
        assert torch.equal(images, other_images)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("config", "one", "other"),
    [
        (BASELINE, {}, {"CALR__WEIGHTS__ENABLED": True, "CALR__ADVERSARY__ENABLED": True,
                        "CALR__ADVERSARY__START_EPOCH": 0}),
        (SPHERE, {}, {"SPHERECLUSTER__SOFTMAX__ENABLED": False}),
        (INTRA, FOR_ONE_STEP["PseudoPair"],
         {**FOR_ONE_STEP["PseudoPair"], "PSEUDOPAIR__INTER__ENABLED": True}),
    ],
    ids=["CALR", "SphereCluster", "PseudoPair"],
)  # fmt: skip
def test_configs_of_one_seed_that_differ_in_losses__get_the_same_batches_and_augmentation(
    config: Path,
    one: dict[str, object],
    other: dict[str, object],
    workers: int,
    synthetic_root: Path,
    tmp_path: Path,
    seen: list[Batch],
) -> None:
    """Compare the first epoch only: later labels depend on the weights, and so on the losses."""
    of_both = []
    for number, settings in enumerate((one, other)):
        train_tiny(config, synthetic_root, tmp_path / str(number), INPUT__BACKEND="tensor",
                   DATALOADER__NUM_WORKERS=workers, SOLVER__MAX_EPOCH=1, UNSUP__ITERS_PER_EPOCH=4,
                   DATASETS__TESTS="()", **AUGMENTED, **settings)  # fmt: skip
        of_both.append(list(seen))
        seen.clear()
    assert_same(*of_both)


@pytest.fixture
def images(synthetic_root: Path, monkeypatch: pytest.MonkeyPatch) -> UnlabelledImages:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    return load_training_images(("Market1501",))[0]


def batches_of(images: UnlabelledImages, *, seed: int, disturbed: bool, **settings: Any) -> Any:
    """Return three batches; ``disturbed`` draws from every random number generator first."""
    cfg, _ = load_tiny(BASELINE, "out", **AUGMENTED, **settings)
    torch.manual_seed(0)
    random.seed(0)
    if disturbed:
        torch.rand(7)
        random.random()
    batches = [[0, 1, 2, 3], [4, 5, 6, 7], [0, 9, 2, 11]]
    loader = build_train_loader(cfg, images, np.zeros(len(images), np.int64), batches, seed)
    found = [(b["images"].clone(), torch.as_tensor(b["indices"]).clone()) for b in loader]
    close_loaders()
    return found


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_augmentation__follows_from_the_seed_alone_for_any_number_of_workers(
    images: UnlabelledImages, workers: int
) -> None:
    settings = {"INPUT__BACKEND": "tensor"}
    alone = batches_of(images, seed=5, disturbed=False, DATALOADER__NUM_WORKERS=0, **settings)
    many = batches_of(images, seed=5, disturbed=True, DATALOADER__NUM_WORKERS=workers, **settings)
    assert_same(alone, many)
    other = batches_of(images, seed=6, disturbed=False, DATALOADER__NUM_WORKERS=workers, **settings)
    assert not any(torch.equal(a, b) for (a, _), (b, _) in zip(alone, other))


def test_pil_backend__is_what_the_tests_above_catch(images: UnlabelledImages) -> None:
    """Without workers, fast-reid's transforms use the global generators."""
    one, other = (
        batches_of(
            images, seed=5, disturbed=disturbed, INPUT__BACKEND="pil", DATALOADER__NUM_WORKERS=0
        )
        for disturbed in (False, True)
    )
    assert not all(torch.equal(a, b) for (a, _), (b, _) in zip(one, other))
