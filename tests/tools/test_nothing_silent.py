"""Cases in which label, search or report once gave a wrong result without a message."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unreid.inference.making import fill, make_run
from unreid.commands import label, report, search
from unreid.inference.gallery import Gallery

NAMES = [
    f"cam{camera}/person{person}_{shot}.png"
    for camera in (1, 2)
    for person in range(3)
    for shot in range(2)
]
PATTERN = ["--camera-pattern", "cam([0-9]+)"]
WITH_IDS = ["--camera-pattern", "cam{camera}/person{id}_*"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("silent") / "run")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    fill(tmp_path / "shop", NAMES)
    yield tmp_path / "shop"


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def copied_run(run: Path, target: Path, **settings: str) -> Path:
    """Copy a run and change settings in its config."""
    shutil.copytree(run, target)
    text = (target / "config.yaml").read_text()
    for key, value in settings.items():
        (line,) = (
            [x for x in text.splitlines() if x.strip().startswith(f"{key}:") and "shrink" not in x]
            if key != "CENTER_CAMERAS"
            else [x for x in text.splitlines() if x.startswith("  CENTER_CAMERAS:")][-1:]
        )
        text = text.replace(line, f"{line.split(':')[0]}: {value}")
    (target / "config.yaml").write_text(text)
    return target


def labels_of(run: Path, shop: Path, output: Path, *options: str) -> str:
    arguments = [
        "--run",
        str(run),
        "--images",
        str(shop),
        "--output",
        str(output),
        *PATTERN,
        "--method",
        "bottom_up",
        "--clusters",
        "4",
        "--min-size",
        "1",
        *options,
    ]
    assert label.main(arguments) == 0
    return output.read_text()


def test_label__applies_whitening_and_smoothing_of_the_run(
    run_folder: Path, shop: Path, tmp_path: Path
) -> None:
    plain = labels_of(run_folder, shop, tmp_path / "plain.csv", "--no-center-cameras")
    centred = copied_run(run_folder, tmp_path / "centred", CENTER_CAMERAS="true")
    whitened = copied_run(
        run_folder, tmp_path / "white", CENTER_CAMERAS="true", WHITEN_CAMERAS="0.5"
    )
    smoothed = copied_run(run_folder, tmp_path / "smooth", SMOOTH_NEIGHBOURS="3")
    found = {
        name: labels_of(run, shop, tmp_path / f"{name}.csv")
        for name, run in (("centred", centred), ("whitened", whitened), ("smoothed", smoothed))
    }
    assert len({plain, *found.values()}) == 4, "every setting changes the confidences"
    assert found["whitened"] == labels_of(
        run_folder, shop, tmp_path / "a.csv", "--center-cameras", "--whiten-cameras", "0.5"
    )
    assert found["smoothed"] == labels_of(
        run_folder, shop, tmp_path / "b.csv", "--smooth-neighbours", "3", "--no-center-cameras"
    )
    off = labels_of(whitened, shop, tmp_path / "c.csv", "--no-center-cameras")
    assert off == plain


def test_index__stores_the_camera_pattern(
    run_folder: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "kept.index"
    common = ["--run", str(run_folder), "--index", str(index), "--output", str(tmp_path / "out")]
    query = ["--query", str(shop / NAMES[0])]
    assert search.main([*common, "--gallery", str(shop), *WITH_IDS]) == 0
    before = Gallery.load(str(index)).entries
    assert search.main([*common, "--gallery", str(shop), *query, "--other-cameras"]) == 0
    assert Gallery.load(str(index)).entries == before, "cameras and ids are kept"
    assert {row["camera"] for row in rows_of(tmp_path / "out" / "ranks.csv")} == {"2"}
    capsys.readouterr()
    assert search.main([*common, *query, "--camera-pattern", "(cam[0-9])"]) == 2
    error = capsys.readouterr().err
    assert "was made with pattern 'cam{camera}/person{id}_*'" in error
    assert "--camera-pattern of this command contradict it" in error


def test_index_without_cameras__accepts_a_camera_pattern_later(
    run_folder: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "kept.index"
    common = ["--run", str(run_folder), "--index", str(index), "--gallery", str(shop)]
    assert search.main(common) == 0
    assert search.main([*common, *PATTERN]) == 0
    printed = capsys.readouterr()
    assert "made without --camera-pattern" in printed.err and "0 embedded" in printed.out
    assert {entry.camera for entry in Gallery.load(str(index)).entries} == {"1", "2"}


def test_index_of_an_earlier_version__requires_the_pattern(
    run_folder: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    index = tmp_path / "kept.index"
    common = ["--run", str(run_folder), "--index", str(index), "--gallery", str(shop)]
    assert search.main([*common, *PATTERN]) == 0
    replace(Gallery.load(str(index)), reading=None).save(str(index))
    assert search.main(common) == 2
    assert "does not say where they are written" in capsys.readouterr().err
    assert search.main([*common, *PATTERN]) == 0


def test_another_folder__does_not_empty_an_index(
    run_folder: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "kept.index"
    common = ["--run", str(run_folder), "--index", str(index), *PATTERN]
    assert search.main([*common, "--gallery", str(shop)]) == 0
    before = index.read_bytes()
    fill(tmp_path / "other", ["cam1/x.png"], seed=5)
    capsys.readouterr()
    assert search.main([*common, "--gallery", str(tmp_path / "other")]) == 2
    error = capsys.readouterr().err
    assert str(shop) in error and str(tmp_path / "other") in error and "--gallery-moved" in error
    assert index.read_bytes() == before
    shutil.move(shop, tmp_path / "moved")
    assert search.main([*common, "--gallery", str(tmp_path / "moved"), "--gallery-moved"]) == 0
    assert "0 embedded" in capsys.readouterr().out
    assert len(Gallery.load(str(index))) == len(NAMES)


def test_result_list_and_summary__exclude_the_same_images(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The nearest image shows the same person in the same camera; neither of them counts it."""
    fill(tmp_path / "shop", ["cam1/person0_0.png", "cam1/person1_0.png", "cam2/person2_0.png"])
    shutil.copy(tmp_path / "shop/cam1/person0_0.png", tmp_path / "shop/cam1/person0_1.png")
    fill(tmp_path / "shop", ["cam2/person0_0.png"], seed=9)
    common = [
        "--run",
        str(run_folder),
        "--gallery",
        str(tmp_path / "shop"),
        *WITH_IDS,
        "--query",
        str(tmp_path / "shop/cam1/person0_0.png"),
        "--output",
        str(tmp_path / "out"),
    ]
    assert search.main(common) == 0
    rows, printed = rows_of(tmp_path / "out" / "ranks.csv"), capsys.readouterr().out
    assert (rows[0]["path"], rows[0]["correct"]) == ("cam1/person0_1.png", "own camera")
    counted = [row["correct"] for row in rows if row["correct"] != "own camera"]
    first = 100.0 if counted[0] == "yes" else 0.0
    assert f"Rank-1 {first:.1f}" in printed
    assert "answers of the query's own camera of the same person do not count" in printed
    assert search.main([*common, "--other-cameras"]) == 0
    rows, printed = rows_of(tmp_path / "out" / "ranks.csv"), capsys.readouterr().out
    assert {row["camera"] for row in rows} == {"2"}
    right = [row["correct"] for row in rows].index("yes") + 1
    assert f"mAP {100 / right:.1f}, Rank-1 {100.0 * (right == 1):.1f}" in printed
    assert "answers of the query's own camera are left out" in printed


