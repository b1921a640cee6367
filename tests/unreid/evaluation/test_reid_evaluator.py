"""The evaluator against fast-reid's own (its Python version)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.evaluation import ReidEvaluator
from fastreid.utils import compute_dist

from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.engine.trainer import describe_test_settings
from unreid.evaluation.reid_evaluator import UnsupervisedEvaluator
from unreid.graph.centering import camera_means, subtract_means

QUERY, GALLERY, PEOPLE, CAMERAS = 24, 160, 8, 4


class Stock(ReidEvaluator):
    """fast-reid's evaluator without compilation, which would write into site-packages."""

    def _compile_dependencies(self) -> None:
        pass


@pytest.fixture
def jaccard_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run fast-reid's re-ranking distance on the CPU; fast-reid requires a GPU for it."""
    real = compute_dist.compute_jaccard_distance

    @functools.wraps(real)
    def on_cpu(features: Any, k1: int, k2: int, *args: Any, **kwargs: Any) -> Any:
        return real(features, k1=k1, k2=k2, search_option=3)

    monkeypatch.setattr(compute_dist, "compute_jaccard_distance", on_cpu)
    yield


def predictions(scale: bool = True) -> list[dict[str, torch.Tensor]]:
    """Return clustered features of people and cameras; with ``scale``, rows are not unit rows."""
    rng = np.random.default_rng(5)
    num = QUERY + GALLERY
    pids, camids = rng.integers(0, PEOPLE, num), rng.integers(0, CAMERAS, num)
    features = (
        rng.normal(size=(PEOPLE, 16))[pids]
        + 1.5 * rng.normal(size=(CAMERAS, 16))[camids]
        + rng.normal(size=(num, 16))
    )
    tensor = torch.from_numpy(features).float()
    tensor = tensor * torch.rand(num, 1).add(0.5) if scale else F.normalize(tensor)
    return [{"feats": tensor, "pids": torch.from_numpy(pids), "camids": torch.from_numpy(camids)}]


def score(kind: type, given: list[dict[str, torch.Tensor]], **settings: object) -> dict[str, float]:
    cfg, _ = load_tiny(BASELINE, **settings)
    evaluator = kind(cfg, QUERY)
    evaluator._predictions = given
    return dict(evaluator.evaluate())


