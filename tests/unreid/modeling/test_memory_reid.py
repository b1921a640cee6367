"""MemoryReID: normalisation of images, loss, updates of the memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fastreid.modeling.meta_arch import build_model

from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.memory.cluster_memory import ClusterMemory
from unreid.modeling.ghost_norm import GhostBatchNorm2d
from unreid.structures import FeatureBank, PseudoLabels


def network(**settings: object) -> Any:
    torch.manual_seed(0)
    few = {"MODEL__META_ARCHITECTURE": "MemoryReID", "MODEL__GHOST_BN": 0, **settings}
    return build_model(load_tiny(BASELINE, **few)[0])


def batch(num: int = 4) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "images": 255 * torch.rand(num, 3, 64, 32, generator=generator),
        "targets": torch.arange(num) % 2,
        "camids": torch.zeros(num, dtype=torch.long),
        "indices": torch.arange(num),
        "img_paths": ["?"] * num,
    }


def tell(model: Any) -> np.ndarray:
    features = np.random.default_rng(0).normal(size=(6, 1280)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = np.array([0, 0, 1, 1, 1, -1])
    model.on_new_labels(PseudoLabels(labels), FeatureBank(features, np.zeros(6, np.int64)), 0)
    return features


def test_normalisation__does_not_change_the_batch() -> None:
    """Baseline of fast-reid normalises in place, so a second forward pass sees other images."""
    for mode in (True, False):
        model = network().train(mode)
        tell(model)
        given = batch()
        kept = given["images"].clone()
        model(given)
        assert torch.equal(given["images"], kept)
        assert set(given) == {"images", "targets", "camids", "indices", "img_paths"}


def test_second_forward_pass__on_one_batch_gives_the_same_features() -> None:
    model, given = network().eval(), batch()
    assert torch.equal(model(given), model(given))


def test_features_of_a_flipped_batch__equal_those_of_flipped_images() -> None:
    """As with TEST.FLIP: the same batch, flipped, after a first forward pass."""
    model, given = network().eval(), batch()
    expected = model({"images": given["images"].flip(3).clone()})
    model(given)
    given["images"] = given["images"].flip(3)
    torch.testing.assert_close(model(given), expected)


def test_normalized__subtracts_the_mean_and_divides_by_the_deviation() -> None:
    model = network(MODEL__PIXEL_MEAN="[10.0, 20.0, 30.0]", MODEL__PIXEL_STD="[2.0, 4.0, 5.0]")
    pixel = torch.tensor([12.0, 16.0, 40.0]).view(1, 3, 1, 1)
    assert model.normalized(pixel).flatten().tolist() == [1.0, -1.0, 2.0]


def test_loss__is_the_cross_entropy_against_the_cluster_means() -> None:
    model = network().train()
    features = tell(model)
    means = np.stack([features[:2].mean(0), features[2:5].mean(0)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(model.memory.centroids.numpy(), means, atol=1e-6)
    given = batch()
    losses, (features, targets) = model(given)
    assert torch.equal(targets, given["targets"]) and not features.requires_grad
    loss = losses["loss_memory"]
    logits = features @ torch.from_numpy(means).t() / 0.05
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, given["targets"]))


def test_forward__stores_nothing_of_the_batch_and_does_not_change_the_memory() -> None:
    model = network().train()
    tell(model)
    attributes = dict(vars(model))
    before = model.memory.centroids.clone()
    output = model(batch())
    assert vars(model) == attributes
    assert torch.equal(model.memory.centroids, before)
    model.update_memory(output.memory_update)
    moved = model.memory.centroids.clone()
    assert not torch.equal(moved, before)
    expected = ClusterMemory(model.memory.num_features, momentum=model.memory.momentum)
    expected.reset(before)
    expected.update(*output.memory_update)
    assert torch.equal(expected.centroids, moved)


def test_new_labels__of_another_number_of_clusters_replace_the_memory() -> None:
    model = network()
    tell(model)
    features = np.eye(7, 1280, dtype=np.float32)
    bank = FeatureBank(features, np.zeros(7, np.int64))
    model.on_new_labels(PseudoLabels(np.arange(7)), bank, 1)
    np.testing.assert_allclose(model.memory.centroids.numpy(), features)


@pytest.mark.parametrize("group", [0, 2])
def test_ghost_bn__is_used_in_backbone_and_neck(group: int) -> None:
    model = network(MODEL__GHOST_BN=group)
    kinds = {type(m) for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert (GhostBatchNorm2d in kinds) == bool(group)
    if group:
        assert kinds == {GhostBatchNorm2d}
        assert isinstance(model.heads.bottleneck[-1], GhostBatchNorm2d)


def test_features__are_unit_rows_in_both_modes() -> None:
    model = network()
    tell(model)
    torch.testing.assert_close(model.eval()(batch()).norm(dim=1), torch.ones(4))
    features, _ = model.train()(batch()).memory_update
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4))
