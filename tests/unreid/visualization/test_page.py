"""Tests of the report: self-contained, equal to the run's scores, written for incomplete runs."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from tests.projects.overrides import ROOT
from tests.projects.tiny_run import BASELINE, load_tiny, train_tiny
from tests.unreid.visualization.conftest import WriteRun
from tests.unreid.visualization.reading import Reading
from unreid.data.unlabelled import UnlabelledImages, load_training_images
from unreid.engine.trainer import UnsupervisedTrainer
from unreid.visualization import retrieval, sources
from unreid.visualization.history import read_run
from unreid.visualization.page import duration, write_report
from unreid.visualization.render import VENDORED
from unreid.visualization.retrieval import Limits
from unreid.visualization.sources import load_sources, report_after_training
from unreid.visualization.thumbnails import SIZE, thumbnail

VENDOR = ROOT / "unreid" / "visualization" / "vendor"
HOSTILE = '<script>alert("x")</script> & "quotes\' <img src=x onerror=alert(1)>'


def images_of(folder: Path, names: list[str], camids: list[int], cameras: tuple[str, ...]) -> Any:
    """Write small images; return the training list of them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 40), (90, 20, 60)).save(path, "JPEG")
    paths = tuple(str(folder / name) for name in names)
    return UnlabelledImages(paths, np.array(camids, dtype=np.int64), cameras, str(folder))


def assert_self_contained(page: Reading) -> None:
    for address in page.addresses:
        assert address.startswith(("data:", "#")), address
    assert "iframe" not in page.tags
    # The content policy allows one script only, by its hash.
    assert page.tags.count("script") == page.source.count("<script") == 1
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert page.policy.endswith(f"script-src 'sha256-{digest}'")
    for name in VENDORED:
        assert (VENDOR / name).read_text() in script
    # Styles and images do not refer to external addresses.
    assert "url(" not in page.source and "@import" not in page.source
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page.source)
    assert "default-src 'none'" in page.source


def test_page__is_self_contained_and_well_formed(page: Path) -> None:
    reading = Reading(page)
    assert_self_contained(reading)
    assert reading.unclosed == []
    assert sum(a.startswith("data:image/jpeg") for a in reading.addresses) > 50


def test_page__has_every_part(page: Path) -> None:
    text = Reading(page).text
    for words in (
        "finished",
        "Scores",
        "Curves",
        "Retrieval",
        "Losses",
        "Label quality",
        "Time of the label step",
        "Best queries",
        "Worst queries",
        "Largest",
        "Purest",
        "Most mixed",
        "Clusters by number of cameras",
        "before training",
        "after training",
        "By cluster",
        "By camera",
        "config hash",
        "SOLVER.BASE_LR",
    ):
        assert words in text, words
    assert "Missing or incomplete" not in text


def test_every_link_inside__leads_somewhere(page: Path) -> None:
    source = page.read_text()
    links = re.findall(r'href="#([^"]+)"', source)
    assert len(links) >= 6 and all(f'id="{link}"' in source for link in links)


def test_every_curve__has_the_runs_numbers(page: Path, trained: Path) -> None:
    charts = Reading(page).charts
    run = read_run(trained)
    results = json.loads((trained / "results.json").read_text())
    wanted = {
        ("Clusters", "clusters"): [(e.epoch, e.labels["clusters"]) for e in run.epochs],
        ("Noise (images in no cluster)", "noise"): [
            (e.epoch, 100 * e.labels["noise"] / e.labels["images"]) for e in run.epochs
        ],
        ("Largest cluster", "images"): [(e.epoch, e.labels["largest"]) for e in run.epochs],
        ("Cameras per cluster", "mean"): [
            (e.epoch, e.labels["cameras_per_cluster"]) for e in run.epochs
        ],
        ("Time of the label step", "extract"): [
            (e.epoch, e.seconds["extract"]) for e in run.epochs
        ],
    }
    for name in ("precision", "recall", "f_score", "ari", "nmi", "purity"):
        wanted["Label quality", name] = [(e.epoch, e.quality["final"][name]) for e in run.epochs]
    for name, points in run.losses.items():
        wanted["Learning rate" if name == "lr" else "Losses", name] = [*points]
    scores = run.scores["Market1501"]
    assert scores[0][1] == results["before"] and scores[-1][1] == results["after"]
    for name in results["after"]:
        wanted["Retrieval scores", name] = [(done, values[name]) for done, values in scores]
    for (title, name), points in wanted.items():
        chart = charts[title]
        listed = np.array(chart.column(name))
        np.testing.assert_allclose(listed, points, rtol=1e-5, err_msg=f"{title}: {name}")
        assert chart.lines[name] == [tuple(point) for point in points], (title, name)


