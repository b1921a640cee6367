"""CALR's network: when alignment and entropy weights are active, and the values of its losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.modeling.meta_arch import build_model

from calr.adversary import dann_factor
from calr.meta_arch import CALR
from calr.weights import cluster_weights
from tests.projects.tiny_run import MARKET, load_tiny
from unreid.engine.run import with_dataset_size
from unreid.structures import FeatureBank, PseudoLabels

LABELS = np.array([0, 0, 1, 1, 2, 2, -1, -1])
CAMIDS = np.array([0, 1, 0, 0, 1, 2, 0, 1])


def network(**settings: object) -> CALR:
    cfg, _ = load_tiny(MARKET, **{"MODEL__GHOST_BN": 0, **settings})
    torch.manual_seed(0)
    return build_model(with_dataset_size(cfg, num_cameras=3, num_images=0))


def tell(model: CALR, epoch: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(8, model.heads.num_features)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    model.on_new_labels(PseudoLabels(LABELS), FeatureBank(features, CAMIDS), epoch)


def batch(targets: list[int], camids: list[int]) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "images": 255 * torch.rand(len(targets), 3, 64, 32, generator=generator),
        "targets": torch.tensor(targets),
        "camids": torch.tensor(camids),
        "indices": torch.arange(len(targets)),
        "img_paths": ["?"] * len(targets),
    }


@pytest.mark.parametrize(
    ("start", "end", "on"),
    [(0, -1, [0, 1, 2, 3]), (0, 3, [0, 1, 2]), (1, 2, [1]), (2, -1, [2, 3]), (0, 0, [])],
)
def test_alignment__is_on_only_in_its_epochs(start: int, end: int, on: list[int]) -> None:
    model = network(CALR__ADVERSARY__START_EPOCH=start, CALR__ADVERSARY__END_EPOCH=end)
    model.train()
    for epoch in range(4):
        tell(model, epoch)
        losses = model(batch([0, 0, 1, 1], [0, 1, 0, 0])).losses
        assert ("loss_camera" in losses) == (epoch in on)


def test_alignment__off_has_no_discriminator() -> None:
    model = network(CALR__ADVERSARY__ENABLED=False)
    tell(model, 0)
    assert model.adversary is None and not model.aligns_cameras


def test_dann_schedule__grows_with_the_epochs() -> None:
    model = network(
        CALR__ADVERSARY__SCHEDULE="dann", CALR__ADVERSARY__FACTOR=0.5, SOLVER__MAX_EPOCH=4
    )
    factors = []
    for epoch in range(4):
        tell(model, epoch)
        factors.append(model.factor)
    assert factors == pytest.approx([0.5 * dann_factor(e / 4) for e in range(4)])
    constant = network(CALR__ADVERSARY__FACTOR=0.5)
    tell(constant, 1)
    assert constant.factor == 0.5


@pytest.mark.parametrize("twice", [False, True])
def test_softmax_twice__reaches_the_discriminator(twice: bool) -> None:
    model = network(CALR__ADVERSARY__SOFTMAX_TWICE=twice)
    assert model.adversary is not None and model.adversary.softmax_twice == twice


@pytest.mark.parametrize(
    ("config", "twice"),
    [
        *(
            (name, True)
            for name in ("market", "duke", "msmt17", "veri", "market_ibn", "market_ibn_gem")
        ),
        *((name, False) for name in ("market_plus", "small/calr", "small/plus", "synthetic")),
    ],
)
def test_softmax_twice__is_on_in_the_configs_that_reproduce_the_paper(
    config: str, twice: bool
) -> None:
    cfg, _ = load_tiny(Path(f"projects/CALR/configs/{config}.yml"))
    assert cfg.CALR.ADVERSARY.SOFTMAX_TWICE is twice


def test_weights__begin_in_their_epoch() -> None:
    model = network(CALR__WEIGHTS__START_EPOCH=2)
    for epoch in range(4):
        tell(model, epoch)
        assert (model.cluster_weights is not None) == (epoch >= 2)
    torch.testing.assert_close(model.cluster_weights.numpy(), cluster_weights(LABELS, CAMIDS))
    never = network(CALR__WEIGHTS__ENABLED=False)
    tell(never, 50)
    assert never.cluster_weights is None


def test_loss__is_the_weighted_cross_entropy_against_the_memory() -> None:
    model = network(CALR__ADVERSARY__ENABLED=False).train()
    tell(model, 0)
    given = batch([0, 0, 2, 1], [0, 1, 1, 0])
    losses, (features, _) = model(given)
    loss = losses["loss_inter"]
    logits = features @ model.memory.centroids.t() / 0.05
    each = torch.nn.functional.cross_entropy(logits, given["targets"], reduction="none")
    weights = torch.from_numpy(cluster_weights(LABELS, CAMIDS))[given["targets"]]
    torch.testing.assert_close(loss, (weights * each).sum() / weights.sum())


def test_batch_of_single_camera_clusters__costs_zero_and_can_be_stepped() -> None:
    model = network(CALR__ADVERSARY__ENABLED=False).train()
    tell(model, 0)
    losses = model(batch([1, 1, 1, 1], [0, 0, 0, 0])).losses
    assert losses["loss_inter"].item() == 0.0
    losses["loss_inter"].backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


def test_gradient__of_the_alignment_is_reversed_for_features_only() -> None:
    """The factor changes the sign of the backbone's gradient of loss_camera, not of the head's."""
    grads = []
    for factor in (1.0, 0.0):
        model = network(CALR__ADVERSARY__FACTOR=factor).train()
        tell(model, 0)
        torch.manual_seed(1)
        model(batch([0, 0, 1, 1], [0, 1, 0, 2])).losses["loss_camera"].backward()
        grads.append(
            (
                model.adversary.discriminator[0].weight.grad.clone(),
                next(model.backbone.parameters()).grad.clone(),
            )
        )
    torch.testing.assert_close(grads[0][0], grads[1][0])
    assert grads[0][1].abs().sum() > 0 and grads[1][1].abs().sum() == 0


def test_evaluation__gives_unit_features_and_needs_no_camera_count() -> None:
    cfg, _ = load_tiny(MARKET)
    model = build_model(cfg).eval()
    assert model.adversary is None
    features = model(batch([0, 0], [0, 0]))
    assert features.shape == (2, model.heads.num_features)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
