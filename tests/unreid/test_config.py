"""Bad settings are refused before the first image is read, by key, found and expected."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.projects.overrides import ROOT
from tests.projects.tiny_run import BASELINE, MARKET, load_tiny
from unreid.config import config_hash, load_config

OUT_OF_RANGE = [
    ("UNSUP.ITERS_PER_EPOCH", 0, "an integer >= 1"),
    ("UNSUP.SEED", -1, "an integer >= 0"),
    ("UNSUP.JACCARD.K1", 1, "an integer >= 2"),
    ("UNSUP.JACCARD.K2", 0, "an integer >= 1"),
    ("UNSUP.CENTER_SHRINKAGE", -0.5, "a number >= 0"),
    ("UNSUP.WHITEN_CAMERAS", 0.6, "a number >= 0 and <= 0.5"),
    ("UNSUP.SMOOTH_NEIGHBOURS", -1, "an integer >= 0"),
    ("UNSUP.MEMORY.TEMPERATURE", 0.0, "a number > 0"),
    ("UNSUP.MEMORY.MOMENTUM", 1.5, "a number >= 0 and <= 1"),
    ("UNSUP.MEMORY.UPDATE", "harder", "one of 'plain', 'hard'"),
    ("UNSUP.BAD_IMAGE", "skipp", "one of 'error', 'skip'"),
    ("SOLVER.MAX_EPOCH", -1, "an integer >= 0"),
    ("SOLVER.IMS_PER_BATCH", 1, "an integer >= 2"),
    ("SOLVER.CHECKPOINT_PERIOD", 0, "an integer >= 1"),
    ("DATALOADER.NUM_INSTANCE", 0, "an integer >= 1"),
    ("DATALOADER.NUM_WORKERS", -1, "an integer >= 0"),
    ("TEST.IMS_PER_BATCH", 0, "an integer >= 1"),
    ("TEST.EVAL_PERIOD", -1, "an integer >= 0"),
    ("TEST.METRIC", "cosin", "one of 'cosine', 'euclidean'"),
    ("MODEL.GHOST_BN", 1, "0 or an integer >= 2"),
    ("MODEL.GHOST_BN", -4, "an integer >= 0"),
    ("UNSUP.KNN.METHOD", "faiss", "one of 'exact', 'ivf', 'hnsw'"),
    ("UNSUP.KNN.NUM_PROBES", 0, "an integer >= 1"),
    ("UNSUP.CLUSTER.BOTTOM_UP.UPDATE", "passes", "one of 'exact', 'pass'"),
    ("UNSUP.CLUSTER.BOTTOM_UP.PASS_RULE", "chain", "one of 'union', 'skip'"),
    ("UNSUP.CLUSTER.BOTTOM_UP.LINKAGE", "median", "one of 'average'"),
    ("UNSUP.CLUSTER.BOTTOM_UP.REGULARIZER", "sizes", "one of 'sse', 'size'"),
    ("UNSUP.CLUSTER.AGGLOMERATIVE.NUM_CLUSTERS", -1, "an integer >= 0"),
    ("UNSUP.CLUSTER.AGGLOMERATIVE.IMAGES_PER_CLUSTER", 0, "an integer >= 1"),
    ("UNSUP.CLUSTER.AGGLOMERATIVE.LINKAGE", "ward", "one of 'average'"),
    ("CALR.INTRA.CLUSTER", "ward", "one of 'jaccard', 'sse'"),
    ("CALR.INTRA.EPOCHS", 0, "an integer >= 1"),
    ("CALR.INTRA.ITERS_PER_EPOCH", 0, "an integer >= 1"),
    ("CALR.INTRA.NUM_CLUSTERS", -1, "an integer >= 0"),
    ("CALR.INTRA.IMAGES_PER_CLUSTER", 0, "an integer >= 1"),
    ("UNSUP.KNN.K", 1, "an integer >= 2"),
    ("UNSUP.KNN.MIN_SIMILARITY", 1.5, "a number >= 0 and <= 1"),
    ("UNSUP.CLUSTER.MIN_SIZE", 0, "an integer >= 1"),
    ("UNSUP.CLUSTER.DBSCAN.EPS", 0.0, "a number > 0 and <= 1"),
    ("UNSUP.CLUSTER.DBSCAN.MIN_SAMPLES", 0, "an integer >= 1"),
    ("UNSUP.CLUSTER.BOTTOM_UP.NUM_CLUSTERS", -2, "an integer >= -1"),
    ("UNSUP.CLUSTER.BOTTOM_UP.IMAGES_PER_CLUSTER", 0, "an integer >= 1"),
    ("UNSUP.CLUSTER.BOTTOM_UP.WEIGHT", -1.0, "a number >= 0"),
    ("CALR.REFINE.PIVOT", "first", "one of 'max', 'last'"),
    ("CALR.WEIGHTS.START_EPOCH", -1, "an integer >= 0"),
    ("CALR.ADVERSARY.START_EPOCH", -1, "an integer >= 0"),
    ("CALR.ADVERSARY.END_EPOCH", -2, "an integer >= -1"),
    ("CALR.ADVERSARY.FACTOR", -1.0, "a number >= 0"),
    ("CALR.ADVERSARY.SCHEDULE", "linear", "one of 'constant', 'dann'"),
    ("CALR.ADVERSARY.HIDDEN", 0, "an integer >= 1"),
]


def load(*opts: object, config: Path = MARKET) -> Any:
    off = ["MODEL.BACKBONE.PRETRAIN", "False"]
    return load_config(str(ROOT / config), [*off, *map(str, opts)])[0]


@pytest.mark.parametrize(("key", "value", "wanted"), OUT_OF_RANGE, ids=lambda v: str(v)[:40])
def test_value_out_of_range__is_named_with_what_was_expected(
    key: str, value: object, wanted: str
) -> None:
    with pytest.raises(ValueError) as error:
        load(key, value)
    message = str(error.value)
    assert message.startswith(f"{key} must be {wanted}")
    assert f"got {value!r}" in message


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("UNSUP.LABELER", "CALRLabeller", "CALRLabeler"),
        ("DATALOADER.SAMPLER_TRAIN", "CameraAwareSamplr", "CameraAwareSampler"),
        ("MODEL.META_ARCHITECTURE", "CARL", "CALR"),
        ("MODEL.BACKBONE.NAME", "build_resnet_backbon", "build_resnet_backbone"),
        ("MODEL.HEADS.NAME", "NeckHed", "NeckHead"),
        ("PROJECT", "CALRR", "CALR"),
    ],
)
def test_unknown_name__lists_what_exists_and_suggests_the_nearest(
    key: str, value: str, hint: str
) -> None:
    with pytest.raises(KeyError) as error:
        load(key, value)
    message = error.value.args[0]
    assert message.startswith(f"{key} must be ")
    assert f"got {value!r}; did you mean {hint!r}?" in message


def test_unknown_clusterer__lists_those_that_exist() -> None:
    with pytest.raises(
        KeyError,
        match=r"UNSUP.CLUSTER.NAME must be a registered clusterer"
        r" \(agglomerative, bottom_up, dbscan, infomap, map_equation\), got"
        r" 'dbscam'; did you mean 'dbscan'",
    ):
        load("UNSUP.CLUSTER.NAME", "dbscam")


def test_old_names_of_cluster_keys__are_read_with_a_warning(tmp_path: Path) -> None:
    """The keys that CALR had alone: on the command line and in files, which runs have written."""
    file = tmp_path / "mine.yml"
    file.write_text(
        f"_BASE_: {ROOT / MARKET}\nCALR:\n  CLUSTER: agglomerative\n"
        "  KNN: {K: 7}\n  AGGLOMERATIVE: {WEIGHT: 0}\n"
    )
    with pytest.warns(FutureWarning) as record:
        cfg, _ = load_config(
            str(file),
            [
                "CALR.DBSCAN.EPS",
                "0.3",
                "CALR.MIN_CLUSTER_SIZE",
                "2",
                "MODEL.BACKBONE.PRETRAIN",
                "False",
            ],
        )
    cluster = cfg.UNSUP.CLUSTER
    assert (cluster.NAME, cfg.UNSUP.KNN.K, cluster.BOTTOM_UP.WEIGHT) == ("bottom_up", 7, 0.0)
    assert (cluster.DBSCAN.EPS, cluster.MIN_SIZE) == (0.3, 2)
    said = [str(warning.message) for warning in record]
    assert len(said) == 5
    assert any(
        f"{file}: config key CALR.CLUSTER is called UNSUP.CLUSTER.NAME now, and its value"
        " agglomerative bottom_up" in line
        for line in said
    )
    assert any(
        line.startswith(
            "command line: config key CALR.DBSCAN.EPS is called UNSUP.CLUSTER.DBSCAN.EPS now;"
        )
        for line in said
    )
    assert "CLUSTER" not in cfg.CALR and "KNN" not in cfg.CALR


def test_unknown_pooling__is_refused_before_any_image_is_read() -> None:
    with pytest.raises(KeyError, match=r"MODEL.HEADS.POOL_LAYER must be one of .*did you mean"):
        load("MODEL.HEADS.POOL_LAYER", "GlobalAveragePool")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("SOLVER.MAX_EPOCHS", "SOLVER.MAX_EPOCH"),
        ("UNSUP.CENTRE_CAMERAS", "UNSUP.CENTER_CAMERAS"),
        ("UNSUP.KNN.MIN_SIMILARTY", "UNSUP.KNN.MIN_SIMILARITY"),
        ("ITERS_PER_EPOCH", "UNSUP.ITERS_PER_EPOCH"),
    ],
)
def test_unknown_key__names_the_nearest(key: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(KeyError) as error:
        load(key, 1)
    message = error.value.args[0]
    assert message.startswith(f"command line: config key {key!r} does not exist; did you mean")
    assert hint.rsplit(".", 1)[-1] in message
    text, node = "", key.split(".")
    for depth, part in enumerate(node):
        text += f"{' ' * 2 * depth}{part}:{' 1' if depth == len(node) - 1 else ''}\n"
    file = tmp_path / "mine.yml"
    file.write_text(f"_BASE_: {ROOT / MARKET}\n{text}")
    with pytest.raises(KeyError, match=rf"mine.yml: config key '{key}' does not exist"):
        load_config(str(file))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SOLVER.MAX_EPOCH", "many"),
        ("UNSUP.CENTER_CAMERAS", "3"),
        ("UNSUP.KNN.K", "1.5"),
        ("DATASETS.NAMES", "Market1501"),
        ("MODEL.DEVICE", "3"),
    ],
)
def test_value_of_the_wrong_type__names_source_and_key(
    key: str, value: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as error:
        load(key, value)
    message = str(error.value)
    assert message.startswith("command line: ") and key in message
    section, leaf = key.rsplit(".", 1)
    file = tmp_path / "mine.yml"
    lines = "".join(f"{'  ' * d}{p}:\n" for d, p in enumerate(section.split(".")))
    file.write_text(
        f"_BASE_: {ROOT / MARKET}\n{lines}{'  ' * (section.count('.') + 1)}{leaf}: {value}\n"
    )
    with pytest.raises(ValueError, match=r"mine.yml: "):
        load_config(str(file))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            ("SOLVER.IMS_PER_BATCH", 250, "DATALOADER.NUM_INSTANCE", 16),
            r"SOLVER.IMS_PER_BATCH must be a multiple of DATALOADER.NUM_INSTANCE \(16\), got 250",
        ),
        (
            ("CALR.INTRA.IMS_PER_BATCH", 10, "CALR.INTRA.NUM_INSTANCE", 4),
            r"CALR.INTRA.IMS_PER_BATCH must be a multiple of CALR.INTRA.NUM_INSTANCE \(4\), got 10",
        ),
    ],
)
def test_batch__must_be_divisible_by_the_instances(opts: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(*opts)


def test_odd_number_of_options__is_named() -> None:
    with pytest.raises(ValueError, match=r"KEY VALUE pairs, got an odd number: .*SOLVER.MAX_EPOCH"):
        load("SOLVER.MAX_EPOCH")


def test_missing_file__is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"--config-file nowhere.yml: no such file"):
        load_config("nowhere.yml")


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "just words\n", "A: [1\n"], ids=["empty", "a list", "text", "broken"]
)
def test_file_that_is_no_config__is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "odd.yml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"odd.yml must be a yml of nested keys"):
        load_config(str(file))


def test_missing_base__is_named(tmp_path: Path) -> None:
    file = tmp_path / "child.yml"
    file.write_text("_BASE_: parent.yml\n")
    with pytest.raises(FileNotFoundError, match=r"child.yml: no file .*parent.yml \(_BASE_\)"):
        load_config(str(file))


def test_missing_weights__are_named() -> None:
    on = ("MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH", "no/weights.pth")
    with pytest.raises(
        FileNotFoundError,
        match=r"MODEL.BACKBONE.PRETRAIN_PATH: no file"
        r" no/weights.pth; .*build_resnet_backbone 50x",
    ):
        load(*on)


def test_backbone_without_a_download__asks_for_a_file() -> None:
    with pytest.raises(
        ValueError,
        match=r"nothing to download is known for"
        r" build_mobilenetv2_backbone",
    ):
        load("MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.NAME", "build_mobilenetv2_backbone")


def test_precise_bn__is_refused_because_it_would_train_on_ids() -> None:
    with pytest.raises(ValueError, match=r"TEST.PRECISE_BN.ENABLED must be False"):
        load("TEST.PRECISE_BN.ENABLED", True)


def test_infomap__without_the_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "infomap" else find(name, *a)
    )
    with pytest.raises(ImportError, match=r'pip install "unreid\[infomap\]"'):
        load("UNSUP.CLUSTER.NAME", "infomap")
    assert load("UNSUP.CLUSTER.NAME", "map_equation").UNSUP.CLUSTER.NAME == "map_equation"


def test_device__falls_back_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert load("MODEL.DEVICE", "cuda").MODEL.DEVICE == "cpu"


def test_hash__changes_with_a_setting_and_not_with_the_folder() -> None:
    one, same, other = (
        load_tiny(BASELINE, output, UNSUP__SEED=seed)[0]
        for output, seed in (("a", 0), ("b", 0), ("a", 1))
    )
    assert config_hash(one) == config_hash(same) != config_hash(other)
    assert len(config_hash(one)) == 12
    assert one.OUTPUT_DIR == "a"


def test_order__file_over_defaults_and_command_line_over_file() -> None:
    assert load("CALR.INTRA.NUM_CLUSTERS", 7).CALR.INTRA.NUM_CLUSTERS == 7
    assert load().CALR.INTRA.NUM_CLUSTERS == 600


def test_whole_numbers__are_taken_for_keys_that_hold_fractions(tmp_path: Path) -> None:
    """``KEY 0`` on a command line, and in a yml, without a point."""
    file = tmp_path / "whole.yml"
    file.write_text(
        f"_BASE_: {ROOT / BASELINE}\nCALR:\n  ADVERSARY: {{FACTOR: 2}}\nSOLVER: {{GAMMA: 1}}\n"
    )
    cfg, _ = load_config(
        str(file), ["MODEL.BACKBONE.PRETRAIN", "False", "UNSUP.MEMORY.TEMPERATURE", "1"]
    )
    for value, expected in (
        (cfg.CALR.ADVERSARY.FACTOR, 2.0),
        (cfg.SOLVER.GAMMA, 1.0),
        (cfg.UNSUP.MEMORY.TEMPERATURE, 1.0),
    ):
        assert type(value) is float and value == expected
    assert type(cfg.SOLVER.MAX_EPOCH) is int


def test_short_form__reads_the_same_config_as_the_file() -> None:
    off = ["MODEL.BACKBONE.PRETRAIN", "False"]
    by_file, by_name = load_config(str(ROOT / MARKET), off)[0], load_config("CALR/market", off)[0]
    assert config_hash(by_name) == config_hash(by_file)
