"""The dataset and the collate function: contents of a batch, and random number generators."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.data.dataset import BatchSpec, BatchTransform, ImageDataset, PackedStrings
from unreid.data.images import UnreadableImageError, load_image
from unreid.data.loader import SwappableLoader, build_train_loader
from unreid.data.unlabelled import UnlabelledImages, load_training_images
from unreid.data.worker import seed_worker

#: Transforms of fast-reid that use the generators of random, numpy and torch; one is stateful.
SAMPLING = {
    f"INPUT__{name}__ENABLED": True
    for name in ("FLIP", "PADDING", "CJ", "AFFINE", "REA", "AUTOAUG", "AUGMIX", "RPT")
}


@pytest.fixture
def images(synthetic_root: Path) -> UnlabelledImages:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    return load_training_images(["Market1501"])[0]


def config(**settings: object) -> Any:
    return load_tiny(BASELINE, **settings)[0]


def test_packed_strings__are_unchanged() -> None:
    texts = ["a", "", "b/ü €.jpg", "\udcff", "x" * 300]
    packed = PackedStrings(texts)
    assert len(packed) == 5 and [packed[i] for i in range(5)] == texts == packed.unpacked()
    assert len(PackedStrings([])) == 0 and PackedStrings([]).unpacked() == []


def test_dataset__holds_no_python_list_of_n_paths_or_fields(images: UnlabelledImages) -> None:
    """Reference counts of list items would copy memory pages in each forked worker."""
    dataset = ImageDataset(images.paths, camids=images.camids.tolist())
    assert isinstance(dataset.paths, PackedStrings)
    held = [*vars(dataset.paths).values(), *dataset.fields.values()]
    assert held and all(type(value) is np.ndarray for value in held)


def test_dataset__gives_the_pixels_of_the_file(images: UnlabelledImages) -> None:
    dataset = ImageDataset(images.paths)
    assert len(dataset) == 72
    np.testing.assert_array_equal(dataset[5], np.asarray(load_image(images.paths[5])))


@pytest.mark.parametrize("backend", ["pil", "tensor"])
def test_fields__become_int64_entries_beside_the_paths(
    backend: str, images: UnlabelledImages
) -> None:
    dataset = ImageDataset(
        images.paths, targets=np.arange(72, dtype=np.int32), camids=images.camids
    )
    spec = BatchSpec([3, 9], None, 0, 0, 1)
    batch: Any = BatchTransform(config(INPUT__BACKEND=backend))(dataset.__getitems__(spec))
    assert batch["img_paths"] == [images.paths[3], images.paths[9]]
    assert batch["targets"].tolist() == [3, 9] and batch["targets"].dtype == torch.int64
    assert batch["camids"].tolist() == images.camids[[3, 9]].tolist()


def test_error_of_the_dataset__is_returned_by_the_collate_function(tmp_path: Path) -> None:
    dataset = ImageDataset([str(tmp_path / "missing.jpg")])
    read = dataset.__getitems__(BatchSpec([0], None, 0, 0, 1))
    error = BatchTransform(config())(read)
    assert isinstance(error, UnreadableImageError) and "missing.jpg" in str(error)


def batches_of_two_epochs(cfg: Any, images: UnlabelledImages, model: nn.Module) -> list[Any]:
    """Return the batches of two epochs, with a forward pass of the model after each batch."""
    order = np.random.default_rng(0).integers(0, 72, (2, 3, 8)).tolist()
    labels = np.arange(72) % 5
    seed_worker(7, 0)
    loader, found = SwappableLoader(), []
    for epoch in range(2):
        loader.swap(build_train_loader(cfg, images, labels, order[epoch], seed=epoch))
        for _ in order[epoch]:
            found.append(next(loader))
            model(torch.ones(50))
        loader.end_epoch()
    return found


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("backend", ["pil", "tensor"])
def test_model_that_samples__does_not_change_augmentation_or_batches(
    backend: str, workers: int, images: UnlabelledImages
) -> None:
    """Two configs that differ only in their losses train on the same batches."""
    settings = dict(SAMPLING)
    if backend == "tensor":
        settings.update(INPUT__AUGMIX__ENABLED=False, INPUT__RPT__ENABLED=False)
    cfg = config(INPUT__BACKEND=backend, DATALOADER__NUM_WORKERS=workers, **settings)
    plain = batches_of_two_epochs(cfg, images, nn.Identity())
    sampling = batches_of_two_epochs(cfg, images, nn.Dropout(0.5))
    for one, other in zip(plain, sampling, strict=True):
        assert torch.equal(one["images"], other["images"])
        assert torch.equal(one["indices"], other["indices"])
    assert not torch.equal(plain[0]["images"], plain[3]["images"])


def test_pil_without_workers__samples_what_fast_reids_transforms_sample_from_the_global_generators(
    images: UnlabelledImages,
) -> None:
    """A model that draws no random numbers gets the same images as in earlier releases."""
    from fastreid.data.transforms import build_transforms

    cfg = config(INPUT__BACKEND="pil", **SAMPLING)
    found = batches_of_two_epochs(cfg, images, nn.Identity())
    after = torch.rand(3)
    seed_worker(7, 0)
    for epoch in range(2):
        transform = build_transforms(cfg, is_train=True)
        for batch in found[3 * epoch : 3 * epoch + 3]:
            wanted = [transform(load_image(path)) for path in batch["img_paths"]]
            assert torch.equal(batch["images"], torch.stack(wanted))
    assert torch.equal(after, torch.rand(3))
