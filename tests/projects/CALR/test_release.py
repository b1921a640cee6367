"""``market_release.yml`` and its options: settings of the released program, key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from calr.intra import stage_config
from tests.projects.overrides import ROOT, config_files
from tests.projects.tiny_run import MARKET, load_tiny, train_tiny
from unreid.config import flat_keys, load_config
from unreid.modeling.build import build_model

RELEASE = Path("projects/CALR/configs/market_release.yml")
SMALL_RESNET = {
    "MODEL__BACKBONE__NAME": "build_resnet_backbone",
    "MODEL__BACKBONE__DEPTH": "18x",
    "MODEL__BACKBONE__FEAT_DIM": 512,
}
IBN = {**SMALL_RESNET, "CALR__INTRA__WITH_IBN": True}


def shipped(config: Path) -> Any:
    return load_config(str(ROOT / config), ["MODEL.BACKBONE.PRETRAIN", "False"])[0]


def test_market_release__differs_from_market_where_the_program_differs_from_the_paper() -> None:
    paper, program = (dict(flat_keys(shipped(config))) for config in (MARKET, RELEASE))
    different = {key: value for key, value in program.items() if paper[key] != value}
    different.pop("OUTPUT_DIR")
    assert different == {
        "MODEL.HEADS.POOL_LAYER": "GeneralizedMeanPoolingP",
        "DATALOADER.NUM_INSTANCE": 4,
        "SOLVER.IMS_PER_BATCH": 64,
        "SOLVER.MAX_EPOCH": 70,
        "CALR.INTRA.MOMENTUM": 0.2,
        "CALR.INTRA.WITH_IBN": True,
        "CALR.REFINE.PIVOT": "last",
        "CALR.REFINE.SELF_IN_MEAN": True,
    }
    assert program["CALR.ADVERSARY.SOFTMAX_TWICE"] and program["CALR.INTRA.NUM_CLUSTERS"] == 600
    assert program["UNSUP.MEMORY.MOMENTUM"] == 0.1 and program["UNSUP.ITERS_PER_EPOCH"] == 200


def test_market_release__has_ibn_resnet_50a_in_stage_1_alone() -> None:
    cfg = shipped(RELEASE)
    stage = stage_config(cfg, "folder")
    assert (stage.MODEL.BACKBONE.NAME, stage.MODEL.BACKBONE.DEPTH) == (
        "build_resnet_backbone",
        "50x",
    )
    assert stage.MODEL.BACKBONE.WITH_IBN and not cfg.MODEL.BACKBONE.WITH_IBN
    assert stage.MODEL.HEADS.POOL_LAYER == "GeneralizedMeanPoolingP"
    assert stage.UNSUP.MEMORY.MOMENTUM == 0.2 and stage.SOLVER.IMS_PER_BATCH == 64


def test_intra_with_ibn__builds_another_network_in_stage_1() -> None:
    cfg, _ = load_tiny(RELEASE, **IBN)
    layers = [
        {
            type(m)
            for m in build_model(c).backbone.modules()
            if isinstance(m, torch.nn.InstanceNorm2d)
        }
        for c in (cfg, stage_config(cfg, "x"))
    ]
    assert layers == [set(), {torch.nn.InstanceNorm2d}]


def test_intra_momentum__is_that_of_stage_2_unless_given() -> None:
    for given, expected in ((-1.0, 0.4), (0.0, 0.0), (0.7, 0.7)):
        cfg, _ = load_tiny(MARKET, UNSUP__MEMORY__MOMENTUM=0.4, CALR__INTRA__MOMENTUM=given)
        assert expected == stage_config(cfg, "folder").UNSUP.MEMORY.MOMENTUM
        assert cfg.UNSUP.MEMORY.MOMENTUM == 0.4


def test_intra_pretrain_path__never_gives_a_network_the_weights_of_another(tmp_path: Path) -> None:
    plain, ibn = tmp_path / "plain.pth", tmp_path / "ibn.pth"
    for path in (plain, ibn):
        torch.save({"conv1.weight": torch.zeros(1)}, path)
    given = {"MODEL__BACKBONE__PRETRAIN": True, "MODEL__BACKBONE__PRETRAIN_PATH": plain}

    def start(**settings: object) -> str:
        cfg, _ = load_tiny(RELEASE, **{**SMALL_RESNET, **given, **settings})
        assert str(plain) == cfg.MODEL.BACKBONE.PRETRAIN_PATH
        return stage_config(cfg, "folder").MODEL.BACKBONE.PRETRAIN_PATH

    assert start() == str(plain)
    assert start(MODEL__BACKBONE__WITH_IBN=True, CALR__INTRA__WITH_IBN=True) == str(plain)
    assert start(CALR__INTRA__WITH_IBN=True) == ""
    assert start(CALR__INTRA__WITH_IBN=True, CALR__INTRA__PRETRAIN_PATH=ibn) == str(ibn)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"CALR__INTRA__MOMENTUM": 1.5}, ValueError, "CALR.INTRA.MOMENTUM.* must be a number"),
        ({"CALR__INTRA__MOMENTUM": -0.5}, ValueError, "CALR.INTRA.MOMENTUM.* must be a number"),
        ({"CALR__INTRA__WITH_IBN": True}, ValueError,
         "CALR.INTRA.WITH_IBN must be False for MODEL.BACKBONE.NAME build_mobilenetv2_backbone"),
        ({**IBN, "MODEL__BACKBONE__PRETRAIN": True, "CALR__INTRA__PRETRAIN_PATH": "gone.pth"},
         FileNotFoundError, "CALR.INTRA.PRETRAIN_PATH gone.pth: no such file"),
    ],
)  # fmt: skip
def test_wrong_setting__is_named(
    settings: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        load_tiny(MARKET, **settings)


def test_both_stages__run_with_ibn_in_stage_1(synthetic_root: Path, tmp_path: Path) -> None:
    results = train_tiny(
        RELEASE, synthetic_root, tmp_path, **IBN, SOLVER__MAX_EPOCH=1, UNSUP__ITERS_PER_EPOCH=1
    )
    assert "mAP" in results["after"] and (tmp_path / "local_labels.npz").is_file()


@pytest.mark.parametrize(
    "config",
    [path for path in config_files()
     if path.parts[1] == "CALR" and path.parent.name == "configs"
     and path.stem not in ("baseline", "synthetic")],
    ids=lambda path: path.stem,
)  # fmt: skip
def test_config__says_what_pooling_and_stage_1_follow(config: Path) -> None:
    comment = " ".join(
        line.removeprefix("# ")
        for line in (ROOT / config).read_text().splitlines()
        if line.startswith("#")
    )
    assert "ooling" in comment and "stage" in comment
    assert ("follow the program" if config == RELEASE else "follow the paper") in comment


def test_duke__has_400_iterations_an_epoch_and_600_local_clusters() -> None:
    cfg = shipped(Path("projects/CALR/configs/duke.yml"))
    assert cfg.UNSUP.ITERS_PER_EPOCH == 400 and cfg.CALR.INTRA.NUM_CLUSTERS == 600
    assert cfg.DATASETS.NAMES == cfg.DATASETS.TESTS == ("DukeMTMC",)
