"""Errors for invalid configs, key by key."""

from __future__ import annotations

import pytest

from tests.projects.SphereCluster.settings import BUC, CONFIGS, config
from unreid.config import load_config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"LINKAGE": "averge"}, "SPHERECLUSTER.LINKAGE must be one of .*did you mean 'average'"),
        ({"REGULARIZER": "ssw"}, "SPHERECLUSTER.REGULARIZER must be one of"),
        ({"LAMBDA": -0.1}, "SPHERECLUSTER.LAMBDA must be a number >= 0, got -0.1"),
        ({"UPDATE": "fast"}, "SPHERECLUSTER.UPDATE must be one of 'exact', 'pass'"),
        ({"PASS_RULE": "chain"}, "SPHERECLUSTER.PASS_RULE must be one of 'union', 'skip'"),
        ({"SCHEDULE": "once"}, "SPHERECLUSTER.SCHEDULE must be one of 'progressive', 'restart'"),
        ({"MERGE_RATE": 0.0}, "SPHERECLUSTER.MERGE_RATE must be a number > 0 and <= 1, got 0.0"),
        ({"PASSES": 0}, "SPHERECLUSTER.PASSES must be an integer >= 1, got 0"),
        ({"EPOCHS": 0}, "SPHERECLUSTER.EPOCHS must be an integer >= 1, got 0"),
        ({"CHOICE": "accuracy"}, "SPHERECLUSTER.CHOICE must be one of"),
        ({"DROPOUT": 1.0}, "SPHERECLUSTER.DROPOUT must be < 1"),
        ({"SPHERECLUSTER__REPELLED__START": "last"}, "REPELLED.START must be one of"),
        ({"SPHERECLUSTER__TRIPLET__ENABLED": False}, "at least one loss must be enabled"),
        ({"MODEL__HEADS__NAME": "NeckHead"}, "MODEL.HEADS.NAME must be 'SphereHead'"),
        ({"SCHEDULE": "progressive", "MIN_CLUSTER_SIZE": 2}, "MIN_CLUSTER_SIZE must be 1 with"),
        (
            {"SPHERECLUSTER__SOFTMAX__ENABLED": True, "MODEL__HEADS__NECK_FEAT": "before"},
            "MODEL.HEADS.NECK_FEAT must be 'after'",
        ),
        ({"SPHERE": False}, "TEST.METRIC must be 'euclidean' with SPHERECLUSTER.SPHERE False"),
        (
            {"SPHERE": False, "TEST__METRIC": "euclidean", "UNSUP__CENTER_CAMERAS": True},
            "UNSUP.CENTER_CAMERAS must be False with SPHERECLUSTER.SPHERE False",
        ),
    ],
)
def test_wrong_value__is_refused_by_its_key(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_predecessors__have_the_numbers_of_their_papers() -> None:
    read = ("LINKAGE", "REGULARIZER", "LAMBDA", "UPDATE", "SCHEDULE", "MERGE_RATE", "PASS_RULE")
    expected = {
        "buc": ["minimum", "size", 0.003, "pass", "progressive", 0.05, "union"],
        "dbc": ["average", "dispersion", 0.1, "pass", "progressive", 0.05, "skip"],
        "ecluster": ["energy", "none", 0.02, "pass", "progressive", 0.05, "union"],
        "hct": ["average", "none", 0.02, "pass", "restart", 0.07, "union"],
    }
    for name, values in expected.items():
        cfg, _ = load_config(
            f"{CONFIGS}/predecessors/{name}.yml", ["MODEL.BACKBONE.PRETRAIN", "False"]
        )
        assert [cfg.SPHERECLUSTER[key] for key in read] == values
    assert config(BUC).SPHERECLUSTER.REPELLED.START == "zero"


def test_small_recipes__cost_the_same_training() -> None:
    costs: dict[bool, set[tuple[object, ...]]] = {True: set(), False: set()}
    for path in sorted((CONFIGS / "small").glob("[a-z]*.yml")):
        cfg, _ = load_config(str(path), ["MODEL.BACKBONE.PRETRAIN", "False"])
        warm = path.name.startswith("uda_")  # starts from source-trained weights of another network
        costs[warm].add(
            (
                cfg.SOLVER.MAX_EPOCH,
                cfg.UNSUP.ITERS_PER_EPOCH,
                cfg.SOLVER.IMS_PER_BATCH,
                tuple(cfg.INPUT.SIZE_TRAIN),
                cfg.MODEL.BACKBONE.DEPTH,
            )
        )
    assert costs == {
        False: {(10, 60, 64, (128, 64), "0.35x")},
        True: {(10, 60, 64, (128, 64), "x0_25")},
    }