@pytest.mark.parametrize(
    "settings",
    [
        {"TEST__METRIC": "cosine"},
        {"TEST__METRIC": "euclidean"},
        {"TEST__AQE__ENABLED": True},
        {"TEST__AQE__ENABLED": True, "TEST__AQE__QE_TIME": 2, "TEST__AQE__ALPHA": 1.0},
        {"TEST__ROC__ENABLED": True},
        {"TEST__METRIC": "euclidean", "TEST__ROC__ENABLED": True},
    ],
    ids=lambda s: " ".join(f"{k.removeprefix('TEST__')}={v}" for k, v in s.items()),
)
def test_scores__equal_those_of_fastreid(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    given = predictions()
    ours, theirs = (score(k, given, **settings) for k in (UnsupervisedEvaluator, Stock))
    assert ours.keys() == theirs.keys()
    assert 5 < ours["mAP"] < 95
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(float(value), abs=2e-4), key


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_reranked_scores__equal_those_of_fastreid(
    metric: str, share: float, jaccard_on_a_cpu: None
) -> None:
    given = predictions(scale=False)
    settings = {
        "TEST__RERANK__ENABLED": True,
        "TEST__METRIC": metric,
        "TEST__RERANK__LAMBDA": share,
    }
    ours, theirs = (score(k, given, **settings) for k in (UnsupervisedEvaluator, Stock))
    plain = score(UnsupervisedEvaluator, given, TEST__METRIC=metric)
    assert abs(ours["mAP"] - plain["mAP"]) > 1, "re-ranking was done"
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(float(value), abs=0.02), key


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("flip", [False, True])
def test_reranked_scores__equal_those_of_fastreid_on_features_that_are_no_unit_rows(
    metric: str, flip: bool, jaccard_on_a_cpu: None
) -> None:
    """Features with rows of any norm, and means of two unit rows as with ``TEST.FLIP``."""
    torch.manual_seed(0)
    given = predictions()
    if flip:
        features = given[0]["feats"]
        mirrored = F.normalize(features) + F.normalize(features + 2 * torch.randn_like(features))
        given[0]["feats"] = mirrored / 2
    lengths = given[0]["feats"].norm(dim=1)
    assert lengths.max() > 1.2 * lengths.min()
    settings = {"TEST__RERANK__ENABLED": True, "TEST__METRIC": metric}
    ours, theirs = (score(k, given, **settings) for k in (UnsupervisedEvaluator, Stock))
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(float(value), abs=0.02), key
    if metric == "euclidean":
        unit = [{**given[0], "feats": F.normalize(given[0]["feats"])}]
        normalised = score(Stock, unit, **settings)
        assert abs(normalised["mAP"] - theirs["mAP"]) > 0.2, "the lengths of the rows matter"


def test_scores__do_not_depend_on_the_batch_size() -> None:
    whole = predictions()[0]
    parts = [{k: v[i : i + 7] for k, v in whole.items()} for i in range(0, QUERY + GALLERY, 7)]
    every = {
        "TEST__AQE__ENABLED": True,
        "TEST__RERANK__ENABLED": True,
        "TEST__CENTER_CAMERAS": True,
        "TEST__ROC__ENABLED": True,
    }
    assert score(UnsupervisedEvaluator, [whole], **every) == score(
        UnsupervisedEvaluator, parts, **every
    )


def test_centring__uses_gallery_means_and_is_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = predictions()
    logging.getLogger("fastreid").propagate = True
    with caplog.at_level(logging.INFO):
        centred = score(UnsupervisedEvaluator, given, TEST__CENTER_CAMERAS=True)
    assert "TEST.CENTER_CAMERAS" in caplog.text
    features = F.normalize(given[0]["feats"]).numpy()
    camids = given[0]["camids"].numpy()
    means = camera_means(features[QUERY:], camids[QUERY:], CAMERAS)
    by_hand = torch.from_numpy(subtract_means(features, camids, means))
    expected = score(UnsupervisedEvaluator, [{**given[0], "feats": by_hand}])
    assert centred == pytest.approx(expected, abs=1e-3)
    assert centred["mAP"] > score(UnsupervisedEvaluator, given)["mAP"] + 2


def test_centring__accepts_any_camera_numbers_and_a_query_camera_without_gallery_images() -> None:
    given = predictions()[0]
    renamed = {**given, "camids": given["camids"] * 10 - 7}
    settings = {"TEST__CENTER_CAMERAS": True}
    assert score(UnsupervisedEvaluator, [renamed], **settings) == score(
        UnsupervisedEvaluator, [given], **settings
    )
    unseen = given["camids"].clone()
    unseen[:QUERY] = 99
    assert score(UnsupervisedEvaluator, [{**given, "camids": unseen}], **settings)["mAP"] > 0


def test_evaluation__does_not_change_the_predictions() -> None:
    given = predictions()
    kept = {k: v.clone() for k, v in given[0].items()}
    score(UnsupervisedEvaluator, given, TEST__CENTER_CAMERAS=True, TEST__AQE__ENABLED=True)
    assert all(torch.equal(kept[k], given[0][k]) for k in kept)


def test_describe_test_settings__names_enabled_settings() -> None:
    plain, _ = load_tiny(BASELINE)
    assert describe_test_settings(plain) == ""
    cfg, _ = load_tiny(BASELINE, TEST__CENTER_CAMERAS=True, TEST__RERANK__ENABLED=True)
    assert describe_test_settings(cfg) == " (TEST.CENTER_CAMERAS, TEST.RERANK)"