def test_missing_gpu__is_logged_in_one_line(
    run_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    from unreid.inference import Predictor

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    log = logging.getLogger("fastreid.unreid.config")
    log.addHandler(caplog.handler)
    try:
        Predictor.from_run(run_folder, device="cuda")
        assert sum("no GPU was found: the CPU is used" in m for m in set(caplog.messages)) == 1
        caplog.clear()
        Predictor.from_run(run_folder)
        Predictor.from_run(run_folder, device="cpu")
        assert not [m for m in caplog.messages if "GPU" in m]
    finally:
        log.removeHandler(caplog.handler)


def test_one_camera__gives_a_warning_that_centring_has_no_effect(
    run_folder: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--run", str(run_folder), "--center-cameras"]
    assert label.main([*common, "--images", str(shop), "--output", str(tmp_path / "l.csv")]) == 0
    assert (
        "warning: all images count as one camera, so cameras are not centred"
        in capsys.readouterr().err
    )
    assert (
        search.main(
            [
                *common,
                "--gallery",
                str(shop),
                "--query",
                str(shop / NAMES[0]),
                "--output",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    printed = capsys.readouterr()
    assert "warning: the gallery counts as one camera" in printed.err
    assert "cameras centred" not in printed.out


def test_query_without_a_camera__is_an_error_with_other_cameras(
    run_folder: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "queries", ["a.png"], seed=3)
    fill(tmp_path / "strange", ["cam9/a.png"], seed=3)
    common = [
        "--run",
        str(run_folder),
        "--gallery",
        str(shop),
        *PATTERN,
        "--other-cameras",
        "--output",
        str(tmp_path / "out"),
    ]
    assert search.main([*common, "--query", str(tmp_path / "queries" / "a.png")]) == 2
    assert "the camera of" in capsys.readouterr().err
    from unreid.data.folder import FolderItem
    from unreid.inference.gallery import Entry
    from unreid.inference.ranking import check_cameras

    entries = tuple(Entry(f"{c}.png", c, None, 0, 0, c) for c in ("1", "2"))
    gallery = Gallery("/g", entries, np.eye(2, dtype=np.float32), "f", "m")
    import logging

    records: list[logging.LogRecord] = []
    log = logging.getLogger("fastreid.unreid.search")
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign,assignment]
    log.addHandler(handler)
    try:
        check_cameras([FolderItem("q.png", "9")], gallery, other_cameras=True)
    finally:
        log.removeHandler(handler)
    (record,) = records
    assert "but not '9', the camera of q.png" in record.getMessage()
    assert "no image is excluded for it; --camera-pattern" in record.getMessage()


def test_report_without_the_images__does_not_replace_the_full_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.beside(str(tmp_path), None) is None, "nothing to keep"
    (tmp_path / "report.html").write_text("full")
    assert report.beside(str(tmp_path), object()) is None
    path = report.beside(str(tmp_path), None)
    assert path == str(tmp_path / report.WITHOUT_IMAGES)
    err = capsys.readouterr().err
    assert "stays as it is" in err and "--output names another one" in err
