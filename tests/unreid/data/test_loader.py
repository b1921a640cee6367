"""Loaders: order and contents of batches, and new labels in every epoch."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.data.loader import (
    SwappableLoader,
    build_extraction_loader,
    build_test_loader,
    build_train_loader,
    close_loaders,
)
from unreid.data.unlabelled import UnlabelledImages, load_training_images


@pytest.fixture
def images(synthetic_root: Path) -> UnlabelledImages:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    return load_training_images(["Market1501"])[0]


def config(**settings: object) -> Any:
    return load_tiny(BASELINE, **settings)[0]


def train_loader(cfg: Any, images: UnlabelledImages, batches: list[list[int]]) -> Any:
    labels = np.arange(len(images)) % 5
    return build_train_loader(cfg, images, labels, batches, seed=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_extraction__keeps_the_order_of_the_list(images: UnlabelledImages, workers: int) -> None:
    cfg = config(TEST__IMS_PER_BATCH=16, DATALOADER__NUM_WORKERS=workers)
    batches = list(build_extraction_loader(cfg, images))
    assert [p for b in batches for p in b["img_paths"]] == list(images.paths)
    assert torch.cat([b["camids"] for b in batches]).tolist() == images.camids.tolist()
    assert set(batches[0]) == {"images", "img_paths", "camids", "indices"}
    assert batches[0]["images"].shape == (16, 3, 64, 32)


def test_training_batch__has_pseudo_labels_and_no_ids(
    images: UnlabelledImages,
) -> None:
    batch = next(iter(train_loader(config(), images, [[7, 3, 11, 7]])))
    assert set(batch) == {"images", "img_paths", "targets", "camids", "indices"}
    assert batch["indices"].tolist() == [7, 3, 11, 7]
    assert batch["targets"].tolist() == [2, 3, 1, 2]
    assert batch["camids"].tolist() == images.camids[[7, 3, 11, 7]].tolist()
    assert batch["img_paths"] == [images.paths[i] for i in (7, 3, 11, 7)]
    assert all(batch[k].dtype == torch.int64 for k in ("targets", "camids", "indices"))


def test_test_loader__yields_query_then_gallery(images: UnlabelledImages) -> None:
    loader, num_query = build_test_loader(config(), "Market1501")
    paths = [p for batch in loader for p in batch["img_paths"]]
    assert 0 < num_query < len(paths)
    assert all("/query/" in p for p in paths[:num_query])
    assert all("/bounding_box_test/" in p for p in paths[num_query:])


def test_swappable__without_labels_is_an_error(images: UnlabelledImages) -> None:
    loader = SwappableLoader()
    assert iter(loader) is loader
    with pytest.raises(RuntimeError, match="no labels yet"):
        next(loader)


def test_swappable__samples_lazily(
    images: UnlabelledImages,
) -> None:
    sampled: list[int] = []

    def batches() -> Any:
        for i in range(4):
            sampled.append(i)
            yield [i, i]

    loader = SwappableLoader()
    loader.swap(train_loader(config(), images, list(batches())))
    sampled.clear()

    class Lazy:
        def __len__(self) -> int:
            return 4

        def __iter__(self) -> Any:
            return batches()

    loader.swap(build_train_loader(config(), images, np.zeros(72, np.int64), Lazy(), 0))
    assert sampled == []
    next(loader)
    assert sampled == [0]


def test_swap__takes_effect_at_once_and_keeps_the_workers(images: UnlabelledImages) -> None:
    """The loader of fast-reid would leak workers and yield old labels after every swap."""
    cfg = config(DATALOADER__NUM_WORKERS=2)
    before = set(multiprocessing.active_children())
    loader = SwappableLoader()
    seen = []
    for epoch in range(3):
        list(build_extraction_loader(cfg, images))
        loader.swap(train_loader(cfg, images, [[epoch, epoch + 1]] * 6))
        for _ in range(6 if epoch else 2):  # the first epoch is not read to its end
            assert next(loader)["indices"].tolist() == [epoch, epoch + 1]
        seen.append({process.pid for process in set(multiprocessing.active_children()) - before})
    assert len(seen[0]) == 2 and seen[0] == seen[1] == seen[2]
    loader.swap(train_loader(cfg, images, [[0, 1]]))
    close_loaders()
    assert set(multiprocessing.active_children()) - before == set()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_after_a_swap__never_have_labels_from_before(
    images: UnlabelledImages, workers: int
) -> None:
    """Workers have prefetched batches with the old labels before the swap."""
    cfg = config(DATALOADER__NUM_WORKERS=workers)
    loader = SwappableLoader()
    order = [[(8 * i + j) % 72 for j in range(8)] for i in range(9)]
    for epoch in range(4):
        labels = (np.arange(72) + 100 * epoch).astype(np.int64)
        loader.swap(build_train_loader(cfg, images, labels, order, seed=epoch))
        for number in range(
            2 + epoch
        ):  # not read to the end: workers have prefetched some of 9 batches
            batch = next(loader)
            assert batch["indices"].tolist() == order[number]
            assert batch["targets"].tolist() == labels[order[number]].tolist()
        if epoch == 1:  # extract features with the same workers
            loader.end_epoch()
            assert all("targets" not in b for b in build_extraction_loader(cfg, images))


@pytest.mark.parametrize("workers", [0, 2])
def test_test_loader__does_not_depend_on_workers_and_leaves_no_process(
    images: UnlabelledImages, workers: int
) -> None:
    close_loaders()
    before = set(multiprocessing.active_children())
    loader, _ = build_test_loader(config(DATALOADER__NUM_WORKERS=workers), "Market1501")
    wanted, _ = build_test_loader(config(DATALOADER__NUM_WORKERS=0), "Market1501")
    for _ in range(2):
        for one, other in zip(loader, wanted, strict=True):
            assert set(one) == {"images", "img_paths", "targets", "camids"}
            assert torch.equal(one["images"], other["images"])
            assert torch.equal(one["targets"], other["targets"])
        assert len(loader.dataset) == sum(len(b["img_paths"]) for b in loader)
        assert set(multiprocessing.active_children()) == before


def test_parts_of_the_test_loader__are_its_batches(images: UnlabelledImages) -> None:
    loader, _ = build_test_loader(config(TEST__IMS_PER_BATCH=10), "Market1501")
    whole = [b["img_paths"] for b in loader]
    parts = [[b["img_paths"] for b in loader.part(rank, 2)] for rank in range(2)]
    assert len(whole) >= 3
    assert [parts[i % 2][i // 2] for i in range(len(whole))] == whole


@pytest.mark.parametrize("workers", [0, 1])
def test_same_seed__same_augmentation(images: UnlabelledImages, workers: int) -> None:
    import random

    cfg = config(DATALOADER__NUM_WORKERS=workers)
    pixels = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002  (generator of fast-reid's transforms)
        torch.manual_seed(0)
        pixels.append(next(iter(train_loader(cfg, images, [[0, 1, 2, 3]])))["images"])
    assert torch.equal(*pixels)


def test_truncated_image__is_an_error_that_names_it(
    images: UnlabelledImages, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8")
    broken = UnlabelledImages((str(bad), *images.paths[1:]), images.camids, images.cameras, "/")
    for workers in (0, 1):
        cfg = config(DATALOADER__NUM_WORKERS=workers)
        with pytest.raises(ValueError, match=rf"{bad} cannot be read as an image"):
            list(build_extraction_loader(cfg, broken))
