"""The image cache: equal pixels, its size limit, and training from cached images."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.data import cache as module
from unreid.data.cache import MEBIBYTE, DecodedImages
from unreid.data.images import UnreadableImageError, load_image
from unreid.data.loader import build_extraction_loader, build_train_loader
from unreid.data.unlabelled import UnlabelledImages, load_training_images
from unreid.data.worker import seed_worker


@pytest.fixture
def images(synthetic_root: Path, tmp_path: Path) -> UnlabelledImages:
    """Return the training images of a copy of the dataset, which a test may modify."""
    shutil.copytree(synthetic_root, tmp_path / "own")
    os.environ["FASTREID_DATASETS"] = str(tmp_path / "own")
    return load_training_images(["Market1501"])[0]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    logging.getLogger("fastreid").propagate = True
    caplog.set_level(logging.INFO, logger="fastreid")
    return caplog


def test_cache__has_the_pixels_of_every_image_and_says_its_size(
    images: UnlabelledImages, log: pytest.LogCaptureFixture
) -> None:
    cache = DecodedImages.from_files(images.paths, 8)
    assert len(cache) == len(images)
    total = 0
    for i, path in enumerate(images.paths):
        found = cache.get(i)
        assert found is not None and not found.flags.writeable
        np.testing.assert_array_equal(found, np.asarray(load_image(path)))
        total += found.nbytes
    assert cache.num_bytes == total
    assert f"UNSUP.CACHE_IMAGES 8: 72 of 72 images cached, {total / MEBIBYTE:.1f} MiB" in log.text


def test_cache_too_small_for_all_images__keeps_the_first_and_logs_their_number(
    images: UnlabelledImages, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEBIBYTE", 2**12)  # a smaller unit for small test images
    size = np.asarray(load_image(images.paths[0])).nbytes
    budget = 10 * size // 2**12 + 1
    cache = DecodedImages.from_files(images.paths, budget)
    kept = budget * 2**12 // size
    assert len(cache) == kept and cache.num_bytes <= budget * 2**12
    assert cache.get(kept - 1) is not None and cache.get(kept) is None
    assert f"{kept} of 72 images cached" in log.text
    assert "the other images are decoded whenever they are used" in log.text


def test_cache_larger_than_the_free_memory__is_an_error_with_both_sizes(
    images: UnlabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_free_bytes", lambda: 2**17)
    with pytest.raises(
        ValueError,
        match=r"UNSUP.CACHE_IMAGES must be at most the free memory,"
        r" 0 MiB, got 8: 72 images need \d+ MiB",
    ):
        DecodedImages.from_files(images.paths, 8)


def test_free_memory__is_plausible() -> None:
    assert 2**20 < module._free_bytes() < 2**50


def test_damaged_image__is_named(images: UnlabelledImages) -> None:
    Path(images.paths[40]).write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=images.paths[40]):
        DecodedImages.from_files(images.paths, 8)


def config(**settings: object) -> Any:
    return load_tiny(BASELINE, **settings)[0]


@pytest.mark.parametrize("backend", ["pil", "tensor"])
@pytest.mark.parametrize("workers", [0, 2])
def test_training__reads_no_file_again_and_gets_the_same_batches(
    backend: str, workers: int, images: UnlabelledImages
) -> None:
    settings = {"INPUT__BACKEND": backend, "DATALOADER__NUM_WORKERS": workers}
    order = np.random.default_rng(0).permutation(72).reshape(9, 8).tolist()
    batches = []
    for size in (0, 8):
        cfg = config(UNSUP__CACHE_IMAGES=size, **settings)
        loader = build_train_loader(cfg, images, np.zeros(72, np.int64), order, seed=1)
        seed_worker(0, 0)  # fast-reid's transforms use the global generators
        first = next(batch_iterator := iter(loader))  # an enabled cache is full now
        if size:
            shutil.rmtree(os.environ["FASTREID_DATASETS"])
        batches.append([first, *batch_iterator])
    for without, cached in zip(*batches):
        assert torch.equal(without["images"], cached["images"])
        assert without["indices"].tolist() == cached["indices"].tolist()
    again = torch.cat([b["images"] for b in build_extraction_loader(cfg, images)])
    assert again.shape == (72, 3, 64, 32)
