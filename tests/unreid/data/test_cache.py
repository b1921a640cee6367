"""Decoded images kept in memory: the same bytes, a stated size, shared by workers."""

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
    """On files of this test's own, which it may delete."""
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
    cache = DecodedImages.of_files(images.paths, 8)
    assert len(cache) == len(images)
    total = 0
    for i, path in enumerate(images.paths):
        found = cache.get(i)
        assert found is not None and not found.flags.writeable
        np.testing.assert_array_equal(found, np.asarray(load_image(path)))
        total += found.nbytes
    assert cache.num_bytes == total
    assert (
        f"UNSUP.CACHE_IMAGES 8: 72 of 72 images kept decoded, {total / MEBIBYTE:.1f} MiB"
        in log.text
    )


def test_cache_that_is_too_small__keeps_the_first_and_says_how_many(
    images: UnlabelledImages, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEBIBYTE", 2**12)  # a MiB for images of a test
    size = np.asarray(load_image(images.paths[0])).nbytes
    budget = 10 * size // 2**12 + 1
    cache = DecodedImages.of_files(images.paths, budget)
    kept = budget * 2**12 // size
    assert len(cache) == kept and cache.num_bytes <= budget * 2**12
    assert cache.get(kept - 1) is not None and cache.get(kept) is None
    assert f"{kept} of 72 images kept" in log.text and "decoded every time" in log.text


def test_cache_that_the_memory_is_too_small_for__is_refused_with_both_sizes(
    images: UnlabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_free_bytes", lambda: 2**17)
    with pytest.raises(
        ValueError,
        match=r"UNSUP.CACHE_IMAGES must fit into the memory that is"
        r" free, 0 MiB, got 8: 72 images would take \d+ MiB",
    ):
        DecodedImages.of_files(images.paths, 8)


def test_free_memory__is_known_here_and_positive() -> None:
    assert 2**20 < module._free_bytes() < 2**50


def test_damaged_image__is_named(images: UnlabelledImages) -> None:
    Path(images.paths[40]).write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=images.paths[40]):
        DecodedImages.of_files(images.paths, 8)


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
        seed_worker(0, 0)  # fast-reid's transforms sample from the generators of the process
        first = next(passed := iter(loader))  # the cache is filled by now, if it is on
        if size:
            shutil.rmtree(os.environ["FASTREID_DATASETS"])
        batches.append([first, *passed])
    for without, cached in zip(*batches):
        assert torch.equal(without["images"], cached["images"])
        assert without["indices"].tolist() == cached["indices"].tolist()
    again = torch.cat([b["images"] for b in build_extraction_loader(cfg, images)])
    assert again.shape == (72, 3, 64, 32)
