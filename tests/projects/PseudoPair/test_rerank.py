"""Re-ranking of the top K by aligned feature maps: ranks that change or stay, and log messages."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from yacs.config import CfgNode

from pseudopair import rerank
from pseudopair.rerank import PairEvaluator, build_evaluator, mixed_order, nearest_columns
from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.engine.score import score as engine_score
from unreid.engine.trainer import UnsupervisedTrainer
from unreid.evaluation.rank import evaluate_rank
from unreid.evaluation.reid_evaluator import UnsupervisedEvaluator

QUERY, GALLERY, PEOPLE = 12, 70, 6


class FakeModel(nn.Module):
    """Model whose feature map is the image; the pair similarity is the cosine of two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []
        self.sizes: list[int] = []

    def pair_maps(self, images: Tensor) -> Tensor:
        return images / 16

    def pair_similarity(self, maps_i: Tensor, maps_j: Tensor) -> Tensor:
        self.modes.append(self.training)
        self.sizes.append(len(maps_i))
        return F.cosine_similarity(maps_i.flatten(1), maps_j.flatten(1))


def batches(size: int = 20) -> list[tuple[dict[str, Any], Tensor]]:
    """Return batches whose features identify the person weakly, and whose images do so strongly."""
    rng = np.random.default_rng(3)
    num = QUERY + GALLERY
    pids, camids = rng.integers(0, PEOPLE, num), rng.integers(0, 3, num)
    features = rng.normal(size=(PEOPLE, 10))[pids] + 2.0 * rng.normal(size=(num, 10))
    images = rng.normal(size=(PEOPLE, 3, 4, 2))[pids] + 0.5 * rng.normal(size=(num, 3, 4, 2))
    unit = F.normalize(torch.from_numpy(features).float())
    whole = {
        "images": torch.from_numpy(images).float(),
        "targets": torch.from_numpy(pids),
        "camids": torch.from_numpy(camids),
    }
    return [
        ({k: v[i : i + size] for k, v in whole.items()}, unit[i : i + size])
        for i in range(0, num, size)
    ]


def score(
    evaluator: UnsupervisedEvaluator, given: Sequence[tuple[dict[str, Any], Tensor]]
) -> dict[str, float]:
    evaluator.reset()
    for inputs, outputs in given:
        evaluator.process(inputs, outputs)
    return dict(evaluator.evaluate())


def pair_evaluator(top_k: int = 20, weight: float = 0.5, **settings: object) -> PairEvaluator:
    cfg, _ = load_tiny(BASELINE, **settings)
    return PairEvaluator(cfg, QUERY, FakeModel(), top_k=top_k, weight=weight)


class Loader(list[dict[str, Any]]):
    """Minimal loader for fast-reid: batches, and a dataset with the number of images."""

    dataset = range(QUERY + GALLERY)


class OneSidedModel(FakeModel):
    """Model whose maps weight the left half of an image less, so that a flip changes them."""

    def pair_maps(self, images: Tensor) -> Tensor:
        return images * torch.linspace(0.1, 1.0, images.shape[3]) / 16

    def forward(self, batch: dict[str, Any]) -> Tensor:
        return F.normalize(batch["images"].flatten(1))


@pytest.mark.parametrize("flip", [False, True])
def test_flip__averages_the_maps_of_an_image_and_of_its_mirror_image(flip: bool) -> None:
    cfg, _ = load_tiny(BASELINE, TEST__FLIP__ENABLED=flip)
    model = OneSidedModel().eval()
    evaluator = PairEvaluator(cfg, QUERY, model, top_k=20, weight=0.5)
    images = torch.cat([batch["images"] for batch, _ in batches()])
    found = engine_score(model, Loader(batch for batch, _ in batches()), evaluator, flip=flip)
    left, right = model.pair_maps(images), model.pair_maps(images.flip(3)).flip(3)
    wanted = (left + right) / 2 if flip else left
    torch.testing.assert_close(torch.cat(evaluator._maps).float(), wanted, atol=2e-3, rtol=2e-3)
    assert np.isfinite(found["mAP"])


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 30),
    k=st.integers(1, 40),
    ties=st.booleans(),
    seed=st.integers(0, 99),
)
def test_nearest_columns__equal_a_stable_sort(
    rows: int, columns: int, k: int, ties: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, 4, (rows, columns)) * 1.0 if ties else rng.random((rows, columns))
    wanted = np.argsort(distances, axis=1, kind="stable")[:, :k]
    assert (nearest_columns(distances, k) == wanted).all()


