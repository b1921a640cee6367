"""The head: with and without normalisation, and the prefix of class directions in use."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fastreid.modeling.heads import build_heads
from torch import Tensor

from spherecluster.sphere_head import SphereClasses, SphereHead
from tests.projects.SphereCluster.settings import config
from unreid.engine.run import with_dataset_size
from unreid.losses import sphere_softmax


def head(images: int = 0, **settings: object) -> SphereHead:
    torch.manual_seed(0)
    return build_heads(with_dataset_size(config(**settings), num_cameras=1, num_images=images))


def maps(seed: int = 0) -> Tensor:
    return torch.rand(6, 1280, 2, 1, generator=torch.Generator().manual_seed(seed))


def unit(rows: int, channels: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, channels, generator=generator))


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_sphere__on_gives_unit_rows_and_off_keeps_lengths(mode: bool) -> None:
    on = head().train(mode)(maps())
    off = head(SPHERE=False, TEST__METRIC="euclidean").train(mode)(maps())
    torch.testing.assert_close(on.norm(dim=1), torch.ones(6))
    assert off.norm(dim=1).std() > 1e-3
    torch.testing.assert_close(torch.nn.functional.normalize(off), on)


def test_sphere__drops_brightness() -> None:
    """Without a neck a brighter image has a longer feature vector with the same direction."""
    plain = head(MODEL__HEADS__WITH_BNNECK=False).eval()
    torch.testing.assert_close(plain(maps()), plain(3.0 * maps()))


def test_dropout__comes_after_the_sphere_and_in_training_only() -> None:
    dropping = head(DROPOUT=0.5)
    torch.testing.assert_close(dropping.eval()(maps()).norm(dim=1), torch.ones(6))
    trained = dropping.train()(maps())
    kept = head().train()(maps())
    zero = trained == 0
    assert 0.4 < zero.float().mean() < 0.6
    torch.testing.assert_close(trained[~zero], 2.0 * kept[~zero])


def test_neck_feat_before__evaluates_what_was_pooled_and_trains_the_embedding() -> None:
    buc = head(MODEL__HEADS__EMBEDDING_DIM=32, MODEL__HEADS__NECK_FEAT="before")
    pooled = torch.nn.functional.normalize(maps().mean(dim=(2, 3)))
    torch.testing.assert_close(buc.eval()(maps()), pooled)
    assert buc.train()(maps()).shape == (6, 32)
    assert buc.num_features == 32


def test_capacity__is_what_the_schedule_needs_and_only_with_the_softmax() -> None:
    assert head(100).classes is None
    soft = {"SOFTMAX__ENABLED": True}
    soft = {f"SPHERECLUSTER__{k}": v for k, v in soft.items()}
    assert len(head(100, MERGE_RATE=0.1, PASSES=5, **soft).classes.weight) == 50
    assert len(head(100, SCHEDULE="progressive", **soft).classes.weight) == 100
    assert len(head(0, **soft).classes.weight) == 0


def test_loss__is_the_softmax_over_the_prefix_alone() -> None:
    classes = SphereClasses(9, 4, scale=14.0)
    with torch.no_grad():
        classes.weight.copy_(100 * unit(9, seed=1))
    classes.reset(unit(3, seed=2))
    targets = torch.tensor([0, 2, 1])
    torch.testing.assert_close(
        classes(unit(3), targets), sphere_softmax(unit(3), unit(3, seed=2), targets, 14.0)
    )
    with pytest.raises(ValueError, match=r"targets must be in 0\.\.2, got 3"):
        classes(unit(1), torch.tensor([3]))


def test_parameter__is_the_same_object_however_often_the_prefix_shrinks() -> None:
    classes = SphereClasses(9, 4)
    parameter, place = classes.weight, classes.weight.data_ptr()
    for count in (9, 6, 2):
        classes.reset(unit(count, seed=count))
        assert classes.weight is parameter and classes.weight.data_ptr() == place
        assert int(classes.active) == count
        torch.testing.assert_close(classes.weight[:count].detach(), unit(count, seed=count))
        assert not classes.weight[count:].any()


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_rows_out_of_use__stay_zero_under_weight_decay(optimizer: str) -> None:
    classes = SphereClasses(5, 4)
    classes.reset(unit(2))
    kind: Any = getattr(torch.optim, optimizer)
    steps = kind(classes.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        steps.zero_grad()
        classes(unit(4), torch.tensor([0, 1, 0, 1])).backward()
        steps.step()
    assert not classes.weight[2:].any()
    assert not torch.equal(classes.weight[:2].detach(), unit(2))


def test_more_clusters_than_rows__are_refused() -> None:
    with pytest.raises(RuntimeError, match="got 4 clusters, but the head has only 3 class weights"):
        SphereClasses(3, 4).reset(unit(4))


def test_state__inside_a_round_is_loaded_with_its_prefix() -> None:
    saved, fresh = SphereClasses(5, 4), SphereClasses(5, 4)
    saved.reset(unit(3))
    parameter = fresh.weight
    fresh.load_state_dict(saved.state_dict())
    assert fresh.weight is parameter and int(fresh.active) == 3
    targets = torch.tensor([0, 1, 2])
    assert torch.equal(saved(unit(3), targets), fresh(unit(3), targets))


def test_state__of_any_size_is_loaded_for_evaluation() -> None:
    saved, evaluation = SphereClasses(5, 4), SphereClasses(0, 4)
    saved.reset(unit(3))
    evaluation.load_state_dict(saved.state_dict())
    assert torch.equal(evaluation.weight, saved.weight)


def test_state__of_another_training_set_leaves_the_classes_alone() -> None:
    saved, own = SphereClasses(5, 4), SphereClasses(7, 4)
    saved.reset(unit(3))
    own.reset(unit(6))
    own.load_state_dict(saved.state_dict(), strict=False)
    assert own.weight.shape == (7, 4) and int(own.active) == 6
