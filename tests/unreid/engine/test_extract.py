"""Feature extraction of the training images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.modeling.meta_arch import build_model

from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.data.images import load_image
from unreid.data.unlabelled import UnlabelledImages, load_training_images
from unreid.engine.extract import extract, progress


@pytest.fixture
def images(synthetic_root: Path) -> UnlabelledImages:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    return load_training_images(["Market1501"])[0]


def network(**settings: object) -> tuple[Any, Any]:
    cfg, _ = load_tiny(BASELINE, **settings)
    torch.manual_seed(0)
    return cfg, build_model(cfg)


def test_feature_bank__has_the_feature_of_each_image_in_list_order(
    images: UnlabelledImages,
) -> None:
    cfg, model = network(TEST__IMS_PER_BATCH=16)
    bank = extract(cfg, model, images)
    assert len(bank) == 72 and bank.features.dtype == np.float32
    np.testing.assert_array_equal(bank.camids, images.camids)
    model.eval()
    for i in (0, 31, 71):
        image = np.asarray(load_image(images.paths[i]).resize((32, 64), 3), dtype=np.float32)
        batch = {"images": torch.from_numpy(image.transpose(2, 0, 1).copy())[None]}
        with torch.no_grad():
            own = model(batch)[0].numpy()
        np.testing.assert_allclose(bank.features[i], own, atol=1e-4)


def test_extraction__does_not_depend_on_the_batch_size_and_changes_no_buffer(
    images: UnlabelledImages,
) -> None:
    banks = []
    for size in (5, 64):
        cfg, model = network(TEST__IMS_PER_BATCH=size)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        model.train()
        banks.append(extract(cfg, model, images).features)
        assert model.training, "training mode is restored"
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    np.testing.assert_allclose(*banks, atol=1e-5)


def test_extract_flip__averages_the_features_of_an_image_and_its_horizontal_flip(
    images: UnlabelledImages,
) -> None:
    cfg, model = network(UNSUP__EXTRACT_FLIP=True)
    both = extract(cfg, model, images).features
    plain, _ = load_tiny(BASELINE)
    one = extract(plain, model, images).features
    model_eval = model.eval
    forward = model.forward

    def flipped(batch: dict[str, Any]) -> torch.Tensor:
        return forward({**batch, "images": batch["images"].flip(3)})

    model.forward = flipped
    other = extract(plain, model, images).features
    mean = one + other
    np.testing.assert_allclose(both, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5)
    assert not np.allclose(one, other) and model_eval


def test_non_finite_feature__names_the_image(images: UnlabelledImages) -> None:
    cfg, model = network()

    def broken(batch: dict[str, Any]) -> torch.Tensor:
        features = torch.ones(len(batch["images"]), 4)
        features[3] = float("nan")
        return features

    model.forward = broken
    with pytest.raises(FloatingPointError) as error:
        extract(cfg, model, images)
    message = str(error.value)
    assert f"the feature of {images.paths[3]} is not finite (2 of 72 features are not)" in message
    assert "SOLVER.BASE_LR" in message


def test_progress__prints_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), "features")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("flip", [False, True])
def test_lengths__are_the_norms_before_normalisation(flip: bool, images: UnlabelledImages) -> None:
    cfg, model = network(UNSUP__EXTRACT_FLIP=flip)
    unit = extract(cfg, model, images)
    assert unit.lengths is not None
    if not flip:  # the mean of two unit features is shorter
        np.testing.assert_allclose(unit.lengths, 1, atol=1e-5)
    forward = model.forward
    model.forward = lambda batch: 3 * forward(batch)
    longer = extract(cfg, model, images)
    np.testing.assert_allclose(longer.lengths, 3 * unit.lengths, rtol=1e-5)
    np.testing.assert_allclose(longer.features, unit.features, atol=1e-6)


def test_extraction_batches__have_the_indices_of_their_images(images: UnlabelledImages) -> None:
    cfg, model = network(TEST__IMS_PER_BATCH=16)
    seen: list[int] = []
    forward = model.forward

    def record(batch: Any) -> Any:
        seen.extend(batch["indices"].tolist())
        return forward(batch)

    model.forward = record
    extract(cfg, model, images)
    assert seen == list(range(72))