@given(
    rows=st.integers(1, 5), k=st.integers(1, 12), weight=st.floats(0, 1), seed=st.integers(0, 99)
)
def test_mixed_order__equals_sorting_each_row_by_the_formula(
    rows: int, k: int, weight: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    near, s = np.sort(rng.random((rows, k)), axis=1), rng.uniform(-1, 1, (rows, k))
    for row, order in enumerate(mixed_order(near, s, weight)):
        key = [(1 - weight) * near[row, i] + weight * (1 - s[row, i]) for i in range(k)]
        assert order.tolist() == sorted(range(k), key=lambda i: (key[i], i))


def test_weight_zero__leaves_every_rank_even_where_tied() -> None:
    near = np.array([[0.1, 0.1, 0.4, 0.4]])
    assert mixed_order(near, np.array([[0.0, 1.0, -1.0, 0.5]]), 0.0).tolist() == [[0, 1, 2, 3]]


def test_weight_one__ranks_by_the_pair_alone() -> None:
    near = np.array([[0.1, 0.2, 0.3]])
    assert mixed_order(near, np.array([[0.0, 0.9, 0.5]]), 1.0).tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("settings", [{}, {"TEST__AQE__ENABLED": True},
                                      {"TEST__RERANK__ENABLED": True},
                                      {"TEST__CENTER_CAMERAS": True},
                                      {"TEST__METRIC": "euclidean"}])  # fmt: skip
def test_weight_zero__scores_as_without_reranking(settings: dict[str, object]) -> None:
    cfg, _ = load_tiny(BASELINE, **settings)
    plain = score(UnsupervisedEvaluator(cfg, QUERY), batches())
    found = score(pair_evaluator(weight=0.0, **settings), batches())
    for key, value in plain.items():
        assert found[key] == pytest.approx(value, abs=1e-4), key
    assert found["plain mAP"] == pytest.approx(plain["mAP"])


def test_scores__equal_those_of_a_slow_loop() -> None:
    top_k, weight = 15, 0.4
    given = batches()
    features = torch.cat([f for _, f in given]).numpy()
    images, pids, camids = (
        torch.cat([b[k] for b, _ in given]).numpy() for k in ("images", "targets", "camids")
    )
    flat = (images / 16).reshape(len(images), -1)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    ranked = np.empty((QUERY, GALLERY), dtype=np.float32)
    for q in range(QUERY):
        near = 1 - features[QUERY:] @ features[q]
        order = np.argsort(near, kind="stable").tolist()
        mixed = (1 - weight) * near + weight * (1 - flat[QUERY:] @ flat[q])
        first = sorted(order[:top_k], key=lambda g, mixed=mixed: mixed[g])
        for rank, g in enumerate(first + order[top_k:]):
            ranked[q, g] = rank
    cmc, precision, penalty = evaluate_rank(
        ranked, pids[:QUERY], pids[QUERY:], camids[:QUERY], camids[QUERY:]
    )
    found = score(pair_evaluator(top_k, weight), given)
    assert found["mAP"] == pytest.approx(100 * precision.mean(), abs=1e-3)
    assert found["mINP"] == pytest.approx(100 * penalty.mean(), abs=1e-3)
    assert found["Rank-1"] == pytest.approx(100 * cmc[0])
    assert found["mAP"] > found["plain mAP"] + 1, "the images know more than the features"


def test_ranks_below_k__keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    honest = evaluate_rank

    def watch(distances: np.ndarray, *ids: Any) -> Any:
        seen.append(distances.copy())
        return honest(distances, *ids)

    monkeypatch.setattr(rerank, "evaluate_rank", watch)
    evaluator = pair_evaluator(10, 0.9)
    score(evaluator, batches())
    before, _ = evaluator._plain()
    orders = [np.argsort(d, axis=1, kind="stable") for d in (before, seen[0])]
    assert (orders[0][:, 10:] == orders[1][:, 10:]).all()
    assert (np.sort(orders[0][:, :10]) == np.sort(orders[1][:, :10])).all()
    assert (orders[0] != orders[1]).any()
    assert (np.sort(before, axis=1) == np.sort(seen[0], axis=1)).all()


def test_k_beyond_the_gallery__reranks_all_of_it() -> None:
    assert score(pair_evaluator(10_000), batches()) == score(pair_evaluator(GALLERY), batches())


def test_batches__change_nothing_but_what_is_held_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = score(pair_evaluator(), batches(len(batches(1))))
    monkeypatch.setattr(rerank, "PAIRS_AT_ONCE", 7)
    evaluator = pair_evaluator()
    assert score(evaluator, batches(9)) == pytest.approx(whole)
    sizes = evaluator._model.sizes  # type: ignore[attr-defined]
    assert max(sizes) == 7 and sum(sizes) == QUERY * 20


def test_maps__are_float16_and_forgotten_by_reset() -> None:
    evaluator = pair_evaluator()
    score(evaluator, batches())
    assert [m.dtype for m in evaluator._maps] == [torch.float16]
    evaluator.reset()
    assert evaluator._maps == []


@pytest.mark.parametrize("training", [True, False])
def test_model__compares_in_eval_mode_and_is_left_as_it_was(training: bool) -> None:
    evaluator = pair_evaluator()
    model = evaluator._model
    model.train(training)
    score(evaluator, batches())
    assert model.training is training
    assert set(model.modes) == {False}  # type: ignore[attr-defined]


def test_log__states_memory_progress_cost_and_gain(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerank, "LOG_SECONDS", -1.0)
    logging.getLogger("fastreid").propagate = True
    with caplog.at_level(logging.INFO):
        score(pair_evaluator(), batches())
    for words in (
        "82 x 3 x 4 x 2 in float16",
        "240/240 pairs. ETA=0:00:00",
        "ms per query",
        "PSEUDOPAIR.RERANK (top 20, weight 0.5",
    ):
        assert words in caplog.text


def test_tracklets__are_refused() -> None:
    given = [
        ({**inputs, "tracklets": torch.arange(len(features)) // 2 + 6 * i}, features)
        for i, (inputs, features) in enumerate(batches(12))
    ]
    with pytest.raises(RuntimeError, match=r"PSEUDOPAIR\.RERANK must be off for tracklets"):
        score(pair_evaluator(), given)


def test_similarities_that_are_no_numbers__are_an_error() -> None:
    evaluator = pair_evaluator()
    evaluator._model.pair_similarity = (  # type: ignore[method-assign]
        lambda i, j: torch.full((len(i),), float("nan"))
    )
    with pytest.raises(ValueError, match="similarities must be finite"):
        score(evaluator, batches())


@pytest.mark.parametrize(("given", "words"), [
    ({"top_k": 0}, r"PSEUDOPAIR\.RERANK\.TOP_K must be an integer >= 1, got 0"),
    ({"weight": 1.5}, r"PSEUDOPAIR\.RERANK\.WEIGHT must be a number >= 0.0 and <= 1.0, got 1.5"),
])  # fmt: skip
def test_settings_out_of_range__are_refused(given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pair_evaluator(**given)


def test_config__chooses_the_evaluator() -> None:
    cfg, _ = load_tiny(BASELINE)
    for enabled, kind in ((False, UnsupervisedEvaluator), (True, PairEvaluator)):
        with_keys = CfgNode(
            {**cfg, "PSEUDOPAIR": {"RERANK": {"ENABLED": enabled, "TOP_K": 7, "WEIGHT": 0.3}}}
        )
        assert type(build_evaluator(with_keys, QUERY, FakeModel())) is kind


def test_evaluation_of_a_model__reranks_by_its_own_aligner(synthetic_root: Path) -> None:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    config = Path("projects/PseudoPair/configs/synthetic.yml")
    found = {}
    for weight in (None, 0.0, 0.7):
        cfg, _ = load_tiny(
            config,
            PSEUDOPAIR__RERANK__ENABLED=weight is not None,
            PSEUDOPAIR__RERANK__WEIGHT=weight or 0.0,
            PSEUDOPAIR__RERANK__TOP_K=10,
        )
        torch.manual_seed(0)
        model = UnsupervisedTrainer.build_model(cfg)
        found[weight] = UnsupervisedTrainer.test(cfg, model)
    assert "plain mAP" not in found[None]
    for name, value in found[None].items():
        assert found[0.0][name] == pytest.approx(value, abs=1e-4), name
    assert found[0.7]["plain mAP"] == pytest.approx(found[None]["mAP"])
    assert abs(found[0.7]["mAP"] - found[None]["mAP"]) > 0.01, "re-ranking was done"