class PooledColours(nn.Module):
    """Deterministic features: mean colours of 4 x 2 regions, minus the mean of all pixel values.

    The features of the tiny trained network differ by 1e-7 only, so their ranking depends on
    rounding. These features differ by much more.
    """

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return (B, 24) unit rows of images (B, 3, H, W) in 0..255."""
        pooled = F.adaptive_avg_pool2d(batch["images"].float() - 127.5, (4, 2))
        return F.normalize(pooled.flatten(1))


def test_whole_test_set__has_the_scores_of_the_trainers_evaluation(
    trained: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    cfg, *_ = load_sources(trained, [])
    model = PooledColours().eval()
    found = retrieval.retrieve(cfg, model, Limits())
    scores = UnsupervisedTrainer.test(cfg, model)
    assert found.complete
    # The scores are far from 0 and 100 %, so another order of the gallery changes them.
    assert 5 < scores["mAP"] < 95
    assert 100 * found.average_precisions.mean() == pytest.approx(scores["mAP"], abs=1e-4)
    for place in (1, 5, 10):
        assert 100 * found.cmc[place - 1] == pytest.approx(scores[f"Rank-{place}"], abs=1e-4)


def test_features_before__are_those_of_the_start_weights(
    trained: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    cfg, images, _, _ = load_sources(trained, [])
    assert images is not None
    every = np.arange(len(images))
    rows = [
        retrieval.features_of(cfg, retrieval.load_model(cfg, weights), images, every)
        for weights in ("", "", str(trained / "model_final.pth"))
    ]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert np.abs(rows[0] - rows[2]).max() > 1e-3
    some = np.array([1, 4, 9])
    model = retrieval.load_model(cfg, "")
    np.testing.assert_allclose(
        retrieval.features_of(cfg, model, images, some), rows[0][some], atol=1e-4
    )


def test_samples__are_named_on_the_page(
    copy: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    cfg, images, pids, _ = load_sources(copy, [])
    assert images is not None
    limits = Limits(train=20, queries=5, gallery=12)
    path = write_report(copy, cfg=cfg, images=images, pids=pids, limits=limits, method="pca")
    text = Reading(path).text
    assert f"A sample: 20 of {len(images)} images." in text
    assert "a sample: 5 of" in text and "12 of" in text
    assert "the numbers differ from those of the run" in text


def test_run_without_ids__shows_clusters_by_cameras(write_run: WriteRun, tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(6)]
    images = images_of(tmp_path / "data", names, [0, 0, 1, 1, 2, 2], ("a_0", "a_1", "a_2"))
    folder = write_run(labels=[[0, 0, 0, 1, 1, -1]], camids=[0, 0, 1, 1, 2, 2], paths=names)
    reading = Reading(write_report(folder, images=images))
    for words in ("In most cameras", "Noise", "Cluster 0 · 3 images · 2 cameras"):
        assert words in reading.text
    for words in ("Purest", "Most mixed", "purity", "Label quality"):
        assert words not in reading.text
    assert_self_contained(reading)


def test_run_without_test_sets__has_no_retrieval(
    tmp_path: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    settings = {"DATASETS__TESTS": "()", "SOLVER__MAX_EPOCH": 1, "UNSUP__REPORT": True}
    cfg, _ = load_tiny(BASELINE, folder, **settings)
    folder.mkdir()
    (folder / "config.yaml").write_text(cfg.dump())
    train_tiny(BASELINE, synthetic_root, folder, **settings)
    text = Reading(folder / "report.html").text
    assert "finished" in text and "Camera bias" in text
    assert "Best queries" not in text and "Missing or incomplete" not in text


def test_killed_half_way__has_what_was_known(
    copy: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    for name in ("model_final.pth", "last_checkpoint", "labels/epoch_002.npz"):
        (copy / name).unlink()
    lines = (copy / "epochs.jsonl").read_text().splitlines(keepends=True)
    (copy / "epochs.jsonl").write_text("".join(lines[:2]) + lines[2][:40])
    results = json.loads((copy / "results.json").read_text())
    results.update(after=None, labels=None, seconds={})
    (copy / "results.json").write_text(json.dumps(results))
    cfg, images, pids, _ = load_sources(copy, [])
    reading = Reading(write_report(copy, cfg=cfg, images=images, pids=pids, method="pca"))
    assert "stopped; last epoch 1" in reading.text
    assert "no checkpoint: no retrieval results" in reading.text
    assert [x for x, _ in reading.charts["Clusters"].column("clusters")] == [0, 1]
    assert "Cameras of the nearest neighbours, before training" in reading.text
    assert "Cameras of the nearest neighbours, after training" not in reading.text


def test_killed_before_the_first_labels__is_a_page_all_the_same(write_run: WriteRun) -> None:
    reading = Reading(write_report(write_run()))
    assert "stopped before the first labels" in reading.text
    assert "results.json is missing" in reading.text
    assert_self_contained(reading)


def test_one_cluster_left__is_a_page(write_run: WriteRun, tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(5)]
    images = images_of(tmp_path / "data", names, [0] * 5, ("a_0",))
    folder = write_run(labels=[[0, 0, 1, 1, -1], [0] * 5], paths=names)
    text = Reading(write_report(folder, images=images, pids=np.arange(5))).text
    assert "Cluster 0 · 5 images · 1 camera · 5 people, purity 20 %" in text
    assert "1 camera 1" in text


def test_all_noise__is_a_page(write_run: WriteRun, tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(3)]
    images = images_of(tmp_path / "data", names, [0] * 3, ("a_0",))
    text = Reading(write_report(write_run(labels=[[-1] * 3], paths=names), images=images)).text
    assert "In no cluster · 3 images" in text


def test_names_that_are_markup__come_out_as_words(write_run: WriteRun, tmp_path: Path) -> None:
    names = ["<b>0.jpg", "'1\".jpg", "&amp;.jpg", "ä ö.jpg"]
    images = images_of(tmp_path / "data", names, [0, 0, 1, 1], (f"cam_{HOSTILE}", "dark & stormy"))
    results = {
        "before": {HOSTILE: {"mAP": 1.0}, "b": {"mAP": 1.0}},
        "after": {HOSTILE: {"mAP": 2.0, HOSTILE: 3.0}, "b": {"mAP": 1.0}},
        "seconds": {HOSTILE: 3.0},
        "versions": {HOSTILE: HOSTILE},
        "project": HOSTILE,
        "config_hash": HOSTILE,
        "datasets": {"train": [HOSTILE], "test": [HOSTILE]},
    }
    metrics = json.dumps({"iteration": 1, f"loss_{HOSTILE}": 1.0}) + "\n"
    folder = write_run(
        "run <b> & 'x'",
        labels=[[0, 0, 0, 1]],
        camids=[0, 0, 1, 1],
        paths=names,
        results=results,
        metrics=metrics,
        config=json.dumps({"A": HOSTILE}),
    )
    reading = Reading(write_report(folder, images=images, pids=np.array([0, 1, 0, 1])))
    assert_self_contained(reading)
    assert reading.unclosed == [] and reading.source.count("<script") == 1
    assert "b" not in set(reading.tags) - {"b"} and "onerror=" not in re.sub(
        r"&lt;img src=x onerror=", "", reading.source
    )
    assert f"loss_{HOSTILE}" in reading.charts["Losses"].lines
    assert "run <b> & 'x'" in reading.text


def test_missing_images__leave_an_empty_place(write_run: WriteRun, tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(4)]
    images = images_of(tmp_path / "data", names, [0, 0, 1, 1], ("a_0", "a_1"))
    folder = write_run(labels=[[0, 0, 1, 1]], camids=[0, 0, 1, 1], paths=names)
    shutil.rmtree(tmp_path / "data")
    reading = Reading(write_report(folder, images=images))
    assert "not readable" in reading.text and "img" not in reading.tags


def test_another_training_set__is_never_shown_as_this_runs(
    write_run: WriteRun, tmp_path: Path
) -> None:
    images = images_of(tmp_path / "data", ["x.jpg", "y.jpg"], [0, 0], ("a_0",))
    reading = Reading(write_report(write_run(labels=[[0, 0]]), images=images))
    assert "the training set differs from that of the run" in reading.text
    assert "img" not in reading.tags


def test_losses_that_are_not_numbers__break_the_line_and_not_the_page(
    write_run: WriteRun,
) -> None:
    rows = [(1, 2.0), (2, float("nan")), (3, float("inf")), (4, 1.0)]
    metrics = "".join(json.dumps({"iteration": i, "total_loss": v}) + "\n" for i, v in rows)
    chart = Reading(write_report(write_run(metrics=metrics))).charts["Losses"]
    assert chart.column("total_loss") == [(1, 2), (4, 1)]


def test_page_that_cannot_be_made__warns_with_the_command_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    copy: Path,
    synthetic_root: Path,
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    cfg, images, pids, _ = load_sources(copy, [])
    assert images is not None
    shutil.rmtree(copy)
    monkeypatch.setattr(sources.logger, "propagate", True)
    monkeypatch.setattr(logging.getLogger("fastreid"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        assert report_after_training(cfg, images, pids) is None
    assert "the training is complete" in caplog.text
    assert f"python tools/report.py {copy}" in caplog.text


def test_page_without_jinja__is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    copy: Path,
    synthetic_root: Path,
) -> None:
    import sys

    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    cfg, images, pids, _ = load_sources(copy, [])
    assert images is not None
    for name in ("unreid.visualization.page", "unreid.visualization.render"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.setattr(logging.getLogger("fastreid"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        assert report_after_training(cfg, images, pids) is None
    assert "jinja2" in caplog.text


def test_model_that_fails__leaves_the_rest_of_the_page(
    copy: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    (copy / "model_final.pth").write_bytes(b"half a model")
    cfg, images, pids, _ = load_sources(copy, [])
    text = Reading(write_report(copy, cfg=cfg, images=images, pids=pids, method="pca")).text
    assert "the model after training could not be evaluated" in text and "is damaged" in text
    assert "Largest" in text and "Cameras of the nearest neighbours, before training" in text


def test_training_ends__with_a_page_unless_told_not_to(
    tmp_path: Path, synthetic_root: Path
) -> None:
    for report in (True, False):
        folder = tmp_path / str(report)
        train_tiny(BASELINE, synthetic_root, folder, SOLVER__MAX_EPOCH=1, UNSUP__REPORT=report)
        assert (folder / "report.html").is_file() == report


def test_thumbnail__fits_and_carries_no_metadata(tmp_path: Path) -> None:
    import io

    big = Image.new("RGB", (300, 500), (1, 2, 3))
    exif = big.getexif()
    exif[0x010E] = "where she lives"
    big.save(tmp_path / "big.jpg", exif=exif)
    text = thumbnail(str(tmp_path / "big.jpg"))
    assert text is not None
    small = Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2])))
    assert small.width <= SIZE[0] and small.height <= SIZE[1] and not small.getexif()
    assert abs(small.width / small.height - 300 / 500) < 0.02
    (tmp_path / "no.jpg").write_text("no image")
    assert thumbnail(str(tmp_path / "no.jpg")) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3.4, "3 s"), (119, "119 s"), (600, "10 min"), (7260, "2 h 01 min"), (90000, "25 h 00 min")],
)
def test_duration__is_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_environment__is_left_alone(page: Path) -> None:
    assert "FASTREID_DATASETS" not in os.environ


@pytest.mark.parametrize(("with_val", "number"), [(False, 6), (True, 8)])
def test_train_with_val__is_in_the_number_of_training_images_of_the_page(
    with_val: bool, number: int, msmt17: Path, write_run: WriteRun
) -> None:
    cfg, _ = load_tiny(
        BASELINE,
        UNSUP__TRAIN_WITH_VAL=with_val,
        DATASETS__NAMES="('MSMT17',)",
        DATASETS__TESTS="()",
    )
    listed, _ = load_training_images(["MSMT17"], cfg=cfg)
    folder = write_run(
        labels=[[0] * number],
        camids=listed.camids.tolist(),
        paths=listed.relative_paths,
        config=cfg.dump(),
    )
    cfg, images, pids, remarks = load_sources(folder, [])
    assert not remarks and images is not None and cfg is not None
    assert len(images) == cfg.UNSUP.NUM_IMAGES == number
    text = Reading(write_report(folder, images=images, pids=pids)).text
    # The page would report a list that differs from the run's.
    assert "the training set differs from that of the run" not in text
    assert re.search(rf"Training images\W+{number}\b", text)
