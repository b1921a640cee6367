"""Feature transforms: selection and order by the config, and their results."""

from __future__ import annotations

import numpy as np
import pytest

from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.graph.centering import center_cameras
from unreid.graph.smoothing import smooth_mutual
from unreid.graph.whitening import whiten_cameras
from unreid.labels.neighbours import Search
from unreid.labels.transforms import (
    CenterCameras,
    SmoothNeighbours,
    WhitenCameras,
    apply_transforms,
    transforms_from_config,
)
from unreid.structures import FeatureBank


@pytest.fixture
def bank(rng: np.random.Generator) -> FeatureBank:
    rows = rng.normal(size=(40, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return FeatureBank(rows, rng.integers(0, 3, 40))


def kinds(**settings: object) -> list[type]:
    cfg, _ = load_tiny(BASELINE, **settings)
    return [type(t) for t in transforms_from_config(cfg, Search())]


def test_config__determines_the_transforms_and_their_order() -> None:
    assert kinds() == []
    assert kinds(UNSUP__CENTER_CAMERAS=True) == [CenterCameras]
    assert kinds(
        UNSUP__CENTER_CAMERAS=True, UNSUP__WHITEN_CAMERAS=0.3, UNSUP__SMOOTH_NEIGHBOURS=3
    ) == [WhitenCameras, SmoothNeighbours]
    cfg, _ = load_tiny(BASELINE, UNSUP__CENTER_CAMERAS=True, UNSUP__WHITEN_CAMERAS=0.3)
    assert transforms_from_config(cfg, Search(), center=False) == ()
    plain, _ = load_tiny(BASELINE, UNSUP__CENTER_SHRINKAGE=2.0)
    assert transforms_from_config(plain, Search(), center=True) == (CenterCameras(2.0),)


def test_transforms__equal_their_functions(bank: FeatureBank) -> None:
    centred = CenterCameras(2.0)(bank)
    np.testing.assert_array_equal(centred.features, center_cameras(bank.features, bank.camids, 2.0))
    whitened = WhitenCameras(0.3, 2.0)(bank)
    np.testing.assert_array_equal(
        whitened.features, whiten_cameras(bank.features, bank.camids, power=0.3, mean_shrinkage=2.0)
    )
    both = apply_transforms(bank, [WhitenCameras(0.3, 2.0), SmoothNeighbours(4, Search())])
    np.testing.assert_array_equal(both.features, smooth_mutual(whitened.features, 4))
    np.testing.assert_array_equal(both.camids, bank.camids)
    assert apply_transforms(bank, []) is bank
