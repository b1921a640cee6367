"""``unreid label``: CSV, image sheets, options of the clusterers."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.tools.using import load_tool
from tests.unreid.inference.making import fill, make_run, truncate
from unreid.config import CfgNode


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("label")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("label") / "run")


def test_folder__gives_a_csv_and_image_sheets(
    tool: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"cam {camera}/人 {i}.png" for camera in range(2) for i in range(5)]
    paths = fill(tmp_path / "crops", names)
    truncate(paths[3])
    arguments = [
        "--run",
        str(run_folder),
        "--images",
        str(tmp_path / "crops"),
        "--camera",
        "subfolder",
        "--output",
        str(tmp_path / "out" / "labels.csv"),
        "--method",
        "bottom_up",
        "--clusters",
        "3",
        "--min-size",
        "1",
        "--sheets",
        str(tmp_path / "sheets"),
    ]
    assert tool.main(arguments) == 2
    assert f"error: {paths[3]} cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "no partial output"
    assert tool.main([*arguments, "--skip-bad"]) == 0
    printed = capsys.readouterr()
    assert f"left out: {paths[3]}" in printed.err
    assert "9 images of 2 cameras: 3 identities, 0 images unassigned" in printed.out
    with open(tmp_path / "out" / "labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == sorted(set(names) - {names[3]})
    assert {row["camera"] for row in rows} == {"cam 0", "cam 1"}
    assert {row["identity"] for row in rows} == {"0", "1", "2"}
    assert all(0 <= float(row["confidence"]) <= 1 for row in rows)
    assert len(list((tmp_path / "sheets").iterdir())) == 3


@pytest.mark.parametrize("setting", ["UNSUP.WHITEN_CAMERAS 0.5", "UNSUP.SMOOTH_NEIGHBOURS 3"])
def test_label__applies_the_feature_transforms_of_the_run(
    setting: str, tool: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    """Regression test: whitening and smoothing were once ignored."""
    fill(tmp_path / "crops", [f"cam{camera}/{i}.png" for camera in range(2) for i in range(12)])
    key, value = setting.split()
    tables = []
    for name, change in (("plain", {}), ("changed", {key: value})):
        folder = tmp_path / name
        shutil.copytree(run_folder, folder)
        cfg = CfgNode(yaml.safe_load((folder / "config.yaml").read_text()))
        cfg.UNSUP.CENTER_CAMERAS = True
        cfg.merge_from_list([word for pair in change.items() for word in pair])
        (folder / "config.yaml").write_text(cfg.dump())
        output = tmp_path / f"{name}.csv"
        assert (
            tool.main(
                [
                    "--run",
                    str(folder),
                    "--images",
                    str(tmp_path / "crops"),
                    "--camera",
                    "subfolder",
                    "--output",
                    str(output),
                    "--method",
                    "bottom_up",
                    "--num-clusters",
                    "6",
                    "--min-size",
                    "1",
                ]
            )
            == 0
        )
        tables.append(output.read_text())
    assert tables[0] != tables[1]


def test_index__is_shared_with_search_and_nothing_is_embedded_twice(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the label step of the run flips and its evaluation does not."""
    run = make_run(tmp_path / "run", UNSUP__EXTRACT_FLIP=True, TEST__FLIP__ENABLED=False)
    names = [f"cam{camera}/{i}.png" for camera in range(2) for i in range(6)]
    fill(tmp_path / "crops", names)
    index, output = tmp_path / "kept.index", tmp_path / "labels.csv"
    model = ["--run", str(run), "--index", str(index)]
    label = [*model, "--output", str(output), "--method", "bottom_up", "--clusters", "4"]
    images = ["--images", str(tmp_path / "crops"), "--camera", "subfolder"]
    assert tool.main([*label, *images]) == 0
    assert "images: 12 images; 12 added; 12 embedded" in capsys.readouterr().out
    first, kept = output.read_text(), index.read_bytes()
    without = [word for word in label if word not in ("--index", str(index))]
    assert tool.main([*without, *images]) == 0
    assert output.read_text() == first, "with and without an index the same"
    assert tool.main([*label, *images[:2], "--min-size", "1"]) == 0, "the cameras of the index"
    assert "images: 12 images; no change; 0 embedded" in capsys.readouterr().out
    assert tool.main(label) == 0, "without the folder"
    assert output.read_text() == first and index.read_bytes() == kept
    search = load_tool("search")
    query = ["--query", str(tmp_path / "crops" / names[0]), "--output", str(tmp_path / "out")]
    gallery = ["--gallery", str(tmp_path / "crops")]
    assert search.main([*model, *gallery, *query]) == 0
    said = capsys.readouterr()
    assert "gallery: 12 images; no change; 0 embedded" in said.out
    assert "has features with flip augmentation" in said.err and "--no-flip" in said.err
    assert search.main([*model, *gallery, *query, "--no-flip"]) == 2
    assert "cannot be compared with" in capsys.readouterr().err
    fill(tmp_path / "crops", ["cam0/new.png"], seed=7)
    assert tool.main([*label, *images]) == 0
    assert "1 added; 1 embedded" in capsys.readouterr().out
    shutil.move(tmp_path / "crops", tmp_path / "moved")
    moved = [*label, "--images", str(tmp_path / "moved")]
    assert tool.main(moved) == 2
    assert "is of the folder" in (error := capsys.readouterr().err) and "--images-moved" in error
    assert tool.main([*moved, "--images-moved"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name --images FOLDER, or an --index FILE made of one"),
        (["--images", "i", "--images-moved"], "--images-moved goes with --images and --index"),
        (["--images", "i", "--index", "."], "--index .: must be a file, and this is a folder"),
    ],
)
def test_misuse_of_the_index__is_named(
    tool: ModuleType, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        tool.parse(["--run", "r", *arguments])
    assert words in capsys.readouterr().err


def test_index_that_is_not_there__asks_for_the_images(
    tool: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--run", str(run_folder), "--index", str(tmp_path / "none")]) == 2
    assert "no such file; name --images to create it" in capsys.readouterr().err


def test_single_image__is_unassigned(tool: ModuleType, run_folder: Path, tmp_path: Path) -> None:
    fill(tmp_path / "crops", ["a.png"])
    output = tmp_path / "labels.csv"
    assert (
        tool.main(
            [
                "--run",
                str(run_folder),
                "--images",
                str(tmp_path / "crops"),
                "--output",
                str(output),
                "--center-cameras",
            ]
        )
        == 0
    )
    assert output.read_text() == "path,camera,identity,confidence\na.png,0,-1,0.0000\n"


def test_config_and_weights__give_the_same_labels_as_a_run_folder(
    tool: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    fill(tmp_path / "crops", [f"{i}.png" for i in range(6)])
    tables = []
    for model in (
        ["--run", str(run_folder)],
        [
            "--config-file",
            str(run_folder / "config.yaml"),
            "--weights",
            str(run_folder / "model_final.pth"),
        ],
    ):
        output = tmp_path / "labels.csv"
        assert (
            tool.main(
                [
                    *model,
                    "--images",
                    str(tmp_path / "crops"),
                    "--output",
                    str(output),
                    "--method",
                    "map_equation",
                ]
            )
            == 0
        )
        tables.append(output.read_text())
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--eps", "0.5"], "--eps is a setting of dbscan, not of --method map_equation"),
        (["--clusters", "5"], "--num-clusters is a setting of agglomerative, bottom_up, not of"),
        (["--neighbors", "5"], "unknown option --neighbors; did you mean '--neighbours'?"),
        (["--weights", "w"], ""),
    ],
)
def test_setting_of_another_clusterer__is_refused(
    tool: ModuleType, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--run", "r", "--images", "i", "--method", "map_equation"]
    if not words:
        assert tool.parse([*common, *arguments]).weights == "w"
        return
    with pytest.raises(SystemExit):
        tool.parse([*common, *arguments])
    assert words in capsys.readouterr().err


def test_empty_folder__is_a_one_line_error(
    tool: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--run", str(run_folder), "--images", str(tmp_path)]) == 2
    assert f"error: {tmp_path}: no image found (.jpg" in capsys.readouterr().err


def test_help__has_an_example_and_every_clusterer(
    tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        tool.parse(["--help"])
    text = capsys.readouterr().out
    assert "example:\n  unreid label --run" in text
    assert all(name in text for name in ("dbscan:", "agglomerative:", "--eps 0.6", "--k1 30"))


def test_degenerate_labels__get_advice_and_auto_shows_what_it_tried(
    tool: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default DBSCAN assigns no image of this small folder."""
    fill(tmp_path / "crops", [f"cam{camera}/{i}.png" for camera in range(2) for i in range(12)])
    output = tmp_path / "labels.csv"
    common = ["--run", str(run_folder), "--index", str(tmp_path / "kept.index")]
    common += ["--images", str(tmp_path / "crops"), "--camera", "subfolder"]
    common += ["--output", str(output)]
    assert tool.main([*common, "--eps", "0.05"]) == 0
    said = capsys.readouterr().err
    assert "warning: 100 % of the images are unassigned: raise --eps (0.05 now)" in said
    assert "--method auto tries several settings" in said
    assert tool.main([*common, "--method", "auto"]) == 0
    printed = capsys.readouterr()
    assert "0 embedded" in printed.out
    lines = [line.split() for line in printed.out.splitlines()]
    head = next(n for n, words in enumerate(lines) if words[:2] == ["method", "setting"])
    table = [words for words in lines[head + 2 :] if "--" in " ".join(words)]
    chosen = [words for words in table if words[0] == "*"]
    scores = {words[-1] for words in table}
    assert len(table) == 11 and len(chosen) == 1 and chosen[0][-1] == max(scores)
    method, option, value = chosen[0][1:4]
    automatic = output.read_text()
    assert tool.main([*common, "--method", method, option, value]) == 0
    assert output.read_text() == automatic, "the labels are those of the setting that it shows"
    with pytest.raises(SystemExit):
        tool.parse([*common, "--method", "auto", "--eps", "0.4"])
    assert "--eps is a setting of dbscan, not of --method auto" in capsys.readouterr().err
